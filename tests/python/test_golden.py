"""The public references' decodes on tiny checkpoints, by the engine and by reference.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastdllm import reference
from fastdllm.testing import golden_config, package_forward

from conftest import GOLDEN, EngineOf, PackageOf, load_golden

FAMILIES = [path.parent.name for path in sorted(GOLDEN.glob("*/golden.json"))]
NUM_DECODES = 509  # of tests/golden: a case that is lost is noticed


def decodes() -> list[Any]:
    return [
        pytest.param(family, case, id=f"{family}-{index}")
        for family in FAMILIES
        for index, case in enumerate(load_golden(family)["decodes"])
    ]


def test_every_golden_is_there() -> None:
    assert len(FAMILIES) == 8
    assert len(decodes()) == NUM_DECODES


def max_passes(case: dict[str, Any]) -> int | None:
    """The reference's number of forwards, where the case has it."""
    forwards: int | dict[str, int] | None = case.get("nfe", case.get("forwards"))
    return sum(forwards.values()) if isinstance(forwards, dict) else forwards


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_with_the_reference_model(family: str, engine_of: EngineOf) -> None:
    engine = engine_of(family)
    for probe in load_golden(family)["logits"]:
        found = engine.logits(probe["input_ids"], probe["logits_at"], probe.get("block_length"))
        np.testing.assert_allclose(found, probe["values"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("family", "case"), decodes())
def test_engine_decodes_the_same_tokens(
    family: str, case: dict[str, Any], engine_of: EngineOf
) -> None:
    config = golden_config(case)
    stops = [] if config.ignore_eos else config.stop_token_ids or []

    result = engine_of(family).generate(case["prompt"], config)

    assert result.token_ids.tolist() == case["tokens"]
    assert result.num_passes <= (max_passes(case) or result.num_passes)
    assert result.finish_reason == ("stop" if set(stops) & set(case["tokens"]) else "length")


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_decodes_the_same_tokens(
    family: str, package_of: PackageOf, engine_of: EngineOf
) -> None:
    facts = engine_of(family).package
    forward = package_forward(package_of(family), threads=1)
    for case in load_golden(family)["decodes"]:
        found = reference.generate(forward, case["prompt"], golden_config(case), facts)

        assert found.token_ids == case["tokens"]
        assert found.num_passes <= (max_passes(case) or found.num_passes)
