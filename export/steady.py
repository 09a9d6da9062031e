"""Makes a float32 graph's rows independent of where they stand, for ONNX Runtime's CPU kernels.

A request is decoded to the same bits alone and in a batch only where each row's result depends on
that row. Of the operators used here these do not keep to that (found by running each on rows alone
and among others):

- ReduceSum adds a row in an order that depends on its address: rows whose length is no multiple of
  16 numbers begin at other offsets from a cache line. A product with ones adds row by row.
- Cos, Sin and Log compute the last numbers of a tensor, those beyond a multiple of 16, by another
  function than the others. Rows padded to 16 numbers leave no such rest.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

WIDTH = 16  # numbers in a cache line, and in the widest register


def steady_rows(model: ir.Model) -> None:
    """Replace operators whose result for a row depends on more than that row."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "ReduceSum":
            _add_by_product(graph, node)
        elif node.op_type in ("Cos", "Sin", "Log"):
            _pad_rows(graph, node)


def _add_by_product(graph: ir.Graph, node: ir.Node) -> None:
    """Multiply by ones in place of a sum over a last dimension of known size."""
    x, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    size = x.shape[-1] if x is not None and x.shape is not None else None
    tensor = ir.convenience.get_const_tensor(axes) if axes is not None else None
    over = tensor.numpy().reshape(-1).tolist() if tensor is not None else None
    if x is None or not isinstance(size, int) or over not in ([-1], [len(x.shape or ()) - 1]):
        return
    if x.dtype != ir.DataType.FLOAT:
        return
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    shape = ir.tensor(np.array([size, 1] if keep else [size], dtype=np.int64))
    name = f"{node.name}.ones"
    sizes = ir.node("Constant", [], {"value": shape}, name=f"{name}.shape")
    sizes.outputs[0].name = sizes.name
    one = ir.tensor(np.ones(1, dtype=np.float32))
    ones = ir.node("ConstantOfShape", [sizes.outputs[0]], {"value": one}, name=name)
    ones.outputs[0].name = name
    product = ir.node("MatMul", [x, ones.outputs[0]], name=f"{node.name}.product")
    _replace(graph, node, [sizes, ones, product])


def _pad_rows(graph: ir.Graph, node: ir.Node) -> None:
    """Let a function see rows of a multiple of 16 numbers; a tensor of [B,N] has rows of one."""
    x = node.inputs[0]
    if x is None or x.shape is None or x.dtype != ir.DataType.FLOAT:
        return
    rank, size = len(x.shape), x.shape[-1]
    if isinstance(size, int) and size % WIDTH == 0:
        return
    column = rank < 3 or not isinstance(size, int)
    size = 1 if column or not isinstance(size, int) else size
    name, value = str(node.name), x
    nodes: list[ir.Node] = []

    def constant(word: str, number: ir.TensorProtocol) -> ir.Value:
        made = ir.node("Constant", [], {"value": number}, name=f"{name}.{word}")
        made.outputs[0].name = made.name
        nodes.append(made)
        return made.outputs[0]

    def integers(word: str, numbers: list[int]) -> ir.Value:
        return constant(word, ir.tensor(np.array(numbers, dtype=np.int64)))

    def add(word: str, op_type: str, inputs: list[ir.Value]) -> ir.Value:
        made = ir.node(op_type, inputs, name=f"{name}.{word}")
        made.outputs[0].name = made.name
        nodes.append(made)
        return made.outputs[0]

    last = integers("last", [-1])
    if column:
        value, rank = add("column", "Unsqueeze", [x, last]), rank + 1
    pads = integers("pads", [0] * (2 * rank - 1) + [-size % WIDTH])
    one = constant("one", ir.tensor(np.array(1.0, dtype=np.float32)))
    value = add("padded", "Pad", [value, pads, one])
    value = add("wide", node.op_type, [value])
    value = add("cut", "Slice", [value, integers("zero", [0]), integers("size", [size]), last])
    if column:
        add("row", "Squeeze", [value, last])
    _replace(graph, node, nodes)


def _replace(graph: ir.Graph, node: ir.Node, nodes: list[ir.Node]) -> None:
    """Let the last of some nodes take a node's place."""
    old, new = node.outputs[0], nodes[-1].outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    graph.insert_before(node, nodes)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node)
