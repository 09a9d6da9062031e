"""How a weight is stored: as numbers of one type, or as integers with scales.

An encoding turns a checkpoint's tensor into the bytes of one or more stored tensors, piece by
piece, so that no second copy of a large tensor is ever in memory; and it says which numbers the
graph will compute with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdllm.export.lazy import LazyMatrix, Weight

PIECE = 1 << 22  # elements converted at a time
INT8_LIMIT = 127
INT4_LIMIT = 8
# Shares of the scale that maps a block's largest number to -8. A smaller one clips that number and
# rounds all others finer; per block the one with the smallest squared error is taken.
INT4_SHARES = (1.0, 0.9, 0.8)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stored tensor of a weight."""

    suffix: str
    dtype: ir.DataType
    shape: tuple[int, ...]


class Encoding(ABC):
    """A way to store weights."""

    @abstractmethod
    def parts(self, shape: tuple[int, ...], *, transposed: bool) -> tuple[Part, ...]:
        """Return the tensors that a weight of this shape is stored in."""

    @abstractmethod
    def pieces(self, weight: Weight, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the part, its next elements in storage order)."""

    @abstractmethod
    def decoded(self, weight: Tensor) -> Tensor:
        """Return what the graph computes with, f32 of the weight's shape."""


@dataclass(frozen=True)
class Plain(Encoding):
    """Numbers of one floating-point type."""

    dtype: torch.dtype

    def parts(self, shape: tuple[int, ...], *, transposed: bool) -> tuple[Part, ...]:
        """Return one tensor."""
        dtype = {
            torch.float32: ir.DataType.FLOAT,
            torch.float16: ir.DataType.FLOAT16,
            torch.bfloat16: ir.DataType.BFLOAT16,
        }[self.dtype]
        stored = shape[::-1] if transposed else shape
        return (Part(suffix="transposed" if transposed else "", dtype=dtype, shape=stored),)

    def pieces(self, weight: Weight, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        """Yield rows of what is stored."""
        stored = weight.T if transposed else weight
        for rows in _rows(stored):
            yield 0, rows.to(self.dtype).contiguous()

    def decoded(self, weight: Tensor) -> Tensor:
        """Round to the type."""
        return weight.to(self.dtype).float()


@dataclass(frozen=True)
class Int8(Encoding):
    """Integers of [-127, 127] and an f32 scale per row (output channel, or token)."""

    def parts(self, shape: tuple[int, ...], *, transposed: bool) -> tuple[Part, ...]:
        """Return integers and scales."""
        stored = shape[::-1] if transposed else shape
        return (
            Part(suffix="int8", dtype=ir.DataType.INT8, shape=stored),
            Part(suffix="scale", dtype=ir.DataType.FLOAT, shape=shape[:1]),
        )

    def pieces(self, weight: Weight, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        """Yield the scales, then rows of the integers."""
        scale = _int8_scale(weight)
        yield 1, scale
        if not transposed:
            first = 0
            for rows in _rows(weight):
                some = scale[first : first + len(rows), None]
                yield 0, (rows.float() / some).round().to(torch.int8)
                first += len(rows)
            return
        for columns in _rows(weight.T):
            yield 0, (columns.float() / scale).round().to(torch.int8).contiguous()

    def decoded(self, weight: Tensor) -> Tensor:
        """Round to the integers and scale back."""
        scale = _int8_scale(weight)[:, None]
        return (weight.float() / scale).round() * scale


def _int8_scale(weight: Weight) -> Tensor:
    largest = torch.empty(len(weight))  # filled in place: small results between large ones
    first = 0  # would pin the heap, and with it a copy of the weight
    for rows in _rows(weight):
        torch.amax(rows.float().abs(), dim=1, out=largest[first : first + len(rows)])
        first += len(rows)
    least = torch.finfo(torch.float32).tiny  # rows of denormal numbers count as zero
    return torch.where(largest > least * INT8_LIMIT, largest / INT8_LIMIT, 1.0)


@dataclass(frozen=True)
class Int4(Encoding):
    """Integers of [-8, 7], stored as n + 8, two in a byte, and an f32 scale per block of a row."""

    block: int

    def parts(self, shape: tuple[int, ...], *, transposed: bool) -> tuple[Part, ...]:
        """Return integers u8 [out, blocks, block / 2] and scales [out * blocks]."""
        blocks = -(-shape[1] // self.block)
        return (
            Part(suffix="int4", dtype=ir.DataType.UINT8, shape=(shape[0], blocks, self.block // 2)),
            Part(suffix="scale", dtype=ir.DataType.FLOAT, shape=(shape[0] * blocks,)),
        )

    def pieces(self, weight: Weight, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        """Yield integers and scales of some rows at a time."""
        for rows in _rows(weight):
            integers, scale = self._quantized(rows)
            codes = (integers + INT4_LIMIT).to(torch.uint8)
            yield 0, codes[..., 0::2] | codes[..., 1::2] << 4
            yield 1, scale.flatten()

    def decoded(self, weight: Tensor) -> Tensor:
        """Round to the integers and scale back."""
        parts = []
        for rows in _rows(weight):
            integers, scale = self._quantized(rows)
            parts.append((integers * scale[..., None]).flatten(1)[:, : weight.shape[1]])
        return torch.cat(parts)

    def _quantized(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return integers f32 [out, blocks, block] and scales [out, blocks]."""
        padding = -rows.shape[1] % self.block
        blocks = torch.unflatten(functional.pad(rows.float(), (0, padding)), 1, (-1, self.block))
        low, high = blocks.amin(dim=-1), blocks.amax(dim=-1)
        largest = torch.where(-low >= high, low, high) / -INT4_LIMIT
        best_scale = torch.ones_like(largest)
        best_error = torch.full_like(largest, torch.inf)
        for share in INT4_SHARES:
            scale = torch.where(largest != 0, largest * share, 1.0)
            rounded = _int4(blocks, scale).mul_(scale[..., None])
            error = rounded.sub_(blocks).square_().sum(dim=-1)
            better = error < best_error
            best_scale = torch.where(better, scale, best_scale)
            best_error = torch.where(better, error, best_error)
        return _int4(blocks, best_scale), best_scale


def _int4(blocks: Tensor, scale: Tensor) -> Tensor:
    return (blocks / scale[..., None]).round_().clamp_(-INT4_LIMIT, INT4_LIMIT - 1)


class RoundedLinear(nn.Module):
    """What the integer kernels compute: activations are rounded to 8 bits, as a row or its blocks.

    block: elements of a row that share a scale, which maps the largest of them to 127; None = all.
    """

    def __init__(self, linear: nn.Linear, block: int | None) -> None:
        super().__init__()
        self.linear = linear
        self.block = block
        self.rounds = True

    def forward(self, x: Tensor) -> Tensor:
        """Map x [...,in] to [...,out]."""
        if not self.rounds:
            plain: Tensor = self.linear(x)
            return plain
        size = x.shape[-1]
        block = self.block or size
        blocks = torch.unflatten(functional.pad(x, (0, -size % block)), -1, (-1, block))
        unit = blocks.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30) / INT8_LIMIT
        rounded = (blocks / unit).round() * unit
        y: Tensor = self.linear(rounded.flatten(-2)[..., :size])
        return y


def _rows(matrix: Weight) -> Iterator[Tensor]:
    """Split along the first dimension into views of about PIECE elements."""
    if isinstance(matrix, LazyMatrix):
        some = max(1, PIECE // 8 // max(1, matrix.shape[1]))  # computing makes temporaries
        yield from (matrix.rows(first, first + some) for first in range(0, len(matrix), some))
        return
    width = matrix[0].numel() if len(matrix) else 1
    yield from torch.split(matrix, max(1, PIECE // max(1, width)))
