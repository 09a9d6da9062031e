"""What the adapters read from config.json, and what they refuse by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import GOLDEN

torch = pytest.importorskip("torch", reason="exporting needs torch")

from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402

import fastdllm  # noqa: E402
from fastdllm.export import CheckpointError  # noqa: E402
from fastdllm.export.adapters import ADAPTERS, adapter_for  # noqa: E402
from fastdllm.export.text_assets import TextAssets, mask_id_from_tokenizer  # noqa: E402

from export_fixtures import export_bare  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
QWEN3: dict[str, Any] = {
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "mask_token_id": 39,
    "eos_token_id": 38,
    "block_size": 4,
}
EXPERTS = QWEN3 | {
    "architectures": ["SDARMoeForCausalLM"],
    "model_type": "sdar_moe",
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
}
LLADA2: dict[str, Any] = {
    "architectures": ["LLaDA2MoeModelLM"],
    "model_type": "llada2_moe",
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "mask_token_id": 39,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
}


@pytest.mark.parametrize(
    ("golden", "facts"),
    [
        ("llada-mha", {"attention": "bidirectional", "logits_shift": 0, "confidence": "raw"}),
        ("dream-gqa", {"attention": "bidirectional", "logits_shift": 1, "qkv_bias": True}),
        (
            "fast-dllm-v2",
            {"attention": "block_causal", "logits_shift": 1, "seed_token": True}
            | {"block_length": 32, "sub_block_length": 8, "threshold_inclusive": False},
        ),
        ("sdar", {"attention": "block_causal", "block_length": 4, "qk_norm": True}),
        ("llada2-moe", {"attention": "block_causal", "block_length": 32, "rotary_dim": 16}),
    ],
)
def test_a_familys_facts_are_read(golden: str, facts: dict[str, Any]) -> None:
    config = json.loads((GOLDEN / golden / "config.json").read_text("utf-8"))
    config.setdefault("mask_token_id", 251)

    spec = adapter_for(config).spec(config)

    assert {key: getattr(spec, key) for key in facts} == facts


def test_an_unknown_family_names_the_known_ones_and_the_file_to_write() -> None:
    with pytest.raises(CheckpointError) as refusal:
        adapter_for({"model_type": "other", "architectures": ["OtherModel"]})

    message = str(refusal.value)
    assert "export/adapters/" in message
    assert all(name in message for adapter in ADAPTERS for name in adapter.model_types)


def test_the_familys_mask_token_is_looked_up_where_nothing_names_it() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<|MASK|>": 7}, unk_token="a"))
    assets = TextAssets(tokenizer=tokenizer)

    assert mask_id_from_tokenizer(assets, adapter_for(QWEN3).mask_token) == 7
    assert mask_id_from_tokenizer(assets, adapter_for(LLADA2).mask_token) is None
    assert mask_id_from_tokenizer(TextAssets(), "<|MASK|>") is None


@pytest.mark.parametrize("base", [QWEN3, EXPERTS, LLADA2], ids=lambda c: str(c["model_type"]))
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_other_rope_scaling_is_refused_by_name(base: dict[str, Any], key: str) -> None:
    config = base | {"rope_scaling": {key: "proportional", "factor": 4.0}}

    with pytest.raises(CheckpointError, match=r"rope_scaling is of kind 'proportional'"):
        adapter_for(config).spec(config)


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (QWEN3, {"attention_bias": True}, "attention_bias is True"),
        (QWEN3, {"use_sliding_window": True}, "use_sliding_window is True"),
        (QWEN3, {"num_key_value_heads": 3}, "4 heads and 3 K/V heads do not divide evenly"),
        (QWEN3, {"mask_token_id": None}, "mask_token_id is missing"),
        (EXPERTS, {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        (EXPERTS, {"num_experts_per_tok": 7}, "7 experts of 1 groups cannot be chosen"),
        (LLADA2, {"score_function": "softmax"}, "score_function is 'softmax'"),
        (LLADA2, {"n_group": 8}, "2 experts of 2 groups cannot be chosen"),
        (LLADA2, {"n_group": 3}, "cannot be chosen among 8 experts in 3 groups"),
        (LLADA2, {"num_experts_per_tok": 5}, "5 experts of 2 groups cannot be chosen"),
        (LLADA2, {"norm_head": True}, "norm_head is True"),
        (LLADA2, {"rotary_dim": 4}, "rotary_dim is 4 and partial_rotary_factor gives 6"),
        (LLADA2, {"head_dim": 10, "partial_rotary_factor": 0.5}, "expected the same even number"),
        (QWEN3, {"layer_types": ["sliding_attention"] * 2}, "layer_types is"),
    ],
    ids=str,
)
def test_what_the_graph_does_not_implement_is_refused(
    base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    config = base | changes

    with pytest.raises(CheckpointError, match=words):
        adapter_for(config).spec(config)


def test_sdar_moe_computes_what_its_description_says(tmp_path: Path) -> None:
    """No public reference decodes were at hand: its network, written out by hand."""
    generator = torch.Generator().manual_seed(3)
    spec = adapter_for(EXPERTS).spec(EXPERTS)
    names = adapter_for(EXPERTS).tensor_names(spec)
    from fastdllm.export.graphs import Transformer

    model = Transformer(spec, 23)
    weights = {
        str(names[name]): torch.randn(parameter.shape, generator=generator) * 0.3
        + (1.0 if "norm" in name else 0.0)
        for name, parameter in model.named_parameters()
    }
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(EXPERTS), "utf-8")
    save_file(weights, folder / "model.safetensors")
    ids = [3, 1, 4, 1, 5, 9, 2, 39, 39, 39]

    engine = fastdllm.Engine(export_bare(folder, tmp_path / "package"), threads=1)

    expected = qwen3_moe_logits(weights, ids, block=4)
    found = engine.logits(ids, list(range(len(ids))))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


def qwen3_moe_logits(w: dict[str, Any], ids: list[int], *, block: int) -> Any:
    """Run Qwen3-MoE under a block-causal mask, one row and one head at a time: [T,V]."""
    heads, kv_heads, size, chosen = 4, 2, 8, 2
    rows = len(ids)
    position = torch.arange(rows).float()
    angles = torch.outer(position, 10000.0 ** (-torch.arange(0, size, 2).float() / size))
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def norm(x: Any, name: str) -> Any:
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w[f"{name}.weight"]

    def rope(x: Any) -> Any:
        return x * cos + torch.cat((-x[:, size // 2 :], x[:, : size // 2]), dim=1) * sin

    h = w["model.embed_tokens.weight"][ids]
    number = torch.arange(rows) // block
    for layer in range(2):
        root = f"model.layers.{layer}"
        a = norm(h, f"{root}.input_layernorm")
        q, k, v = (a @ w[f"{root}.self_attn.{part}_proj.weight"].T for part in "qkv")
        out = []
        for head in range(heads):
            kv = slice(head * kv_heads // heads * size, (head * kv_heads // heads + 1) * size)
            one_q = rope(norm(q[:, head * size : (head + 1) * size], f"{root}.self_attn.q_norm"))
            one_k = rope(norm(k[:, kv], f"{root}.self_attn.k_norm"))
            scores = one_q @ one_k.T / size**0.5
            out.append(scores.where(number[:, None] >= number, -torch.inf).softmax(-1) @ v[:, kv])
        h = h + torch.cat(out, dim=1) @ w[f"{root}.self_attn.o_proj.weight"].T
        f = norm(h, f"{root}.post_attention_layernorm")
        probabilities = (f @ w[f"{root}.mlp.gate.weight"].T).softmax(-1)
        added = torch.zeros_like(h)
        for row in range(rows):
            best, experts = probabilities[row].topk(chosen)
            for share, expert in zip(best / best.sum(), experts.tolist(), strict=True):
                gate, up, down = (
                    w[f"{root}.mlp.experts.{expert}.{part}_proj.weight"]
                    for part in ("gate", "up", "down")
                )
                silu = torch.nn.functional.silu(gate @ f[row])
                added[row] += share * (down @ (silu * (up @ f[row])))
        h = h + added
    return norm(h, "model.norm") @ w["lm_head.weight"].T
