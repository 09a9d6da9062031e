"""How many positions each pass commits where `steps` decide, by engine and reference.

The numbers come from the methods' own formulas, never from our code. LLaDA's sampler (arXiv
2502.09992) looks at a block when it begins and divides its *masks* m over its passes S: floor(m/S)
each, one more in the first m mod S. That is the block's length only where nothing of it was given.
Divided by its length, a block that is partly given is finished in too few passes, each of which
commits more tokens at once than the caller asked for, and quality goes where nobody looks for it.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastdllm import CommitEvent, GenerationConfig

from oracle import Pair

TEXT = [(7 * i + 3) % 240 for i in range(64)]
CACHES = ["none", "prefix", "dual"]


def counts_of(
    pair: Pair, ids: list[int], fields: dict[str, Any], *, infills: bool = False
) -> list[int]:
    """What the passes commit, one number per pass; engine and reference have to agree."""
    pair.compare(ids, fields, infills=infills)
    counts: list[int] = []

    def note(event: CommitEvent) -> None:
        if len(event.positions) > 0:
            counts.append(len(event.positions))

    run = pair.engine.infill if infills else pair.engine.generate
    run(ids, GenerationConfig(**fields), note)
    return counts


def with_gaps(pair: Pair, *gaps: range, length: int) -> list[int]:
    masked = {position for gap in gaps for position in gap}
    return [pair.facts.mask_token_id if i in masked else TEXT[i] for i in range(length)]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("steps", [{"steps": 12}, {"steps_per_block": 4}])
def test_passes_share_the_masks_of_a_block_that_is_partly_given(
    steps: dict[str, int], cache: str, pairs: dict[str, Pair]
) -> None:
    """Blocks [3, 11), [11, 19), [19, 27) with 5, 8 and 3 masks; 12 steps are 4 for each.

    5 = 2 + 1 + 1 + 1, 8 = 2 + 2 + 2 + 2, 3 = 1 + 1 + 1 + 0, and a pass of nothing is left out.
    """
    pair = pairs["llada-mha"]
    canvas = with_gaps(pair, range(3, 8), range(11, 19), range(22, 25), length=27)

    counts = counts_of(pair, canvas, {"block_length": 8, "cache": cache, **steps}, infills=True)

    assert counts == [2, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("cache", CACHES)
def test_more_steps_than_masks_commit_one_at_a_time(cache: str, pairs: dict[str, Pair]) -> None:
    """Blocks of 16 with 9, 16 and 2 masks; 31 steps are 11, 10 and 10.

    9 over 11: nine ones. 16 over 10: six twos, four ones. 2 over 10: two ones.
    """
    pair = pairs["llada-mha"]
    canvas = with_gaps(pair, range(2, 11), range(18, 34), range(40, 42), length=50)

    counts = counts_of(
        pair, canvas, {"block_length": 16, "cache": cache, "steps": 31}, infills=True
    )

    assert counts == [1] * 9 + [2] * 6 + [1] * 4 + [1] * 2


def test_time_steps_go_by_what_is_still_masked(pairs: dict[str, Pair]) -> None:
    """Dream's k = int(masked * (1 - t[i + 1] / t[i])), all on the last of 4 passes.

    t = 1, .75025, .5005, .25075, .001: shares .24975, .33289, .49900. Of 5 masks int(1.249) = 1,
    of the other 4 int(1.332) = 1, of 3 int(1.497) = 1, then 2.
    """
    pair = pairs["llada-mha"]
    canvas = with_gaps(pair, range(3, 8), length=11)

    counts = counts_of(
        pair,
        canvas,
        {"block_length": 8, "cache": "none", "steps": 4, "eps": 1e-3},
        infills=True,
    )

    assert counts == [1, 1, 1, 2]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_first_token_alone_leaves_the_other_masks_to_the_other_passes(
    cache: str, pairs: dict[str, Pair]
) -> None:
    """With a logit shift the refresh commits 1 of 6 masks; 3 passes are left for 5: 2 + 2 + 1."""
    pair = pairs["dream-gqa"]
    canvas = with_gaps(pair, range(3, 9), length=11)

    counts = counts_of(pair, canvas, {"block_length": 8, "cache": cache, "steps": 4}, infills=True)

    assert counts == [1, 2, 2, 1]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("editing", [{}, {"editing_threshold": 1.0}])
def test_a_prompt_that_does_not_align_takes_no_share(
    editing: dict[str, float], cache: str, pairs: dict[str, Pair]
) -> None:
    """Blocks of 8 lie at absolute multiples: behind 3 tokens the first one has 5 masks.

    8 steps are 4 for each of the two blocks: 5 = 2 + 1 + 1 + 1, 8 = 2 + 2 + 2 + 2.
    """
    fields = {"block_length": 8, "max_new_tokens": 13, "steps": 8, "cache": cache, **editing}

    assert counts_of(pairs["sdar"], TEXT[:3], fields) == [2, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("threshold", [{}, {"threshold": 1.0}])
def test_steps_per_block_divide_the_blocks_of_block_causal_models(
    threshold: dict[str, float], pairs: dict[str, Pair]
) -> None:
    """SDAR and LLaDA2.x commit block / steps per pass, of a block that opens with prompt too.

    8 / 4 = 2 per pass: 5 = 2 + 2 + 1. That nothing is as sure as 1 leaves a threshold this share.
    """
    fields = {"block_length": 8, "max_new_tokens": 13, "steps_per_block": 4, **threshold}

    assert counts_of(pairs["sdar"], TEXT[:3], fields) == [2, 2, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("cache", CACHES)
def test_a_seed_token_is_no_longer_a_mask_when_its_block_begins(
    cache: str, pairs: dict[str, Pair]
) -> None:
    """Fast-dLLM v2 appends the next block's first token before that block: 7 masks of 8 are left.

    Behind 4 tokens the first block has 4 masks. 6 steps are 3 for each: 4 = 2 + 1 + 1, then
    the seed in a pass of its own, 7 = 3 + 2 + 2.
    """
    fields: dict[str, Any] = {"block_length": 8, "sub_block_length": 8, "cache": cache}
    fields |= {"max_new_tokens": 12, "steps": 6, "ignore_eos": True}

    assert counts_of(pairs["fast-dllm-v2"], TEXT[:4], fields) == [2, 1, 1, 1, 3, 2, 2]


@pytest.mark.parametrize("cache", CACHES)
def test_a_sub_block_takes_its_passes_of_its_block(cache: str, pairs: dict[str, Pair]) -> None:
    """Of 6 masks over 4 passes, 2 + 2 + 1 + 1, sub-blocks of 4 hold 2 and 4: 2, then 2 + 1 + 1."""
    fields: dict[str, Any] = {"block_length": 8, "sub_block_length": 4, "cache": cache}
    fields |= {"max_new_tokens": 6, "steps": 4, "ignore_eos": True}

    assert counts_of(pairs["sdar"], TEXT[:2], fields) == [2, 2, 1, 1]
