"""The engine against reference.py on random requests: same tokens, passes, commits and counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import GenerationConfig, reference
from fastdllm.testing import package_forward

from conftest import PackageOf

MASK, EOS = 255, 254

# Derandomized: engine and reference round a confidence differently in the seventh digit, and a
# decision as close as that must not come and go from run to run.
profile = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
prompts = st.lists(st.integers(0, EOS), max_size=70)
options = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 70),
        "block_length": st.integers(1, 40),
        "cache": st.sampled_from(["none", "prefix", "dual"]),
        "remasking": st.sampled_from(["low_confidence", "low_confidence", "random"]),
        "temperature": st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        "cfg_scale": st.sampled_from([0.0, 0.0, 0.0, 1.5]),
        "seed": st.sampled_from([0, 1, 2**63 + 11]),
        "ignore_eos": st.booleans(),
    },
    optional={
        "steps": st.integers(1, 100),
        "threshold": st.floats(0.05, 1.0),
        "factor": st.floats(0.1, 3.0),
    },
)


@pytest.fixture(scope="session")
def forward(package_of: PackageOf) -> reference.Forward:
    return package_forward(package_of("llada-mha"), threads=1)


# Without a prompt all rows are alike, and rounding alone decides which is surest: not compared.
@profile
@given(prompt=prompts.filter(bool), fields=options)
def test_engine_does_what_the_reference_does(
    prompt: list[int],
    fields: dict[str, Any],
    mha: fastdllm.Engine,
    forward: reference.Forward,
) -> None:
    config = GenerationConfig(**fields)
    commits: list[tuple[list[int], list[int]]] = []

    found = mha.generate(
        prompt, config, lambda e: commits.append((e.positions.tolist(), e.token_ids.tolist()))
    )
    expected = reference.generate(forward, prompt, config, mask_token_id=MASK, eos_token_ids=[EOS])

    assert commits == expected.commits
    assert found.token_ids.tolist() == expected.token_ids
    assert found.num_passes == expected.num_passes
    assert found.finish_reason == expected.finish_reason
    assert found.stats.rows_computed == expected.rows_computed
    assert found.stats.logit_rows_computed == expected.logit_rows_computed
    assert MASK not in found.token_ids


@settings(profile, max_examples=40)
@given(prompt=prompts, fields=options)
def test_stopping_gives_a_prefix_of_not_stopping(
    prompt: list[int], fields: dict[str, Any], mha: fastdllm.Engine
) -> None:
    stopping = mha.generate(prompt, GenerationConfig(**{**fields, "ignore_eos": False}))
    whole = mha.generate(prompt, GenerationConfig(**{**fields, "ignore_eos": True}))

    ids = stopping.token_ids.tolist()
    assert whole.token_ids.tolist()[: len(ids)] == ids
    assert len(whole.token_ids) == fields["max_new_tokens"]
    assert EOS not in ids[:-1]
    assert (stopping.finish_reason == "stop") == (EOS in ids)


@settings(profile, max_examples=40)
@given(prompt=prompts, fields=options)
def test_the_same_request_gives_the_same_tokens(
    prompt: list[int], fields: dict[str, Any], mha: fastdllm.Engine
) -> None:
    first, second = (mha.generate(prompt, GenerationConfig(**fields)) for _ in range(2))

    assert first.token_ids.tolist() == second.token_ids.tolist()


@pytest.mark.parametrize(
    "fields",
    [{"steps": 8}, {"steps": 16}, {"threshold": 1.0}, {"factor": 0.3}, {}],
    ids=str,
)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_sure_model_is_decoded_in_the_references_order(
    cache: str, fields: dict[str, Any], llm: fastdllm.LLM
) -> None:
    """Near certainty an f32 confidence is 1 everywhere; what ranks positions must not be lost."""
    config = GenerationConfig(max_new_tokens=64, cache=cache, ignore_eos=True, **fields)
    prompt = llm.encode("Mia buys 5 pens at 2 dollars each and pays 14 dollars. How much is left?")
    package = llm.engine.package
    commits: list[tuple[list[int], list[int]]] = []

    found = llm.engine.generate(
        prompt, config, lambda e: commits.append((e.positions.tolist(), e.token_ids.tolist()))
    )
    expected = reference.generate(
        package_forward(package.path), prompt, config, mask_token_id=package.mask_token_id
    )

    assert found.num_passes == expected.num_passes
    assert commits == expected.commits
