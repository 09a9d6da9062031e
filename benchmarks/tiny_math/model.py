"""LLaDA's architecture in plain torch, with its tensor names, and a plain decoding loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network; the other keys of a LLaDA config.json follow from them."""

    d_model: int = 192
    n_layers: int = 6
    n_heads: int = 3
    mlp_hidden_size: int = 512
    vocab_size: int = 512
    max_sequence_length: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    mask_token_id: int = 511
    eos_token_id: int = 506


class RMSNorm(nn.Module):
    """Root mean square norm, computed in f32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of x [..., size]."""
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate halves of the last dimension (x [B,H,T,D]; cos, sin [T,D])."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)


class Block(nn.Module):
    """Bidirectional attention and a SwiGLU MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, h = config.d_model, config.mlp_hidden_size
        self.n_heads = config.n_heads
        self.attn_norm = RMSNorm(d, config.rms_norm_eps)
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d, bias=False)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.ff_norm = RMSNorm(d, config.rms_norm_eps)
        self.ff_proj = nn.Linear(d, h, bias=False)
        self.up_proj = nn.Linear(d, h, bias=False)
        self.ff_out = nn.Linear(h, d, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map x [B,T,d] to [B,T,d]."""
        batch, length, d = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.view(batch, length, self.n_heads, -1).transpose(1, 2)

        a = self.attn_norm(x)
        q = rotate(heads(self.q_proj(a)), cos, sin)
        k = rotate(heads(self.k_proj(a)), cos, sin)
        attended = F.scaled_dot_product_attention(q, k, heads(self.v_proj(a)))
        x = x + self.attn_out(attended.transpose(1, 2).reshape(batch, length, d))
        f = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(f)) * self.up_proj(f))


class Model(nn.Module):
    """Token ids [B,T] to logits [B,T,V]; every position attends to every other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = RMSNorm(config.d_model, config.rms_norm_eps)
        self.ff_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        half = config.d_model // config.n_heads // 2
        frequencies = config.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.outer(torch.arange(config.max_sequence_length).float(), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.startswith("blocks") and name.endswith(
                    ("attn_out.weight", "ff_out.weight")
                )
                scale = 0.02 / (2 * config.n_layers) ** 0.5 if last else 0.02
                nn.init.normal_(parameter, std=1.0 if name == "wte.weight" else scale)

    def forward(self, ids: Tensor) -> Tensor:
        """Run the network on ids i64 [B,T]."""
        x = self.wte(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        logits: Tensor = self.ff_out(self.ln_f(x))
        return logits

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """Return the weights in f16 under LLaDA's names."""
        return {
            f"model.transformer.{name}": parameter.detach().to(torch.float16).contiguous()
            for name, parameter in self.named_parameters()
        }


@torch.inference_mode()
def decode(
    model: Model,
    prompts: list[list[int]],
    *,
    new_tokens: int = 64,
    block_length: int = 32,
    threshold: float | None = None,
) -> tuple[list[list[int]], float]:
    """Decode without cache; return the new ids and the mean number of passes.

    Prompts of one length are decoded together. threshold None: one token per pass, the most
    confident first; else all at least that confident, and always the most confident.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    passes = 0.0
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    mask = model.config.mask_token_id
    for length, indices in by_length.items():
        given = torch.tensor([prompts[i] for i in indices])
        canvas = torch.cat((given, torch.full((len(indices), new_tokens), mask)), dim=1)
        for start in range(length, length + new_tokens, block_length):
            block = canvas[:, start : start + block_length]
            while bool((open_rows := (block == mask).any(dim=1)).any()):
                passes += float(open_rows.sum())
                logits = model(canvas)[:, start : start + block_length].float()
                probabilities = logits.softmax(dim=-1)
                logits[..., mask] = -torch.inf
                tokens = logits.argmax(dim=-1)
                confidence = probabilities.gather(-1, tokens[..., None])[..., 0]
                confidence[block != mask] = -1.0
                take = torch.zeros_like(confidence, dtype=torch.bool)
                take.scatter_(1, confidence.argmax(dim=1, keepdim=True), True)
                if threshold is not None:
                    take |= confidence >= threshold
                take &= block == mask
                block[take] = tokens[take]
        for row, index in enumerate(indices):
            answers[index] = canvas[row, length:].tolist()
    return answers, passes / len(prompts)
