"""The rules of reference.py: noise, proposals, what ranks them, and how many a pass commits.

Threshold and factor: Fast-dLLM (arXiv 2505.22618). Steps and guidance: LLaDA (arXiv 2502.09992).
Time steps, margin, entropy and origin: Dream (arXiv 2508.15487). Threshold decay: Streaming-dLLM
(arXiv 2601.17917). Frechet profile: Fast-dLLM++ (arXiv 2606.02955). Entropy bound: EB-Sampler
(arXiv 2505.24857). V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import GenerationConfig

Array = NDArray[Any]


class Facts(Protocol):
    """What the rules need to know of a model; a PackageInfo has it all. See PACKAGE.md."""

    @property
    def mask_token_id(self) -> int: ...  # noqa: D102 (PACKAGE.md describes the facts)
    @property
    def eos_token_ids(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def attention(self) -> str: ...  # noqa: D102
    @property
    def logits_shift(self) -> int: ...  # noqa: D102
    @property
    def block_length(self) -> int | None: ...  # noqa: D102
    @property
    def sub_block_length(self) -> int | None: ...  # noqa: D102
    @property
    def seed_token(self) -> bool: ...  # noqa: D102
    @property
    def threshold_inclusive(self) -> bool: ...  # noqa: D102
    @property
    def confidence(self) -> str: ...  # noqa: D102


# --- Noise: the same bits on every platform, keyed by seed, position and pass ---


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
    """Four uniforms in (0, 1) per counter. Its last word: 0 tokens, 1 positions, 2 alg_temp."""
    return [(word.astype(np.float64) + 0.5) * 2.0**-32 for word in philox(counter, seed)]


def gumbel(u: Array) -> Array:
    """Turn uniforms into Gumbel noise: arg-max of log p + noise is a draw from p."""
    return -portable_log(-portable_log(u))


# --- A proposal: a token for one position, and its rank ---


def softmax(x: Array) -> Array:
    """Probabilities in f64; minus infinity gives 0."""
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum())


def entropy(p: Array) -> float:
    """Nats of probabilities."""
    return float(-sum(p[p > 0] * np.log(p[p > 0])))


def biased(logits: Array, config: GenerationConfig) -> Array:
    """Add logit_bias in f32 and take away the banned tokens; everything else comes after this."""
    row: Array = logits.copy()
    for token, bias in config.logit_bias.items():
        row[token] = np.float32(float(row[token]) + bias)
    row[list(config.banned_token_ids)] = -np.inf
    return row


def drop_unlikely(logits: Array, mask_token_id: int, config: GenerationConfig) -> Array:
    """Keep the top_p and of those the top_k best tokens; the others become minus infinity.

    The first token that crosses top_p stays, so one always does. The mask token counts in the
    probabilities and is not kept. Of what is kept, min_p drops what is too far from the best.
    """
    order = np.argsort(-logits, kind="stable")
    order = order[order != mask_token_id]
    count = len(order)
    if config.top_p < 1.0:
        before = np.cumsum(softmax(logits)[order])[:-1]
        count = 1 + int(np.count_nonzero(before <= config.top_p))
    if config.top_k > 0:
        count = min(count, config.top_k)
    kept = np.full_like(logits, -np.inf)
    kept[order[:count]] = logits[order[:count]]
    kept[np.exp(kept - kept.max()) < config.min_p] = -np.inf
    return kept


def propose(
    logits: Array, config: GenerationConfig, facts: Facts, position: int, step: int
) -> tuple[int, Array]:
    """Choose a token for one position (logits f32 [V]); return it and the probabilities f64 [V].

    The mask token takes part in the softmax and is never chosen.
    """
    raw = biased(logits, config).astype(np.float64)
    processed = raw / config.temperature if config.temperature > 0 else raw
    if config.top_p < 1.0 or config.top_k > 0 or config.min_p > 0:
        processed = drop_unlikely(processed, facts.mask_token_id, config)
    draw = np.where(np.isneginf(processed), -np.inf, raw)
    if config.temperature > 0:
        groups = np.arange((len(raw) + 3) // 4)
        noise = np.stack(uniform((groups, position, step, 0), config.seed), axis=1).reshape(-1)
        draw = draw + config.temperature * gumbel(noise[: len(raw)])
    draw[facts.mask_token_id] = -np.inf
    return int(draw.argmax()), softmax(processed if facts.confidence == "processed" else raw)


def score(
    token: int, p: Array, config: GenerationConfig, facts: Facts, position: int, step: int
) -> float:
    """Rank a proposal: the larger, the sooner it is committed. p: probabilities f64 [V]."""
    if config.remasking in ("random", "origin"):
        return float(uniform((0, position, step, 1), config.seed)[0])
    if config.remasking == "sequential":
        return -float(position)
    if config.remasking == "entropy":
        return -entropy(p)
    if config.remasking == "margin":
        second, first = np.sort(np.delete(p, facts.mask_token_id))[-2:]
        return float(first - second)
    return float(p[token])


# --- The schedule: how many positions a pass commits ---


def by_quota(config: GenerationConfig) -> bool:
    """Tell whether a schedule decides, rather than confidence."""
    rules = (config.threshold, config.factor, config.frechet, config.entropy_bound)
    return all(rule is None for rule in rules)


def steps_of(block: int, num_blocks: int, shared: int, config: GenerationConfig) -> int:
    """Give a block its passes, which share `shared` positions: at least one, the first blocks more.

    shared: what is masked when the block begins, or its length.
    """
    if config.steps_per_block is not None:
        return config.steps_per_block
    if config.steps is None or not by_quota(config):
        return shared
    return max(1, config.steps // num_blocks + (block < config.steps % num_blocks))


def time_step(index: int, steps: int, eps: float) -> float:
    """Find number `index` of steps + 1 even ones from 1 to eps, rounded as torch rounds them."""
    last = np.float32(eps)
    stride = float((last - np.float32(1)) / np.float32(steps))
    if index < (steps + 1) // 2:
        return float(np.float32(1.0 + stride * index))
    return float(np.float32(float(last) - stride * (steps - index)))


def revealed_share(index: int, steps: int, eps: float) -> float:
    """Find the share of the masked positions that pass `index` reveals, in f32; all on the last."""
    if index >= steps - 1:
        return 1.0
    now, then = time_step(index, steps, eps), time_step(index + 1, steps, eps)
    return float(np.float32(1) - np.float32(then) / np.float32(now))


def quota_of(
    index: int,
    steps: int,
    shared: int,
    masked: int,
    config: GenerationConfig,
    *,
    first_alone: bool = False,
) -> int:
    """Count what pass `index` of a block commits (with a threshold: at least); 0 = no pass.

    shared: see steps_of. masked: of the whole block now, sub-blocks that are not reached yet
    included. first_alone: the block's first pass commits one position, the others share the rest.
    """
    if first_alone and index == 0:
        return 1
    if config.eps is not None and by_quota(config):
        return int(np.float32(masked) * np.float32(revealed_share(index, steps, config.eps)))
    if first_alone:
        index, steps, shared = index - 1, max(1, steps - 1), shared - 1
    return max(1, shared // steps + (index < shared % steps))


def origin_share(
    index: int, steps: int, quota: int, masked: int, config: GenerationConfig
) -> float:
    """Find the probability by which origin reveals each position in pass `index` of a block."""
    if config.eps is not None:
        return revealed_share(index, steps, config.eps)
    return 1.0 if index >= steps - 1 else quota / masked


# --- The choice among proposals ---


def count_by_factor(c: Array, factor: float) -> int:
    """Count what the factor rule accepts of confidences in falling order."""
    for n in range(2, len(c)):  # a failure of the very last one alone does not count
        if c[n - 1] < 1.0 - factor / (n + 1):
            return n - 1
    return len(c)


def frechet_profile(c: Array) -> Array:
    """Give the lower bound for the n best, for every n, of falling confidences; it falls too.

    At least sum(c) - (n - 1) is the probability that all n are right, at most 1 - c[n - 1] that of
    another token at the last of them; this is the difference.
    """
    n = np.arange(1, len(c) + 1)
    return np.asarray(np.cumsum(c) - (n - 1) - (1 - c))


def entropy_profile(entropies: Array) -> Array:
    """Give for every n the sum of the first n entropies but the largest of them; it rises."""
    return np.asarray(np.cumsum(entropies) - np.maximum.accumulate(entropies))


def choose(
    scores: Sequence[float],
    config: GenerationConfig,
    quota: int,
    *,
    inclusive: bool = True,
    entropies: Sequence[float] = (),
    masked_fraction: float = 1.0,
) -> list[int]:
    """Return the indices to commit, ascending; never none of some. Ties go to the lowest index.

    inclusive: a score that equals the threshold passes. entropies: of the same candidates, nats.
    masked_fraction: how much of what is being filled is masked, in (0, 1].
    """
    c = np.asarray(scores, np.float64)
    order = np.argsort(-c, kind="stable")
    if config.factor is not None:
        return sorted(order[: count_by_factor(c[order], config.factor)].tolist())
    if config.frechet is not None:
        passing = frechet_profile(c[order]) > config.frechet
        return sorted(order[: max(1, np.count_nonzero(passing))].tolist())
    if config.entropy_bound is not None:
        passing = entropy_profile(np.asarray(entropies)[order]) <= config.entropy_bound
        return sorted(order[: max(1, np.count_nonzero(passing))].tolist())
    chosen = set(order[:quota].tolist())
    if config.threshold is not None:
        threshold = config.threshold * (1 - config.threshold_decay * (1 - masked_fraction))
        passing = c >= threshold if inclusive else c > threshold
        chosen |= set(np.flatnonzero(passing).tolist())
    return sorted(chosen)
