"""Canvases with gaps: what was given stays, what is masked is filled, and nothing else costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastdllm import ConfigError, GenerationConfig

from conftest import EngineOf
from oracle import BIDIRECTIONAL, BLOCK_CAUSAL, Pair

ALL = BIDIRECTIONAL + BLOCK_CAUSAL
CACHES = ["none", "prefix", "dual", "auto"]
TEXT = [(7 * i + 3) % 240 for i in range(120)]


def canvas_of(pair: Pair, gaps: list[range], length: int) -> list[int]:
    masked = {position for gap in gaps for position in gap}
    mask = pair.facts.mask_token_id
    return [mask if i in masked else TEXT[i] for i in range(length)]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ALL)
def test_given_tokens_never_change(name: str, cache: str, pairs: dict[str, Pair]) -> None:
    pair = pairs[name]
    gaps = [range(3, 9), range(14, 15), range(22, 41)]
    canvas = canvas_of(pair, gaps, 50)

    result = pair.compare(
        canvas, {"block_length": 8, "threshold": 0.2, "cache": cache}, infills=True
    )

    ids = result.token_ids.tolist()
    masked = [p for gap in gaps for p in gap]
    assert len(ids) == len(result.logprobs) == 50
    assert [i for p, i in enumerate(ids) if p not in masked] == [
        i for p, i in enumerate(canvas) if p not in masked
    ]
    assert set(np.flatnonzero(result.logprobs == 0.0)) == set(range(50)) - set(masked)
    assert result.finish_reason == "length"


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ALL)
def test_one_gap_at_the_end_is_a_generation(name: str, cache: str, pairs: dict[str, Pair]) -> None:
    pair = pairs[name]
    canvas = canvas_of(pair, [range(11, 45)], 45)
    fields: dict[str, Any] = {"block_length": 8, "threshold": 0.3, "cache": cache}

    filled = pair.compare(canvas, fields, infills=True)
    config = GenerationConfig(**fields, max_new_tokens=34, ignore_eos=True)
    written = pair.engine.generate(canvas[:11], config)

    assert filled.token_ids.tolist()[11:] == written.token_ids.tolist()
    assert filled.num_passes == written.num_passes


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ALL)
def test_blocks_without_gaps_cost_no_pass(name: str, cache: str, pairs: dict[str, Pair]) -> None:
    pair = pairs[name]
    fields = {"block_length": 8, "threshold": 0.01, "cache": cache}
    near = canvas_of(pair, [range(2, 3), range(19, 20)], 24)
    far = canvas_of(pair, [range(2, 3), range(107, 108)], 120)

    passes = [pair.compare(ids, fields, infills=True).num_passes for ids in (near, far)]

    assert passes[0] == passes[1]


@pytest.mark.parametrize("cache", CACHES)
def test_sub_blocks_do_not_make_blocks_without_gaps_cost_more(
    cache: str, pairs: dict[str, Pair]
) -> None:
    pair = pairs["fast-dllm-v2"]
    fields = {"block_length": 8, "sub_block_length": 4, "threshold": 0.01, "cache": cache}
    near = canvas_of(pair, [range(2, 3), range(19, 20)], 24)
    far = canvas_of(pair, [range(2, 3), range(107, 108)], 120)

    passes = [pair.compare(ids, fields, infills=True).num_passes for ids in (near, far)]

    assert passes[0] == passes[1]


def test_what_only_fills_up_the_last_block_costs_no_pass(pairs: dict[str, Pair]) -> None:
    """The last block is given as far as it was asked for; editing runs every block to its end."""
    pair = pairs["sdar"]
    fields = {"block_length": 8, "threshold": 0.01, "editing_threshold": 1.0}

    ending = pair.compare(canvas_of(pair, [range(2, 3)], 8), fields, infills=True)
    going_on = pair.compare(canvas_of(pair, [range(2, 3)], 12), fields, infills=True)

    assert going_on.num_passes == ending.num_passes


@pytest.mark.parametrize("name", ALL)
def test_no_token_ends_an_infilling(name: str, pairs: dict[str, Pair]) -> None:
    pair = pairs[name]
    canvas = canvas_of(pair, [range(2, 5), range(20, 30)], 32)
    fields = {"block_length": 8, "stop_token_ids": list(range(pair.facts.mask_token_id))}

    for stop_at in ("token", "block"):
        result = pair.compare(canvas, fields | {"stop_at": stop_at}, infills=True)

        assert pair.facts.mask_token_id not in result.token_ids
        assert result.finish_reason == "length"


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ALL)
def test_guidance_masks_what_was_given_behind_a_gap_too(
    name: str, cache: str, pairs: dict[str, Pair]
) -> None:
    canvas = canvas_of(pairs[name], [range(4, 9), range(17, 23)], 30)
    fields = {"block_length": 8, "cfg_scale": 2.0, "threshold": 0.2, "cache": cache}

    pairs[name].compare(canvas, fields, infills=True)


@pytest.mark.parametrize("cache", CACHES)
def test_a_seed_token_is_given_only_where_the_first_position_is_masked(
    cache: str, pairs: dict[str, Pair]
) -> None:
    pair = pairs["fast-dllm-v2"]
    fields = {"block_length": 8, "sub_block_length": 8, "threshold": 0.01, "cache": cache}
    inside = canvas_of(pair, [range(6, 8), range(9, 16)], 16)
    across = canvas_of(pair, [range(6, 16)], 16)

    with_given = pair.compare(inside, fields, infills=True)
    seeded = pair.compare(across, fields, infills=True)

    assert with_given.token_ids[8] == inside[8]
    assert with_given.num_passes == seeded.num_passes - 1


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_refresh_commits_one_position_alone_only_where_that_comes_first(
    cache: str, pairs: dict[str, Pair]
) -> None:
    """With a logit shift the row before a block predicts its first position, if that is masked."""
    pair = pairs["dream-gqa"]
    fields = {"block_length": 4, "threshold": 0.001, "cache": cache}
    # Blocks count from the first gap: [3, 7), [7, 11), [11, 15).
    masked = canvas_of(pair, [range(3, 7), range(7, 10)], 20)
    given = canvas_of(pair, [range(3, 7), range(8, 11)], 20)

    assert pair.compare(masked, fields, infills=True).num_passes == 2 + 2
    assert pair.compare(given, fields, infills=True).num_passes == 2 + 1


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_a_canvas_may_begin_with_a_gap(name: str, pairs: dict[str, Pair]) -> None:
    canvas = canvas_of(pairs[name], [range(10)], 30)

    for more in ({}, {"suffix_window": 7}, {"deferred_window": 7, "threshold": 0.4}):
        pairs[name].compare(canvas, {"block_length": 4, "cache": "dual", **more}, infills=True)


def test_the_first_gap_leaves_what_the_model_needs_before_it(engine_of: EngineOf) -> None:
    engine = engine_of("fast-dllm-v2")

    with pytest.raises(ConfigError, match="the first gap is at index 0; this model needs at least"):
        engine.infill([engine.package.mask_token_id, 1])
