"""LLaDA2.0 and LLaDA2.1: block diffusion on a network with grouped experts and a shared one."""

from __future__ import annotations

from typing import Any

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    MoeSpec,
    Rows,
    TensorNames,
    integer,
    number,
    require,
    require_experts,
)
from fastdllm.export.adapters.decoder import decoder_names, decoder_spec
from fastdllm.export.errors import CheckpointError


class LLaDA2(Adapter):
    """LLaDA2.x mini and flash; 2.1 differs in decoding alone (editing_threshold)."""

    family = "llada2"
    model_types = ("llada2_moe", "llada2_moe_veomni")  # the latter: experts in one tensor
    architectures = ("LLaDA2MoeModelLM",)
    mask_token = "<|mask|>"
    eos_tokens = ("<|endoftext|>", "<|role_end|>")

    def spec(self, config: Config) -> ModelSpec:
        """Read LLaDA2's config.json."""
        require(
            config,
            {
                "use_bias": (False,),
                "use_qkv_bias": (False,),
                "use_qk_norm": (True,),
                "use_rmsnorm": (True,),
                "norm_head": (False,),
                "score_function": ("sigmoid",),
                "moe_router_enable_expert_bias": (True,),
                "norm_topk_prob": (True,),
                "moe_shared_expert_intermediate_size": (config.get("moe_intermediate_size"), None),
            },
        )
        hidden = integer(config, "hidden_size")
        heads = integer(config, "num_attention_heads")
        head_dim = integer(config, "head_dim", hidden // heads)
        rotated = int(head_dim * number(config, "partial_rotary_factor", 1.0))
        stated = integer(config, "rotary_dim", rotated)
        if stated != rotated or rotated % 2 or rotated > head_dim:
            raise CheckpointError(
                f"config.json: rotary_dim is {stated} and partial_rotary_factor gives {rotated}; "
                f"expected the same even number of a head's {head_dim} dimensions"
            )
        expert_size = integer(config, "moe_intermediate_size")
        dense = config.get("first_k_dense_replace")
        shared = config.get("num_shared_experts")
        moe = MoeSpec(
            num_experts=integer(config, "num_experts"),
            experts_per_token=integer(config, "num_experts_per_tok"),
            expert_size=expert_size,
            first_layer=integer(config, "first_k_dense_replace") if dense else 0,
            score="sigmoid",
            expert_bias=True,  # its code adds it always
            num_groups=integer(config, "n_group", 1),
            groups_per_token=integer(config, "topk_group", 1),
            renormalize=integer(config, "num_experts_per_tok") > 1,  # whatever norm_topk_prob says
            scale=number(config, "routed_scaling_factor", 1.0),
            shared_size=integer(config, "num_shared_experts") * expert_size if shared else 0,
        )
        require_experts(moe)
        return decoder_spec(
            config,
            "the published models' is 156895",
            rotary_dim=rotated,
            qk_norm=True,
            moe=moe,
            attention="block_causal",
            block_length=integer(config, "block_size", 32),
            threshold_inclusive=False,
            confidence="processed",
        )

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what its authors decode with: every sure token, or a pass's share of the block."""
        return {"threshold": 0.95, "steps_per_block": spec.block_length, "temperature": 0.0}

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name LLaDA2's tensors; query, key and value are the rows of one matrix, in that order."""
        names = decoder_names(spec, embedding="word_embeddings")
        query = spec.num_heads * spec.head_dim
        kv = spec.num_kv_heads * spec.head_dim
        for layer in range(spec.num_layers):
            ours, theirs = f"layers.{layer}", f"model.layers.{layer}.attention"
            fused = f"{theirs}.query_key_value.weight"
            names |= {
                f"{ours}.query.weight": Rows(fused, 0, query),
                f"{ours}.key.weight": Rows(fused, query, query + kv),
                f"{ours}.value.weight": Rows(fused, query + kv, query + 2 * kv),
                f"{ours}.query_norm.weight": f"{theirs}.query_layernorm.weight",
                f"{ours}.key_norm.weight": f"{theirs}.key_layernorm.weight",
                f"{ours}.output.weight": f"{theirs}.dense.weight",
            }
        return names
