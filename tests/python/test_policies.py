"""The rules alone: the vectors of the references, and the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdllm import GenerationConfig
from fastdllm import reference_rules as rules

MASK = 3
RAW = SimpleNamespace(mask_token_id=MASK, confidence="raw")
PROCESSED = SimpleNamespace(mask_token_id=MASK, confidence="processed")
LOGITS = np.log(np.array([0.3, 0.4, 0.1, 0.2], np.float32))  # as likely as they say


def accepted(
    scores: list[float],
    quota: int = 1,
    *,
    inclusive: bool = True,
    entropies: Sequence[float] = (),
    masked_fraction: float = 1.0,
    **options: Any,
) -> list[int]:
    chosen = rules.choose(
        scores,
        GenerationConfig(**options),
        quota,
        inclusive=inclusive,
        entropies=entropies,
        masked_fraction=masked_fraction,
    )
    return [int(i in chosen) for i in range(len(scores))]


def score_of(facts: Any, *, position: int = 7, **options: Any) -> tuple[int, float]:
    config = GenerationConfig(**options)
    token, probabilities = rules.propose(LOGITS, config, facts, position, step=2)
    return token, rules.score(token, probabilities, config, facts, position, step=2)


def quotas(steps: int, masks: int, *, first: int = 0, **options: Any) -> list[int]:
    """What the passes of a block commit, from pass `first` on."""
    counts = []
    for index in range(first, steps):
        config = GenerationConfig(**options)
        counts.append(min(masks, rules.quota_of(index, steps, masks, masks, config)))
        if config.eps is not None:
            masks -= counts[-1]
    return counts


@pytest.mark.parametrize(
    ("factor", "confidences", "expected"),
    [
        (1.0, [0.9], [1]),
        (1.0, [0.5, 0.5], [1, 1]),
        (1.0, [0.9, 0.3], [1, 1]),
        (1.0, [0.99, 0.98, 0.3], [1, 1, 1]),
        (1.0, [0.99, 0.8, 0.74, 0.2, 0.2], [1, 1, 0, 0, 0]),
        (1.0, [0.2, 0.97, 0.9, 0.85, 0.5], [0, 1, 1, 1, 0]),
        # .8 itself sits on the fourth limit, 1 - 1/5
        (1.0, [0.97, 0.9, 0.85, 0.7999, 0.79], [1, 1, 1, 0, 0]),
        (0.5, [0.2, 0.97, 0.9, 0.85, 0.5], [0, 1, 1, 0, 0]),
    ],
)
def test_factor_accepts_as_the_reference(
    factor: float, confidences: list[float], expected: list[int]
) -> None:
    assert accepted(confidences, factor=factor) == expected


@pytest.mark.parametrize(
    ("confidences", "expected"),
    [
        ([0.95, 0.9, 0.89, 0.3], [1, 1, 0, 0]),
        ([0.3, 0.5, 0.2], [0, 1, 0]),
        ([0.3, 0.5, 0.5], [0, 1, 0]),
    ],
)
def test_threshold_is_inclusive_and_takes_the_best(
    confidences: list[float], expected: list[int]
) -> None:
    assert accepted(confidences, threshold=0.9) == expected


def test_a_strict_threshold_leaves_what_equals_it() -> None:
    assert accepted([0.95, 0.9, 0.3], threshold=0.9, inclusive=False) == [1, 0, 0]


def test_a_threshold_commits_at_least_the_quota() -> None:
    assert accepted([0.2, 0.5, 0.95, 0.4], quota=2, threshold=0.9) == [0, 1, 1, 0]
    assert accepted([0.92, 0.91, 0.95, 0.4], quota=2, threshold=0.9) == [1, 1, 1, 0]


def test_quota_ties_go_to_the_lowest_index() -> None:
    assert accepted([0.5, 0.7, 0.5, 0.5], quota=3) == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("delta", "confidences", "expected"),
    [
        # Equal ones: 1 - (n + 1) * .1 is .3 for the sixth and .2 for the seventh.
        (0.25, [0.9] * 8, [1] * 6 + [0] * 2),
        (0.25, [0.9, 0.9, 0.9], [1, 1, 1]),
        (0.25, [0.99, 0.8, 0.74, 0.2, 0.2], [1, 1, 1, 0, 0]),  # .98, .59, .27, -1.07
        (0.25, [0.2, 0.97, 0.9, 0.85, 0.5], [0, 1, 1, 1, 0]),  # .94, .77, .57, -.28
        (0.6, [0.2, 0.97, 0.9, 0.85, 0.5], [0, 1, 1, 0, 0]),
        (0.25, [0.3, 0.5, 0.5], [0, 1, 0]),  # the best one, however unsure
        (0.0, [0.5], [1]),
    ],
)
def test_the_frechet_profile_accepts_while_it_exceeds_its_margin(
    delta: float, confidences: list[float], expected: list[int]
) -> None:
    assert accepted(confidences, frechet=delta) == expected


@given(
    thousandths=st.lists(st.integers(1, 1008), min_size=1, max_size=32),
    eighths=st.integers(0, 7),
)
def test_the_frechet_profile_accepts_at_least_what_a_factor_does(
    thousandths: list[int], eighths: int
) -> None:
    # 1009 is prime: no confidence lies on a limit. Two hopeless ones keep the factor rule from
    # accepting its last candidate although that fails.
    confidences = [n / 1009 for n in thousandths] + [0.0, 0.0]
    delta = eighths / 8

    by_factor = accepted(confidences, factor=1 - delta)
    by_frechet = accepted(confidences, frechet=delta)

    assert all(f <= g for f, g in zip(by_factor, by_frechet, strict=True))
    if len(set(thousandths)) == 1:
        assert by_factor == by_frechet


@pytest.mark.parametrize(
    ("bound", "by_confidence", "by_entropy"),
    [
        (0.0, [0, 1, 0, 0], [0, 1, 0, 0]),
        (0.03, [1, 1, 0, 0], [0, 1, 0, 1]),  # the second one adds .02 either way
        (0.1, [1, 1, 0, 1], [1, 1, 0, 1]),  # .06 of three, .11 of four
        (0.12, [1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_entropies_but_the_largest_sum_up_to_the_bound(
    bound: float, by_confidence: list[int], by_entropy: list[int]
) -> None:
    options: dict[str, Any] = {"entropies": [0.05, 0.02, 0.5, 0.04], "entropy_bound": bound}

    assert accepted([0.9, 0.95, 0.3, 0.8], **options) == by_confidence
    scores = [-entropy for entropy in options["entropies"]]
    assert accepted(scores, remasking="entropy", **options) == by_entropy


def test_one_unsure_position_beside_sure_ones_costs_no_entropy() -> None:
    assert accepted([1.0, 1.0, 0.6], entropies=[0.0, 0.0, 0.7], entropy_bound=0.0) == [1, 1, 1]


@pytest.mark.parametrize(
    ("decay", "masked_fraction", "expected"),
    [
        (0.5, 1.0, [1, 0, 0]),  # .9
        (0.5, 0.5, [1, 1, 0]),  # .9 * .75 = .675
        (1.0, 0.25, [1, 1, 1]),  # .9 * .25 = .225
        (0.0, 0.25, [1, 0, 0]),
    ],
)
def test_a_threshold_sinks_with_the_masks(
    decay: float, masked_fraction: float, expected: list[int]
) -> None:
    found = accepted(
        [0.8, 0.7, 0.3], masked_fraction=masked_fraction, threshold=0.9, threshold_decay=decay
    )

    assert found == expected


def test_origin_reveals_each_position_at_the_rate_of_the_schedule() -> None:
    plain = GenerationConfig(remasking="origin")
    timed = GenerationConfig(remasking="origin", eps=1e-3)

    assert rules.origin_share(0, 4, quota=2, masked=8, config=plain) == 0.25
    assert rules.origin_share(3, 4, quota=2, masked=8, config=plain) == 1.0
    assert rules.origin_share(0, 4, quota=2, masked=8, config=timed) == pytest.approx(0.24975)
    assert rules.origin_share(3, 4, quota=2, masked=8, config=timed) == 1.0


def test_steps_are_divided_with_at_least_one_per_block() -> None:
    def steps_of(block: int, **options: Any) -> int:
        return rules.steps_of(block, 3, 8, GenerationConfig(**options))

    assert [steps_of(n, steps=7) for n in range(3)] == [3, 2, 2]
    assert [steps_of(n, steps=1) for n in range(3)] == [1, 1, 1]
    assert steps_of(0) == 8
    assert steps_of(0, steps_per_block=5) == 5
    assert steps_of(0, steps=1, threshold=0.9) == 8  # so that at least one is committed, not all


def test_the_first_passes_commit_one_more() -> None:
    assert quotas(8, 32) == [4] * 8
    assert quotas(5, 32) == [7, 7, 6, 6, 6]


@pytest.mark.parametrize(
    ("steps", "masks", "first", "expected"),
    [
        (8, 32, 0, [3, 4, 4, 4, 4, 4, 4, 5]),
        (256, 256, 0, [0, *[1] * 254, 2]),
        (128, 256, 0, [1, *[2] * 126, 3]),
        # after the refresh has committed the first of 32
        (32, 31, 1, [0, *[1] * 29, 2]),
        (16, 31, 1, [*[2] * 14, 3]),
        (8, 31, 1, [4, 4, 4, 4, 4, 5, 6]),
        (2, 31, 1, [31]),
    ],
)
def test_time_steps_commit_as_the_reference(
    steps: int, masks: int, first: int, expected: list[int]
) -> None:
    assert quotas(steps, masks, first=first, eps=1e-3) == expected


@pytest.mark.parametrize(
    ("remasking", "expected"),
    [
        ("low_confidence", 0.4),
        ("margin", 0.1),
        ("entropy", sum(p * math.log(p) for p in (0.3, 0.4, 0.1, 0.2))),
        ("sequential", -7),
    ],
)
def test_a_rank_scores_the_proposal(remasking: str, expected: float) -> None:
    token, score = score_of(RAW, remasking=remasking)

    assert token == 1
    assert score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("facts", [RAW, PROCESSED])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 9.0, "top_p": 0.1},
        {"temperature": 9.0, "min_p": 0.99},
    ],
    ids=str,
)
def test_the_mask_token_is_never_proposed(options: dict[str, Any], facts: Any) -> None:
    logits = np.array([0.0, 1.0, 0.5, 9.0], np.float32)

    for step in range(50):
        token, _ = rules.propose(logits, GenerationConfig(**options), facts, 0, step)
        assert token == 1 or (token != MASK and "top_p" in options)


def test_a_processed_confidence_is_that_of_the_distribution_sampled_from() -> None:
    assert score_of(PROCESSED, top_k=2)[1] == pytest.approx(0.4 / 0.7)
    assert score_of(PROCESSED, top_p=0.3)[1] == pytest.approx(1.0)
    assert score_of(RAW, top_k=2)[1] == pytest.approx(0.4)
    token, confidence = score_of(PROCESSED, temperature=0.5)
    squares = np.array([0.3, 0.4, 0.1, 0.2]) ** 2
    assert confidence == pytest.approx(squares[token] / squares.sum())


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.24, 0.01]))

    def kept(**options: Any) -> list[int]:
        found = rules.drop_unlikely(logits, 4, GenerationConfig(**options))
        return np.flatnonzero(np.isfinite(found)).tolist()

    assert kept(top_p=0.01) == [1]
    assert kept(top_p=0.6) == [1, 3]
    assert kept(top_p=0.8) == [1, 2, 3]
    assert kept(top_p=0.8, top_k=2) == [1, 3]


def test_min_p_keeps_what_is_nearly_as_probable_as_the_best() -> None:
    assert score_of(PROCESSED, min_p=0.5)[1] == pytest.approx(0.4 / 0.7)
    assert score_of(PROCESSED, min_p=0.8)[1] == pytest.approx(1.0)
    assert score_of(RAW, min_p=0.8)[1] == pytest.approx(0.4)
    # At temperature .5 the second one is .09 / .16 times as probable, not .3 / .4 times.
    assert score_of(PROCESSED, min_p=0.6, temperature=0.5) == (1, pytest.approx(1.0))


def test_a_bias_is_part_of_the_confidence() -> None:
    assert score_of(RAW, logit_bias={2: math.log(8)}) == (2, pytest.approx(0.8 / 1.7))
    assert score_of(RAW, logit_bias={1: -math.log(4)}) == (0, pytest.approx(0.3 / 0.7))


def test_a_banned_token_is_out_of_the_distribution() -> None:
    assert score_of(RAW, banned_token_ids=[1]) == (0, pytest.approx(0.3 / 0.6))
    assert score_of(RAW, banned_token_ids=[0, 1]) == (2, pytest.approx(0.1 / 0.3))
    assert score_of(RAW, banned_token_ids=[1], logit_bias={1: 9.0})[0] == 0


def test_samples_follow_the_temperature() -> None:
    drawn = [
        rules.propose(LOGITS, GenerationConfig(temperature=1.0, seed=5), RAW, n, 0)[0]  # type: ignore[arg-type]
        for n in range(4000)
    ]

    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, [0.375, 0.5, 0.125, 0], atol=0.025)


def test_philox_gives_its_published_vectors() -> None:
    zeros = [int(word) for word in rules.philox((0, 0, 0, 0), 0)]
    ones = [int(word) for word in rules.philox((0xFFFFFFFF,) * 4, 2**64 - 1)]

    assert zeros == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert ones == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_portable_log_is_a_logarithm() -> None:
    x = np.concatenate((np.logspace(-12, 3, 2000), [0.5, 1.0, math.sqrt(0.5), 2.0**-33]))

    np.testing.assert_allclose(rules.portable_log(x), np.log(x), rtol=4e-15, atol=4e-15)
