"""The rotation's frequencies: every published way of stretching it, as numbers of the graph.

R dimensions of a head are rotated, by R/2 frequencies. Most ways change the frequencies once. Two
depend on how long a request is: `dynamic` computes them from the length, `longrope` has two sets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastdllm.export.rope_spec import RopeSpec


def rope_tables(rope: RopeSpec, rotated: int) -> dict[str, Tensor]:
    """Return the graph's constants by name: angles per position, f32 [R/2] each.

    `inverse_frequencies`, and longrope's `long_frequencies`. Those of dynamic are its short ones.
    """
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
    plain = rope.theta**exponents
    if rope.kind == "longrope":
        short = torch.tensor(rope.short_factors, dtype=torch.float32)
        long = torch.tensor(rope.long_factors, dtype=torch.float32)
        return {
            "inverse_frequencies": 1.0 / (short * plain),
            "long_frequencies": 1.0 / (long * plain),
        }
    if rope.kind == "linear":
        return {"inverse_frequencies": 1.0 / (plain * rope.factor)}
    if rope.kind == "yarn":
        return {"inverse_frequencies": _yarn(rope, rotated, plain)}
    if rope.kind == "llama3":
        return {"inverse_frequencies": _llama3(rope, 1.0 / plain)}
    return {"inverse_frequencies": 1.0 / plain}


def _yarn(rope: RopeSpec, rotated: int, plain: Tensor) -> Tensor:
    """Keep fast frequencies, divide slow ones by the factor, and blend in between."""

    def dimension(turns: float) -> float:
        """Return which frequency turns so often within the original length."""
        ratio = math.log(rope.original_length / (turns * 2 * math.pi))
        return rotated * ratio / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    if low == high:
        high += 0.001  # no division by zero: one step
    ramp = ((torch.arange(rotated // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return ramp / (rope.factor * plain) + (1 - ramp) / plain


def _llama3(rope: RopeSpec, plain: Tensor) -> Tensor:
    """Keep short waves, divide long ones by the factor, and blend in between."""
    length = 2 * math.pi / plain
    longest, shortest = (
        rope.original_length / rope.low_frequency,
        rope.original_length / rope.high_frequency,
    )
    share = (rope.original_length / length - rope.low_frequency) / (
        rope.high_frequency - rope.low_frequency
    )
    blended = (1 - share) * plain / rope.factor + share * plain
    found = torch.where(length > longest, plain / rope.factor, plain)
    return torch.where((length >= shortest) & (length <= longest), blended, found)


def rotation(
    rope: RopeSpec,
    position_ids: Tensor,
    attention_mask: Tensor,
    tables: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines f32 [B,T,R/2] of i64 positions [B,T].

    attention_mask: bool [B,1,T,S]. With `by_length` a row's length is the number of positions it
    sees, or its last position's, whichever is more: the same in every pass over a canvas.
    """
    positions = position_ids.float()[..., None]
    frequencies = tables["inverse_frequencies"]
    if rope.by_length:
        seen = attention_mask.long().sum(dim=-1).amax(dim=(1, 2))
        length = torch.maximum(seen, position_ids.amax(dim=1) + 1)
        frequencies = _of_length(rope, length, tables)[:, None]
    angles = positions * frequencies
    cos, sin = angles.cos(), angles.sin()
    if rope.attention_factor != 1.0:
        cos, sin = cos * rope.attention_factor, sin * rope.attention_factor
    return cos, sin


def _of_length(rope: RopeSpec, length: Tensor, tables: dict[str, Tensor]) -> Tensor:
    """Return the frequencies f32 [B,R/2] of lengths i64 [B]."""
    short = tables["inverse_frequencies"]
    if rope.kind == "longrope":
        beyond = (length > rope.original_length)[:, None]
        return torch.where(beyond, tables["long_frequencies"], short)
    # theta * ratio^(R/(R-2)), and then to the power of -2j/R: one power of the ratio less.
    rotated = 2 * short.shape[0]
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32, device=short.device) / (
        rotated - 2
    )
    stretched = rope.factor * length.float() / rope.original_length - (rope.factor - 1)
    return short * stretched.clamp_min(1.0)[:, None] ** -exponents


def query_rotation(
    rope: RopeSpec, position_ids: Tensor, turn: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for the queries: those of the keys, times the query's scale."""
    if rope.query_beta == 0.0:
        return turn
    steps = torch.div(position_ids, rope.original_length, rounding_mode="floor")
    scale = (1 + rope.query_beta * (1 + steps.float()).log())[..., None]
    return turn[0] * scale, turn[1] * scale
