"""Released checkpoints in tests: their rows in fastdllm.hub.released, with a file's other keys.

The keys that decide the graph are the rows'. A released config.json has more; those here are from
the families' public code and descriptions, since the released files were not at hand. The parameter
counts hold the sizes to the models' names.
"""

from __future__ import annotations

from typing import Any

from fastdllm.hub import released

Config = dict[str, Any]

# By architecture: keys that decide nothing, or that say what the graph does anyway.
OTHER_KEYS: dict[str, Config] = {
    "LLaDAModelLM": {
        "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
        "alibi_bias_max": 8.0,
        "attention_dropout": 0.0,
        "attention_layer_norm_with_affine": True,
        "embedding_dropout": 0.0,
        "flash_attention": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "layer_norm_with_affine": True,
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "transformers_version": "4.46.3",
        "use_cache": False,
    },
    "LLaDAMoEModelLM": {
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.01,
        "torch_dtype": "bfloat16",
        "use_cache": False,
    },
    "LLaDA2MoeModelLM": {
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "embedding_dropout": 0.0,
        "initializer_range": 0.02,
        "output_dropout": 0.0,
        "output_router_logits": False,
        "sliding_window": None,
        "use_cache": False,
    },
    "DreamModel": {
        "initializer_range": 0.02,
        "max_window_layers": 28,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_mrope": False,
    },
    "Fast_dLLM_QwenForCausalLM": {
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "conplemenrary_mask": True,
    },
    "SDARForCausalLM": {
        "fuse_cross_entropy": True,
        "initializer_range": 0.02,
        "pad_token_id": 151643,
        "use_cache": True,
    },
    "SDARMoeForCausalLM": {
        "fuse_cross_entropy": True,
        "initializer_range": 0.02,
        "pad_token_id": 151643,
        "use_cache": True,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "ep_size": 1,
    },
    "DreamForCausalLM": {
        "fuse_cross_entropy": True,
        "initializer_range": 0.02,
        "pad_token_id": 151643,
        "use_cache": True,
    },
    "RND1LM": {
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "fuse_cross_entropy": True,
        "initializer_range": 0.02,
        "mask_token_id": 151669,
        "use_cache": True,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "moe_backend": "hf",
    },
    "Qwen2ForCausalLM": {
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "max_window_layers": 28,
        "pad_token_id": 151643,
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    },
}
# Parameters in billions, as the name says where it does.
BILLIONS = {
    "LLaDA-8B-Base": 8.02,
    "LLaDA-8B-Instruct": 8.02,
    "LLaDA-1.5": 8.02,
    "LLaDA-MoE-7B-A1B-Instruct": 7.4,
    "LLaDA2.0-mini": 16.3,
    "LLaDA2.0-flash": 103,
    "LLaDA2.1-mini": 16.3,
    "Dream-v0-Instruct-7B": 7.6,
    "DiffuCoder-7B-Instruct": 7.6,
    "Dream-Coder-v0-Instruct-7B": 7.6,
    "Fast_dLLM_v2_7B": 7.6,
    "Fast_dLLM_v2_1.5B": 1.54,
    "SDAR-1.7B-Chat": 2.03,
    "SDAR-4B-Chat": 4.4,
    "SDAR-8B-Chat": 8.2,
    "SDAR-30B-A3B-Chat": 30.5,
    "TraDo-4B-Instruct": 4.4,
    "TraDo-8B-Instruct": 8.2,
    "DreamReasoner-8B": 8.2,
    "RND1-Base-0910": 30.5,
    "open-dcoder-0.5B": 0.494,
}


def config_of(row: released.ReleasedModel) -> Config:
    """Return a row's config.json with the keys that decide nothing, and the mask token's id."""
    return OTHER_KEYS[row.config["architectures"][0]] | dict(row.full_config)


# Name on the Hub -> config.json and parameters in billions. iLLaDA has no adapter yet.
RELEASED: dict[str, tuple[Config, float]] = {
    name: (config_of(row), BILLIONS[name])
    for row in released.RELEASED
    if row.family != "illada" and (name := row.repository.split("/")[1])
}
FACTS = ("attention", "logits_shift", "block_length", "threshold_inclusive", "qk_norm")
EXPECTED: dict[str, tuple[object, ...]] = {
    "LLaDAModelLM": ("bidirectional", 0, None, True, False),
    "LLaDAMoEModelLM": ("bidirectional", 0, None, True, True),
    "LLaDA2MoeModelLM": ("block_causal", 0, 32, False, True),
    "DreamModel": ("bidirectional", 1, None, True, False),
    "Fast_dLLM_QwenForCausalLM": ("block_causal", 1, 32, False, False),
    "SDARForCausalLM": ("block_causal", 0, 4, False, True),
    "SDARMoeForCausalLM": ("block_causal", 0, 4, False, True),
    "DreamForCausalLM": ("block_causal", 0, 32, False, True),
    "RND1LM": ("bidirectional", 1, None, True, True),
    "Qwen2ForCausalLM": ("bidirectional", 1, None, True, False),
}
