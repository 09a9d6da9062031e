"""LLaDA-MoE: LLaDA's bidirectional decoding on a network with experts and QK-norm."""

from __future__ import annotations

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


class LLaDAMoE(Adapter):
    """LLaDA-MoE-7B-A1B; its config.json says model_type llada like the dense family's."""

    family = "llada-moe"
    model_types = ("llada",)
    architectures = ("LLaDAMoEModelLM",)
    harmless_keys = frozenset({"dense_intermediate_size", "intermediate_size"})  # no dense layers
    mask_token = "<|mask|>"
    eos_tokens = ("<|endoftext|>", "<|role_end|>")

    def spec(self, config: Config) -> ModelSpec:
        """Read LLaDA-MoE's config.json."""
        layers = integer(config, "num_hidden_layers")
        require(
            config,
            {
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
        moe = MoeSpec(
            num_experts=integer(config, "num_experts"),
            experts_per_token=integer(config, "num_experts_per_tok"),
            expert_size=integer(config, "expert_intermediate_size"),
        )
        require_experts(moe)
        return decoder_spec(
            config,
            "LLaDA-MoE-7B-A1B's is 156895",
            mlp_key="expert_intermediate_size",
            norm_eps=1e-5,
            qk_norm=True,
            moe=moe,
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name LLaDA-MoE's tensors."""
        return decoder_names(spec)
