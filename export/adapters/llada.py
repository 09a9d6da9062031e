"""LLaDA: dense, bidirectional, block type llama (LLaDA-8B Base and Instruct, LLaDA-1.5, iLLaDA)."""

from __future__ import annotations

from fastdllm.export.adapters.base import (
    Adapter,
    Config,
    ModelSpec,
    TensorNames,
    eos_token_ids,
    integer,
    mask_token_id,
    number,
    require,
    require_even_heads,
    require_stated,
    token_id,
)
from fastdllm.export.adapters.rope_keys import context_length, rope_spec


class LLaDA(Adapter):
    """The published LLaDA checkpoints and their variants in heads, ties and biases."""

    family = "llada"
    model_types = ("llada",)
    architectures = ("LLaDAModelLM",)
    # Of what is off, or of tables that grow by themselves.
    harmless_keys = frozenset({"alibi_bias_max", "attention_layer_norm_with_affine", "d_model"})
    mask_token = ("<|mdm_mask|>", "<[MASK]>")
    eos_tokens = ("<|endoftext|>", "<|eot_id|>")

    def spec(self, config: Config) -> ModelSpec:
        """Read LLaDA's config.json."""
        require_stated(config, ("block_type", "activation_type", "layer_norm_type", "rope"))
        require(
            config,
            {
                "block_type": ("llama",),
                "activation_type": ("silu",),
                "layer_norm_type": ("rms",),
                "rope": (True,),
                "rope_full_precision": (True,),
                "clip_qkv": (None,),
                "alibi": (False,),
                "attention_layer_norm": (False,),
                "bias_for_layer_norm": (False, None),
                "include_bias": (False,),
                "block_group_size": (1,),
                "layer_norm_with_affine": (True,),
            },
        )
        hidden = integer(config, "d_model")
        heads = integer(config, "n_heads")
        multi_query = bool(config.get("multi_query_attention"))
        kv_heads = integer(config, "n_kv_heads", 1 if multi_query else heads)
        require_even_heads(hidden, heads, kv_heads)
        vocab_size = integer(config, "embedding_size", integer(config, "vocab_size"))
        mlp_ratio = number(config, "mlp_ratio", 4.0)
        context, head_dim = integer(config, "max_sequence_length"), hidden // heads
        rope = rope_spec(config, context=context, rotated=head_dim, head_dim=head_dim)
        return ModelSpec(
            num_layers=integer(config, "n_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            hidden_size=hidden,
            mlp_size=integer(config, "mlp_hidden_size", int(mlp_ratio * hidden)),
            vocab_size=vocab_size,
            max_context_length=context_length(rope, context),
            rope=rope,
            norm_eps=number(config, "rms_norm_eps", 1e-5),
            mask_token_id=mask_token_id(config, vocab_size, "LLaDA-8B's is 126336"),
            eos_token_ids=eos_token_ids(config, vocab_size),
            pad_token_id=token_id(config, "pad_token_id", vocab_size),
            bos_token_id=token_id(config, "bos_token_id", vocab_size),
            qkv_bias=bool(config.get("include_qkv_bias")),
            tied_embeddings=bool(config.get("weight_tying")),
            embedding_scale=hidden**0.5 if config.get("input_emb_norm") else 1.0,
            logits_scale=hidden**-0.5 if config.get("scale_logits") else 1.0,
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name LLaDA's tensors; ff_out is the head at the top and a down projection in a block."""
        root = "model.transformer"
        names: TensorNames = {
            "embedding.weight": f"{root}.wte.weight",
            "final_norm.weight": f"{root}.ln_f.weight",
        }
        if not spec.tied_embeddings:
            names["head.weight"] = f"{root}.ff_out.weight"
        parts = {
            "attention_norm": "attn_norm",
            "query": "q_proj",
            "key": "k_proj",
            "value": "v_proj",
            "output": "attn_out",
            "mlp_norm": "ff_norm",
            "mlp.gate": "ff_proj",
            "mlp.up": "up_proj",
            "mlp.down": "ff_out",
        }
        for layer in range(spec.num_layers):
            for ours, theirs in parts.items():
                names[f"layers.{layer}.{ours}.weight"] = f"{root}.blocks.{layer}.{theirs}.weight"
            if spec.qkv_bias:
                for ours in ("query", "key", "value"):
                    names[f"layers.{layer}.{ours}.bias"] = (
                        f"{root}.blocks.{layer}.{parts[ours]}.bias"
                    )
        return names
