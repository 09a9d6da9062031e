"""A mixture of experts in standard ONNX operators: the tracer's placeholders are expanded here.

Thousands of expert matrices would make the tracer crawl, so a model is traced without them: each
mixture is one node of the domain MIXTURE, and what it stands for is put in its place afterwards.

R rows (batch times tokens), k experts per row, E experts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import onnx_ir as ir
import torch
from torch import nn

from fastdllm.export.errors import ExportError
from fastdllm.export.graphs import MIXTURE, Experts
from fastdllm.export.lazy import Joined, LazyMatrix, Weight, in_memory
from fastdllm.export.weights import ReadParameter

Form = Literal["dispatch", "dense"]
Attribute = int | str | Sequence[int] | ir.TensorProtocol


@contextlib.contextmanager
def experts_apart(model: nn.Module) -> Iterator[None]:
    """Take the experts out of the model while it is traced."""
    mixtures = {name: part for name, part in model.named_modules() if isinstance(part, Experts)}
    apart = {name: mixture.experts for name, mixture in mixtures.items()}
    for name, mixture in mixtures.items():
        mixture.experts, mixture.traced_as = nn.ModuleList(), name
    try:
        yield
    finally:
        for name, mixture in mixtures.items():
            mixture.experts, mixture.traced_as = apart[name], None


def expand_experts(model: ir.Model, form: Form) -> None:
    """Put operators and matrices in the place of the placeholders, in one of two forms.

    dispatch: rows are sorted by expert and split among the experts, each multiplies its own, a few
    or none. Only what was chosen is computed; the pieces' shapes depend on the data.
    dense: a layer's experts are one wide MLP, whose inner values are weighted by expert, those not
    chosen by zero. More arithmetic on three large matrices, and no shape depends on the data.

    Matrices are initializers [out,in] behind a Transpose, as those of torch.nn.Linear, and without
    data: `NAME.experts.{e}.{gate,up,down}.weight`, or where dense the experts' behind each other,
    `NAME.experts.{gate,up,down}.weight`, see read_dense.
    """
    for node in [node for node in model.graph if node.domain == MIXTURE]:
        mixture = _Mixture(model.graph, node)
        y = mixture.dispatch() if form == "dispatch" else mixture.dense()
        y.type, y.shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_all_uses_with(node.outputs[0], y)
        model.graph.insert_before(node, mixture.nodes)
        model.graph.remove(node)
    model.graph.opset_imports.pop(MIXTURE, None)


def read_dense(read: ReadParameter, parameter: str, num_experts: int) -> Weight:
    """Read a parameter of the graph from a reader of the module's: dense ones are put together."""
    found = re.fullmatch(r"(.*\.experts)\.(gate|up|down)\.weight", parameter)
    if found is None:
        return read(parameter)
    mixture, matrix = found.groups()
    parts = [read(f"{mixture}.{index}.{matrix}.weight") for index in range(num_experts)]
    dim = 1 if matrix == "down" else 0
    if any(isinstance(part, LazyMatrix) for part in parts):
        return Joined(parts, dim)
    return torch.cat([in_memory(part) for part in parts], dim=dim)


class _Mixture:
    """Collects the operators of one mixture."""

    def __init__(self, graph: ir.Graph, placeholder: ir.Node) -> None:
        self.graph = graph
        self.nodes: list[ir.Node] = []
        facts = placeholder.attributes
        self.name = facts["name"].as_string()
        self.experts, self.chosen, self.size, self.hidden = (
            facts[key].as_int() for key in ("experts", "chosen", "size", "hidden")
        )
        x, ids, weights = placeholder.inputs
        if x is None or x.type is None or ids is None or weights is None:
            raise ExportError(f"{self.name}: the tracer left out an input or its type")
        self.x, self.ids, self.weights, self.type = x, ids, weights, x.type

    def dispatch(self) -> ir.Value:
        """Sort the R*k pairs of row and expert by expert, compute piece by piece, sort back."""
        expert = self._reshape("pairs", self.ids, -1)
        pairs = self._op("count", "Shape", [expert])
        order = self._order("order", expert, pairs)
        back = self._order("back", order, pairs)
        ones = self._op("ones", "Expand", [self._constant("one", 1), pairs])
        none = self._constant("none", *[0] * self.experts)
        sizes = self._op("sizes", "ScatterElements", [none, expert, ones], reduction="add")
        row = self._op("row", "Div", [order, self._constant("chosen", self.chosen)])
        x = self._op("rows", "Gather", [self._reshape("x", self.x, -1, self.hidden), row])
        pieces = self._split("piece", x, sizes, self.hidden)
        # One activation for all: with an activation per expert there would be twice the nodes.
        inner = self._activate(self._each("gate", pieces), self._each("up", pieces))
        y = self._each("down", self._split("inner", inner, sizes, self.size))
        y = self._op("by_row", "Gather", [y, back])
        y = self._reshape("of_row", y, -1, self.chosen, self.hidden)
        weights = self._reshape("weights", self.weights, -1, 1, self.chosen)
        return self._like_x(self._op("mixed", "MatMul", [weights, y]))

    def dense(self) -> ir.Value:
        """Compute one MLP of inner size E times an expert's."""
        wide = self.experts * self.size
        x = self._typed(self._reshape("x", self.x, -1, self.hidden), self.hidden)
        inner = self._activate(
            self._linear("experts.gate", x, wide, self.hidden),
            self._linear("experts.up", x, wide, self.hidden),
        )
        ids = self._reshape("ids", self.ids, -1, self.chosen)
        weights = self._reshape("chosen_weights", self.weights, -1, self.chosen)
        rows = self._op("rows", "Shape", [x], start=0, end=1)
        table = self._op("table", "Concat", [rows, self._constant("experts", self.experts)], axis=0)
        zero = ir.tensor([0.0], dtype=self.type.dtype)
        table = self._op("zeros", "ConstantOfShape", [table], value=zero)
        table = self._op("weights", "ScatterElements", [table, ids, weights], axis=1)
        table = self._reshape("factors", table, -1, self.experts, 1)
        inner = self._reshape("apart", inner, -1, self.experts, self.size)
        inner = self._op("weighted", "Mul", [inner, table])
        inner = self._typed(self._reshape("inner", inner, -1, wide), wide)
        return self._like_x(self._linear("experts.down", inner, self.hidden, wide))

    def _order(self, name: str, values: ir.Value, count: ir.Value) -> ir.Value:
        """Return the indices that sort values in ascending order."""
        node = self._node(name, "TopK", [values, count], 2, axis=0, largest=0, sorted=1)
        return node.outputs[1]

    def _split(self, name: str, rows: ir.Value, sizes: ir.Value, width: int) -> Sequence[ir.Value]:
        """Cut rows [n,width] into a piece per expert."""
        node = self._node(name, "Split", [rows, sizes], self.experts, axis=0)
        return [self._typed(piece, width) for piece in node.outputs]

    def _each(self, matrix: str, pieces: Sequence[ir.Value]) -> ir.Value:
        """Multiply each piece by its expert's matrix and join the products."""
        shape = (self.hidden, self.size) if matrix == "down" else (self.size, self.hidden)
        products = [
            self._linear(f"experts.{index}.{matrix}", piece, *shape)
            for index, piece in enumerate(pieces)
        ]
        return self._op(matrix, "Concat", products, axis=0)

    def _linear(self, name: str, x: ir.Value, rows: int, columns: int) -> ir.Value:
        """Multiply x [n,columns] by the transpose of a matrix [rows,columns]."""
        stored = ir.Value(
            name=f"{self.name}.{name}.weight", type=self.type, shape=ir.Shape([rows, columns])
        )
        self.graph.initializers.add(stored)
        turned = self._op(f"{name}.transposed", "Transpose", [stored], perm=[1, 0])
        turned.type, turned.shape = self.type, ir.Shape([columns, rows])
        return self._typed(self._op(name, "MatMul", [x, turned]), rows)

    def _activate(self, gate: ir.Value, up: ir.Value) -> ir.Value:
        silu = self._op("silu", "Mul", [gate, self._op("sigmoid", "Sigmoid", [gate])])
        return self._op("activated", "Mul", [silu, up])

    def _like_x(self, y: ir.Value) -> ir.Value:
        return self._op("y", "Reshape", [y, self._op("shape", "Shape", [self.x])])

    def _reshape(self, name: str, value: ir.Value, *sizes: int) -> ir.Value:
        return self._op(name, "Reshape", [value, self._constant(f"{name}.shape", *sizes)])

    def _typed(self, value: ir.Value, width: int) -> ir.Value:
        """State what is known of a matrix [n,width]."""
        value.type, value.shape = self.type, ir.Shape([None, width])
        return value

    def _constant(self, name: str, *numbers: int) -> ir.Value:
        return self._op(name, "Constant", [], value_ints=list(numbers))

    def _op(
        self, name: str, op_type: str, inputs: Sequence[ir.Value], **attributes: Attribute
    ) -> ir.Value:
        return self._node(name, op_type, inputs, 1, **attributes).outputs[0]

    def _node(
        self,
        name: str,
        op_type: str,
        inputs: Sequence[ir.Value],
        outputs: int,
        **attributes: Attribute,
    ) -> ir.Node:
        name = f"{self.name}.{name}"
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs, name=name)
        for index, output in enumerate(node.outputs):
            output.name = name if outputs == 1 else f"{name}.{index}"
        self.nodes.append(node)
        return node
