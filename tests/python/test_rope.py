"""Rotations as transformers computes them, and through a whole export."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rope_cases import CASES, Case, transformers_values

torch = pytest.importorskip("torch", reason="exporting needs torch")

from test_adapters import LLADA2, QWEN3  # noqa: E402

import fastdllm  # noqa: E402
from fastdllm.export import CheckpointError  # noqa: E402
from fastdllm.export.adapters import adapter_for  # noqa: E402
from fastdllm.export.adapters.rope_keys import context_length, rope_spec  # noqa: E402
from fastdllm.export.rope import query_rotation, rope_tables, rotation  # noqa: E402
from fastdllm.export.rope_spec import RopeSpec  # noqa: E402

from export_fixtures import (  # noqa: E402
    SMALL,
    export_bare,
    plain_logits,
    random_tensors,
    write_checkpoint,
)

VALUES = json.loads((Path(__file__).parent / "rope_values.json").read_text("utf-8"))


def read(case: Case, **changes: Any) -> RopeSpec:
    size, context, parameters, _ = case
    config = {"rope_parameters": parameters | changes}
    return rope_spec(config, context=context, rotated=size, head_dim=size)


def expected_rotation(values: dict[str, Any], positions: list[int]) -> tuple[Any, Any]:
    angles = torch.outer(
        torch.tensor(positions, dtype=torch.float32),
        torch.tensor(values["frequencies"], dtype=torch.float32),
    )
    return angles.cos() * values["attention_factor"], angles.sin() * values["attention_factor"]


@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    size = CASES[name][0]
    rope = read(CASES[name])
    tables = rope_tables(rope, size)

    for values in VALUES[name]:
        length = values["length"]
        positions = torch.arange(length)[None]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        cos, sin = rotation(rope, positions, mask, tables)
        wanted_cos, wanted_sin = expected_rotation(values, list(range(length)))
        torch.testing.assert_close(cos[0], wanted_cos, rtol=0, atol=2e-5 * max(1, length // 64))
        torch.testing.assert_close(sin[0], wanted_sin, rtol=0, atol=2e-5 * max(1, length // 64))
        if not rope.by_length:  # the numbers themselves
            found = tables["inverse_frequencies"]
            wanted = torch.tensor(values["frequencies"])
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
        assert rope.attention_factor == pytest.approx(values["attention_factor"], rel=1e-6)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_frequencies_of_a_length_are_those_of_transformers(name: str) -> None:
    from fastdllm.export.rope import _of_length

    rope, size = read(CASES[name]), CASES[name][0]
    lengths = torch.tensor([values["length"] for values in VALUES[name]])

    found = _of_length(rope, lengths, rope_tables(rope, size)).expand(len(lengths), -1)

    wanted = torch.tensor([values["frequencies"] for values in VALUES[name]])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert not torch.equal(found[0], found[-1])  # the case is no trivial one


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers is not installed; its numbers are in rope_values.json",
)
@pytest.mark.parametrize("name", CASES)
def test_the_stored_numbers_are_those_of_the_installed_transformers(name: str) -> None:
    for stored, found in zip(VALUES[name], transformers_values(CASES[name]), strict=True):
        torch.testing.assert_close(
            torch.tensor(found["frequencies"]),
            torch.tensor(stored["frequencies"]),
            rtol=1e-6,
            atol=0,
        )
        assert found["attention_factor"] == pytest.approx(stored["attention_factor"], rel=1e-6)


def test_queries_are_scaled_by_position_as_ministral_scales_them() -> None:
    rope = read(CASES["yarn_ministral"])
    positions = torch.tensor([[0, 16383, 16384, 49152, 200000]])
    turn = (torch.ones(1, 5, 64), torch.full((1, 5, 64), 2.0))

    cos, sin = query_rotation(rope, positions, turn)

    wanted = [1 + 0.1 * math.log(1 + position // 16384) for position in positions[0].tolist()]
    torch.testing.assert_close(cos[0, :, 0], torch.tensor(wanted), rtol=1e-6, atol=0)
    torch.testing.assert_close(sin, 2 * cos)


def test_the_length_is_the_same_in_every_pass_over_a_canvas() -> None:
    rope = read(CASES["longrope"])
    tables = rope_tables(rope, 16)
    whole = rotation(
        rope, torch.arange(70)[None], torch.ones(1, 1, 1, 70, dtype=torch.bool), tables
    )
    # A step feeds rows in the middle; the mask of a batch's shorter row hides the padding.
    mask = torch.ones(2, 1, 1, 90, dtype=torch.bool)
    mask[1, ..., 60:] = False
    step = rotation(rope, torch.arange(10, 14)[None].repeat(2, 1), mask[..., :70], tables)
    short = rotation(
        rope, torch.arange(60)[None], torch.ones(1, 1, 1, 60, dtype=torch.bool), tables
    )

    torch.testing.assert_close(step[0][0], whole[0][0, 10:14])
    torch.testing.assert_close(step[0][1], short[0][0, 10:14])


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        ({"rope_type": "yarn", "factor": 4.0}, 512),
        ({"rope_type": "dynamic", "factor": 2.0}, 256),
        ({"rope_type": "linear", "factor": 2.0}, 128),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}, 128),
    ],
    ids=str,
)
def test_the_context_is_what_the_scaling_reaches(scaling: dict[str, Any], context: int) -> None:
    rope = rope_spec({"rope_scaling": scaling}, context=128, rotated=8, head_dim=8)
    assert context_length(rope, 128) == context


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (QWEN3, {"rope_type": "longrope"}, "keeps keys that were rotated before"),
        (SMALL, {"rope_type": "longrope"}, "short_factor is not a list of 4 numbers"),
        (SMALL, {"rope_type": "yarn", "factor": 0.5}, "factor is 0.5; expected >= 1"),
        (SMALL, {"rope_type": "yarn", "factor": 2.0, "twist": 3}, "holds 'twist'"),
        (SMALL, {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 5}, "less than"),
        (
            LLADA2 | {"head_dim": 8, "partial_rotary_factor": 0.5},
            {"rope_type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 0.1},
            "needs all of a head",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_rotated_is_refused(
    base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    config = base | {"rope_scaling": changes}
    with pytest.raises(CheckpointError, match=words):
        adapter_for(config).spec(config)


def test_old_and_new_places_are_read_alike() -> None:
    scaling = {"factor": 2.0, "original_max_position_embeddings": 64}
    old = QWEN3 | {"rope_theta": 5e5, "rope_scaling": {"type": "yarn"} | scaling}
    new = QWEN3 | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn"} | scaling}

    assert adapter_for(new).spec(new) == adapter_for(old).spec(old)


@pytest.mark.parametrize(
    ("scaling", "opset"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, 23),
        (
            {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0]}
            | {"long_factor": [2.0, 4.0, 8.0, 9.0], "original_max_position_embeddings": 24},
            23,
        ),
        (
            {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0]}
            | {"long_factor": [2.0, 4.0, 8.0, 9.0], "original_max_position_embeddings": 24},
            20,
        ),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
            | {"llama_4_scaling_beta": 0.3},
            23,
        ),
    ],
    ids=["dynamic", "longrope", "longrope-20", "yarn-query"],
)
def test_a_package_computes_what_its_rotation_says(
    scaling: dict[str, Any], opset: int, tmp_path: Path
) -> None:
    context = 32
    changes = {"rope_scaling": scaling, "max_sequence_length": context}
    folder = write_checkpoint(tmp_path / "checkpoint", **changes)
    engine = fastdllm.Engine(export_bare(folder, tmp_path / "package", opset=opset), threads=1)
    rope = rope_spec({"rope_scaling": scaling}, context=context, rotated=8, head_dim=8)
    tables = rope_tables(rope, 8)
    weights = random_tensors(SMALL)

    for length in (20, 32) if scaling["rope_type"] == "longrope" else (20, 40):
        ids = [(7 * i + 3) % 60 for i in range(min(length, engine.package.max_context_length))]
        positions = torch.arange(len(ids))[None]
        mask = torch.ones(1, 1, 1, len(ids), dtype=torch.bool)
        keys = rotation(rope, positions, mask, tables)
        queries = query_rotation(rope, positions, keys)
        expected = plain_logits(SMALL, weights, ids, rotations=(queries, keys))
        found = torch.from_numpy(engine.logits(ids, list(range(len(ids)))))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
