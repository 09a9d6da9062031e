"""The whole method in NumPy: the readable specification that tests hold the C++ runtime against.

Block-wise caches: Fast-dLLM (arXiv 2505.22618), sub-blocks: Fast-dLLM v2 (arXiv 2509.26328), token
editing: LLaDA2.1, suffix windows: Streaming-dLLM (arXiv 2601.17917), deferred windows: Deferred
Commitment Decoding (arXiv 2601.02076). The rules of a pass are in reference_rules.py. B batch, T
rows fed, P cached rows, N rows asked for, V vocabulary, H K/V heads, D head dim; Q is 1 or T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdllm import reference_rules as rules
from fastdllm._core import GenerationConfig
from fastdllm.reference_rules import Facts

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
        attention_mask: Array | None = None,  # bool [B,1,Q,P+T]; None = all true
    ) -> tuple[Array, list[Array]]:  # logits f32 [B,N,V], present
        """Run it."""
        ...


@dataclass
class Trace:
    """The result of a decode, and the positions and tokens that each pass wrote.

    Positions are indices into the new tokens, or into the whole canvas that was infilled.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the tokens, as committed
    num_passes: int = 0
    finish_reason: str = "length"
    rows_computed: int = 0
    logit_rows_computed: int = 0
    commits: list[tuple[list[int], list[int]]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)  # numbers from 0, one per commit


@dataclass(frozen=True)
class Cached:
    """K and V of some positions i64 [P], in the order in which they lie in the tensors."""

    positions: Array = field(default_factory=lambda: np.arange(0))
    tensors: list[Array] | None = None  # each [B,H,P,D]

    def first(self, count: int) -> Cached:
        """Keep the leading rows."""
        tensors = self.tensors and [rows[:, :, :count] for rows in self.tensors]
        return Cached(self.positions[:count], tensors)


class _Decoder:
    """One request. Positions are absolute, prompt included; rows are named by their position."""

    def __init__(
        self,
        forward: Forward,
        canvas: Sequence[int],  # given tokens, and mask tokens to be decoded
        answer: tuple[int, int],  # the part of the canvas that is asked for
        stops: Sequence[int],
        config: GenerationConfig,
        facts: Facts,
    ) -> None:
        self.forward, self.config, self.facts = forward, config, facts
        self.trace = Trace()
        self.answer, self.stops = answer, stops
        self.causal = facts.attention == "block_causal"
        self.length = config.block_length or facts.block_length or 32
        self.sub_length = self.length
        if self.causal:
            self.sub_length = config.sub_block_length or facts.sub_block_length or self.length
        self.start = list(canvas).index(facts.mask_token_id)
        self.end = len(canvas)
        if self.causal:  # whole blocks, counted from position 0
            self.end = -(-self.end // self.length) * self.length
        masks = np.full(self.end - len(canvas), facts.mask_token_id)
        self.canvas = np.concatenate([np.asarray(canvas, np.int64), masks])
        self.given = self.canvas != facts.mask_token_id
        self.confidences = np.ones(self.end)
        self.cache = config.cache
        if self.cache == "auto":  # a refresh should leave more to compute than the block's own rows
            block = min(self.length, self.end - self.start)
            outside = self.end - block
            self.cache = "none" if not self.causal and outside * 8 <= block else "dual"
        self.refresh_tokens = config.refresh_tokens
        if config.deferred_window is not None and self.refresh_tokens is None:
            self.refresh_tokens = 16
        self.number = 0  # of the block
        self.final = Cached()  # rows that a pass need not feed as long as it refreshes nothing
        self.around = Cached()  # dual: the cached rows that a pass over `inner` attends to
        self.inner: Array = np.arange(0)
        self.passes_since = self.tokens_since = 0  # the last refresh, its own included

    def masked(self, positions: Array) -> Array:
        """Pick the positions that are still masks."""
        return np.asarray(positions[self.canvas[positions] == self.facts.mask_token_id])

    def behind(self, e: int) -> Array:
        """Pick what a pass may feed of the positions behind a block that ends at e."""
        rest = np.arange(e, self.end)
        window = self.config.suffix_window
        if self.causal:
            return rest[:0]
        return rest if window is None or window >= len(rest) else np.append(rest[:window], rest[-1])

    def wants_refresh(self) -> bool:
        """Tell whether the next pass is a refresh, by the passes and tokens since the last one."""
        interval, tokens = self.config.refresh_interval, self.refresh_tokens
        return (interval is not None and self.passes_since >= interval) or (
            tokens is not None and self.tokens_since >= tokens
        )

    def decode(self) -> Trace:
        """Decode block by block, or region by region."""
        if self.config.deferred_window is None:
            first = self.start // self.length * self.length if self.causal else self.start
            starts = range(first, self.end, self.length)
            for self.number, s in enumerate(starts):
                if self.block(s, min(s + self.length, self.end), len(starts)):
                    break
        else:
            # The row before a position may be what predicts it: a region holds that one too.
            left = self.start
            while not self.block(
                max(0, left - self.facts.logits_shift),
                min(left + self.config.deferred_window, self.end),
                num_blocks=1,
            ):
                left = self.masked(np.arange(self.end))[0]
                self.number += 1
        start = self.answer[0]
        end = start + len(self.trace.token_ids)
        self.trace.logprobs = np.log(self.confidences[start:end]).tolist()
        return self.trace

    def block(self, s: int, e: int, num_blocks: int) -> bool:
        """Decode one block (or a region, until it is left) [s, e); true when that ends it all."""
        config = self.config
        editing = config.editing_threshold is not None
        deferred = config.deferred_window is not None
        masked_at_start = len(self.masked(np.arange(s, e)))
        if masked_at_start == 0:  # all of it was given
            return False
        # Of the dual cache a step feeds nothing but the block.
        behind = 0 if self.cache == "dual" else len(self.behind(e))
        self.inner = np.arange(0)
        if self.facts.seed_token and s > 0 and len(self.masked(np.array([s]))) and self.seed(s):
            return True
        # With a shift the row before the block predicts its first position, and only the pass that
        # refreshes the cache feeds that row: it commits this one position and no other.
        first_alone = (
            self.facts.logits_shift == 1
            and not (self.causal or deferred or self.cache == "none")
            and len(self.masked(np.array([s]))) > 0
        )
        # The passes of a block share its masks. The steps_per_block of block-causal models divide
        # the block instead, whatever is given of it (SDAR, LLaDA2.x).
        by_length = self.causal and config.steps_per_block is not None
        shared = e - s if by_length else len(self.masked(np.arange(s, e)))
        steps = rules.steps_of(self.number, num_blocks, shared, config)
        index = passes_without_masks = 0
        while True:
            if deferred and index > 0 and self.wants_refresh():
                return False
            masked = self.masked(np.arange(s, e))
            if len(masked) == 0:
                if not editing or passes_without_masks == config.max_post_steps:
                    break
                passes_without_masks += 1
            inner = np.arange(s, e)
            if len(masked) > 0 and self.causal:
                sub = s + (masked[0] - s) // self.sub_length * self.sub_length
                inner = np.arange(sub, min(sub + self.sub_length, e))
            eligible = self.masked(inner)
            if deferred:
                eligible = self.within_reach(eligible, e)
            quota = rules.quota_of(
                index, steps, shared, len(masked), config, first_alone=first_alone
            )
            share = 0.0
            if config.remasking == "origin" and len(eligible) > 0:
                share = rules.origin_share(index, steps, quota, len(eligible), config)
            if first_alone and index == 0:
                eligible, share = eligible[:1], 1.0
            if len(eligible) > 0 and quota == 0 and config.remasking != "origin":
                index += 1
                continue
            # Models that are edited have no shift and no sub-blocks.
            own = s + np.flatnonzero(~self.given[s:e])
            filled = np.setdiff1d(own, masked) if editing else own[:0]
            logits = self.look(s, e, inner, np.append(eligible, filled))
            fraction = (len(masked) + behind) / max(1, masked_at_start + behind)
            tokens = self.fill(logits, eligible.tolist(), quota, share, fraction)
            edits = self.edit(logits, filled.tolist())
            self.commit(tokens | edits)
            self.passes_since += 1
            self.tokens_since += len(tokens)
            index += 1
            if not editing and self.finish(e):
                return True
            if len(masked) == 0 and not edits:
                break
        return editing and self.finish(e)

    def within_reach(self, masked: Array, e: int) -> Array:
        """Pick the masks of a region that ends at e which may be committed."""
        between = np.arange(masked[0], e)
        stops = between[np.isin(self.canvas[between], self.stops)]
        reach = stops[0] if len(stops) > 0 else e
        masked = masked[: self.length]
        return masked[masked < reach]

    def seed(self, s: int) -> bool:
        """Commit the first token of a block: the pass that completes the rows before gives it."""
        if self.cache == "none":
            logits, _ = self.run(np.arange(s), np.array([s - 1]), Cached(), 0)
        else:
            fed = np.arange(len(self.final.positions), s)
            logits, self.final = self.run(fed, np.array([s - 1]), self.final, s)
        ((token, probabilities),) = self.propose({s: logits[0]}, [s])
        self.commit({s: (token, probabilities[token])})
        return self.config.editing_threshold is None and self.finish(s + self.length)

    def look(self, s: int, e: int, inner: Array, wanted: Array) -> dict[int, Array]:
        """Run a pass of block [s, e); return logits [V] by the position that they predict.

        inner: the rows that a pass of the dual cache feeds; wanted: positions to be predicted.
        """
        visible = np.append(np.arange(e), self.behind(e))
        # In a block-causal model the row before a sub-block, which predicts its first position, is
        # fed by a refresh only.
        unpredicted = self.facts.logits_shift == 1 and len(self.masked(inner[:1])) > 0
        refresh = (
            not np.array_equal(inner, self.inner)
            or self.wants_refresh()
            or (self.causal and unpredicted)
        )
        if refresh:
            self.inner = inner
            self.passes_since = self.tokens_since = 0
            if not self.causal:  # every row attends to every other: all of them have changed
                self.final = Cached()
        rest = visible[len(self.final.positions) :]
        if self.cache == "none":
            fed, past, keep = visible, Cached(), 0
        elif self.cache == "prefix":
            fed, past, keep = rest, self.final, s
        elif not refresh:
            fed, past, keep = inner, self.around, 0
        else:  # the rows that steps attend to come first, so that they are returned as one slice
            outside = np.setdiff1d(rest, inner)
            fed, past = np.append(outside, inner), self.final
            keep = len(past.positions) + len(outside)

        logits, present = self.run(fed, np.maximum(wanted - self.facts.logits_shift, 0), past, keep)
        if self.cache == "dual" and refresh:
            self.around = present
        if keep > 0 and (self.causal or self.cache == "prefix"):
            self.final = present.first(s)
        return dict(zip(wanted.tolist(), logits, strict=True))

    def run(self, fed: Array, asked: Array, past: Cached, keep: int) -> tuple[Array, Cached]:
        """Feed positions [T]; return the outputs f32 [N,V] at `asked` and the first `keep` rows."""
        keys = np.append(past.positions, fed)
        ids = [self.canvas[fed]]
        if self.config.cfg_scale > 0:  # in the second row of the batch the given tokens are masks
            ids.append(np.where(self.given[fed], self.facts.mask_token_id, self.canvas[fed]))
        batch = len(ids)
        sees = None
        if self.causal:
            sees = fed[:, None] // self.length >= keys // self.length
            sees = np.stack([sees[None]] * batch)
        indices = [int(np.flatnonzero(fed == position)[0]) for position in asked]
        logits, present = self.forward(
            np.stack(ids),
            np.stack([fed] * batch),
            past.tensors,
            np.array([indices] * batch, np.int64),
            keep,
            sees,
        )
        self.trace.num_passes += 1
        self.trace.rows_computed += batch * len(fed)
        self.trace.logit_rows_computed += batch * len(asked)
        if self.config.cfg_scale > 0:
            weight = np.float32(self.config.cfg_scale) + np.float32(1)
            logits = logits[1:] + weight * (logits[:1] - logits[1:])
        return logits[0], Cached(keys[:keep], present)

    def propose(self, logits: dict[int, Array], positions: list[int]) -> list[tuple[int, Array]]:
        """Choose a token for each position; return it with the probabilities f64 [V]."""
        step = self.trace.num_passes - 1
        return [rules.propose(logits[p], self.config, self.facts, p, step) for p in positions]

    def fill(
        self,
        logits: dict[int, Array],
        positions: list[int],
        quota: int,
        share: float,
        masked_fraction: float,
    ) -> dict[int, tuple[int, float]]:
        """Choose among the masked positions; return tokens and their confidences by position."""
        config, step = self.config, self.trace.num_passes - 1
        found = self.propose(logits, positions)
        scores = [
            rules.score(token, probabilities, config, self.facts, p, step)
            for p, (token, probabilities) in zip(positions, found, strict=True)
        ]
        if config.remasking == "origin":
            chosen = [i for i, uniform in enumerate(scores) if uniform < share]
        else:
            if config.alg_temp > 0 and rules.by_quota(config):
                noise = [rules.uniform((0, p, step, 2), config.seed)[0] for p in positions]
                scores = [
                    score / config.alg_temp + float(rules.gumbel(u))
                    for score, u in zip(scores, noise, strict=True)
                ]
            chosen = rules.choose(
                scores,
                config,
                quota,
                inclusive=self.facts.threshold_inclusive,
                entropies=[rules.entropy(probabilities) for _, probabilities in found],
                masked_fraction=masked_fraction,
            )
        return {positions[i]: (found[i][0], found[i][1][found[i][0]]) for i in chosen}

    def edit(self, logits: dict[int, Array], positions: list[int]) -> dict[int, tuple[int, float]]:
        """Overwrite filled positions where another token is now sure; return as fill does."""
        threshold = self.config.editing_threshold
        if threshold is None:
            return {}
        found = dict(zip(positions, self.propose(logits, positions), strict=True))
        return {
            position: (token, probabilities[token])
            for position, (token, probabilities) in found.items()
            if token != self.canvas[position] and probabilities[token] > threshold
        }

    def commit(self, tokens: dict[int, tuple[int, float]]) -> None:
        """Write tokens and their confidences by position."""
        positions = sorted(tokens)
        self.canvas[positions] = [tokens[p][0] for p in positions]
        self.confidences[positions] = [tokens[p][1] for p in positions]
        start, end = self.answer
        seen = [p for p in positions if p < end]
        if seen:
            self.trace.commits.append(([p - start for p in seen], [tokens[p][0] for p in seen]))
            self.trace.blocks.append(self.number)

    def finish(self, e: int) -> bool:
        """Note the result where there is one: `e` ends the block that was just worked on."""
        mask, trace = self.facts.mask_token_id, self.trace
        start, end = self.answer
        new = self.canvas[start:end].tolist()
        stops = [i for i, token in enumerate(new) if token in self.stops]
        if self.config.stop_at == "block":
            whole = new[: e - start]
            if stops and mask not in whole:
                trace.token_ids, trace.finish_reason = whole, "stop"
                return True
        elif stops and mask not in new[: stops[0]]:
            trace.token_ids, trace.finish_reason = new[: stops[0] + 1], "stop"
            return True
        trace.token_ids = new
        return mask not in new


def generate(
    forward: Forward, prompt: Sequence[int], config: GenerationConfig, facts: Facts
) -> Trace:
    """Decode config.max_new_tokens positions after the prompt, which holds no mask token."""
    canvas = [*prompt, *[facts.mask_token_id] * config.max_new_tokens]
    stops: Sequence[int] = []
    if not config.ignore_eos:
        named = config.stop_token_ids
        stops = facts.eos_token_ids if named is None else named
    answer = (len(prompt), len(canvas))
    return _Decoder(forward, canvas, answer, stops, config, facts).decode()


def infill(
    forward: Forward, canvas: Sequence[int], config: GenerationConfig, facts: Facts
) -> Trace:
    """Decode the mask tokens of a canvas, one at least; given tokens stay, no token ends it."""
    return _Decoder(forward, canvas, (0, len(canvas)), [], config, facts).decode()
