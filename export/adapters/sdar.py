"""SDAR: block diffusion on Qwen3's network, dense and with experts (arXiv 2510.06303)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    MoeSpec,
    TensorNames,
    integer,
    require,
    require_experts,
)
from fastdllm.export.adapters.decoder import decoder_names, decoder_spec


class SDAR(Adapter):
    """The dense SDAR checkpoints; head_dim is a key of the config and need not divide anything."""

    family = "sdar"
    model_types = ("sdar",)
    architectures = ("SDARForCausalLM",)
    harmless_keys = frozenset({"ep_size", "debug"})  # of training in parallel
    mask_token: ClassVar[str | Sequence[str] | None] = "<|MASK|>"
    eos_tokens = ("<|im_end|>", "<|endoftext|>")
    bpe_files = "qwen2"

    def spec(self, config: Config) -> ModelSpec:
        """Read SDAR's config.json."""
        require(config, {"attention_bias": (False,)})
        return decoder_spec(
            config,
            "the published models' is 151669",
            qk_norm=True,
            attention="block_causal",
            block_length=integer(config, "block_size", 4),
            threshold_inclusive=False,
            confidence="processed",
        )

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what its authors decode with: every sure token, or a pass's share of the block."""
        return {"threshold": 0.9, "steps_per_block": spec.block_length, "temperature": 1.0}

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name SDAR's tensors, which are Qwen3's."""
        return decoder_names(spec)


class SDARMoE(SDAR):
    """SDAR-30B-A3B: Qwen3-MoE's experts in every layer."""

    family = "sdar-moe"
    model_types = ("sdar_moe",)
    architectures = ("SDARMoeForCausalLM",)
    harmless_keys = frozenset({"ep_size", "debug", "intermediate_size"})

    def spec(self, config: Config) -> ModelSpec:
        """Read SDAR-MoE's config.json."""
        require(config, {"decoder_sparse_step": (1,), "mlp_only_layers": ([], None)})
        moe = MoeSpec(
            num_experts=integer(config, "num_experts"),
            experts_per_token=integer(config, "num_experts_per_tok"),
            expert_size=integer(config, "moe_intermediate_size"),
            renormalize=bool(config.get("norm_topk_prob")),
        )
        require_experts(moe)
        return dataclasses.replace(super().spec(config), moe=moe)


class DreamReasoner(SDAR):
    """DreamReasoner-8B (arXiv 2606.19257): SDAR's decoding and network, in blocks of 32.

    Its config.json calls it Dream; its logits are not shifted as Dream's are.
    """

    family = "dream-reasoner"
    model_types = ("Dream",)
    architectures = ("DreamForCausalLM",)
    mask_token = ("<|MASK|>", "<|mask|>")

    def spec(self, config: Config) -> ModelSpec:
        """Read DreamReasoner's config.json."""
        block_length = integer(config, "block_size", 32)
        return dataclasses.replace(super().spec(config), block_length=block_length)


class RND1(SDARMoE):
    """RND1-Base: Qwen3-MoE's network, bidirectional, with shifted logits."""

    family = "rnd1"
    model_types = ("rnd1",)
    architectures = ("RND1LM",)
    mask_token = ("<|MASK|>", "<|mask|>")

    def spec(self, config: Config) -> ModelSpec:
        """Read RND1's config.json."""
        return dataclasses.replace(
            super().spec(config),
            attention="bidirectional",
            logits_shift=1,
            block_length=None,
            threshold_inclusive=True,
        )

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what its authors decode with: the best token, the lowest entropy first."""
        return {"remasking": "entropy", "temperature": 0.0}
