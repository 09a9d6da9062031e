"""LLaDA in plain torch, as a loop of its public reference would run it: the baselines' model.

Keys are cached before their rotation and the whole of them is rotated in every pass; logits are
computed for every row fed. f32, batch 1. L canvas length, T rows fed, H heads, D head dim.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

Cache = list[tuple[Tensor, Tensor]]  # per layer: keys (not rotated) and values, each [1,H,rows,D]


def load_f32(path: Path) -> dict[str, Tensor]:
    """Load tensors in f32. The file is let go after each, so that it does not add to the memory."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    tensors: dict[str, Tensor] = {}
    for name in names:
        with safe_open(path, "pt") as file:
            tensors[name] = file.get_tensor(name).float()
    return tensors


class TorchModel(torch.nn.Module):
    """A checkpoint folder (config.json, model.safetensors) ready to run.

    compiled: by torch.compile, for any number of rows. A Module, so that torch.compile takes its
    sizes for constants.
    """

    def __init__(self, folder: Path, *, compiled: bool = False) -> None:
        super().__init__()
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.layers: int = config["n_layers"]
        self.heads: int = config["n_heads"]
        self.kv_heads: int = config.get("n_kv_heads") or self.heads
        self.grouped = self.kv_heads != self.heads
        self.head_dim: int = config["d_model"] // self.heads
        self.eps: float = config["rms_norm_eps"]
        self.mask_token_id: int = config["mask_token_id"]
        tensors = load_f32(folder / "model.safetensors")
        prefix = "model.transformer."
        self.weights = {name.removeprefix(prefix): t for name, t in tensors.items()}
        tied = bool(config.get("weight_tying"))
        self.head = self.weights["wte.weight" if tied else "ff_out.weight"]
        exponents = torch.arange(0, self.head_dim, 2).float() / self.head_dim
        angles = torch.outer(
            torch.arange(config["max_sequence_length"]).float(),
            1.0 / config["rope_theta"] ** exponents,
        )
        angles = torch.cat((angles, angles), dim=-1)
        self.cos, self.sin = angles.cos(), angles.sin()
        self._run = (
            torch.compile(self._layers, dynamic=True, fullgraph=True) if compiled else self._layers
        )

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights, as they are held."""
        return sum(tensor.nbytes for tensor in self.weights.values())

    def cache_bytes(self, rows: int) -> int:
        """Bytes of the keys and values of so many rows."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4 * rows

    def forward(
        self, ids: Tensor, *, start: int = 0, cache: Cache | None = None, replace: bool = False
    ) -> tuple[Tensor, Cache]:
        """Run rows ids i64 [T] at positions start, start + 1, ...; return logits f32 [T,V].

        cache None: the rows are the whole canvas, and their keys and values are returned too.
        replace False: the rows follow the first `start` rows of the cache, which is left alone.
        replace True: the rows overwrite theirs in the cache, in place, and attend to all of it.
        """
        return self._run(ids, start, cache, replace)

    def _layers(
        self, ids: Tensor, start: int, cache: Cache | None, replace: bool
    ) -> tuple[Tensor, Cache]:
        w = self.weights
        x = F.embedding(ids, w["wte.weight"])
        filled: Cache = []
        for layer in range(self.layers):
            name = f"blocks.{layer}."
            a = self._norm(x, name + "attn_norm")
            q = self._heads(self._linear(a, name + "q_proj"), self.heads)
            k = self._heads(self._linear(a, name + "k_proj"), self.kv_heads)
            v = self._heads(self._linear(a, name + "v_proj"), self.kv_heads)
            if cache is None:
                filled.append((k, v))
            else:
                keys, values = cache[layer]
                if replace:
                    keys[:, :, start : start + len(ids)] = k
                    values[:, :, start : start + len(ids)] = v
                    k, v = keys, values
                else:
                    k = torch.cat((keys[:, :, :start], k), dim=2)
                    v = torch.cat((values[:, :, :start], v), dim=2)
            attended = F.scaled_dot_product_attention(
                self._rotate(q, start),
                self._rotate(k, 0),
                v,
                enable_gqa=self.grouped,
            )
            x = x + self._linear(attended[0].transpose(0, 1).flatten(1), name + "attn_out")
            f = self._norm(x, name + "ff_norm")
            gate = F.silu(self._linear(f, name + "ff_proj"))
            x = x + self._linear(gate * self._linear(f, name + "up_proj"), name + "ff_out")
        return F.linear(self._norm(x, "ln_f"), self.head), filled

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weights[name + ".weight"], self.eps)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.view(len(x), count, self.head_dim).transpose(0, 1)[None]

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        rows = slice(start, start + x.shape[2])
        first, second = x.chunk(2, dim=-1)
        return x * self.cos[rows] + torch.cat((-second, first), dim=-1) * self.sin[rows]
