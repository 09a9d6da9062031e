"""The export, from checkpoint folder to package folder."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import onnx_ir as ir
import torch
from onnxruntime import InferenceSession
from torch import nn
from tqdm import tqdm

from fastdllm._core import read_package
from fastdllm.export.adapters import (
    Adapter,
    ModelSpec,
    Rows,
    TensorNames,
    adapter_for,
    read_spec,
    source_name,
)
from fastdllm.export.checkpoint import Checkpoint
from fastdllm.export.decoding import recommended
from fastdllm.export.errors import CheckpointError, ExportError, ExportWarning
from fastdllm.export.experts import read_dense
from fastdllm.export.facts import Choices, Facts, read_facts
from fastdllm.export.graphs import TOP, Transformer
from fastdllm.export.joined import score_bytes
from fastdllm.export.lazy import in_memory
from fastdllm.export.onnx_export import OPSETS, fill, trace
from fastdllm.export.package import (
    FORMAT_VERSION,
    GRAPH,
    METADATA,
    PROBES,
    WEIGHTS,
    file_entries,
    package_folder,
)
from fastdllm.export.precision import PRECISIONS, Precision
from fastdllm.export.quality import measure_quality, random_prompts, reference_logits
from fastdllm.export.quantize import Int4, Int8, RoundedLinear
from fastdllm.export.text_assets import TextAssets, to_json
from fastdllm.export.twin import RandomWeights, twin_spec
from fastdllm.export.validate import decode_probe, graph_probes, open_graph, validate
from fastdllm.export.weights import (
    PlacedWeight,
    ReadParameter,
    place_weights,
    stored_bytes,
    write_weights,
)
from fastdllm.version import __version__

PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "int4"]
IN_MEMORY_BYTES = 2 << 30  # of float32 weights; a larger model is compared by its twin


class _Progress:
    """A bar on stderr: the stage, and the bytes written and hashed with the time they will take."""

    def __init__(self, shown: bool) -> None:
        self.bar = tqdm(
            disable=not shown,
            file=sys.stderr,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
        )

    def stage(self, name: str, size: int | None = None) -> None:
        """Begin a stage; size: the bytes it handles."""
        self.bar.reset(total=size)
        self.bar.set_description(name)

    def add(self, size: int) -> None:
        self.bar.update(size)

    def close(self) -> None:
        self.bar.close()


def export_package(
    checkpoint_dir: str | Path,
    package_dir: str | Path,
    *,
    precision: PrecisionName = "fp32",
    opset: int = 23,
    overwrite: bool = False,
    progress: bool | None = None,
    in_memory: bool | None = None,
    mask_token_id: int | None = None,
    eos_token_ids: Sequence[int] | None = None,
    text: bool = True,
    chat: bool = True,
    allow_no_eos: bool = False,
) -> Path:
    """Export a Hugging Face checkpoint folder into a package folder and return its path.

    precision: of weights and arithmetic, see PACKAGE.md. opset: 23 (attention, norm and rotation
    as single operators, on the CPU ONNX Runtime's own ones) or 20 (decomposed, for older
    TensorRT). overwrite: replace a package that is there, at the very end. progress: a bar on
    stderr; None = on a terminal. in_memory: load the whole model to compare the package with torch
    and to make probes; False compares a small twin of the same structure, and memory holds
    one tensor of the checkpoint at a time; None = True for up to 2 GiB of float32 weights.
    mask_token_id: for a checkpoint that does not state it; None = config.json's or the tokenizer's.
    eos_token_ids: all that end a text; None = the union of what the checkpoint's files say.
    text: False leaves the tokenizer out, chat: False the chat template; what a checkpoint should
    have and lacks is an error otherwise, and so is a checkpoint without any end-of-text token,
    unless allow_no_eos. Where its files contradict each other there is an ExportWarning.

    The graph is compared before anything is put in place. Errors: ExportError and its
    kinds CheckpointError and ValidationError; package_dir is then as it was.
    """
    chosen = check_options(precision, opset)
    checkpoint = Checkpoint(Path(checkpoint_dir))
    adapter = adapter_for(checkpoint.config)
    choices = Choices(
        mask_token_id=mask_token_id,
        eos_token_ids=eos_token_ids,
        text=text,
        chat=chat,
        allow_no_eos=allow_no_eos,
    )
    facts = read_facts(checkpoint, adapter, choices)
    spec = facts.spec
    check_spec(spec)
    for warning in facts.warnings:
        warnings.warn(f"{checkpoint.folder}: {warning}", ExportWarning, stacklevel=2)
    names = adapter.tensor_names(spec)
    checkpoint.require_names(source_name(source) for source in names.values())
    refuse_other_tensors(checkpoint, adapter, spec)
    with torch.device("meta"):  # sizes alone: nothing is allocated before the shapes are right
        model = Transformer(spec, opset)
    checkpoint.require(expected_shapes(model, names))
    weight_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    export = _Export(
        spec=spec,
        precision=chosen,
        opset=opset,
        read=lambda parameter: checkpoint.weight(names[parameter]),
        in_memory=weight_bytes <= IN_MEMORY_BYTES if in_memory is None else in_memory,
        bar=_Progress(sys.stderr.isatty() if progress is None else progress),
    )
    try:
        with package_folder(Path(package_dir), overwrite=overwrite) as folder:
            export.run(folder, describe(adapter, facts, chosen, opset), facts.text)
    finally:
        export.bar.close()
    return Path(package_dir)


def export_graph(
    config: Mapping[str, Any],
    path: str | Path,
    *,
    precision: PrecisionName = "fp32",
    opset: int = 23,
) -> Path:
    """Write the graph of a config.json alone: its weights are inputs, under their stored names.

    For a look at the structure, or a check of it, without a checkpoint. Errors: ExportError.
    """
    chosen = check_options(precision, opset)
    spec = read_spec(adapter_for(config), config)
    check_spec(spec)
    graph, placed = trace_graph(spec, chosen, opset)
    for weight in placed:
        for value in weight.values:
            del graph.graph.initializers[str(value.name)]
            graph.graph.inputs.append(value)
    ir.save(graph, path)
    return Path(path)


def check_options(precision: str, opset: int) -> Precision:
    """Return the precision of a name. Errors: ExportError for an unknown one, or opset."""
    if precision not in PRECISIONS:
        raise ExportError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if opset not in OPSETS:
        raise ExportError(f"opset is {opset!r}; expected one of {', '.join(map(str, OPSETS))}")
    return PRECISIONS[precision]


def refuse_other_tensors(checkpoint: Checkpoint, adapter: Adapter, spec: ModelSpec) -> None:
    """Check that the checkpoint holds what is read and no more, but for a tied head's copy."""
    untied = adapter.tensor_names(dataclasses.replace(spec, tied_embeddings=False))
    head, embedding = source_name(untied["head.weight"]), untied["embedding.weight"]
    read = {source_name(source) for source in untied.values()}
    checkpoint.refuse_unread(read)
    if spec.tied_embeddings and head in checkpoint.shapes:
        same = checkpoint.shapes[head] == checkpoint.shapes[source_name(embedding)]
        if not same or not torch.equal(checkpoint.tensor(head), checkpoint.tensor(embedding)):
            raise CheckpointError(
                f"{checkpoint.folder}: {head} differs from the embedding; config.json ties them"
            )


def check_spec(spec: ModelSpec) -> None:
    """Refuse sizes that no graph can have. Errors: ExportError."""
    if spec.vocab_size < TOP:
        raise ExportError(f"config.json: vocab_size is {spec.vocab_size}; expected at least {TOP}")
    if spec.head_dim % 2:
        raise ExportError(f"config.json: head dim is {spec.head_dim}; expected an even number")
    if spec.mask_token_id in spec.eos_token_ids:
        raise ExportError("config.json: mask_token_id is an end-of-text id too")


def expected_shapes(model: Transformer, names: TensorNames) -> dict[str, tuple[int, ...]]:
    """Return the shape that each of the checkpoint's tensors must have."""
    shapes: dict[str, tuple[int, ...]] = {}
    for ours, parameter in model.named_parameters():
        source = names.get(ours)
        if isinstance(source, Rows):
            rows = max(source.end, shapes.get(source.name, (0,))[0])
            shapes[source.name] = (rows, *parameter.shape[1:])
        elif source is not None:
            shapes[source] = tuple(parameter.shape)
    return shapes


def load_model(
    spec: ModelSpec, opset: int, read: ReadParameter, precision: Precision | None
) -> Transformer:
    """Make the torch module with the weights as a precision stores them; None = as they are, f32.

    Errors: CheckpointError for a tensor that cannot be read or holds NaN or infinity.
    """
    with torch.device("meta"):
        model = Transformer(spec, opset).eval()
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        tensor = in_memory(read(name))
        if precision is None:
            weights[name] = tensor.float()
        else:
            encoding = precision.encoding(name, parameter.dim())
            weights[name] = encoding.decoded(tensor).to(precision.compute_dtype)
    fill(model, weights)
    for name, module in list(model.named_modules()):
        if precision is not None and isinstance(module, nn.Linear):
            encoding = precision.encoding(f"{name}.weight", 2)
            if isinstance(encoding, Int8 | Int4):
                block = encoding.block if isinstance(encoding, Int4) else None
                model.set_submodule(name, RoundedLinear(module, block))
    return model


def trace_graph(
    spec: ModelSpec, precision: Precision, opset: int
) -> tuple[ir.Model, list[PlacedWeight]]:
    """Trace the model without weights and decide how each is stored."""
    with torch.device("meta"):
        model = Transformer(spec, opset).eval().requires_grad_(False)
    graph = trace(model, precision.compute_dtype, opset)
    return graph, place_weights(graph, precision)


@dataclass(frozen=True, kw_only=True)
class _Export:
    """One export: what is exported and how."""

    spec: ModelSpec
    precision: Precision
    opset: int
    read: ReadParameter
    in_memory: bool
    bar: _Progress

    def run(self, folder: Path, metadata: dict[str, Any], text: TextAssets) -> None:
        """Fill a folder with a package."""
        self.write_graph(folder, self.spec, self.read)
        self.bar.stage("comparing with torch")
        probes: dict[str, Any] = {"tolerance": self.precision.probe_tolerance, "graph": []}
        if self.in_memory:
            session = open_graph(folder / GRAPH)
            metadata["validation"] = self.compare("weights", session, self.spec, self.read)
            if self.precision.name != "fp32":
                metadata["quality"] = self.quality(session, text)
            probes["graph"] = graph_probes(session, self.spec, self.precision)
        else:
            metadata["validation"] = self.compare_twin()
        probes |= text.probes
        (folder / PROBES).write_text(to_json(probes), encoding="utf-8")
        for name, content in text.files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="")
        self.bar.stage("checksums", sum(file.stat().st_size for file in folder.iterdir()))
        metadata["files"] = file_entries(folder, self.bar.add)
        (folder / METADATA).write_text(to_json(metadata), encoding="utf-8")
        read_package(str(folder))  # what the runtime refuses is not put in place
        if self.in_memory:
            probes["decode"] = decode_probe(folder, self.spec)
            (folder / PROBES).write_text(to_json(probes), encoding="utf-8")
            metadata["files"] |= file_entries(folder, only=(PROBES,))
            (folder / METADATA).write_text(to_json(metadata), encoding="utf-8")

    def write_graph(self, folder: Path, spec: ModelSpec, read: ReadParameter) -> None:
        """Write graph and weights."""
        self.bar.stage("tracing")
        graph, placed = trace_graph(spec, self.precision, self.opset)
        self.bar.stage("writing weights", stored_bytes(placed))
        number = spec.moe.num_experts if spec.moe else 0
        write_weights(
            placed,
            lambda parameter: read_dense(read, parameter, number),
            folder / WEIGHTS,
            self.bar.add,
        )
        ir.save(graph, folder / GRAPH)

    def compare(
        self, what: str, session: InferenceSession, spec: ModelSpec, read: ReadParameter
    ) -> dict[str, Any]:
        """Compare a written graph with torch; return what fastdllm.json says of it."""
        model = load_model(spec, self.opset, read, self.precision)
        worst = validate(session, model, self.precision)
        return {
            "compared": what,
            "output": worst.output,
            "tolerance": worst.allowed,
            "largest_difference": worst.found,
        }

    def compare_twin(self) -> dict[str, Any]:
        """Export a small model of the same structure the same way, and compare that."""
        spec = twin_spec(self.spec)
        read = RandomWeights(spec)
        with TemporaryDirectory() as name:
            self.write_graph(Path(name), spec, read)
            return self.compare("twin", open_graph(Path(name) / GRAPH), spec, read)

    def quality(self, session: InferenceSession, text: TextAssets) -> dict[str, Any]:
        """Compare the package's answers with those of the float32 weights."""
        prompts = [probe["token_ids"] for probe in text.probes.get("tokenizer", ())]
        prompts = prompts or random_prompts(self.spec)
        model = load_model(self.spec, self.opset, self.read, None)
        expected = reference_logits(model, prompts)
        del model
        found = measure_quality(session, self.spec, self.precision, prompts, expected)
        return dataclasses.asdict(found)


def describe(adapter: Adapter, facts: Facts, precision: Precision, opset: int) -> dict[str, Any]:
    """Return the facts of fastdllm.json; PACKAGE.md says what each means."""
    spec = dataclasses.asdict(facts.spec)
    keys = (
        *("num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_size", "vocab_size"),
        *("max_context_length", "mask_token_id", "eos_token_ids", "pad_token_id", "bos_token_id"),
        *("attention", "logits_shift", "block_length", "sub_block_length", "seed_token"),
        *("threshold_inclusive", "confidence", "min_prompt_length"),
    )
    graph: dict[str, Any] = {"file": GRAPH, "cache_type": precision.cache_type}
    if scores := score_bytes(facts.spec, precision.compute_dtype, opset):
        graph["score_bytes"] = scores
    return {
        "format_version": FORMAT_VERSION,
        "fastdllm_version": __version__,
        "family": adapter.family,
        "precision": precision.name,
        "opset": opset,
        "model": {key: spec[key] for key in keys},
        "graph": graph,
        "tokenizer": facts.text.entry,
        "decoding": recommended(adapter, facts.spec, facts.text.generation),
        "sources": facts.sources,
        "warnings": facts.warnings,
    }
