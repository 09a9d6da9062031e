"""Traces the transformer into ONNX and shapes the result to the package's contract."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch import Tensor

from fastdllm.export.adapters import ModelSpec
from fastdllm.export.errors import ExportError
from fastdllm.export.experts import expand_experts, experts_apart
from fastdllm.export.graphs import Transformer, rotary_tables
from fastdllm.export.joined import (
    attend_by_tiles,
    attention_joined,
    can_join,
    drop_unused,
    join_norms,
)
from fastdllm.export.steady import steady_rows

OPSETS = (23, 20)
HEADS = ("token_ids", "confidence", "complement", "second_confidence", "entropy", "logits")


def cache_names(prefix: str, num_layers: int) -> list[str]:
    """Return the names of key and value of every layer."""
    return [f"{prefix}.{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]


def example_inputs(
    spec: ModelSpec,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    rows: int = 5,
    cached: int = 7,
    wanted: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Make random inputs of Transformer.forward; rows at shuffled positions, nothing padded."""
    positions = torch.stack(
        [torch.randperm(rows + cached, generator=generator)[:rows] for _ in range(batch)]
    )
    shape = (batch, spec.num_kv_heads, cached, spec.head_dim)
    past = [
        (
            torch.randn(shape, generator=generator).to(dtype),
            torch.randn(shape, generator=generator).to(dtype),
        )
        for _ in range(spec.num_layers)
    ]
    return (
        torch.randint(spec.vocab_size, (batch, rows), generator=generator),
        positions,
        torch.ones(batch, 1, rows, rows + cached, dtype=torch.bool),
        torch.randint(rows, (batch, wanted), generator=generator),
        past,
    )


def trace(model: Transformer, dtype: torch.dtype, opset: int) -> ir.Model:
    """Export a model whose weights are never looked at; the graph's are initializers without data.

    Experts are dispatched to in f32. In f16, which is meant for GPUs, they are dense: no shape may
    depend on the data there, and a block of 32 rows reads most experts' weights anyway.

    model: may be on the meta device. Errors: ExportError when torch cannot export it.
    """
    spec = model.spec
    # A single zero each, expanded: the size without the memory. The meta device would do as well,
    # in half as much time again.
    sizes = {name: weight.shape for name, weight in model.named_parameters()}
    fill(model, {name: torch.zeros((), dtype=dtype).expand(size) for name, size in sizes.items()})
    free = torch.export.Dim.DYNAMIC
    shapes = {
        "input_ids": {0: free, 1: free},
        "position_ids": {0: free, 1: free},
        "attention_mask": {0: free, 2: free, 3: free},
        "logit_indices": {0: free, 1: free},
        "past": [({0: free, 2: free}, {0: free, 2: free}) for _ in range(spec.num_layers)],
    }
    names = ["input_ids", "position_ids", "attention_mask", "logit_indices"]
    join = can_join(dtype, opset)
    with torch.no_grad(), experts_apart(model), _quiet() as noise, contextlib.ExitStack() as stack:
        if join:
            stack.enter_context(attention_joined(model))
        try:
            program = torch.onnx.export(
                model,
                example_inputs(spec, dtype),
                dynamo=True,
                optimize=False,
                opset_version=opset,
                dynamic_shapes=shapes,
                input_names=names + cache_names("past_key_values", spec.num_layers),
                output_names=[*HEADS, *cache_names("present", spec.num_layers)],
                verbose=False,
            )
            if program is not None:
                weights = take_weights(program.model, model)
                program.optimize()
                restore_weights(program.model, weights, spec)
        except Exception as problem:
            raise ExportError(
                f"torch {torch.__version__} cannot export the graph with opset {opset}: {problem}\n"
                + noise.getvalue()[-2000:]
            ) from problem
    if program is None:
        raise ExportError(f"torch {torch.__version__} exported nothing")
    graph_model: ir.Model = program.model
    found = graph_model.opset_imports.get("")
    if found != opset:
        raise ExportError(f"torch {torch.__version__} exported opset {found}; expected {opset}")
    if join:
        join_norms(graph_model)
        drop_unused(graph_model)
    if dtype == torch.float32:
        steady_rows(graph_model)
    expand_experts(graph_model, "dense" if dtype == torch.float16 else "dispatch")
    cut_present(graph_model, spec)
    if join:  # a mask of one row stays one: a row per fed row would grow with their square
        attend_by_tiles(graph_model, spec)
    else:
        widen_mask(graph_model)
    name_dimensions(graph_model, spec)
    strip_metadata(graph_model)
    return graph_model


def fill(model: Transformer, weights: dict[str, Tensor]) -> None:
    """Make these the model's parameters, by name; its buffers are computed."""
    if model.spec.tied_embeddings:
        weights = weights | {"head.weight": weights["embedding.weight"]}
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False)
    if model.spec.tied_embeddings:
        model.head.weight = model.embedding.weight
    for name, table in rotary_tables(model.spec).items():
        setattr(model, name, table)


def take_weights(graph_model: ir.Model, model: Transformer) -> list[ir.Value]:
    """Make inputs of the weights, so that the optimizer does not look for their numbers."""
    graph = graph_model.graph
    names = {*model.state_dict(), *rotary_tables(model.spec)}
    weights = [value for name, value in graph.initializers.items() if name in names]
    for value in weights:
        del graph.initializers[str(value.name)]
        value.const_value = None
        graph.inputs.append(value)
        if model.spec.tied_embeddings and value.name == "head.weight":
            value.name = "embedding.weight"
    return weights


def restore_weights(graph_model: ir.Model, weights: list[ir.Value], spec: ModelSpec) -> None:
    """Make initializers of the weights again; the rotation's frequencies get their numbers."""
    graph, tables = graph_model.graph, rotary_tables(spec)
    for value in weights:
        graph.inputs.remove(value)
        graph.initializers.add(value)
        if value.name in tables:
            value.const_value = ir.tensor(tables[value.name].numpy(), name=value.name)


def cut_present(model: ir.Model, spec: ModelSpec) -> None:
    """Add the input present_length and hand back that many leading K/V rows of each layer."""
    graph = model.graph
    length = ir.Value(
        name="present_length", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1])
    )
    graph.inputs.insert(4, length)
    constants = []
    for name, number in (("zero", 0), ("row_axis", 2)):
        node = ir.Node(
            "", "Constant", [], attributes=[ir.AttrInt64s("value_ints", [number])], name=name
        )
        node.outputs[0].name = name
        graph.insert_before(graph[0], node)
        constants.append(node.outputs[0])
    for index, name in enumerate(cache_names("present", spec.num_layers)):
        rows = graph.outputs[len(HEADS) + index]
        rows.name = f"{name}.rows"
        node = ir.Node("", "Slice", [rows, constants[0], length, constants[1]], name=f"cut.{name}")
        node.outputs[0].name = name
        node.outputs[0].type = rows.type
        graph.append(node)
        graph.outputs[len(HEADS) + index] = node.outputs[0]


def widen_mask(model: ir.Model) -> None:
    """Let attention_mask have one row for all fed rows: it is expanded to T rows in the graph."""
    graph = model.graph
    ids, mask = graph.inputs[0], graph.inputs[2]
    rows = ir.Node(
        "", "Shape", [ids], attributes=[ir.AttrInt64("start", 1), ir.AttrInt64("end", 2)]
    )
    pair = ir.Node("", "Constant", [], attributes=[ir.AttrInt64s("value_ints", [1, 1])])
    one = ir.Node("", "Constant", [], attributes=[ir.AttrInt64s("value_ints", [1])])
    shape = ir.Node(
        "",
        "Concat",
        [pair.outputs[0], rows.outputs[0], one.outputs[0]],
        attributes=[ir.AttrInt64("axis", 0)],
    )
    wide = ir.Node("", "Expand", [mask, shape.outputs[0]])
    wide.outputs[0].type = mask.type
    ir.convenience.replace_all_uses_with(mask, wide.outputs[0])
    wide.replace_input_with(0, mask)
    graph.insert_before(graph[0], [rows, pair, one, shape, wide])
    for name, node in (("rows", rows), ("pair", pair), ("one", one), ("shape", shape)):
        node.name = node.outputs[0].name = f"attention_mask.{name}"
    wide.name = wide.outputs[0].name = "attention_mask.wide"


def name_dimensions(model: ir.Model, spec: ModelSpec) -> None:
    """Give inputs and outputs the dimension names of PACKAGE.md."""
    kv, dim = spec.num_kv_heads, spec.head_dim
    shapes: dict[str, list[int | str]] = {
        "input_ids": ["batch", "rows"],
        "position_ids": ["batch", "rows"],
        "attention_mask": ["batch", 1, "mask_rows", "attended"],
        "logit_indices": ["batch", "wanted"],
        "present_length": [1],
        "logits": ["batch", "wanted", spec.vocab_size],
    }
    shapes |= {name: ["batch", "wanted"] for name in HEADS[:-1]}
    shapes |= {
        name: ["batch", kv, "cached", dim]
        for name in cache_names("past_key_values", spec.num_layers)
    }
    shapes |= {name: ["batch", kv, "kept", dim] for name in cache_names("present", spec.num_layers)}
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(shapes[str(value.name)])


def strip_metadata(model: ir.Model) -> None:
    """Drop what the tracer noted of the source: local paths have no place in a package."""
    model.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = "fastdllm", None, None
    graph = model.graph
    nodes = list(graph)
    values = [*graph.inputs, *graph.initializers.values()]
    for node in nodes:
        values += node.outputs
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in nodes:
        node.metadata_props.clear()
        node.doc_string = None
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep the tracer's progress and advice off the terminal; the text is there for an error."""
    noise = io.StringIO()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(noise), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield noise
    finally:
        logging.disable(previous)
