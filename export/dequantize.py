"""Converts the published forms of quantized matrices to numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastdllm.export.lazy import LazyMatrix

# In an AWQ word the columns of eight lie in this order, from the lowest bits on.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack(words: Tensor, bits: int, dim: int, order: Sequence[int] | None = None) -> Tensor:
    """Take unsigned integers of a few bits out of int32 words, along a dimension."""
    count = 32 // bits
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    if order is not None:
        places = torch.empty(count, dtype=torch.long)
        places[list(order)] = torch.arange(count)
        shifts = shifts[places]
    if dim == 0:
        found = words[:, None] >> shifts[:, None]
        return (found & ((1 << bits) - 1)).flatten(0, 1)
    return ((words[..., None] >> shifts) & ((1 << bits) - 1)).flatten(1)


def _unpacked(words: Tensor, bits: int, dim: int, part: range) -> Tensor:
    """Unpack only the words that hold these rows or columns."""
    count = 32 // bits
    first = part.start // count
    some = words.narrow(dim, first, -(-part.stop // count) - first)
    start = part.start - first * count
    return unpack(some, bits, dim).narrow(dim, start, len(part))


class Scaled(LazyMatrix):
    """Values [out,in] with a scale per block of rows and columns (fp8, int8)."""

    def __init__(self, name: str, values: Tensor, scale: Tensor, block: tuple[int, int]) -> None:
        super().__init__(name, (values.shape[0], values.shape[1]))
        self.values, self.scale, self.block = values, scale, block

    def _part(self, rows: range, columns: range) -> Tensor:
        values = self.values[rows.start : rows.stop, columns.start : columns.stop].float()
        of_rows = torch.arange(rows.start, rows.stop) // self.block[0]
        of_columns = torch.arange(columns.start, columns.stop) // self.block[1]
        return values * self.scale.float()[of_rows][:, of_columns]


class Gptq(LazyMatrix):
    """qweight [in/n,out] packed along in, qzeros [groups,out/n], scales [groups,out].

    groups: of each of the in columns. zero_offset: what was taken off the zeros before storing.
    """

    def __init__(
        self,
        name: str,
        qweight: Tensor,
        qzeros: Tensor,
        scales: Tensor,
        groups: Tensor,
        *,
        bits: int,
        zero_offset: int,
    ) -> None:
        super().__init__(name, (qweight.shape[1], qweight.shape[0] * 32 // bits))
        self.qweight, self.scales, self.groups, self.bits = qweight, scales, groups, bits
        self.zeros = (unpack(qzeros, bits, 1) + zero_offset) & ((1 << bits) - 1)

    def _part(self, rows: range, columns: range) -> Tensor:
        out = slice(rows.start, rows.stop)
        values = _unpacked(self.qweight[:, out], self.bits, 0, columns)
        group = self.groups[columns.start : columns.stop]
        zeros, scales = self.zeros[:, out][group], self.scales[:, out][group]
        return ((values - zeros).float() * scales.float()).T


class Awq(LazyMatrix):
    """qweight [in,out/8], qzeros [groups,out/8], scales [groups,out]; 4 bits, AWQ's order."""

    def __init__(
        self, name: str, qweight: Tensor, qzeros: Tensor, scales: Tensor, group: int
    ) -> None:
        super().__init__(name, (qweight.shape[1] * 8, qweight.shape[0]))
        self.qweight, self.scales, self.group = qweight, scales, group
        self.zeros = unpack(qzeros, 4, 1, AWQ_ORDER)

    def _part(self, rows: range, columns: range) -> Tensor:
        out = slice(rows.start, rows.stop)
        first = rows.start // 8
        words = self.qweight[columns.start : columns.stop, first : -(-rows.stop // 8)]
        values = unpack(words, 4, 1, AWQ_ORDER)[:, rows.start - 8 * first :][:, : len(rows)]
        group = torch.arange(columns.start, columns.stop) // self.group
        zeros, scales = self.zeros[:, out][group], self.scales[:, out][group]
        return ((values - zeros).float() * scales.float()).T


class PackedRows(LazyMatrix):
    """weight_packed [out,in/n] of integers plus half their range, scales [out,groups].

    zeros: [out,groups] or None; groups: of each of the in columns.
    """

    def __init__(
        self,
        name: str,
        packed: Tensor,
        scale: Tensor,
        zeros: Tensor | None,
        groups: Tensor,
        *,
        bits: int,
        shape: tuple[int, int],
    ) -> None:
        super().__init__(name, shape)
        self.packed, self.scale, self.zeros = packed, scale, zeros
        self.groups, self.bits = groups, bits

    def _part(self, rows: range, columns: range) -> Tensor:
        out = slice(rows.start, rows.stop)
        values = _unpacked(self.packed[out], self.bits, 1, columns) - (1 << (self.bits - 1))
        group = self.groups[columns.start : columns.stop]
        if self.zeros is not None:
            values = values - self.zeros[out][:, group]
        return values.float() * self.scale[out][:, group].float()


class BitsAndBytes4(LazyMatrix):
    """Two codes of a table in a byte, the first in its high bits; a scale per block of all."""

    def __init__(
        self,
        name: str,
        codes: Tensor,
        table: Tensor,
        scale: Tensor,
        block: int,
        shape: tuple[int, int],
    ) -> None:
        super().__init__(name, shape)
        self.codes, self.table, self.scale, self.block = codes.flatten(), table, scale, block

    def _part(self, rows: range, columns: range) -> Tensor:
        width = self.shape[1]
        if len(columns) == width:  # neighbours in memory
            places = torch.arange(rows.start * width, rows.stop * width)
        else:
            row = torch.arange(rows.start, rows.stop)[:, None] * width
            places = (row + torch.arange(columns.start, columns.stop)).flatten()
        byte = self.codes[places // 2].int()
        code = torch.where(places % 2 == 0, byte >> 4, byte & 15)
        values = self.table.float()[code] * self.scale[places // self.block]
        return values.view(len(rows), len(columns))
