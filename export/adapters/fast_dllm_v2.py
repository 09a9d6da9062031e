"""Fast-dLLM v2: block diffusion with shifted logits on Qwen2.5's network (arXiv 2509.26328)."""

from __future__ import annotations

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    TensorNames,
    decoder_names,
    eos_token_ids,
    full_attention,
    integer,
    mask_token_id,
    number,
    require,
    require_even_heads,
    rope_scaling,
    rope_theta,
    token_id,
)


class FastDLLMv2(Adapter):
    """Fast_dLLM_v2_1.5B and 7B: blocks of 32, decoded in sub-blocks of 8."""

    family = "fast-dllm-v2"
    model_types = ("Fast_dLLM_Qwen",)
    architectures = ("Fast_dLLM_QwenForCausalLM",)
    mask_token = "|<MASK>|"

    def spec(self, config: Config) -> ModelSpec:
        """Read Fast-dLLM v2's config.json; the tokenizer names its mask token."""
        layers = integer(config, "num_hidden_layers")
        require(config, {"hidden_act": ("silu",), "use_sliding_window": (False,)})
        full_attention(config)
        hidden = integer(config, "hidden_size")
        heads = integer(config, "num_attention_heads")
        kv_heads = integer(config, "num_key_value_heads", heads)
        require_even_heads(hidden, heads, kv_heads)
        vocab_size = integer(config, "vocab_size")
        block_length = integer(config, "bd_size", 32)
        return ModelSpec(
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=hidden // heads,
            hidden_size=hidden,
            mlp_size=integer(config, "intermediate_size"),
            vocab_size=vocab_size,
            max_context_length=integer(config, "max_position_embeddings"),
            rope_theta=rope_theta(config),
            rope_scaling=rope_scaling(config),
            norm_eps=number(config, "rms_norm_eps", 1e-6),
            mask_token_id=mask_token_id(config, vocab_size, "the published models' is 151665"),
            eos_token_ids=eos_token_ids(config, vocab_size),
            pad_token_id=token_id(config, "pad_token_id", vocab_size),
            bos_token_id=token_id(config, "bos_token_id", vocab_size),
            qkv_bias=True,
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            attention="block_causal",
            logits_shift=1,
            block_length=block_length,
            sub_block_length=min(8, block_length),
            seed_token=True,
            threshold_inclusive=False,
            confidence="processed",
            min_prompt_length=1,
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name Fast-dLLM v2's tensors, which are Qwen2.5's."""
        return decoder_names(spec)
