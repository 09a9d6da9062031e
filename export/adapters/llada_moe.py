"""LLaDA-MoE: LLaDA's bidirectional decoding on a network with experts and QK-norm."""

from __future__ import annotations

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    MoeSpec,
    TensorNames,
    decoder_names,
    eos_token_ids,
    integer,
    mask_token_id,
    number,
    require,
    require_even_heads,
    require_experts,
    rope_scaling,
    rope_theta,
    token_id,
)


class LLaDAMoE(Adapter):
    """LLaDA-MoE-7B-A1B; its config.json says model_type llada like the dense family's."""

    family = "llada-moe"
    model_types = ("llada",)
    architectures = ("LLaDAMoEModelLM",)

    def spec(self, config: Config) -> ModelSpec:
        """Read LLaDA-MoE's config.json."""
        layers = integer(config, "num_hidden_layers")
        require(
            config,
            {
                "hidden_act": ("silu",),
                "attention_bias": (False,),
                "clip_qkv": (None,),
                "qk_layernorm": (True,),
                "partial_rotary_factor": (1, 1.0, None),
                "moe_layer_freq": ([1] * layers, None),
                "moe_router_enable_expert_bias": (False, None),
                "moe_router_score_function": ("softmax", None),
                "router_num_group": (None,),
                "router_topk_group": (None,),
                "routed_scaling_factor": (1, 1.0, None),
                "norm_topk_prob": (None, False),
                "shared_expert_intermediate_size": (None,),
            },
        )
        hidden = integer(config, "hidden_size")
        heads = integer(config, "num_attention_heads")
        kv_heads = integer(config, "num_key_value_heads", heads)
        require_even_heads(hidden, heads, kv_heads)
        vocab_size = integer(config, "vocab_size")
        moe = MoeSpec(
            num_experts=integer(config, "num_experts"),
            experts_per_token=integer(config, "num_experts_per_tok"),
            expert_size=integer(config, "expert_intermediate_size"),
        )
        require_experts(moe)
        return ModelSpec(
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=hidden // heads,
            hidden_size=hidden,
            mlp_size=integer(config, "expert_intermediate_size"),
            vocab_size=vocab_size,
            max_context_length=integer(config, "max_position_embeddings"),
            rope_theta=rope_theta(config),
            rope_scaling=rope_scaling(config),
            norm_eps=number(config, "rms_norm_eps", 1e-5),
            mask_token_id=mask_token_id(config, vocab_size, "LLaDA-MoE-7B-A1B's is 156895"),
            eos_token_ids=eos_token_ids(config, vocab_size),
            pad_token_id=token_id(config, "pad_token_id", vocab_size),
            bos_token_id=token_id(config, "bos_token_id", vocab_size),
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            qk_norm=True,
            moe=moe,
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name LLaDA-MoE's tensors."""
        return decoder_names(spec)
