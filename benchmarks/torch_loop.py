"""The method as plain torch loops, as its papers describe it: what fastdllm is measured against.

`naive_loop`: LLaDA's own sampler (arXiv 2502.09992): no cache, a token per pass.
`block_cache_loop`: Fast-dLLM's prefix and dual cache with its threshold rule (arXiv 2505.22618).
Both compute logits for every row fed and a float64 softmax over all of them, as their authors do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torch_model import Cache, TorchModel


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """New token ids, and how many forwards they took."""

    token_ids: list[int]
    num_passes: int


def proposals(logits: Tensor, mask_token_id: int) -> tuple[Tensor, Tensor]:
    """Return best token (never the mask) and its probability for logits [T,V]: i64 and f64 [T]."""
    probabilities = logits.to(torch.float64).softmax(dim=-1)
    logits[:, mask_token_id] = -torch.inf
    tokens = logits.argmax(dim=-1)
    return tokens, probabilities.gather(-1, tokens[:, None])[:, 0]


def commit(
    block: Tensor, tokens: Tensor, confidence: Tensor, mask_token_id: int, threshold: float | None
) -> None:
    """Fill masked rows of a block, in place: the most confident, and those at the threshold.

    block, tokens: i64 [b]; confidence: f64 [b]. threshold None: one token.
    """
    masked = block == mask_token_id
    confidence = torch.where(masked, confidence, -torch.inf)
    take = torch.zeros_like(masked)
    take[confidence.argmax()] = True
    if threshold is not None:
        take |= masked & (confidence >= threshold)
    block[take] = tokens[take]


def new_canvas(prompt: list[int], new_tokens: int, mask_token_id: int) -> Tensor:
    """Return prompt and masks, i64 [L]."""
    return torch.tensor(prompt + [mask_token_id] * new_tokens)


@torch.inference_mode()
def naive_loop(
    model: TorchModel, prompt: list[int], *, new_tokens: int = 64, block_length: int = 32
) -> Decoded:
    """Feed the whole canvas for every single token."""
    canvas = new_canvas(prompt, new_tokens, model.mask_token_id)
    passes = 0
    for start in range(len(prompt), len(canvas), block_length):
        block = canvas[start : start + block_length]
        while (block == model.mask_token_id).any():
            tokens, confidence = proposals(model.forward(canvas).logits, model.mask_token_id)
            rows = slice(start, start + len(block))
            commit(block, tokens[rows], confidence[rows], model.mask_token_id, None)
            passes += 1
    return Decoded(token_ids=canvas[len(prompt) :].tolist(), num_passes=passes)


@torch.inference_mode()
def block_cache_loop(
    model: TorchModel,
    prompt: list[int],
    *,
    cache_mode: Literal["prefix", "dual"] = "dual",
    new_tokens: int = 64,
    block_length: int = 32,
    threshold: float | None = 0.9,
) -> Decoded:
    """Refresh the cache once per block; feed the block (dual) or all from it on (prefix) after."""
    canvas = new_canvas(prompt, new_tokens, model.mask_token_id)
    passes = 0
    for start in range(len(prompt), len(canvas), block_length):
        block = canvas[start : start + block_length]
        cache: Cache | None = None
        while (block == model.mask_token_id).any():
            if cache is None:
                refresh = model.forward(canvas)
                cache, logits = refresh.cache, refresh.logits[start:]
            else:
                fed = block if cache_mode == "dual" else canvas[start:]
                logits = model.forward(
                    fed, start=start, cache=cache, replace=cache_mode == "dual"
                ).logits
            tokens, confidence = proposals(logits, model.mask_token_id)
            rows = slice(0, len(block))
            commit(block, tokens[rows], confidence[rows], model.mask_token_id, threshold)
            passes += 1
    return Decoded(token_ids=canvas[len(prompt) :].tolist(), num_passes=passes)
