"""Small random LLaDA checkpoints, and LLaDA's forward written straight from its description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fastdllm.export import export_package

SMALL: dict[str, Any] = {
    "architectures": ["LLaDAModelLM"],
    "model_type": "llada",
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 4,
    "mlp_hidden_size": 48,
    "vocab_size": 64,
    "embedding_size": 64,
    "max_sequence_length": 128,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_theta": 10000.0,
    "weight_tying": False,
    "include_qkv_bias": False,
    "mask_token_id": 63,
    "eos_token_id": 62,
}


def export_bare(checkpoint: str | Path, package: str | Path, **options: Any) -> Path:
    """Export a checkpoint that has no tokenizer, and maybe no end-of-text token, on purpose."""
    return export_package(checkpoint, package, **{"text": False, "allow_no_eos": True, **options})


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Make weights of LLaDA's names and shapes, scaled so that the logits are lively."""
    generator = torch.Generator().manual_seed(seed)
    d, mlp, vocab = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    kv = (config["n_kv_heads"] or 1) * d // config["n_heads"]
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocab, d), "ln_f.weight": (d,)}
    if not config["weight_tying"]:
        shapes["ff_out.weight"] = (vocab, d)
    for layer in range(config["n_layers"]):
        block = {
            "attn_norm": (d,),
            "ff_norm": (d,),
            "q_proj": (d, d),
            "k_proj": (kv, d),
            "v_proj": (kv, d),
            "attn_out": (d, d),
            "ff_proj": (mlp, d),
            "up_proj": (mlp, d),
            "ff_out": (d, mlp),
        }
        shapes |= {f"blocks.{layer}.{name}.weight": shape for name, shape in block.items()}
        if config["include_qkv_bias"]:
            biases = {"q_proj": (d,), "k_proj": (kv,), "v_proj": (kv,)}
            shapes |= {f"blocks.{layer}.{name}.bias": shape for name, shape in biases.items()}
    return {
        f"model.transformer.{name}": torch.randn(shape, generator=generator) * 0.2
        + (1.0 if "norm" in name or "ln_f" in name else 0.0)
        for name, shape in shapes.items()
    }


def write_checkpoint(
    folder: Path, *, tensors: dict[str, Tensor] | None = None, **changes: Any
) -> Path:
    """Write a checkpoint folder; changes go into config.json, None removes a key."""
    config = {key: value for key, value in (SMALL | changes).items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        random_tensors(SMALL | changes) if tensors is None else tensors,
        folder / "model.safetensors",
    )
    return folder


def plain_logits(
    config: dict[str, Any], weights: dict[str, Tensor], ids: list[int], rotations: Any = None
) -> Tensor:
    """Run LLaDA without cache, one head at a time: f32 logits [T,V].

    rotations: cosines and sines [1,T,R/2] of queries and of keys; None = the plain ones.
    """
    w = {name.removeprefix("model.transformer."): tensor for name, tensor in weights.items()}
    d, heads = config["d_model"], config["n_heads"]
    kv_heads, size = config["n_kv_heads"] or 1, d // heads

    def norm(x: Tensor, name: str) -> Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt()
        return x * scale * w[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    positions = torch.arange(len(ids)).float()
    frequencies = config["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(positions, frequencies).repeat(1, 2)

    plain = (angles.cos(), angles.sin())
    of_queries, of_keys = (
        (plain, plain)
        if rotations is None
        else [tuple(part[0].repeat(1, 2) for part in one) for one in rotations]
    )

    def rope(x: Tensor, turn: Any) -> Tensor:
        turned = torch.cat((-x[:, size // 2 :], x[:, : size // 2]), dim=1)
        return x * turn[0] + turned * turn[1]

    h = w["wte.weight"][ids]
    for layer in range(config["n_layers"]):
        block = f"blocks.{layer}"
        a = norm(h, f"{block}.attn_norm")
        q, k, v = (linear(a, f"{block}.{part}_proj") for part in "qkv")
        out = []
        for head in range(heads):
            kv = head * kv_heads // heads
            one_q = rope(q[:, head * size : (head + 1) * size], of_queries)
            one_k = rope(k[:, kv * size : (kv + 1) * size], of_keys)
            weights_of_rows = (one_q @ one_k.T / size**0.5).softmax(-1)
            out.append(weights_of_rows @ v[:, kv * size : (kv + 1) * size])
        h = h + linear(torch.cat(out, dim=1), f"{block}.attn_out")
        f = norm(h, f"{block}.ff_norm")
        gate = torch.nn.functional.silu(linear(f, f"{block}.ff_proj"))
        h = h + linear(gate * linear(f, f"{block}.up_proj"), f"{block}.ff_out")
    h = norm(h, "ln_f")
    return h @ (w["wte.weight"] if config["weight_tying"] else w["ff_out.weight"]).T
