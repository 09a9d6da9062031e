"""Keys of config.json and tensor names that most decoders on the Hub share."""

from __future__ import annotations

from typing import Any

from fastdllm.export.adapters.base import (
    Config,
    ModelSpec,
    TensorNames,
    eos_token_ids,
    integer,
    mask_token_id,
    number,
    require,
    token_id,
)
from fastdllm.export.adapters.rope_keys import context_length, rope_spec
from fastdllm.export.errors import CheckpointError


def decoder_spec(
    config: Config,
    mask_hint: str,
    *,
    mlp_key: str = "intermediate_size",
    norm_eps: float = 1e-6,
    **facts: Any,
) -> ModelSpec:
    """Read the keys that Qwen-like models share; `facts` are the family's own fields of ModelSpec.

    mask_hint: what to add where the mask token's id is missing. mlp_key: of the MLP's size.
    norm_eps: where the config states none. Errors: CheckpointError naming the key.
    """
    require(config, {"hidden_act": ("silu",), "use_sliding_window": (False,)})
    layers = config.get("layer_types")
    if layers is not None and any(kind != "full_attention" for kind in layers):
        raise CheckpointError(
            f"config.json: layer_types is {layers!r}; this exporter implements 'full_attention'"
        )
    hidden = integer(config, "hidden_size")
    heads = integer(config, "num_attention_heads")
    kv_heads = integer(config, "num_key_value_heads", heads)
    if heads % kv_heads or (config.get("head_dim") is None and hidden % heads):
        raise CheckpointError(
            f"config.json: hidden size {hidden}, {heads} heads and {kv_heads} K/V heads do not "
            "divide evenly"
        )
    vocab_size = integer(config, "vocab_size")
    head_dim = integer(config, "head_dim", hidden // heads)
    context = integer(config, "max_position_embeddings")
    rope = rope_spec(
        config,
        context=context,
        rotated=facts.get("rotary_dim") or head_dim,
        head_dim=head_dim,
        block_causal=facts.get("attention") == "block_causal",
    )
    common: dict[str, Any] = {
        "num_layers": integer(config, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": hidden,
        "mlp_size": integer(config, mlp_key),
        "vocab_size": vocab_size,
        "max_context_length": context_length(rope, context),
        "rope": rope,
        "norm_eps": number(config, "rms_norm_eps", norm_eps),
        "mask_token_id": mask_token_id(config, vocab_size, mask_hint),
        "eos_token_ids": eos_token_ids(config, vocab_size),
        "pad_token_id": token_id(config, "pad_token_id", vocab_size),
        "bos_token_id": token_id(config, "bos_token_id", vocab_size),
        "tied_embeddings": bool(config.get("tie_word_embeddings")),
    }
    return ModelSpec(**common, **facts)


def decoder_names(spec: ModelSpec, *, embedding: str = "embed_tokens") -> TensorNames:
    """Name the tensors as most decoders on the Hub do: model.layers.{i}.self_attn.q_proj and so on.

    Experts are mlp.experts.{e}, their router is mlp.gate, QK-norms are q_norm and k_norm.
    """
    names: TensorNames = {
        "embedding.weight": f"model.{embedding}.weight",
        "final_norm.weight": "model.norm.weight",
    }
    if not spec.tied_embeddings:
        names["head.weight"] = "lm_head.weight"
    parts = {
        "attention_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
    }
    if spec.qk_norm:
        parts |= {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
    for layer in range(spec.num_layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        for part, name in parts.items():
            names[f"{ours}.{part}.weight"] = f"{theirs}.{name}.weight"
        if spec.qkv_bias:
            for part in ("query", "key", "value"):
                names[f"{ours}.{part}.bias"] = f"{theirs}.{parts[part]}.bias"
        names |= _mlp_names(spec, layer, f"{ours}.mlp", f"{theirs}.mlp")
    return names


def _mlp_names(spec: ModelSpec, layer: int, ours: str, theirs: str) -> TensorNames:
    moe = spec.moe
    blocks = {"": ""}
    names: TensorNames = {}
    if moe is not None and layer >= moe.first_layer:
        names[f"{ours}.router.weight"] = f"{theirs}.gate.weight"
        if moe.expert_bias:
            names[f"{ours}.expert_bias"] = f"{theirs}.gate.expert_bias"
        blocks = {f".experts.{expert}": f".experts.{expert}" for expert in range(moe.num_experts)}
        if moe.shared_size:
            blocks[".shared"] = ".shared_experts"
    for block, name in blocks.items():
        for part in ("gate", "up", "down"):
            names[f"{ours}{block}.{part}.weight"] = f"{theirs}{name}.{part}_proj.weight"
    return names
