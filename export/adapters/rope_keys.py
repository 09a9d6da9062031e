"""Reads rope_theta, rope_scaling and rope_parameters of a config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastdllm.export.adapters.base import Config, integer, number
from fastdllm.export.errors import CheckpointError
from fastdllm.export.rope_spec import KINDS, RopeKind, RopeSpec

# The spellings of before the kinds had names in config.json: {"type": "su"} was Phi-3's.
_OLD_NAMES = {"su": "longrope", "ntk": "dynamic"}
_QUERY_KEYS = ("llama_4_scaling_beta",)
_COMMON = {"type", "rope_type", "rope_theta", "partial_rotary_factor"}
_KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast"}
    | {"beta_slow", "mscale", "mscale_all_dim", "truncate", *_QUERY_KEYS},
    "llama3": {"factor", "original_max_position_embeddings"}
    | {"low_freq_factor", "high_freq_factor"},
    "longrope": {"factor", "original_max_position_embeddings", "attention_factor"}
    | {"short_factor", "long_factor"},
}


def _found(config: Config, key: str) -> Mapping[str, Any]:
    found = config.get(key)
    if found is None or found is False:  # both say that there is none
        return {}
    if not isinstance(found, Mapping) or any(isinstance(v, Mapping) for v in found.values()):
        raise CheckpointError(
            f"config.json: {key} is {found!r}; expected an object of numbers and names"
        )
    return found


def _kind(scaling: Mapping[str, Any]) -> RopeKind:
    stated = scaling.get("rope_type", scaling.get("type", "default"))
    for kind in KINDS:
        if _OLD_NAMES.get(str(stated), stated) == kind:
            return kind
    known = ", ".join(repr(kind) for kind in KINDS)
    raise CheckpointError(
        f"config.json: rope_scaling is of kind {stated!r}; this exporter implements {known}"
    )


def rope_spec(
    config: Config, *, context: int, rotated: int, head_dim: int, block_causal: bool = False
) -> RopeSpec:
    """Read how positions are rotated; rope_parameters is the younger name of the same object.

    context: config.json's own longest one. rotated: dimensions of a head. block_causal: K/V of
    finished blocks stay, so that frequencies may not change with a request's length. Errors:
    CheckpointError naming the key, or a kind that is not known.
    """
    parameters = _found(config, "rope_parameters")
    scaling = _found(config, "rope_scaling") or parameters
    theta = number(parameters, "rope_theta", number(config, "rope_theta", 10000.0))
    kind = _kind(scaling)
    unknown = sorted(
        key for key in set(scaling) - _KEYS[kind] - _COMMON if scaling[key] not in (None, False)
    )
    if unknown:
        raise CheckpointError(
            f"config.json: rope_scaling holds {unknown[0]!r}, which this exporter does not know "
            f"for the kind {kind!r}"
        )
    if kind == "default":
        return RopeSpec(theta=theta)
    key = "original_max_position_embeddings"
    stated = [value for value in (scaling.get(key), config.get(key)) if value is not None]
    original = integer({key: stated[0]} if stated else {}, key, context)
    if kind == "longrope":
        return _longrope(scaling, theta, original, context, rotated, block_causal)
    factor = number(scaling, "factor", 1.0 if kind == "linear" else context / original)
    if factor < 1.0 and kind != "linear":
        raise CheckpointError(f"config.json: rope_scaling: factor is {factor}; expected >= 1")
    if kind == "dynamic":
        if rotated < 4:
            raise CheckpointError("config.json: 'dynamic' needs heads of 4 dimensions and more")
        if block_causal:  # what it is up to the original length, beyond which nothing is decoded
            return RopeSpec(theta=theta)
        return RopeSpec(kind=kind, theta=theta, factor=factor, original_length=context)
    if kind == "llama3":
        return _llama3(scaling, theta, original, factor)
    if kind == "yarn":
        return _yarn(scaling, theta, original, factor, rotated == head_dim)
    return RopeSpec(kind=kind, theta=theta, factor=factor)


def _llama3(scaling: Mapping[str, Any], theta: float, original: int, factor: float) -> RopeSpec:
    low, high = number(scaling, "low_freq_factor", 1.0), number(scaling, "high_freq_factor", 4.0)
    if low >= high:
        raise CheckpointError(
            f"config.json: rope_scaling: low_freq_factor is {low}; expected less than "
            f"high_freq_factor, {high}"
        )
    return RopeSpec(
        kind="llama3",
        theta=theta,
        factor=factor,
        original_length=original,
        low_frequency=low,
        high_frequency=high,
    )


def _yarn(
    scaling: Mapping[str, Any], theta: float, original: int, factor: float, whole: bool
) -> RopeSpec:
    def scale(share: float) -> float:
        return 1.0 if factor <= 1.0 else 0.1 * share * math.log(factor) + 1.0

    attention = scaling.get("attention_factor")
    if attention is None:
        mscale, every = scaling.get("mscale"), scaling.get("mscale_all_dim")
        both = bool(mscale) and bool(every)
        attention = (
            scale(number(scaling, "mscale", 1.0)) / scale(number(scaling, "mscale_all_dim", 1.0))
            if both
            else scale(1.0)
        )
    beta = number(scaling, "llama_4_scaling_beta", 0.0) if scaling.get(_QUERY_KEYS[0]) else 0.0
    if beta and not whole:
        raise CheckpointError(
            "config.json: rope_scaling: llama_4_scaling_beta needs all of a head to be rotated"
        )
    truncate = scaling.get("truncate", True)
    return RopeSpec(
        kind="yarn",
        theta=theta,
        factor=factor,
        original_length=original,
        attention_factor=number({"attention_factor": attention}, "attention_factor", 1.0),
        beta_fast=number(scaling, "beta_fast", 32.0),
        beta_slow=number(scaling, "beta_slow", 1.0),
        truncate=True if truncate is None else bool(truncate),
        query_beta=beta,
    )


def _longrope(
    scaling: Mapping[str, Any],
    theta: float,
    original: int,
    context: int,
    rotated: int,
    block_causal: bool,
) -> RopeSpec:
    if block_causal:
        raise CheckpointError(
            "config.json: rope_scaling is of kind 'longrope'; its frequencies change with a "
            "request's length, and this family keeps keys that were rotated before"
        )
    factors = {}
    for key in ("short_factor", "long_factor"):
        listed = scaling.get(key)
        if not isinstance(listed, list) or len(listed) != rotated // 2:
            raise CheckpointError(
                f"config.json: rope_scaling: {key} is not a list of {rotated // 2} numbers"
            )
        factors[key] = tuple(number({key: value}, key, 1.0) for value in listed)
    factor = number(scaling, "factor", context / original)
    usual = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return RopeSpec(
        kind="longrope",
        theta=theta,
        factor=factor,
        original_length=original,
        attention_factor=number(scaling, "attention_factor", usual),
        short_factors=factors["short_factor"],
        long_factors=factors["long_factor"],
    )


def context_length(rope: RopeSpec, stated: int) -> int:
    """Return the longest context: what is stated, or what dynamic and yarn make of the original."""
    if rope.kind in ("dynamic", "yarn"):
        return max(stated, int(rope.factor * rope.original_length))
    return stated
