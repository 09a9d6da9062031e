"""SDAR: block diffusion on Qwen3's network, dense and with experts (arXiv 2510.06303)."""

from __future__ import annotations

import dataclasses

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    MoeSpec,
    TensorNames,
    decoder_names,
    eos_token_ids,
    full_attention,
    integer,
    mask_token_id,
    number,
    require,
    require_experts,
    require_grouped_heads,
    rope_scaling,
    rope_theta,
    token_id,
)


class SDAR(Adapter):
    """The dense SDAR checkpoints; head_dim stands in the config and need not divide anything."""

    family = "sdar"
    model_types = ("sdar",)
    architectures = ("SDARForCausalLM",)
    mask_token = "<|MASK|>"

    def spec(self, config: Config) -> ModelSpec:
        """Read SDAR's config.json."""
        require(
            config,
            {
                "hidden_act": ("silu",),
                "attention_bias": (False,),
                "use_sliding_window": (False,),
            },
        )
        full_attention(config)
        hidden = integer(config, "hidden_size")
        heads = integer(config, "num_attention_heads")
        kv_heads = integer(config, "num_key_value_heads", heads)
        require_grouped_heads(heads, kv_heads)
        vocab_size = integer(config, "vocab_size")
        return ModelSpec(
            num_layers=integer(config, "num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=integer(config, "head_dim", hidden // heads),
            hidden_size=hidden,
            mlp_size=integer(config, "intermediate_size"),
            vocab_size=vocab_size,
            max_context_length=integer(config, "max_position_embeddings"),
            rope_theta=rope_theta(config),
            rope_scaling=rope_scaling(config),
            norm_eps=number(config, "rms_norm_eps", 1e-6),
            mask_token_id=mask_token_id(config, vocab_size, "the published models' is 151669"),
            eos_token_ids=eos_token_ids(config, vocab_size),
            pad_token_id=token_id(config, "pad_token_id", vocab_size),
            bos_token_id=token_id(config, "bos_token_id", vocab_size),
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            qk_norm=True,
            attention="block_causal",
            block_length=integer(config, "block_size", 4),
            threshold_inclusive=False,
            confidence="processed",
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name SDAR's tensors, which are Qwen3's."""
        return decoder_names(spec)


class SDARMoE(SDAR):
    """SDAR-30B-A3B: Qwen3-MoE's experts in every layer."""

    family = "sdar-moe"
    model_types = ("sdar_moe",)
    architectures = ("SDARMoeForCausalLM",)

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
