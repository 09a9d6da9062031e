"""Dream: bidirectional decoding with shifted logits on Qwen2.5's network.

Dream-7B, DiffuCoder and Dream-Coder share the layout.
"""

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


class Dream(Adapter):
    """The published Dream checkpoints and their fine-tunes."""

    family = "dream"
    model_types = ("Dream",)
    architectures = ("DreamModel",)

    def spec(self, config: Config) -> ModelSpec:
        """Read Dream's config.json."""
        require(config, {"hidden_act": ("silu",), "use_sliding_window": (False,)})
        full_attention(config)
        hidden = integer(config, "hidden_size")
        heads = integer(config, "num_attention_heads")
        kv_heads = integer(config, "num_key_value_heads", heads)
        require_even_heads(hidden, heads, kv_heads)
        vocab_size = integer(config, "vocab_size")
        return ModelSpec(
            num_layers=integer(config, "num_hidden_layers"),
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
            mask_token_id=mask_token_id(config, vocab_size, "Dream-7B's is 151666"),
            eos_token_ids=eos_token_ids(config, vocab_size),
            pad_token_id=token_id(config, "pad_token_id", vocab_size),
            bos_token_id=token_id(config, "bos_token_id", vocab_size),
            qkv_bias=True,
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            logits_shift=1,
            confidence="processed",
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name Dream's tensors, which are Qwen2.5's."""
        return decoder_names(spec)
