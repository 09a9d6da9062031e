"""The log-likelihood of an answer to a prompt under a diffusion model, in nats.

Masked diffusion has no exact likelihood; LLaDA (arXiv 2502.09992) estimates its bound
from below, which is what its published scores are made of: for an answer x of L tokens,

    E over l uniform in 1..L, S uniform among the sets of l positions, of
        L / l * sum over i in S of log p(x_i | prompt, x without S)

The chain rule along an order of decoding is exact instead: `chain` goes from left to right, with
mask tokens behind, as a block is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import CommitEvent, ConfigError, Engine, GenerationConfig

METHODS = ("auto", "monte_carlo", "block")


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The computed likelihood of an answer.

    log_likelihood: nats. standard_error: of the estimate, nats; 0 where nothing was drawn.
    greedy: whether greedy decoding gives the answer; None where that was not looked at.
    """

    log_likelihood: float
    standard_error: float = 0.0
    greedy: bool | None = None
    num_passes: int = 0


def log_likelihood(
    engine: Engine,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    method: str = "auto",
    samples: int = 128,
    seed: int = 0,
    block_length: int | None = None,
    check_greedy: bool = True,
) -> Likelihood:
    """Score an answer's token ids behind a prompt's, in passes of the whole text without cache.

    method: 'monte_carlo' (bidirectional models) or 'block' (chain); auto = the model's family's.
    samples: the most passes of an estimate, >= 2. seed: of what is drawn, in [0, 2**64); the same
    seed, prompt and answer give the same numbers. block_length: of a block-causal model, None = the
    package's. check_greedy: of an estimate, up to a pass more per token; a chain always knows.
    Errors: ConfigError, also for a text that is longer than the context or holds the mask token.
    """
    info = engine.package
    check_method(info.attention, method, samples, seed)
    prompt, answer = list(prompt), list(answer)
    for name, ids in (("prompt", prompt), ("answer", answer)):
        if info.mask_token_id in ids:
            raise ConfigError(f"the {name} holds the mask token {info.mask_token_id}")
    if len(prompt) < info.min_prompt_length:
        raise ConfigError(
            f"the prompt has {len(prompt)} tokens; expected {info.min_prompt_length} or more"
        )
    if not answer:
        return Likelihood(log_likelihood=0.0, greedy=True)
    if method == "block" or info.attention == "block_causal":
        return chain(engine, prompt, answer, block_length=block_length)
    if block_length is not None:
        raise ConfigError("block_length is for block-causal models; this one is bidirectional")
    if 2 ** len(answer) - 1 <= samples:
        found = expectation(engine, prompt, answer)
    else:
        found = monte_carlo(engine, prompt, answer, samples=samples, seed=seed)
    if not check_greedy:
        return found
    greedy, passes = is_greedy(engine, prompt, answer)
    return Likelihood(
        log_likelihood=found.log_likelihood,
        standard_error=found.standard_error,
        greedy=greedy,
        num_passes=found.num_passes + passes,
    )


def check_method(attention: str, method: str, samples: int, seed: int) -> None:
    """Refuse options that a model of this attention cannot be scored with. Errors: ConfigError."""
    if method not in METHODS:
        raise ConfigError(f"likelihood is {method!r}; expected one of {', '.join(METHODS)}")
    if method == "monte_carlo" and attention == "block_causal":
        raise ConfigError(
            "likelihood is 'monte_carlo'; expected 'block' or 'auto' for a block-causal model"
        )
    if samples < 2:
        raise ConfigError(f"mc_samples is {samples}; expected at least 2")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"mc_seed is {seed}; expected a number in [0, 2**64)")


def monte_carlo(
    engine: Engine, prompt: Sequence[int], answer: Sequence[int], *, samples: int, seed: int = 0
) -> Likelihood:
    """Estimate the bound of masked diffusion from `samples` sets of masked positions.

    The sizes l are stratified, as in LLaDA's get_log_likelihood: spread evenly over 1..L from a
    random start, so that each is drawn with the same probability. A set that comes again is not
    computed again. The standard error is that of independent draws; stratified ones mostly err
    less.
    Choices of a length behind one prompt meet the same sets, so that they differ by less noise.
    """
    length = len(answer)
    draw = np.random.default_rng([seed, *prompt]).random
    levels = (draw() + np.arange(samples) / samples) % 1.0
    sizes = np.minimum(1 + np.floor(levels * length), length)
    ranks = draw((samples, length)).argsort(axis=1).argsort(axis=1)
    sets, which = np.unique(ranks < sizes[:, None], axis=0, return_inverse=True)
    estimates = _estimates(engine, prompt, answer, sets)[which.reshape(-1)]
    return Likelihood(
        log_likelihood=float(estimates.mean()),
        standard_error=float(estimates.std(ddof=1) / math.sqrt(samples)),
        num_passes=len(sets),
    )


def expectation(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> Likelihood:
    """Compute the bound of masked diffusion exactly, from all 2**L - 1 sets of positions."""
    length = len(answer)
    sets = (np.arange(1, 2**length)[:, None] >> np.arange(length) & 1).astype(bool)
    weights = [1 / (length * math.comb(length, int(size))) for size in sets.sum(axis=1)]
    found = float(np.dot(weights, _estimates(engine, prompt, answer, sets)))
    return Likelihood(log_likelihood=found, num_passes=len(sets))


def chain(
    engine: Engine,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    block_length: int | None = None,
) -> Likelihood:
    """Sum log p(token | all before it, mask tokens behind it) from left to right, a pass per token.

    A block-causal model sees mask tokens up to the end of the token's block, which is counted from
    the prompt's first token as it is in decoding; a bidirectional one up to the answer's end. This
    is the exact likelihood of decoding one token per pass in this order (block diffusion, arXiv
    2503.09573, with blocks decoded like that), and greedy says whether it gives the answer.
    """
    info = engine.package
    causal = info.attention == "block_causal"
    length = block_length or info.block_length or 32
    ids = [*prompt, *answer]
    total = 0.0
    greedy = True
    for position in range(len(prompt), len(ids)):
        end = (position // length + 1) * length if causal else len(ids)
        canvas = ids[:position] + [info.mask_token_id] * (end - position)
        row = max(position - info.logits_shift, 0)
        logits = engine.logits(canvas, [row], length if causal else None)
        total += float(_log_probabilities(logits, ids[position : position + 1])[0])
        logits[0, info.mask_token_id] = -np.inf  # never proposed
        greedy = greedy and int(logits[0].argmax()) == ids[position]
    return Likelihood(log_likelihood=total, greedy=greedy, num_passes=len(answer))


def is_greedy(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> tuple[bool, int]:
    """Tell whether a bidirectional model decodes the answer, and how many passes that took.

    As LLaDA's evaluation has it: as many positions as the answer has, one block, the surest token
    per pass. It ends with the first token that differs.
    """

    def compare(event: CommitEvent) -> bool:
        told = zip(event.positions.tolist(), event.token_ids.tolist(), strict=True)
        return all(answer[position] == token for position, token in told)

    config = GenerationConfig(
        max_new_tokens=len(answer), block_length=len(answer), cache="none", ignore_eos=True
    )
    result = engine.generate(list(prompt), config, compare)
    return result.token_ids.tolist() == list(answer), result.num_passes


def _estimates(
    engine: Engine, prompt: Sequence[int], answer: Sequence[int], sets: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return, for each set of masked positions [N, L], L / l times its tokens' log p."""
    info = engine.package
    tokens = np.asarray(answer)
    found = []
    for masked in sets:
        canvas = [*prompt, *np.where(masked, info.mask_token_id, tokens).tolist()]
        rows = np.maximum(len(prompt) + np.flatnonzero(masked) - info.logits_shift, 0)
        logs = _log_probabilities(engine.logits(canvas, rows.tolist()), tokens[masked])
        found.append(len(tokens) * logs.mean())
    return np.array(found)


def _log_probabilities(logits: NDArray[np.float32], tokens: Any) -> NDArray[np.float64]:
    """Return log softmax(logits f32 [N, V]) at a token per row: f64 [N]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    chosen: NDArray[np.float64] = shifted[np.arange(len(shifted)), tokens]
    chosen -= np.log(np.exp(shifted).sum(axis=1))
    return chosen
