"""What the exporter asks about a model family."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastdllm.export.errors import CheckpointError

Config = Mapping[str, Any]
# Graph parameter -> the checkpoint's tensor, or the tensors that are stacked into it.
TensorNames = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class MoeSpec:
    """A mixture-of-experts MLP in place of the dense one, in every layer.

    The router's softmax is over all experts in f32; the best `experts_per_token` are weighted by
    it, not renormalized.
    """

    num_experts: int
    experts_per_token: int
    expert_size: int


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything the graph and the package need to know of a model.

    Sizes count elements; ids are token ids; scales multiply.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    mlp_size: int
    vocab_size: int
    max_context_length: int
    rope_theta: float
    norm_eps: float
    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    qkv_bias: bool = False
    tied_embeddings: bool = False
    qk_norm: bool = False
    moe: MoeSpec | None = None
    embedding_scale: float = 1.0
    logits_scale: float = 1.0
    attention: Literal["bidirectional", "block_causal"] = "bidirectional"
    logits_shift: int = 0
    min_prompt_length: int = 0


class Adapter(ABC):
    """Answers for one model family. Subclasses are small: facts, names, nothing else."""

    family: ClassVar[str]
    model_types: ClassVar[Sequence[str]]
    architectures: ClassVar[Sequence[str]]

    @abstractmethod
    def spec(self, config: Config) -> ModelSpec:
        """Read the family's config.json. Errors: CheckpointError naming the key."""

    @abstractmethod
    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Map the graph's parameter names to the checkpoint's tensor names."""


def integer(config: Config, key: str, default: int | None = None) -> int:
    """Read a positive integer."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json: {key} is {value!r}; expected a positive integer")
    return value


def number(config: Config, key: str, default: float) -> float:
    """Read a positive number."""
    value = config.get(key, default)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not usable or not 0 < value < math.inf:
        raise CheckpointError(f"config.json: {key} is {value!r}; expected a positive number")
    return float(value)


def token_id(config: Config, key: str, vocab_size: int) -> int | None:
    """Read a token id that may be absent."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise CheckpointError(
            f"config.json: {key} is {value!r}; expected an id in [0, {vocab_size})"
        )
    return value


def mask_token_id(config: Config, vocab_size: int, hint: str) -> int:
    """Read the mask token's id, which every family needs."""
    value = token_id(config, "mask_token_id", vocab_size)
    if value is None:
        raise CheckpointError(f"config.json: mask_token_id is missing; {hint}")
    return value


def eos_token_ids(config: Config, vocab_size: int) -> tuple[int, ...]:
    """Read the end-of-text ids: one, several, or none."""
    value = config.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for item in ids:
        if token_id({"eos_token_id": item}, "eos_token_id", vocab_size) is None:
            raise CheckpointError(f"config.json: eos_token_id is {value!r}; expected ids")
    return tuple(ids)


def require(config: Config, allowed: Mapping[str, Sequence[object]]) -> None:
    """Refuse values that the graph does not implement; an absent key is fine."""
    for key, values in allowed.items():
        if key in config and config[key] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise CheckpointError(
                f"config.json: {key} is {config[key]!r}; this exporter implements {expected}"
            )


def require_even_heads(hidden: int, heads: int, kv_heads: int) -> None:
    """Check that heads divide the hidden size and each other."""
    if hidden % heads or heads % kv_heads:
        raise CheckpointError(
            f"config.json: hidden size {hidden}, {heads} heads and {kv_heads} K/V heads do not "
            "divide evenly"
        )
