"""The graph's form for ONNX Runtime's CPU kernels: fewer, larger operators, some of them its own.

Attention is MultiHeadAttention of com.microsoft, which takes heads side by side and appends to the
cache itself, or goes tile by tile; a sum and the norm behind it are one operator. What is computed
is the same. Graphs for other runtimes (fp16, opset 20) keep to standard operators.

That operator shares no K/V heads among heads. Where they are shared, K and V are repeated for it
when it works tile by tile, and the standard Attention replaces it beside a cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from fastdllm.export.adapters import ModelSpec
from fastdllm.export.graphs import CONTRIB, Layer, Transformer

# Bytes of a pair of rows, for the mask and per head, in graphs of standard operators: an upper
# bound of what ONNX Runtime 1.32.0's CPU provider took for a refresh of 4,096 and 8,192 rows with
# 1, 2 and 4 heads (peak of the process less that of the loaded engine and K/V). Measured per pair:
# opset 23 in fp16 13.8, 24.0 and 28.7 with 2 threads, 44.8 for 4 heads with 4 threads, since every
# thread holds a head's scores in fp32; opset 20 in fp32 22.8, 43.9 and 87.0, in
# fp16 22.9, 44.1 and 87.4.
SCORE_BYTES: dict[torch.dtype | None, tuple[int, int]] = {torch.float16: (4, 11), None: (2, 22)}
MASK, PAST = 5, 6  # inputs of MultiHeadAttention: what is added to the scores, the cached keys


def can_join(dtype: torch.dtype, opset: int) -> bool:
    """Say whether a graph has this form."""
    return dtype == torch.float32 and opset >= 23


def score_bytes(spec: ModelSpec, dtype: torch.dtype, opset: int) -> int:
    """Return the host memory of a pass for each pair of a row fed and a row attended to.

    0: the graph goes tile by tile and holds no scores of all pairs.
    """
    if can_join(dtype, opset):
        return 0
    of_mask, of_head = SCORE_BYTES[dtype if opset >= 23 else None]
    return of_mask + of_head * spec.num_heads


@contextlib.contextmanager
def attention_joined(model: Transformer) -> Iterator[None]:
    """Let the layers' attention be ONNX Runtime's operator while they are traced."""
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    for layer in layers:
        layer.joined = True
    try:
        yield
    finally:
        for layer in layers:
            layer.joined = False


def join_norms(model: ir.Model) -> None:
    """Add and normalize in one operator of ONNX Runtime where a norm's input is a sum of two."""
    graph = model.graph
    for norm in [node for node in graph if node.op_type == "RMSNormalization"]:
        source, weight = norm.inputs
        add = source.producer() if source is not None else None
        if source is None or add is None or add.op_type != "Add" or not _is_residual(add):
            continue
        epsilon = norm.attributes["epsilon"]
        node = ir.Node(
            CONTRIB,
            "SkipSimplifiedLayerNormalization",
            [*add.inputs, weight],
            [epsilon],
            num_outputs=4,
        )
        normed, total = node.outputs[0], node.outputs[3]
        node.outputs[1].name = node.outputs[2].name = ""  # statistics that no CPU kernel gives
        for old, new in ((norm.outputs[0], normed), (source, total)):
            new.name, new.type, new.shape = old.name, old.type, old.shape
        graph.insert_before(norm, node)
        ir.convenience.replace_all_uses_with(norm.outputs[0], normed)
        ir.convenience.replace_all_uses_with(source, total)
        graph.remove([norm, add])
    graph.sort()


def _is_residual(add: ir.Node) -> bool:
    """Say whether a sum is of two activations of the same shape, not of one and a bias."""
    first, second = add.inputs
    if first is None or second is None or first.shape is None or second.shape is None:
        return False
    return len(first.shape) == 3 and first.shape == second.shape


def drop_unused(model: ir.Model) -> None:
    """Drop initializers that no node reads any more: ONNX Runtime would warn of them."""
    initializers = model.graph.initializers
    for name in [name for name, value in initializers.items() if not value.uses()]:
        del initializers[name]


def attend_by_tiles(model: ir.Model, spec: ModelSpec) -> None:
    """Where nothing is cached and nothing masked (a refresh), let attention go tile by tile.

    ONNX Runtime does so when its operator is given neither a bias nor a cache. The scores of all
    rows by all rows are never held then: for long contexts they are most of what a pass needs.
    """
    graph = model.graph
    attentions = [node for node in graph if node.op_type == "MultiHeadAttention"]
    tape = _Tape("tiles")
    mask, past = graph.inputs[2], attentions[0].inputs[PAST]
    seen = tape.node("Cast", [mask], {"to": int(ir.DataType.INT32)})
    seen = tape.node("ReduceMin", [seen], {"keepdims": 0})
    seen = tape.node("Cast", [seen], {"to": int(ir.DataType.BOOL)})
    cached = tape.node("Shape", [past], {"start": 2, "end": 3})
    none = tape.node("Equal", [cached, tape.integers([0])])
    tiled = tape.node("And", [seen, tape.node("Squeeze", [none])])
    graph.insert_before(graph[0], tape.nodes)
    _gather_given_rows(graph, mask)
    grouped = spec.num_heads != spec.num_kv_heads
    for index, node in enumerate(attentions):
        name = f"scores.{index}"
        scored = (
            _by_grouped_scores(node, name, mask, spec) if grouped else _by_scores(node, name, mask)
        )
        choice = ir.Node(
            "",
            "If",
            [tiled],
            [
                ir.AttrGraph("then_branch", _by_tiles(node, f"tiles.{index}", spec)),
                ir.AttrGraph("else_branch", scored),
            ],
            num_outputs=3,
            name=f"attention.{index}",
        )
        for old, new in zip(node.outputs, choice.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.insert_before(node, choice)
        graph.remove(node)


def _gather_given_rows(graph: ir.Graph, mask: ir.Value) -> None:
    """Let the last layer, which gathers wanted rows of the mask, take the one row where it has one.

    So the mask is never expanded to a row per fed row outside of _by_scores.
    """
    for gather in [node for node in graph if node.op_type == "GatherElements"]:
        rows, wanted = gather.inputs
        source = rows.producer() if rows is not None else None
        if source is None or source.inputs[0] is not mask:
            continue
        tape = _Tape("mask_rows")
        count = tape.node("Shape", [mask], {"start": 2, "end": 3})
        last = tape.node("Sub", [count, tape.integers([1])])
        gather.replace_input_with(1, tape.node("Min", [wanted, last]))
        graph.insert_before(gather, tape.nodes)


def _by_tiles(node: ir.Node, name: str, spec: ModelSpec) -> ir.Graph:
    """Give what an attention node does when nothing is cached; K and V are turned for the cache."""
    tape = _Tape(name)
    q, *rows = node.inputs[:3]
    heads = [tape.heads(x, spec.num_kv_heads) for x in rows]
    if spec.num_heads != spec.num_kv_heads:
        rows = [tape.repeated(x, spec) for x in rows]
    y = tape.node(node.op_type, [q, *rows], dict(node.attributes), CONTRIB)
    outputs = [y, *heads]
    for old, new in zip(node.outputs, outputs, strict=True):
        new.type = old.type
    return ir.Graph([], outputs, nodes=tape.nodes, name=name)


def _by_scores(node: ir.Node, name: str, mask: ir.Value) -> ir.Graph:
    """Give the node as it was traced, with numbers to add to the scores in place of the mask."""
    tape = _Tape(name)
    seen = tape.rows_of_mask(node, mask)
    shown, hidden = tape.number(0.0), tape.number(float(torch.finfo(torch.float32).min))
    bias = tape.node("Where", [seen, shown, hidden])
    inputs = [bias if index == MASK else value for index, value in enumerate(node.inputs)]
    same = ir.Node(CONTRIB, node.op_type, inputs, list(node.attributes.values()), num_outputs=3)
    for old, new in zip(node.outputs, same.outputs, strict=True):
        new.name, new.type = f"{name}.{old.name}", old.type
    return ir.Graph([], list(same.outputs), nodes=[*tape.nodes, same], name=name)


def _by_grouped_scores(node: ir.Node, name: str, mask: ir.Value, spec: ModelSpec) -> ir.Graph:
    """Give what the node does where K/V heads are shared, by standard operators."""
    tape = _Tape(name)
    q, k, v = node.inputs[:3]
    present = [
        tape.node("Concat", [past, tape.heads(x, spec.num_kv_heads)], {"axis": 2})
        for past, x in zip(node.inputs[PAST:], (k, v), strict=True)
    ]
    seen = tape.rows_of_mask(node, mask)
    y = tape.node("Attention", [tape.heads(q, spec.num_heads), *present, seen])
    y = tape.node("Transpose", [y], {"perm": [0, 2, 1, 3]})
    y = tape.node("Reshape", [y, tape.integers([0, 0, spec.num_heads * spec.head_dim])])
    outputs = [y, *present]
    for old, new in zip(node.outputs, outputs, strict=True):
        new.type = old.type
    return ir.Graph([], outputs, nodes=tape.nodes, name=name)


class _Tape:
    """Collects nodes of one output each, with names of their own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[ir.Node] = []

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Add an operator; return its output."""
        node = ir.node(op_type, inputs, attributes or {}, domain=domain)
        node.name = node.outputs[0].name = f"{self.name}.{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def heads(self, x: ir.Value | None, count: int) -> ir.Value:
        """Turn rows of heads side by side [B,T,H*D] into [B,H,T,D]."""
        apart = self.node("Reshape", [x, self.integers([0, 0, count, -1])])
        return self.node("Transpose", [apart], {"perm": [0, 2, 1, 3]})

    def repeated(self, x: ir.Value | None, spec: ModelSpec) -> ir.Value:
        """Repeat K/V heads side by side [B,T,H*D] for each head that reads them."""
        group, dim = spec.num_heads // spec.num_kv_heads, spec.head_dim
        apart = self.node("Reshape", [x, self.integers([0, 0, spec.num_kv_heads, 1, dim])])
        wide = self.node("Expand", [apart, self.integers([1, 1, 1, group, 1])])
        return self.node("Reshape", [wide, self.integers([0, 0, spec.num_heads * dim])])

    def rows_of_mask(self, attention: ir.Node, mask: ir.Value) -> ir.Value | None:
        """Give a node's mask a row for each row of its queries; the graph's may have one."""
        seen = attention.inputs[MASK]
        if seen is not mask:
            return seen
        rows = self.node("Shape", [attention.inputs[0]], {"start": 1, "end": 2})
        one = self.integers([1])
        shape = self.node("Concat", [one, one, rows, one], {"axis": 0})
        return self.node("Expand", [mask, shape])

    def number(self, value: float) -> ir.Value:
        """Add a constant, f32 []."""
        return self.node("Constant", [], {"value": ir.tensor(np.float32(value))})

    def integers(self, numbers: list[int]) -> ir.Value:
        """Add a constant, i64 [len(numbers)]."""
        return self.node("Constant", [], {"value_ints": numbers})
