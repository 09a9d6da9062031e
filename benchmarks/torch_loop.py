"""The method as a plain torch loop, as its authors do it: what fastdllm is measured against.

Without a cache and with one token per pass it is LLaDA's own sampler (arXiv 2502.09992); with the
prefix or the dual cache and the threshold rule it is Fast-dLLM's (arXiv 2505.22618). As their
authors do, it computes logits for every row fed and a float64 softmax over all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torch_model import Cache, TorchModel

CacheMode = Literal["none", "prefix", "dual"]


@dataclass(frozen=True, kw_only=True)
class PassTime:
    """A pass: whether it was fed the whole canvas, and its seconds with all that follows it."""

    refreshed: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """New token ids, and the passes that they took."""

    token_ids: list[int]
    passes: list[PassTime]


def proposals(logits: Tensor, mask_token_id: int) -> tuple[Tensor, Tensor]:
    """Return best token (never the mask) and its probability for logits [T,V]: i64 and f64 [T]."""
    probabilities = logits.to(torch.float64).softmax(dim=-1)
    logits[:, mask_token_id] = -torch.inf
    tokens = logits.argmax(dim=-1)
    return tokens, probabilities.gather(-1, tokens[:, None])[:, 0]


def shares(positions: int, steps: int) -> list[int]:
    """Divide a block's positions among its passes, as evenly as it goes, the first ones get more.

    >>> shares(32, 5)
    [7, 7, 6, 6, 6]
    """
    return [positions // steps + (step < positions % steps) for step in range(steps)]


def commit(
    block: Tensor,
    tokens: Tensor,
    confidence: Tensor,
    mask_token_id: int,
    *,
    threshold: float | None,
    share: int,
) -> None:
    """Fill masked rows of a block, in place.

    block, tokens: i64 [b]; confidence: f64 [b]. threshold: the rows that reach it, and always the
    most confident one; None: the `share` most confident ones, the first of equals.
    """
    masked = block == mask_token_id
    confidence = torch.where(masked, confidence, -torch.inf)
    if threshold is None:
        take = confidence.sort(descending=True, stable=True).indices[:share]
    else:
        take = masked & (confidence >= threshold)
        take[confidence.argmax()] = True
    block[take] = tokens[take]


@torch.inference_mode()
def decode(
    model: TorchModel,
    prompt: list[int],
    *,
    max_new_tokens: int,
    block_length: int = 32,
    cache: CacheMode = "none",
    threshold: float | None = None,
    steps_per_block: int | None = None,
) -> Decoded:
    """Fill every position behind a prompt, block by block; no end-of-text token ends it.

    A block's first pass is fed the whole canvas and fills the cache; later ones are fed the block
    (dual), all from the block on (prefix), or the whole canvas again (none). Without threshold and
    steps_per_block a pass commits one token.
    """
    canvas = torch.tensor(prompt + [model.mask_token_id] * max_new_tokens)
    passes: list[PassTime] = []
    begun = time.perf_counter()
    for start in range(len(prompt), len(canvas), block_length):
        block = canvas[start : start + block_length]
        quota = shares(len(block), steps_per_block or len(block))
        kept: Cache | None = None
        step = 0
        while (block == model.mask_token_id).any():
            refreshed = kept is None
            if kept is None:
                logits, filled = model.forward(canvas)
                kept = None if cache == "none" else filled
                first = 0
            else:
                fed = block if cache == "dual" else canvas[start:]
                logits, _ = model.forward(fed, start=start, cache=kept, replace=cache == "dual")
                first = start
            tokens, confidence = proposals(logits, model.mask_token_id)
            rows = slice(start - first, start - first + len(block))
            commit(
                block,
                tokens[rows],
                confidence[rows],
                model.mask_token_id,
                threshold=threshold,
                share=quota[step],
            )
            step += 1
            now = time.perf_counter()
            passes.append(PassTime(refreshed=refreshed, seconds=now - begun))
            begun = now
    return Decoded(token_ids=canvas[len(prompt) :].tolist(), passes=passes)
