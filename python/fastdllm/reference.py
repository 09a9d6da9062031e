"""The whole method in NumPy: the readable specification that tests hold the C++ runtime against.

Block-wise caches, threshold and factor: Fast-dLLM (arXiv 2505.22618). Masked diffusion, remasking
and guidance: LLaDA (arXiv 2502.09992). B batch, T rows fed, P cached rows, N rows asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import GenerationConfig

Array = NDArray[Any]


class Forward(Protocol):
    """One pass of the model; past None = nothing cached, else key and value of every layer."""

    def __call__(
        self,
        input_ids: Array,  # [B,T]
        position_ids: Array,  # [B,T], rows in any order
        past: list[Array] | None,  # each [B,H,P,D]
        logit_indices: Array,  # [B,N] into T
        present_length: int,  # leading rows of (past + fresh) to hand back
    ) -> tuple[Array, list[Array]]:  # logits f32 [B,N,V], present
        """Run it."""
        ...


@dataclass
class Trace:
    """What a decode gave: the result, and the positions and tokens of every pass."""

    token_ids: list[int] = field(default_factory=list)
    num_passes: int = 0
    finish_reason: str = "length"
    rows_computed: int = 0
    logit_rows_computed: int = 0
    commits: list[tuple[list[int], list[int]]] = field(default_factory=list)


def philox(counter: tuple[Array | int, ...], seed: int) -> list[Array]:
    """Philox4x32-10 (Salmon et al., SC 2011) on u32 counters, elementwise."""
    c = [np.asarray(word, np.uint64) for word in np.broadcast_arrays(*counter)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high0, high1 = p0 >> np.uint64(32), p1 >> np.uint64(32)
        c = [high1 ^ c[1] ^ np.uint64(k0), p1 & low, high0 ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def portable_log(x: Array) -> Array:
    """Natural logarithm by IEEE operations alone, bit for bit what C++ computes."""
    m, exponent = np.frexp(x)
    small = m < 0.7071067811865476
    m, exponent = np.where(small, m * 2.0, m), exponent - small
    f = (m - 1.0) / (m + 1.0)
    z = f * f
    series = np.full_like(z, 1.0 / 23.0)
    for d in range(21, 0, -2):
        series = series * z + 1.0 / d
    return np.asarray(exponent * 0.6931471805599453 + (2.0 * f) * series)


def uniform(counter: tuple[Array | int, ...], seed: int) -> list[Array]:
    """Four uniforms in (0, 1) per counter."""
    return [(word.astype(np.float64) + 0.5) * 2.0**-32 for word in philox(counter, seed)]


def propose(
    logits: Array, mask_token_id: int, config: GenerationConfig, position: int, step: int
) -> tuple[int, float]:
    """Choose a token for one position (logits f32 [V]) and its confidence."""
    wide = logits.astype(np.float64)
    score = wide.copy()
    if config.temperature > 0:
        groups = np.arange((len(wide) + 3) // 4)
        noise = np.stack(uniform((groups, position, step, 0), config.seed), axis=1).reshape(-1)
        gumbel = -portable_log(-portable_log(noise[: len(wide)]))
        score = wide + config.temperature * gumbel
    score[mask_token_id] = -np.inf
    token = int(score.argmax())
    if config.remasking == "random":
        return token, float(uniform((0, position, step, 1), config.seed)[0])
    powers = np.exp(wide - wide.max())
    return token, float(powers[token] / powers.sum())


def choose(confidences: Sequence[float], config: GenerationConfig, quota: int) -> list[int]:
    """Return the indices to commit, ascending; never none of some. Ties go to the lowest index."""
    c = np.asarray(confidences, np.float64)
    order = np.argsort(-c, kind="stable")
    count = min(quota, len(c))
    if config.factor is not None:
        count = len(c)
        for n in range(2, len(c)):  # a failure of the very last one alone does not count
            if c[order[n - 1]] < 1.0 - config.factor / (n + 1):
                count = n - 1
                break
    elif config.threshold is not None:
        return sorted({int(order[0]), *np.flatnonzero(c >= config.threshold).tolist()})
    return sorted(order[:count].tolist())


def steps_of(block: int, num_blocks: int, block_masks: int, steps: int | None) -> int:
    """Divide the steps among the blocks: the first ones get one more, each at least one."""
    if steps is None:
        return block_masks
    return max(1, steps // num_blocks + (block < steps % num_blocks))


def generate(
    forward: Forward,
    prompt: Sequence[int],
    config: GenerationConfig,
    *,
    mask_token_id: int,
    eos_token_ids: Sequence[int] = (),
) -> Trace:
    """Decode config.max_new_tokens positions after the prompt, block by block."""
    start, new = len(prompt), config.max_new_tokens
    length, block_length = start + new, min(config.block_length, new)
    canvas = np.concatenate([np.asarray(prompt, np.int64), np.full(new, mask_token_id)])
    num_blocks = -(-new // block_length)
    trace = Trace()

    def run(rows: Array, masked: Array, past: list[Array] | None, keep: int) -> tuple[Array, Any]:
        wanted = np.flatnonzero(np.isin(rows, masked))
        ids = [canvas[rows]]
        if config.cfg_scale > 0:
            ids.append(np.where(rows < start, mask_token_id, canvas[rows]))
        batch = len(ids)
        logits, present = forward(
            np.stack(ids), np.stack([rows] * batch), past, np.stack([wanted] * batch), keep
        )
        trace.num_passes += 1
        trace.rows_computed += batch * len(rows)
        trace.logit_rows_computed += batch * len(wanted)
        if config.cfg_scale > 0:
            weight = np.float32(config.cfg_scale) + np.float32(1)
            logits = logits[1:] + weight * (logits[:1] - logits[1:])
        return logits[0], present

    for block in range(num_blocks):
        s = start + block * block_length
        e = min(s + block_length, length)
        steps = steps_of(block, num_blocks, e - s, config.steps)
        everything, inside = np.arange(length), np.arange(s, e)
        cached: list[Array] | None = None
        for index in range(e - s):
            masked = inside[canvas[inside] == mask_token_id]
            if len(masked) == 0:
                break
            if config.cache == "none":
                logits, _ = run(everything, masked, None, 0)
            elif index > 0:
                fed = inside if config.cache == "dual" else np.arange(s, length)
                logits, _ = run(fed, masked, cached, 0)
            elif config.cache == "dual":
                outside = np.delete(everything, inside)
                logits, cached = run(np.append(outside, inside), masked, None, len(outside))
            else:
                logits, cached = run(everything, masked, None, s)
            step = trace.num_passes - 1
            proposals = [
                propose(row, mask_token_id, config, int(position), step)
                for row, position in zip(logits, masked, strict=True)
            ]
            quota = max(1, (e - s) // steps + (index < (e - s) % steps))
            chosen = choose([confidence for _, confidence in proposals], config, quota)
            canvas[masked[chosen]] = [proposals[i][0] for i in chosen]
            trace.commits.append(
                ((masked[chosen] - start).tolist(), [proposals[i][0] for i in chosen])
            )
            tokens = canvas[start:].tolist()
            stops = [i for i, token in enumerate(tokens) if token in eos_token_ids]
            if not config.ignore_eos and stops and mask_token_id not in tokens[: stops[0]]:
                trace.token_ids, trace.finish_reason = tokens[: stops[0] + 1], "stop"
                return trace
    trace.token_ids = canvas[start:].tolist()
    return trace
