"""Sampling options as a caller of the engine sees them: biases, bans, log-probabilities."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastdllm import CommitEvent, ConfigError, Engine, GenerationConfig

from conftest import EngineOf

PROMPT = [3, 1, 4, 1, 5]
RULES: list[dict[str, Any]] = [
    {},
    {"threshold": 0.4, "threshold_decay": 0.5},
    {"frechet": 0.1, "temperature": 0.7},
    {"entropy_bound": 2.0},
    {"cfg_scale": 0.5, "min_p": 0.2, "temperature": 1.0},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ["llada-mha", "dream-gqa", "sdar"])
def test_logprobs_are_those_of_the_commits(
    name: str, rule: dict[str, Any], engine_of: EngineOf
) -> None:
    confidences = np.full(37, np.nan)

    def note(event: CommitEvent) -> None:
        confidences[event.positions] = event.confidences

    config = GenerationConfig(max_new_tokens=37, ignore_eos=True, **rule)
    result = engine_of(name).generate(PROMPT, config, note)

    assert result.logprobs.dtype == np.float64
    np.testing.assert_allclose(result.logprobs, np.log(confidences), rtol=1e-12)


def test_an_edited_tokens_logprob_is_that_of_the_edit(engine_of: EngineOf) -> None:
    confidences = np.full(24, np.nan)
    writes = np.zeros(24, int)

    def note(event: CommitEvent) -> None:
        confidences[event.positions] = event.confidences
        writes[event.positions] += 1

    config = GenerationConfig(
        max_new_tokens=24, threshold=0.2, editing_threshold=0.0, ignore_eos=True
    )
    result = engine_of("llada-mha").generate(PROMPT, config, note)

    assert writes.max() > 1
    np.testing.assert_allclose(result.logprobs, np.log(confidences), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_are_never_written(temperature: float, mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=48, temperature=temperature, ignore_eos=True)
    plain = mha.generate(PROMPT, config).token_ids.tolist()
    config.banned_token_ids = sorted(set(plain))

    found = mha.generate(PROMPT, config).token_ids.tolist()

    assert len(found) == 48
    assert not set(found) & set(plain)


def test_a_bias_of_nothing_changes_no_token_and_a_large_one_every_token(mha: Engine) -> None:
    def generate(**options: Any) -> list[int]:
        config = GenerationConfig(max_new_tokens=32, ignore_eos=True, **options)
        return mha.generate(PROMPT, config).token_ids.tolist()

    assert generate(logit_bias={7: 0.0}) == generate()
    assert generate(logit_bias={7: 1e6}) == [7] * 32


def test_a_bias_reads_any_mapping_and_jsons_too() -> None:
    config = GenerationConfig(logit_bias={9: -1, np.int64(2): np.float32(0.5)})

    assert config.logit_bias == {2: 0.5, 9: -1.0}
    assert config == GenerationConfig(logit_bias={2: 0.5, 9: -1.0})
    assert config == GenerationConfig(**json.loads(json.dumps(config.to_dict())))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_p": 1.0}, "min_p is 1"),
        ({"logit_bias": {3: float("nan")}}, "logit_bias of token 3 is nan"),
        ({"logit_bias": {-3: 1.0}}, "logit_bias holds token -3"),
        ({"logit_bias": {2**40: 1.0}}, "logit_bias: id 1099511627776"),
        ({"logit_bias": {3: 1.0, "3": 2.0}}, "logit_bias names token 3 twice"),
        ({"banned_token_ids": [-1]}, "banned_token_ids holds token -1"),
        ({"threshold_decay": 0.5}, "needs a threshold"),
        ({"frechet": 1.0}, "frechet is 1"),
        ({"frechet": 0.2, "threshold": 0.9}, "frechet is given beside another rule"),
        ({"frechet": 0.2, "remasking": "entropy"}, "'entropy' goes by a schedule"),
        ({"entropy_bound": -1.0}, "entropy_bound is -1"),
        ({"entropy_bound": 1.0, "factor": 1.0}, "entropy_bound is given beside another rule"),
        ({"suffix_window": -1}, "suffix_window is -1"),
        ({"refresh_interval": 0}, "refresh_interval is 0"),
        ({"deferred_window": 0}, "deferred_window is 0"),
        ({"refresh_tokens": 0}, "refresh_tokens is 0"),
    ],
    ids=str,
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GenerationConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": [1, 2]},
        {"logit_bias": {"x": 1.0}},
        {"logit_bias": {1.5: 1.0}},
        {"logit_bias": {1: "x"}},
        {"logit_bias": None},
        {"banned_token_ids": None},
        {"banned_token_ids": "12"},
        {"banned_token_ids": [1.5]},
    ],
    ids=str,
)
def test_a_wrong_type_is_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=name):
        GenerationConfig(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"logit_bias": {256: 1.0}}, "logit_bias holds 256"),
        ({"logit_bias": {255: 1.0}}, "other than the mask token"),
        ({"banned_token_ids": [255]}, "other than the mask token"),
        ({"banned_token_ids": range(255)}, "at least one to remain"),
    ],
    ids=["no token", "bias of the mask", "ban of the mask", "all"],
)
def test_tokens_that_the_model_does_not_have_are_named(
    options: dict[str, Any], words: str, mha: Engine
) -> None:
    with pytest.raises(ConfigError, match=words):
        mha.generate(PROMPT, GenerationConfig(**options))
