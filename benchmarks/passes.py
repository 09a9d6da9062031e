"""The passes that benchmarks run on a graph by hand: their inputs, outputs and matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import Shape

BLOCK = 32
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a pass computes: rows fed, rows cached before them, rows whose token is wanted.

    One that has nothing cached is a refresh: it hands back K and V of all rows but the block's.
    """

    rows: int
    cached: int
    wanted: int = BLOCK

    @property
    def kind(self) -> str:
        """Step or refresh."""
        return "step" if self.cached else "refresh"

    @property
    def present(self) -> int:
        """Rows of K and V handed back."""
        return 0 if self.cached else self.rows - BLOCK

    def feeds(self, shape: Shape, dtype: type = np.float32) -> Arrays:
        """Make the graph's inputs, the same every time."""
        generator = np.random.default_rng(0)
        rows = (1, shape.heads, self.cached, shape.head_dim)
        past: Arrays = {
            f"past_key_values.{layer}.{part}": generator.standard_normal(rows).astype(dtype)
            for layer in range(shape.layers)
            for part in ("key", "value")
        }
        return past | {
            "input_ids": generator.integers(0, shape.vocabulary, (1, self.rows)),
            "position_ids": np.arange(self.cached, self.cached + self.rows)[None],
            "attention_mask": np.ones((1, 1, 1, self.cached + self.rows), dtype=bool),
            "logit_indices": np.arange(self.rows - self.wanted, self.rows)[None],
            "present_length": np.array([self.present]),
        }

    def outputs(self, shape: Shape, dtype: type = np.float32) -> Arrays:
        """Make room for what the runtime asks of a pass: tokens, complements, kept K and V."""
        kept = (1, shape.heads, self.present, shape.head_dim)
        layers = range(shape.layers if self.present else 0)
        predicted: Arrays = {
            "token_ids": np.empty((1, self.wanted), np.int64),
            "complement": np.empty((1, self.wanted), np.float32),
        }
        return predicted | {
            f"present.{layer}.{part}": np.empty(kept, dtype)
            for layer in layers
            for part in ("key", "value")
        }


STEP = Pass(rows=BLOCK, cached=256)
REFRESH = Pass(rows=288, cached=0)


@dataclass(frozen=True, kw_only=True)
class Product:
    """`count` products of [m,k] by [k,n] in a pass, each for `heads` heads side by side.

    weights: the second factor is the model's; else it is a pass's own (keys or values).
    """

    name: str
    m: int
    k: int
    n: int
    count: int
    heads: int = 1
    weights: bool = True

    @property
    def operations(self) -> int:
        """Floating point operations of all of them, a multiplication and an addition each."""
        return 2 * self.m * self.k * self.n * self.heads * self.count

    @property
    def bytes(self) -> int:
        """Bytes of one second factor in float32."""
        return 4 * self.k * self.n * self.heads


def products(shape: Shape, one: Pass) -> list[Product]:
    """List the matrix products of a pass, as export/graphs.py makes them.

    In the last layer every row gives K and V, and only the wanted ones go on.
    """
    hidden, head_dim, heads = shape.hidden, shape.head_dim, shape.heads
    attended = one.rows + one.cached
    listed: list[Product] = []

    def add(name: str, m: int, k: int, n: int, count: int) -> None:
        listed.append(Product(name=name, m=m, k=k, n=n, count=count))

    add("key, value", one.rows, hidden, hidden, 2 * shape.layers)
    for m, layers in ((one.rows, shape.layers - 1), (one.wanted, 1)):
        if not layers:
            continue
        add("query, output", m, hidden, hidden, 2 * layers)
        add("gate, up", m, hidden, shape.mlp, 2 * layers)
        add("down", m, shape.mlp, hidden, layers)
        for name, k, n in (("scores", head_dim, attended), ("values", attended, head_dim)):
            listed.append(
                Product(name=name, m=m, k=k, n=n, count=layers, heads=heads, weights=False)
            )
    add("head", one.wanted, hidden, shape.vocabulary, 1)
    return listed


def weight_bytes(shape: Shape, one: Pass) -> int:
    """Bytes of the float32 weights that a pass reads: all matrices, and the head."""
    return sum(p.count * p.bytes for p in products(shape, one) if p.weights)
