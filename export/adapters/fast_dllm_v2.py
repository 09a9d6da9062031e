"""Fast-dLLM v2: block diffusion with shifted logits on Qwen2.5's network (arXiv 2509.26328)."""

from __future__ import annotations

from typing import Any

from fastdllm.export.adapters.base import Adapter, Config, ModelSpec, TensorNames, integer, require
from fastdllm.export.adapters.decoder import decoder_names, decoder_spec


class FastDLLMv2(Adapter):
    """Fast_dLLM_v2_1.5B and 7B: blocks of 32, decoded in sub-blocks of 8."""

    family = "fast-dllm-v2"
    model_types = ("Fast_dLLM_Qwen",)
    architectures = ("Fast_dLLM_QwenForCausalLM",)
    mask_token = "|<MASK>|"
    follows_generation_config = False  # it is the base model's
    harmless_keys = frozenset({"conplemenrary_mask"})  # of training, spelled so
    eos_tokens = ("<|im_end|>", "<|endoftext|>")
    bpe_files = "qwen2"

    def spec(self, config: Config) -> ModelSpec:
        """Read Fast-dLLM v2's config.json; the tokenizer names its mask token."""
        require(config, {"attention_bias": (True,)})
        block_length = integer(config, "bd_size", 32)
        return decoder_spec(
            config,
            "the published models' is 151665",
            qkv_bias=True,
            attention="block_causal",
            logits_shift=1,
            block_length=block_length,
            sub_block_length=min(8, block_length),
            seed_token=True,
            threshold_inclusive=False,
            confidence="processed",
            min_prompt_length=1,
        )

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what its authors decode with."""
        return {"threshold": 0.9, "temperature": 0.0}

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name Fast-dLLM v2's tensors, which are Qwen2.5's."""
        return decoder_names(spec)
