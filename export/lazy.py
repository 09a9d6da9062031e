"""Matrices that are computed from how a checkpoint stores them, a part at a time.

A quantized matrix is several times larger as float32. Whoever writes weights asks for some rows or
columns after the other, so that memory holds the stored form and a piece.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdllm.export.errors import CheckpointError


class LazyMatrix(ABC):
    """A matrix f32 [out,in] that is not in memory. name: of the tensor, for errors."""

    def __init__(self, name: str, shape: tuple[int, int]) -> None:
        self.name = name
        self.shape = shape

    @abstractmethod
    def _part(self, rows: range, columns: range) -> Tensor:
        """Compute rows and columns, f32 or convertible to it."""

    def part(self, rows: range, columns: range) -> Tensor:
        """Compute these rows and columns, f32. Errors: CheckpointError for NaN or infinity."""
        found = self._part(rows, columns).float()
        if not bool(found.isfinite().all()):
            raise CheckpointError(f"{self.name} holds NaN or infinity")
        return found

    def rows(self, first: int, end: int) -> Tensor:
        """Compute rows [first, end)."""
        return self.part(range(first, min(end, self.shape[0])), range(self.shape[1]))

    def whole(self) -> Tensor:
        """Compute all of it."""
        return self.rows(0, self.shape[0])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def T(self) -> LazyMatrix:
        """Return the transpose, lazy too."""
        return _Turned(self)


class _Turned(LazyMatrix):
    def __init__(self, matrix: LazyMatrix) -> None:
        super().__init__(matrix.name, matrix.shape[::-1])
        self.matrix = matrix

    def _part(self, rows: range, columns: range) -> Tensor:
        return self.matrix.part(columns, rows).T


class RowsOf(LazyMatrix):
    """Rows [start, end) of another one."""

    def __init__(self, matrix: LazyMatrix, start: int, end: int) -> None:
        super().__init__(matrix.name, (end - start, matrix.shape[1]))
        self.matrix, self.start = matrix, start

    def _part(self, rows: range, columns: range) -> Tensor:
        moved = range(rows.start + self.start, rows.stop + self.start)
        return self.matrix.part(moved, columns)


class Joined(LazyMatrix):
    """Matrices behind each other, by rows (dim 0) or columns (dim 1)."""

    def __init__(self, parts: Sequence[Tensor | LazyMatrix], dim: int) -> None:
        size = int(parts[0].shape[1 - dim])
        along = sum(int(part.shape[dim]) for part in parts)
        super().__init__("joined matrices", (along, size) if dim == 0 else (size, along))
        self.parts, self.dim = parts, dim

    def _part(self, rows: range, columns: range) -> Tensor:
        found, start = [], 0
        along_dim = rows if self.dim == 0 else columns
        for part in self.parts:
            size = int(part.shape[self.dim])
            some = range(max(along_dim.start - start, 0), min(along_dim.stop - start, size))
            if len(some) > 0:
                here = (some, columns) if self.dim == 0 else (rows, some)
                found.append(_cut(part, *here))
            start += size
        return torch.cat(found, dim=self.dim)


def _cut(matrix: Tensor | LazyMatrix, rows: range, columns: range) -> Tensor:
    if isinstance(matrix, LazyMatrix):
        return matrix.part(rows, columns)
    return matrix[rows.start : rows.stop, columns.start : columns.stop].float()


Weight = Tensor | LazyMatrix


def in_memory(weight: Weight) -> Tensor:
    """Return the tensor, computed where it is lazy."""
    return weight.whole() if isinstance(weight, LazyMatrix) else weight
