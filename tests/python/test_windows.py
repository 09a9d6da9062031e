"""What a pass attends to, when the cache is refreshed, and windows that move with the masks."""

from __future__ import annotations

from typing import Any

import pytest

from fastdllm import CommitEvent, ConfigError, Engine, GenerationConfig

from conftest import EngineOf
from oracle import BIDIRECTIONAL, BLOCK_CAUSAL, Pair

PROMPT = [3, 1, 4, 1, 5, 9]
CACHES = ["none", "prefix", "dual"]


@pytest.mark.parametrize(("cache", "rows"), [("none", 17), ("prefix", 11), ("dual", 8)])
def test_a_step_attends_to_the_window_and_the_last_position(
    cache: str, rows: int, mha: Engine
) -> None:
    config = GenerationConfig(
        max_new_tokens=32, block_length=8, cache=cache, suffix_window=2, ignore_eos=True
    )
    fed: list[int] = []
    last = 0

    result = mha.generate(PROMPT, config)
    for passes in range(1, 9):
        stopped = mha.generate(PROMPT, config, lambda e, n=passes: e.step + 1 < n)
        fed.append(stopped.stats.rows_computed - last)
        last = stopped.stats.rows_computed

    # The refresh feeds prompt, block, the next two and the last one; nothing else is there.
    assert fed == [6 + 8 + 2 + 1, *[rows] * 7]
    assert len(result.token_ids) == 32


@pytest.mark.parametrize("name", BIDIRECTIONAL)
@pytest.mark.parametrize("cache", CACHES)
def test_a_window_as_wide_as_the_rest_changes_nothing(
    cache: str, name: str, engine_of: EngineOf
) -> None:
    fields: dict[str, Any] = {"max_new_tokens": 24, "block_length": 8, "cache": cache}

    without, wide, narrow = (
        engine_of(name).generate(PROMPT, GenerationConfig(**fields, suffix_window=window))
        for window in (None, 16, 14)
    )

    assert wide.token_ids.tolist() == without.token_ids.tolist()
    assert wide.stats.rows_computed == without.stats.rows_computed
    assert narrow.stats.rows_computed < without.stats.rows_computed


def test_a_refresh_with_every_pass_is_a_decode_without_cache(mha: Engine) -> None:
    fields: dict[str, Any] = {"max_new_tokens": 40, "block_length": 8, "threshold": 0.2}
    naive = mha.generate(PROMPT, GenerationConfig(**fields, cache="none"))

    for cache in ("prefix", "dual"):
        config = GenerationConfig(**fields, cache=cache, refresh_interval=1)
        result = mha.generate(PROMPT, config)

        assert result.token_ids.tolist() == naive.token_ids.tolist()
        assert result.num_passes == naive.num_passes
        assert result.stats.rows_computed == naive.stats.rows_computed


@pytest.mark.parametrize(
    ("options", "refreshes"),
    [
        ({}, 1),
        ({"refresh_interval": 8}, 1),
        ({"refresh_interval": 3}, 3),  # passes 0, 3 and 6 of the block
        ({"refresh_tokens": 4}, 2),
        ({"refresh_tokens": 4, "refresh_interval": 3}, 3),
        ({"refresh_tokens": 2, "refresh_interval": 3}, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_refreshes_inside_a_block_are_counted_from_the_last_one(
    name: str, options: dict[str, int], refreshes: int, engine_of: EngineOf
) -> None:
    config = GenerationConfig(
        max_new_tokens=16, block_length=8, cache="prefix", ignore_eos=True, **options
    )
    # One token a pass, two blocks. A known last pass keeps no rows and counts as a refresh still.
    result = engine_of(name).generate(PROMPT, config)

    assert result.num_passes == 16
    assert result.stats.refresh_passes == 2 * refreshes


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", BLOCK_CAUSAL)
def test_a_block_causal_cache_that_is_exact_stays_so(
    name: str, cache: str, pairs: dict[str, Pair]
) -> None:
    fields = {"max_new_tokens": 40, "block_length": 16, "sub_block_length": 4, "cache": cache}

    plain = pairs[name].compare(PROMPT, fields)
    refreshed = pairs[name].compare(PROMPT, fields | {"refresh_interval": 2})

    if cache != "dual":  # which alone keeps rows of a block that is not finished
        assert refreshed.token_ids.tolist() == plain.token_ids.tolist()


def deferred(engine: Engine, **fields: Any) -> list[tuple[int, list[int], list[int]]]:
    """Decode 48 tokens; return (region, positions, token ids) of every pass."""
    seen: list[tuple[int, list[int], list[int]]] = []

    def note(event: CommitEvent) -> None:
        seen.append((event.block, event.positions.tolist(), event.token_ids.tolist()))

    options = {"max_new_tokens": 48, "threshold": 0.3, "block_length": 6, "deferred_window": 20}
    engine.generate(PROMPT, GenerationConfig(**options | fields), note)
    return seen


@pytest.mark.parametrize("name", BIDIRECTIONAL)
@pytest.mark.parametrize("cache", CACHES)
def test_a_deferred_window_follows_the_left_most_mask(
    cache: str, name: str, engine_of: EngineOf
) -> None:
    masks = list(range(48))
    region, left, committed = -1, 0, 0

    for number, positions, _ in deferred(engine_of(name), cache=cache, ignore_eos=True):
        if number > region:
            assert number == region + 1
            assert region == -1 or committed >= 16 or masks[0] >= left + 20
            region, left, committed = number, masks[0], 0
        assert committed < 16  # else the region would have been left
        assert set(positions) <= {m for m in masks[:6] if m < left + 20}
        assert len(positions) > 0
        masks = [m for m in masks if m not in positions]
        committed += len(positions)

    assert masks == []


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_nothing_is_committed_behind_a_committed_end_of_text(
    name: str, engine_of: EngineOf
) -> None:
    stops = list(range(0, 249, 3))
    found = deferred(engine_of(name), stop_token_ids=stops)
    first = 48

    for _, positions, ids in found:
        assert max(positions) < first
        first = min([first, *(p for p, i in zip(positions, ids, strict=True) if i in stops)])
    assert first < 48
    assert sorted(p for _, positions, _ in found for p in positions if p <= first) == [
        *range(first + 1)
    ]


@pytest.mark.parametrize("cache", CACHES)
def test_a_region_lasts_as_many_passes_as_refresh_interval_says(cache: str, mha: Engine) -> None:
    found = deferred(mha, cache=cache, refresh_interval=3, threshold=1.0, ignore_eos=True)

    assert [number for number, _, _ in found] == [n // 3 for n in range(48)]


@pytest.mark.parametrize("cache", CACHES)
def test_the_first_position_of_all_is_predicted_by_its_own_row(
    cache: str, pairs: dict[str, Pair]
) -> None:
    """With a logit shift nothing stands before it, so that it asks for no refresh."""
    pair = pairs["dream-gqa"]
    mask = pair.facts.mask_token_id
    canvas = [mask, mask, mask, 145, 216, 205, 195, mask, mask, mask]
    fields = {"deferred_window": 8, "block_length": 4, "threshold": 1.0, "cache": cache}

    pair.compare(canvas, fields, infills=True)


@pytest.mark.parametrize("rule", [{"threshold": 0.9, "threshold_decay": 0.9}], ids=str)
@pytest.mark.parametrize("window", [None, 0, 5])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("more", [{}, {"deferred_window": 18}], ids=str)
@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_a_threshold_sinks_by_the_masks_that_a_step_feeds(
    name: str,
    more: dict[str, int],
    cache: str,
    window: int | None,
    rule: dict[str, float],
    pairs: dict[str, Pair],
) -> None:
    fields = {"max_new_tokens": 40, "block_length": 12, "cache": cache, "suffix_window": window}

    pairs[name].compare(PROMPT, fields | rule | more)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sdar", {"suffix_window": 8}, "suffix_window is for bidirectional models"),
        ("sdar", {"deferred_window": 8, "threshold": 0.9}, "needs a bidirectional model"),
        ("llada-mha", {"deferred_window": 8}, "expected threshold, factor, frechet"),
        (
            "llada-mha",
            {"deferred_window": 8, "threshold": 0.9, "editing_threshold": 0.9},
            "expected no editing_threshold",
        ),
        (
            "llada-mha",
            {"deferred_window": 8, "threshold": 0.9, "stop_at": "block"},
            "needs stop_at 'token'",
        ),
    ],
)
def test_a_window_that_means_nothing_is_refused(
    name: str, options: dict[str, Any], words: str, engine_of: EngineOf
) -> None:
    with pytest.raises(ConfigError, match=words):
        engine_of(name).generate(PROMPT, GenerationConfig(**options))
