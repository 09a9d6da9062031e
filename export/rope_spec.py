"""How positions are rotated, as an adapter reads it; rope.py computes it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RopeKind = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]
KINDS: tuple[RopeKind, ...] = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """How positions become angles.

    factor: how much longer the context is than original_length, that of the first training.
    attention_factor: multiplies cosines and sines. beta_fast, beta_slow, truncate: yarn's ramp.
    low_frequency, high_frequency: llama3's. short_factors, long_factors: longrope's divisors, one
    per frequency. query_beta: a query at position p is multiplied by
    1 + query_beta * ln(1 + floor(p / original_length)); 0 = off.
    """

    kind: RopeKind = "default"
    theta: float = 10000.0
    factor: float = 1.0
    original_length: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    query_beta: float = 0.0

    @property
    def by_length(self) -> bool:
        """Whether the frequencies depend on a request's length."""
        return self.kind in ("dynamic", "longrope")
