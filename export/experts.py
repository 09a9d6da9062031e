"""A mixture of experts in standard ONNX operators: the tracer's placeholders are expanded here.

Thousands of expert matrices would make the tracer crawl, so a model is traced without them: each
mixture is one node of the domain MIXTURE, and what it stands for is put in its place afterwards.

R rows (batch times tokens), k experts per row, E experts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

from fastdllm.export.errors import ExportError
from fastdllm.export.graphs import MIXTURE, Experts

Form = Literal["dispatch", "dense"]
Attribute = int | str | Sequence[int] | ir.TensorProtocol


@contextlib.contextmanager
def experts_apart(model: nn.Module) -> Iterator[dict[str, nn.ModuleList]]:
    """Take the experts out of the model while it is traced; returns them by mixture's name."""
    mixtures = {name: part for name, part in model.named_modules() if isinstance(part, Experts)}
    apart = {name: mixture.experts for name, mixture in mixtures.items()}
    for name, mixture in mixtures.items():
        mixture.experts, mixture.traced_as = nn.ModuleList(), name
    try:
        yield apart
    finally:
        for name, mixture in mixtures.items():
            mixture.experts, mixture.traced_as = apart[name], None


def expand_experts(model: ir.Model, experts: Mapping[str, nn.ModuleList], form: Form) -> None:
    """Put operators and matrices in the place of the placeholders, in one of two forms.

    dispatch: rows are sorted by expert and split among the experts, each multiplies its own, a few
    or none. Only what was chosen is computed; the pieces' shapes depend on the data.
    dense: a layer's experts are one wide MLP, whose inner values are weighted by expert, those not
    chosen by zero. More arithmetic on three large matrices, and no shape depends on the data.

    Matrices are initializers [out,in] behind a Transpose, as those of torch.nn.Linear:
    `NAME.experts.{e}.{gate,up,down}.weight`, or where dense the experts' behind each other,
    `NAME.experts.{gate,up,down}.weight`. They have data unless the modules are on the meta device.
    """
    for node in [node for node in model.graph if node.domain == MIXTURE]:
        name = node.attributes["name"].as_string()
        mixture = _Mixture(model.graph, node, name, experts[name])
        y = mixture.dispatch() if form == "dispatch" else mixture.dense()
        y.type, y.shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_all_uses_with(node.outputs[0], y)
        model.graph.insert_before(node, mixture.nodes)
        model.graph.remove(node)
    model.graph.opset_imports.pop(MIXTURE, None)


class _Mixture:
    """Collects the operators of one mixture."""

    def __init__(
        self, graph: ir.Graph, placeholder: ir.Node, name: str, experts: nn.ModuleList
    ) -> None:
        self.graph, self.name, self.experts = graph, name, experts
        self.nodes: list[ir.Node] = []
        x, chosen, weights = placeholder.inputs
        if x is None or x.type is None or chosen is None or weights is None:
            raise ExportError(f"{name}: the tracer left out an input or its type")
        self.x, self.chosen, self.weights, self.type = x, chosen, weights, x.type
        self.per_row = placeholder.attributes["per_row"].as_int()
        self.size, self.hidden = _matrix(experts[0], "gate").shape

    def dispatch(self) -> ir.Value:
        """Sort the R*k pairs of row and expert by expert, compute piece by piece, sort back."""
        expert = self._reshape("pairs", self.chosen, -1)
        pairs = self._op("count", "Shape", [expert])
        order = self._order("order", expert, pairs)
        back = self._order("back", order, pairs)
        ones = self._op("ones", "Expand", [self._constant("one", 1), pairs])
        none = self._constant("none", *[0] * len(self.experts))
        sizes = self._op("sizes", "ScatterElements", [none, expert, ones], reduction="add")
        row = self._op("row", "Div", [order, self._constant("per_row", self.per_row)])
        x = self._op("rows", "Gather", [self._reshape("x", self.x, -1, self.hidden), row])
        pieces = self._split("piece", x, sizes, self.hidden)
        # One activation for all: with an activation per expert there would be twice the nodes.
        inner = self._activate(self._each("gate", pieces), self._each("up", pieces))
        y = self._each("down", self._split("inner", inner, sizes, self.size))
        y = self._op("by_row", "Gather", [y, back])
        y = self._reshape("of_row", y, -1, self.per_row, self.hidden)
        weights = self._reshape("weights", self.weights, -1, 1, self.per_row)
        return self._like_x(self._op("mixed", "MatMul", [weights, y]))

    def dense(self) -> ir.Value:
        """Compute one MLP of inner size E times an expert's."""
        number = len(self.experts)
        x = self._reshape("x", self.x, -1, self.hidden)
        self._typed(x, self.hidden)
        inner = self._activate(self._all("gate", x), self._all("up", x))
        chosen = self._reshape("chosen", self.chosen, -1, self.per_row)
        weights = self._reshape("chosen_weights", self.weights, -1, self.per_row)
        rows = self._op("rows", "Shape", [x], start=0, end=1)
        table = self._op("table", "Concat", [rows, self._constant("number", number)], axis=0)
        zero = ir.tensor([0.0], dtype=self.type.dtype)
        table = self._op("zeros", "ConstantOfShape", [table], value=zero)
        table = self._op("weights", "ScatterElements", [table, chosen, weights], axis=1)
        table = self._reshape("factors", table, -1, number, 1)
        inner = self._reshape("apart", inner, -1, number, self.size)
        inner = self._op("weighted", "Mul", [inner, table])
        inner = self._reshape("inner", inner, -1, number * self.size)
        return self._like_x(self._all("down", self._typed(inner, number * self.size)))

    def _order(self, name: str, values: ir.Value, count: ir.Value) -> ir.Value:
        """Return the indices that sort values in ascending order."""
        node = self._node(name, "TopK", [values, count], 2, axis=0, largest=0, sorted=1)
        return node.outputs[1]

    def _split(self, name: str, rows: ir.Value, sizes: ir.Value, width: int) -> Sequence[ir.Value]:
        """Cut rows [n,width] into a piece per expert."""
        node = self._node(name, "Split", [rows, sizes], len(self.experts), axis=0)
        return [self._typed(piece, width) for piece in node.outputs]

    def _each(self, matrix: str, pieces: Sequence[ir.Value]) -> ir.Value:
        """Multiply each piece by its expert's matrix and join the products."""
        products = [
            self._linear(f"experts.{index}.{matrix}", piece, [_matrix(expert, matrix)], axis=0)
            for index, (piece, expert) in enumerate(zip(pieces, self.experts, strict=True))
        ]
        return self._op(matrix, "Concat", products, axis=0)

    def _all(self, matrix: str, x: ir.Value) -> ir.Value:
        """Multiply x by the matrices of all experts behind each other."""
        parts = [_matrix(expert, matrix) for expert in self.experts]
        return self._linear(f"experts.{matrix}", x, parts, axis=1 if matrix == "down" else 0)

    def _linear(self, name: str, x: ir.Value, parts: Sequence[Tensor], axis: int) -> ir.Value:
        """Multiply x [n,in] by a matrix [out,in], which is parts along an axis."""
        sizes = list(parts[0].shape)
        sizes[axis] *= len(parts)
        stored = ir.Value(name=f"{self.name}.{name}.weight", type=self.type, shape=ir.Shape(sizes))
        if not parts[0].is_meta:
            stored.const_value = ir.LazyTensor(
                lambda: ir.tensor(torch.cat(list(parts), dim=axis).numpy()),
                dtype=self.type.dtype,
                shape=ir.Shape(sizes),
                name=stored.name,
            )
        self.graph.initializers.add(stored)
        turned = self._op(f"{name}.transposed", "Transpose", [stored], perm=[1, 0])
        turned.type, turned.shape = self.type, ir.Shape(sizes[::-1])
        return self._typed(self._op(name, "MatMul", [x, turned]), sizes[0])

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


def _matrix(expert: nn.Module, name: str) -> Tensor:
    """Return an expert's matrix [out,in]: gate, up or down."""
    return expert.get_parameter(f"{name}.weight")
