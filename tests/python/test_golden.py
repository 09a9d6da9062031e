"""The public reference's decodes on tiny checkpoints, by the engine and by reference.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdllm
from fastdllm import reference
from fastdllm.testing import golden_config, load_golden, package_forward

from conftest import GOLDEN, EngineOf, PackageOf

FAMILIES = [path.parent.name for path in sorted(GOLDEN.glob("llada-*/golden.json"))]


def decodes() -> list[Any]:
    found = [
        pytest.param(family, case, id=f"{family}-{index}")
        for family in FAMILIES
        for index, case in enumerate(load_golden(GOLDEN / family)["decodes"])
    ]
    return found or [pytest.param("", {}, marks=pytest.mark.skip(reason=f"no goldens in {GOLDEN}"))]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_with_the_reference_model(family: str, engine_of: EngineOf) -> None:
    for probe in load_golden(GOLDEN / family)["logits"]:
        found = engine_of(family).logits(probe["input_ids"], probe["logits_at"])
        np.testing.assert_allclose(found, probe["values"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("family", "case"), decodes())
def test_engine_decodes_the_same_tokens(
    family: str, case: dict[str, Any], engine_of: EngineOf
) -> None:
    result = engine_of(family).generate(case["prompt"], golden_config(case))

    assert result.token_ids.tolist() == case["tokens"]
    assert result.num_passes <= case["nfe"]
    assert result.finish_reason == "length"


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_decodes_the_same_tokens(family: str, package_of: PackageOf) -> None:
    mask_token_id = fastdllm.Engine(package_of(family)).package.mask_token_id
    forward = package_forward(package_of(family), threads=1)
    for case in load_golden(GOLDEN / family)["decodes"]:
        found = reference.generate(
            forward, case["prompt"], golden_config(case), mask_token_id=mask_token_id
        )

        assert found.token_ids == case["tokens"]
        assert found.num_passes <= case["nfe"]
