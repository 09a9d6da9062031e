"""One engine, one request: counts, events, abort, options and prompts, clear errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdllm
from fastdllm import CommitEvent, ConfigError, Engine, GenerationConfig, NumericError

from conftest import EngineOf, PackageOf


def generate_with_events(
    engine: Engine, prompt: list[int], config: GenerationConfig
) -> tuple[fastdllm.GenerationResult, list[CommitEvent]]:
    events: list[CommitEvent] = []
    result = engine.generate(prompt, config, events.append)
    return result, events


def test_a_dual_step_computes_its_block_and_logits_of_masks_only(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=64, block_length=32, ignore_eos=True)

    result = mha.generate(list(range(10)), config)

    stats = result.stats
    assert (stats.refresh_passes, stats.step_passes) == (2, 62)
    assert stats.rows_computed == 2 * 74 + 62 * 32
    assert stats.logit_rows_computed == 2 * sum(range(1, 33))
    assert stats.cache_bytes > 0
    assert 0 < stats.graph_seconds <= stats.total_seconds


def test_a_prefix_step_computes_the_block_and_what_follows(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=64, block_length=32, cache="prefix", ignore_eos=True)

    stats = mha.generate(list(range(10)), config).stats

    assert stats.rows_computed == 2 * 74 + 31 * 64 + 31 * 32


def test_guidance_counts_both_rows(mha: Engine) -> None:
    config = GenerationConfig(
        max_new_tokens=8, block_length=8, cache="none", cfg_scale=1.0, ignore_eos=True
    )

    stats = mha.generate([1, 2], config).stats

    assert (stats.rows_computed, stats.logit_rows_computed) == (2 * 8 * 10, 2 * 36)


def test_events_reconstruct_the_result(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=50, block_length=16, threshold=0.4, ignore_eos=True)
    canvas = np.full(50, -1)

    result, events = generate_with_events(mha, [3, 1, 4], config)

    for step, event in enumerate(events):
        assert event.step == step
        assert event.block_start == 16 * event.block
        assert event.block_end == min(50, event.block_start + 16)
        assert (canvas[event.positions] == -1).all()
        canvas[event.positions] = event.token_ids
        finished = (canvas[event.block_start : event.block_end] != -1).all()
        assert event.block_finished == finished
        assert ((event.confidences >= 0) & (event.confidences <= 1.001)).all()
    assert canvas.tolist() == result.token_ids.tolist()
    assert len(events) == result.num_passes
    assert sum(event.refreshed for event in events) == result.stats.refresh_passes == 4
    assert sum(event.rows for event in events) == result.stats.rows_computed


def test_false_aborts_and_leaves_the_engine_usable(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=32, block_length=8, ignore_eos=True)
    whole = mha.generate([7], config).token_ids.tolist()

    result = mha.generate([7], config, lambda event: event.step < 11)

    ids = result.token_ids.tolist()
    assert result.finish_reason == "abort"
    assert result.num_passes == 12
    assert ids == whole[: len(ids)]
    assert len(ids) >= 8
    assert mha.generate([7], config).token_ids.tolist() == whole


def test_an_error_in_the_callback_comes_out(mha: Engine) -> None:
    def fail(event: CommitEvent) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mha.generate([1], GenerationConfig(max_new_tokens=4), fail)
    assert mha.generate([1], GenerationConfig(max_new_tokens=4)).num_passes > 0


def test_the_engine_refuses_a_call_from_its_own_callback(mha: Engine) -> None:
    def nest(event: CommitEvent) -> None:
        mha.generate([1])

    with pytest.raises(ConfigError, match="callback"):
        mha.generate([1], GenerationConfig(), nest)


def test_token_ids_are_a_read_only_view(mha: Engine) -> None:
    ids = mha.generate([1], GenerationConfig(max_new_tokens=4, ignore_eos=True)).token_ids

    assert ids.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_ids_may_be_an_array_or_any_sequence(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=8, ignore_eos=True)
    expected = mha.generate([5, 6, 7], config).token_ids.tolist()

    for ids in (
        np.array([5, 6, 7], np.int32),
        np.array([5, 6, 7], np.int64),
        np.array([5, 0, 6, 0, 7, 0], np.int32)[::2],
        (5, 6, 7),
        range(5, 8),
    ):
        assert mha.generate(ids, config).token_ids.tolist() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": -3}, "max_new_tokens is -3"),
        ({"block_length": 0}, "block_length is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"threshold": 0.0}, "threshold is 0"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": float("nan")}, "threshold is"),
        ({"factor": -1.0}, "factor is -1"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"cfg_scale": float("inf")}, "cfg_scale is inf"),
        ({"cache": "triple"}, "'none', 'prefix', 'dual'"),
        ({"remasking": "low"}, "'low_confidence', 'random'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        GenerationConfig(**options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, fastdllm.Error)


def test_an_option_made_bad_later_is_named_before_any_pass(mha: Engine) -> None:
    config = GenerationConfig()
    config.threshold = 3.0

    with pytest.raises(ConfigError, match="threshold is 3"):
        mha.generate([1], config)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([1, -1], "-1 at index 1"),
        ([256], "256 at index 0"),
        ([2**40], "outside the vocabulary"),
        ([1, 255], "mask token"),
        ([1] * 400, "longer than the model's context of 512"),
    ],
)
def test_a_bad_prompt_is_named_before_any_pass(prompt: list[int], words: str, mha: Engine) -> None:
    with pytest.raises(ConfigError, match=words):
        mha.generate(
            prompt, GenerationConfig(max_new_tokens=128), lambda event: pytest.fail("a pass ran")
        )


@pytest.mark.parametrize("prompt", ["text", [1.5], [None], 3])
def test_a_prompt_of_no_integers_is_a_type_error(prompt: Any, mha: Engine) -> None:
    with pytest.raises(TypeError):
        mha.generate(prompt)


def test_an_empty_prompt_is_answered(mha: Engine) -> None:
    result = mha.generate([], GenerationConfig(max_new_tokens=5, ignore_eos=True))

    assert len(result.token_ids) == 5


def test_nan_logits_are_named_and_not_decoded(package_of: PackageOf, tmp_path: Path) -> None:
    package = damaged_weights(package_of("llada-mha"), tmp_path / "package")

    with pytest.raises(NumericError, match=r"pass 0.*position"):
        Engine(package, threads=1).generate([1, 2, 3])


def damaged_weights(source: Path, target: Path) -> Path:
    """Copy a package with NaN weights; the graph's checksum is all that loading compares."""
    import shutil

    shutil.copytree(source, target)
    weights = target / "model.onnx.data"
    size = weights.stat().st_size
    weights.write_bytes(np.full(size // 4, np.nan, np.float32).tobytes().ljust(size, b"\0"))
    return target


def test_config_round_trips_by_its_dictionary() -> None:
    config = GenerationConfig(steps=7, threshold=0.5, cache="prefix", seed=2**64 - 1)
    make: Callable[..., GenerationConfig] = GenerationConfig

    again = make(**config.to_dict())

    assert again == config
    assert repr(again) == repr(config)
    assert config != GenerationConfig()


def test_a_config_compares_with_anything_and_takes_numpy_integers() -> None:
    config = GenerationConfig(seed=np.int64(4), max_new_tokens=np.int64(7))

    assert config == GenerationConfig(seed=4, max_new_tokens=7)
    assert config is not None
    assert (config == None) is False  # noqa: E711 - the operator is what is tested
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)
    with pytest.raises(ConfigError, match="cfg_scale"):
        GenerationConfig(cfg_scale=1e39)


# --- a conversation ---------------------------------------------------------------------------


def test_a_conversations_next_turn_computes_only_what_is_new(
    package_of: PackageOf, engine_of: EngineOf
) -> None:
    engine = engine_of("sdar")
    config = GenerationConfig(max_new_tokens=40, threshold=0.5, ignore_eos=True)
    first = list(range(60))
    answer = engine.generate(first, config)
    second = [*first, *answer.token_ids.tolist(), 7, 8, 9]

    again = engine.generate(second, config)

    assert again.stats.reused_rows >= len(first) + 40 - 4  # all but the last block
    fresh = fastdllm.Engine(package_of("sdar"), threads=1).generate(second, config)
    assert again.token_ids.tolist() == fresh.token_ids.tolist()
    assert fresh.stats.reused_rows == 0
    assert again.stats.rows_computed + again.stats.reused_rows == fresh.stats.rows_computed


def test_a_long_prompt_is_fed_in_pieces(engine_of: EngineOf) -> None:
    engine = engine_of("fast-dllm-v2")  # a context of 512
    config = GenerationConfig(max_new_tokens=1, cache="prefix")
    naive = GenerationConfig(max_new_tokens=1, cache="none")
    prompt = [i % 200 for i in range(511)]

    found = engine.generate(prompt, config)

    assert found.token_ids.tolist() == engine.generate(prompt, naive).token_ids.tolist()
    assert found.stats.rows_computed == 512


def test_options_can_be_copied_and_pickled() -> None:
    config = GenerationConfig(threshold=0.5, stop_token_ids=[3], remasking="margin")

    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_wrong_type_is_named() -> None:
    with pytest.raises(TypeError, match=r"block_length is 'a'; expected int \| None"):
        GenerationConfig(block_length="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'blocks'"):
        GenerationConfig(blocks=3)  # type: ignore[call-overload]
