"""The rules alone: the vectors of the reference, and the noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastdllm import GenerationConfig, reference


def accepted(confidences: list[float], quota: int = 1, **options: float) -> list[int]:
    chosen = reference.choose(confidences, GenerationConfig(**options), quota)  # type: ignore[arg-type]
    return [int(i in chosen) for i in range(len(confidences))]


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


def test_quota_ties_go_to_the_lowest_index() -> None:
    assert accepted([0.5, 0.7, 0.5, 0.5], quota=3) == [1, 1, 1, 0]


def test_steps_are_divided_with_at_least_one_per_block() -> None:
    assert [reference.steps_of(n, 3, 8, 7) for n in range(3)] == [3, 2, 2]
    assert [reference.steps_of(n, 3, 8, 1) for n in range(3)] == [1, 1, 1]
    assert reference.steps_of(0, 3, 8, None) == 8


def test_philox_gives_its_published_vectors() -> None:
    zeros = [int(word) for word in reference.philox((0, 0, 0, 0), 0)]
    ones = [int(word) for word in reference.philox((0xFFFFFFFF,) * 4, 2**64 - 1)]

    assert zeros == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert ones == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_portable_log_is_a_logarithm() -> None:
    x = np.concatenate((np.logspace(-12, 3, 2000), [0.5, 1.0, math.sqrt(0.5), 2.0**-33]))

    np.testing.assert_allclose(reference.portable_log(x), np.log(x), rtol=4e-15, atol=4e-15)
