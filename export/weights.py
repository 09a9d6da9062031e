"""Puts weights into a traced graph: how each is stored and used, then the bytes, one by one.

The graph is traced without weights (their initializers have no data). `place_weights` rewrites
the nodes that use them to the stored form; `write_weights` streams them from their source into the
one file beside the graph, so that memory holds one tensor of the checkpoint and a piece of its
converted form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from fastdllm.export.errors import ExportError
from fastdllm.export.lazy import Weight
from fastdllm.export.precision import Precision
from fastdllm.export.quantize import INT8_LIMIT, Encoding, Int4, Int8, Part, Plain

CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
PAGE = 4096  # large tensors begin on a page, so that they can be mapped; others on a cache line
CACHE_LINE = 64
LARGE = 1 << 20

ReadParameter = Callable[[str], Weight]


@dataclass(frozen=True, kw_only=True)
class PlacedWeight:
    """A parameter of the torch module and the initializers that its encoding fills."""

    parameter: str
    encoding: Encoding
    transposed: bool
    values: tuple[ir.Value, ...]


def place_weights(model: ir.Model, precision: Precision) -> list[PlacedWeight]:
    """Rewrite the graph to the stored form of each weight and return what is to be written.

    A weight that is only multiplied with is stored as its operator reads it; one that is also
    gathered from (tied embeddings) is stored once, by rows.
    """
    placer = _Placer(model.graph, precision)
    empty = [value for value in model.graph.initializers.values() if value.const_value is None]
    placed = [placer.place(value) for value in empty]
    model.graph.sort()  # a tensor that several nodes share was inserted at the first of them
    return placed


class _Placer:
    """Rewrites one graph; quantized activations and constants are shared between its nodes."""

    def __init__(self, graph: ir.Graph, precision: Precision) -> None:
        self.graph = graph
        self.precision = precision
        self.quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self.joined: set[ir.Value] = set()
        self.constants: dict[str, ir.Value] = {}

    def place(self, weight: ir.Value) -> PlacedWeight:
        """Store one weight as its precision says and adapt the nodes that use it."""
        name, shape = str(weight.name), _sizes(weight)
        uses = [usage.node for usage in weight.uses()]
        transposes = [node for node in uses if node.op_type == "Transpose"]
        gathers = [node for node in uses if node.op_type == "Gather"]
        is_matrix = len(shape) == 2 and bool(uses) and len(transposes) + len(gathers) == len(uses)
        encoding = self.precision.encoding(name, len(shape) if is_matrix else 1)
        transposed = is_matrix and not gathers and not isinstance(encoding, Int4)
        parts = encoding.parts(shape, transposed=transposed)
        del self.graph.initializers[name]
        stored = tuple(self._initializer(name, part) for part in parts)
        if not is_matrix:
            ir.convenience.replace_all_uses_with(weight, stored[0])
        for node in gathers:
            self._gather(node, encoding, stored)
        for node in transposes:
            self._multiply(node, encoding, stored, transposed)
        return PlacedWeight(parameter=name, encoding=encoding, transposed=transposed, values=stored)

    def _initializer(self, name: str, part: Part) -> ir.Value:
        value = ir.Value(
            name=f"{name}.{part.suffix}" if part.suffix else name,
            type=ir.TensorType(part.dtype),
            shape=ir.Shape(part.shape),
        )
        self.graph.initializers.add(value)
        return value

    def _constant(self, name: str, number: np.generic | NDArray[np.int64]) -> ir.Value:
        if name not in self.constants:
            tensor = ir.tensor(np.asarray(number), name=name)
            shape = ir.Shape(tuple(np.shape(number)))
            value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape)
            value.const_value = tensor
            self.graph.initializers.add(value)
            self.constants[name] = value
        return self.constants[name]

    def _before(
        self,
        node: ir.Node,
        name: str,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Mapping[str, int] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert an operator of one output before a node; name is the output's."""
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        new = ir.node(op_type, inputs, dict(attributes or {}), domain=domain, name=name)
        new.outputs[0].name = name
        self.graph.insert_before(node, new)
        return new.outputs[0]

    def _replace(self, node: ir.Node, value: ir.Value) -> None:
        """Let value take the place of a node's only output, and its name if others know it."""
        old = node.outputs[0]
        value.type, value.shape = old.type, old.shape
        if old.is_graph_output():
            name, old.name = old.name, f"{old.name}.traced"
            value.name = name
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self.graph.remove(node)

    def _gather(self, node: ir.Node, encoding: Encoding, stored: Sequence[ir.Value]) -> None:
        """Look rows up as they are stored and widen what was found."""
        ids = cast(ir.Value, node.inputs[1])
        name = f"{stored[0].name}.rows"
        wide = int(cast(ir.DataType, node.outputs[0].dtype))
        if isinstance(encoding, Plain) and stored[0].dtype == node.outputs[0].dtype:
            node.replace_input_with(0, stored[0])
            return
        rows = self._before(node, name, "Gather", [stored[0], ids])
        rows = self._before(node, f"{name}.wide", "Cast", [rows], {"to": wide})
        if isinstance(encoding, Int8):
            last = self._constant("last_axis", np.array([-1]))
            scale = self._before(node, f"{name}.scale", "Gather", [stored[1], ids])
            scale = self._before(node, f"{name}.scales", "Unsqueeze", [scale, last])
            rows = self._before(node, f"{name}.scaled", "Mul", [rows, scale])
        self._replace(node, rows)

    def _multiply(
        self, transpose: ir.Node, encoding: Encoding, stored: Sequence[ir.Value], transposed: bool
    ) -> None:
        """Multiply by the stored matrix in place of a transposed one."""
        name = str(stored[0].name)
        matrix = stored[0]
        if isinstance(encoding, Int4):
            for user in _matmuls(transpose):
                self._multiply_int4(user, encoding, stored)
            self.graph.remove(transpose)
            return
        if not transposed:  # tied: ONNX Runtime transposes it once, at load
            matrix = self._before(transpose, f"{name}.transposed", "Transpose", [matrix])
        if isinstance(encoding, Int8):
            for user in _matmuls(transpose):
                self._multiply_int8(user, matrix, stored[1])
            self.graph.remove(transpose)
            return
        if matrix.dtype != transpose.outputs[0].dtype:
            wide = int(cast(ir.DataType, transpose.outputs[0].dtype))
            matrix = self._before(transpose, f"{name}.wide", "Cast", [matrix], {"to": wide})
        self._replace(transpose, matrix)

    def _multiply_int8(self, node: ir.Node, matrix: ir.Value, scale: ir.Value) -> None:
        """Multiply integers: each row of the activations is scaled by its own largest number.

        So a row's result depends on no other row, whatever a pass feeds beside it.
        """
        unit, zero = self._unit_and_zero()
        x = cast(ir.Value, node.inputs[0])
        split = _split_of_pieces(x)
        rounded, largest = self._rounded(x, node)
        name = f"{node.outputs[0].name}.int8"
        product = self._before(
            node,
            f"{name}.share",
            "MatMulIntegerToFloat",
            [rounded, matrix, unit, scale, zero],
            domain=CONTRIB,
        )
        if split is None:
            self._replace(node, self._before(node, name, "Mul", [product, largest]))
        else:
            self._replace(node, product)
            self._scale_joined(product, largest)

    def _rounded(self, x: ir.Value, node: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Return activations as integers and the largest number of each row, before a node.

        Pieces of rows are rounded before they are cut: once, not once per expert.
        """
        if x not in self.quantized:
            split = _split_of_pieces(x)
            if split is not None:
                rounded, largest = self._rounded(cast(ir.Value, split.inputs[0]), split)
                split.replace_input_with(0, rounded)
                for piece in split.outputs:
                    piece.type = ir.TensorType(ir.DataType.UINT8)
                    self.quantized[piece] = (piece, largest)
                return self.quantized[x]
            unit, zero = self._unit_and_zero()
            last = self._constant("last_axis", np.array([-1]))
            size = self._before(node, f"{x.name}.size", "Abs", [x])
            largest = self._before(node, f"{x.name}.largest", "ReduceMax", [size, last])
            share = self._before(node, f"{x.name}.share", "Div", [x, largest])
            rounded = self._before(node, f"{x.name}.int8", "QuantizeLinear", [share, unit, zero])
            self.quantized[x] = (rounded, largest)
        return self.quantized[x]

    def _scale_joined(self, product: ir.Value, largest: ir.Value) -> None:
        """Scale the rows of the experts' products where they are one tensor again."""
        joined = next(iter(product.uses())).node.outputs[0]
        if joined in self.joined:
            return
        self.joined.add(joined)
        scaled = ir.node("Mul", [joined, largest], name=f"{joined.name}.scaled")
        scaled.outputs[0].name = scaled.name
        scaled.outputs[0].type, scaled.outputs[0].shape = joined.type, joined.shape
        ir.convenience.replace_all_uses_with(joined, scaled.outputs[0])
        scaled.replace_input_with(0, joined)
        self.graph.insert_after(cast(ir.Node, joined.producer()), scaled)

    def _unit_and_zero(self) -> tuple[ir.Value, ir.Value]:
        unit = self._constant("int8.unit", np.float32(1 / INT8_LIMIT))
        return unit, self._constant("int8.zero", np.uint8(INT8_LIMIT + 1))

    def _multiply_int4(self, node: ir.Node, encoding: Int4, stored: Sequence[ir.Value]) -> None:
        x, y = cast(ir.Value, node.inputs[0]), node.outputs[0]
        attributes = {
            "K": _sizes(x)[-1],
            "N": _sizes(y)[-1],
            "bits": 4,
            "block_size": encoding.block,
            "accuracy_level": 4,  # int8 activations: the fast kernels
        }
        name = f"{y.name}.int4"
        product = self._before(node, name, "MatMulNBits", [x, *stored], attributes, CONTRIB)
        self._replace(node, product)


def _split_of_pieces(x: ir.Value) -> ir.Node | None:
    """Return the node that cut x out of the rows of all experts, if one did."""
    node = x.producer()
    cut = node is not None and node.op_type == "Split" and len(node.outputs) > 1
    sizes = node.inputs[1] if node is not None and cut else None
    return node if sizes is not None and sizes.producer() is not None else None


def _matmuls(transpose: ir.Node) -> list[ir.Node]:
    """Return the nodes that multiply by a transposed weight.

    Errors: ExportError for another use.
    """
    users = [usage.node for usage in transpose.outputs[0].uses()]
    for user in users:
        if user.op_type != "MatMul" or user.inputs[1] is not transpose.outputs[0]:
            raise ExportError(
                f"{transpose.inputs[0]}: used by {user.op_type}; expected a MatMul's second input"
            )
    return users


def write_weights(
    placed: Sequence[PlacedWeight],
    read: ReadParameter,
    path: Path,
    progress: Callable[[int], object] = lambda size: None,
) -> None:
    """Stream every weight into one file and point the initializers at it.

    read: returns a parameter's tensor. progress: called with the bytes written.
    """
    end = 0
    with path.open("wb") as file:
        for weight in placed:
            cursors = []
            for value in weight.values:
                size = cast(ir.DataType, value.dtype).itemsize * math.prod(_sizes(value))
                end += -end % (PAGE if size >= LARGE else CACHE_LINE)
                value.const_value = ir.ExternalTensor(
                    path.name,
                    end,
                    int(size),
                    cast(ir.DataType, value.dtype),
                    shape=cast(ir.Shape, value.shape),
                    name=str(value.name),
                    base_dir=path.parent,
                )
                cursors.append(end)
                end += int(size)
            tensor = read(weight.parameter)
            for index, piece in weight.encoding.pieces(tensor, transposed=weight.transposed):
                data = piece.flatten().view(torch.uint8).numpy()
                file.seek(cursors[index])
                file.write(data.data)
                cursors[index] += data.nbytes
                progress(data.nbytes)
        file.truncate(end)


def stored_bytes(placed: Sequence[PlacedWeight]) -> int:
    """Count the bytes that write_weights will write."""
    return sum(
        int(cast(ir.DataType, value.dtype).itemsize * math.prod(_sizes(value)))
        for weight in placed
        for value in weight.values
    )


def _sizes(value: ir.Value) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in value.shape or ())
