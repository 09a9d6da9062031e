"""The base class of adapters: what the exporter has to know about a model family."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastdllm.export.errors import CheckpointError
from fastdllm.export.rope_spec import RopeSpec

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows [start, end) of a checkpoint's matrix that fuses several matrices of the graph."""

    name: str
    start: int
    end: int


TensorSource = str | Rows
TensorNames = dict[str, TensorSource]  # graph parameter -> where the checkpoint has it


def source_name(source: TensorSource) -> str:
    """Return the checkpoint's name of the tensor that a source reads."""
    return source.name if isinstance(source, Rows) else source


@dataclass(frozen=True, kw_only=True)
class MoeSpec:
    """A mixture-of-experts MLP in place of the dense one, from layer `first_layer` on.

    The router scores all experts in f32 by softmax or sigmoid. The best `experts_per_token` by
    score (plus a bias per expert that takes part in the choice alone) are weighted by their scores,
    renormalized or not, times `scale`. With groups, only the experts of the best
    `groups_per_token` of `num_groups` groups are eligible, ranked by the sum of their two best.
    A shared expert of `shared_size` is added unweighted; 0 = none.
    """

    num_experts: int
    experts_per_token: int
    expert_size: int
    first_layer: int = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    expert_bias: bool = False
    num_groups: int = 1
    groups_per_token: int = 1
    renormalize: bool = False
    scale: float = 1.0
    shared_size: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything the graph and the package need to know of a model.

    Sizes count elements; ids are token ids; scales multiply. rotary_dim: leading dimensions of a
    head that are rotated, None = all. The last seven are facts of decoding, see PACKAGE.md.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    mlp_size: int
    vocab_size: int
    max_context_length: int
    rope: RopeSpec
    norm_eps: float
    mask_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    qkv_bias: bool = False
    tied_embeddings: bool = False
    qk_norm: bool = False
    rotary_dim: int | None = None
    moe: MoeSpec | None = None
    embedding_scale: float = 1.0
    logits_scale: float = 1.0
    attention: Literal["bidirectional", "block_causal"] = "bidirectional"
    logits_shift: int = 0
    block_length: int | None = None
    sub_block_length: int | None = None
    seed_token: bool = False
    threshold_inclusive: bool = True
    confidence: Literal["raw", "processed"] = "raw"
    min_prompt_length: int = 0


class Adapter(ABC):
    """Answers for one model family. Subclasses are small: facts, names, nothing else.

    mask_token: the mask token's text (or texts, the first that is there), where config.json may not
    state its id and the tokenizer's config may not call it so. eos_tokens: what ends a text, where
    nothing that is published says so. bpe_files: how vocab.json and merges.txt are read where the
    tokenizer is a class of the family's own ("qwen2"). harmless_keys: of config.json,
    beside those of known_keys.py, which the network in use does not depend on.
    follows_generation_config: whether the family's own code samples as generation_config.json says.
    """

    family: ClassVar[str]
    model_types: ClassVar[Sequence[str]]
    architectures: ClassVar[Sequence[str]]
    mask_token: ClassVar[str | Sequence[str] | None] = None
    eos_tokens: ClassVar[Sequence[str]] = ()
    bpe_files: ClassVar[str | None] = None
    harmless_keys: ClassVar[frozenset[str]] = frozenset()
    follows_generation_config: ClassVar[bool] = True

    @abstractmethod
    def spec(self, config: Config) -> ModelSpec:
        """Read the family's config.json. Errors: CheckpointError naming the key."""

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return the options of GenerationConfig that the authors recommend."""
        return {}

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
    value = config.get(key)
    if value is None:
        return default
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
        raise CheckpointError(
            f"config.json: mask_token_id is missing; state it there or to the export: {hint}"
        )
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


def require_stated(config: Config, keys: Sequence[str]) -> None:
    """Require keys whose default in the model's own code is not the one used here."""
    for key in keys:
        if key not in config:
            raise CheckpointError(f"config.json: {key} is missing")


def require_experts(moe: MoeSpec) -> None:
    """Check that experts can be chosen as the numbers say."""
    group = moe.num_experts // moe.num_groups
    eligible = group * moe.groups_per_token
    if (
        moe.num_experts % moe.num_groups
        or (moe.num_groups > 1 and group < 2)
        or not moe.experts_per_token <= eligible <= moe.num_experts
    ):
        raise CheckpointError(
            f"config.json: {moe.experts_per_token} experts of {moe.groups_per_token} groups cannot "
            f"be chosen among {moe.num_experts} experts in {moe.num_groups} groups"
        )


def require_even_heads(hidden: int, heads: int, kv_heads: int) -> None:
    """Check that heads divide the hidden size and each other."""
    if hidden % heads or heads % kv_heads:
        raise CheckpointError(
            f"config.json: hidden size {hidden}, {heads} heads and {kv_heads} K/V heads do not "
            "divide evenly"
        )
