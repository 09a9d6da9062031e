"""The whole method in NumPy: the readable specification that tests hold the C++ runtime against.

Block-wise caches: Fast-dLLM (arXiv 2505.22618), sub-blocks: Fast-dLLM v2 (arXiv 2509.26328), token
editing: LLaDA2.1. The rules of a pass are in reference_rules.py. B batch, T rows fed, P cached
rows, N rows asked for, V vocabulary, H K/V heads, D head dim; Q is 1 or T.
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
    """What a decode gave: the result, and what passes wrote of it, as positions and tokens."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the tokens, as committed
    num_passes: int = 0
    finish_reason: str = "length"
    rows_computed: int = 0
    logit_rows_computed: int = 0
    commits: list[tuple[list[int], list[int]]] = field(default_factory=list)


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
        self, forward: Forward, prompt: Sequence[int], config: GenerationConfig, facts: Facts
    ) -> None:
        self.forward, self.config, self.facts = forward, config, facts
        self.trace = Trace()
        self.causal = facts.attention == "block_causal"
        self.length = config.block_length or facts.block_length or 32
        self.sub_length = self.length
        if self.causal:
            self.sub_length = config.sub_block_length or facts.sub_block_length or self.length
        self.start = len(prompt)
        self.end = self.start + config.max_new_tokens
        if self.causal:  # whole blocks, counted from position 0
            self.end = -(-self.end // self.length) * self.length
        masks = np.full(self.end - self.start, facts.mask_token_id)
        self.canvas = np.concatenate([np.asarray(prompt, np.int64), masks])
        self.confidences = np.ones(len(self.canvas))
        self.cache = config.cache
        if self.cache == "auto":  # a refresh should leave more to compute than the block's own rows
            block = min(self.length, self.end - self.start)
            outside = len(self.canvas) - block
            self.cache = "none" if not self.causal and outside * 4 <= block else "dual"
        self.stops: list[int] = []
        if not config.ignore_eos:
            named = config.stop_token_ids
            self.stops = list(facts.eos_token_ids if named is None else named)
        self.final = Cached()  # rows whose K and V will not change any more
        self.around: Cached | None = None  # dual: all that a pass over `inner` alone attends to
        self.inner: Array = np.arange(0)

    def masked(self, positions: Array) -> Array:
        """Pick the positions that are still masks."""
        return np.asarray(positions[self.canvas[positions] == self.facts.mask_token_id])

    def decode(self) -> Trace:
        """Decode block by block."""
        first = self.start // self.length * self.length if self.causal else self.start
        starts = range(first, self.end, self.length)
        for number, s in enumerate(starts):
            if self.block(s, min(s + self.length, self.end), number, len(starts)):
                break
        end = self.start + len(self.trace.token_ids)
        self.trace.logprobs = np.log(self.confidences[self.start : end]).tolist()
        return self.trace

    def block(self, s: int, e: int, number: int, num_blocks: int) -> bool:
        """Decode one block [s, e); true when that ends the generation."""
        config = self.config
        editing = config.editing_threshold is not None
        steps = rules.steps_of(number, num_blocks, e - s, config)
        self.around = None
        masked_at_start = len(self.masked(np.arange(s, e)))
        # A step without the dual cache feeds the masks behind a bidirectional model's block too.
        behind = 0 if self.causal or self.cache == "dual" else self.end - e
        if not self.causal:
            self.final = Cached()  # every row attends to every other: all of them have changed
        if self.facts.seed_token and s > 0 and len(self.masked(np.array([s]))) and self.seed(s):
            return True
        # With a shift the row before the block predicts its first position, and only the pass that
        # refreshes the cache feeds that row: it commits this one position and no other.
        first_alone = not self.causal and self.facts.logits_shift == 1 and self.cache != "none"
        index = passes_without_masks = 0
        while True:
            masked = self.masked(np.arange(s, e))
            if len(masked) == 0:
                if not editing or passes_without_masks == config.max_post_steps:
                    break
                passes_without_masks += 1
            inner = np.arange(s, e)
            if len(masked) > 0:
                sub = s + (masked[0] - s) // self.sub_length * self.sub_length
                inner = np.arange(sub, min(sub + self.sub_length, e))
            eligible = self.masked(inner)
            quota = rules.quota_of(
                index, steps, e - s, len(masked), config, first_alone=first_alone
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
            filled = (
                np.setdiff1d(np.arange(max(s, self.start), e), masked) if editing else inner[:0]
            )
            logits = self.look(s, e, inner, np.append(eligible, filled))
            fraction = (len(masked) + behind) / max(1, masked_at_start + behind)
            tokens = self.fill(logits, eligible.tolist(), quota, share, fraction)
            edits = self.edit(logits, filled.tolist())
            self.commit(tokens | edits)
            index += 1
            if not editing and self.finish(e):
                return True
            if len(masked) == 0 and not edits:
                break
        return editing and self.finish(e)

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
        end = e if self.causal else self.end
        rest = np.arange(len(self.final.positions), end)  # all that is not final
        small = False
        if self.cache == "dual":
            known = self.around is not None and self.inner[0] == inner[0]
            unpredicted = self.facts.logits_shift == 1 and len(self.masked(inner[:1])) > 0
            small = known and not (self.causal and unpredicted)
        if self.cache == "none":
            fed, past, keep = np.arange(end), Cached(), 0
        elif self.cache == "prefix":
            fed, past, keep = rest, self.final, s
        elif small and self.around is not None:
            fed, past, keep = inner, self.around, 0
        else:  # what the small passes attend to comes first, so that it comes back in one piece
            outside = np.setdiff1d(rest, inner)
            fed, past = np.append(outside, inner), self.final
            keep = len(past.positions) + len(outside)

        logits, present = self.run(fed, np.maximum(wanted - self.facts.logits_shift, 0), past, keep)
        if self.cache == "dual" and not small:
            self.around, self.inner = present, inner
        if keep > 0 and (self.causal or self.cache == "prefix"):
            self.final = present.first(s)
        return dict(zip(wanted.tolist(), logits, strict=True))

    def run(self, fed: Array, asked: Array, past: Cached, keep: int) -> tuple[Array, Cached]:
        """Feed positions [T]; return the outputs f32 [N,V] at `asked` and the first `keep` rows."""
        keys = np.append(past.positions, fed)
        ids = [self.canvas[fed]]
        if self.config.cfg_scale > 0:  # the second row of the batch does not know the prompt
            ids.append(np.where(fed < self.start, self.facts.mask_token_id, self.canvas[fed]))
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
        seen = [p for p in positions if p < self.start + self.config.max_new_tokens]
        if seen:
            ids = [tokens[p][0] for p in seen]
            self.trace.commits.append(([p - self.start for p in seen], ids))

    def finish(self, e: int) -> bool:
        """Note the result where there is one: `e` ends the block that was just worked on."""
        mask, trace = self.facts.mask_token_id, self.trace
        new = self.canvas[self.start :].tolist()[: self.config.max_new_tokens]
        stops = [i for i, token in enumerate(new) if token in self.stops]
        if self.config.stop_at == "block":
            whole = new[: e - self.start]
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
    """Decode config.max_new_tokens positions after the prompt, block by block."""
    return _Decoder(forward, prompt, config, facts).decode()
