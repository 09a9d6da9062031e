"""The decoding that a package's authors recommend: stated, shown and used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastdllm
from fastdllm.decoding import recommended_config
from fastdllm.llm import default_config

from conftest import PackageOf

GREEDY = {"do_sample": False, "temperature": 0.7}
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


@pytest.mark.parametrize(
    ("name", "generation", "expected"),
    [
        ("LLaDA-8B-Base", {}, {}),
        ("LLaDA-8B-Base", {"temperature": 0.5}, {"temperature": 0.5}),
        ("LLaDA-8B-Base", GREEDY, {"temperature": 0.0}),
        ("Dream-v0-Instruct-7B", {}, {"remasking": "entropy", "temperature": 0.2, "top_p": 0.95}),
        ("Fast_dLLM_v2_7B", SAMPLED, {"threshold": 0.9, "temperature": 0.0}),
        ("SDAR-4B-Chat", {}, {"threshold": 0.9, "steps_per_block": 4, "temperature": 1.0}),
        (
            "SDAR-4B-Chat",
            SAMPLED,
            {"threshold": 0.9, "steps_per_block": 4, "temperature": 0.6}
            | {"top_k": 20, "top_p": 0.95},
        ),
        ("LLaDA2.0-mini", {}, {"threshold": 0.95, "steps_per_block": 32, "temperature": 0.0}),
        ("RND1-Base-0910", {}, {"remasking": "entropy", "temperature": 0.0}),
        ("open-dcoder-0.5B", {}, {}),
    ],
    ids=str,
)
def test_a_family_and_its_generation_config_recommend(
    name: str, generation: dict[str, Any], expected: dict[str, Any]
) -> None:
    pytest.importorskip("torch", reason="exporting needs torch")
    from released_configs import RELEASED

    from fastdllm.export.adapters import adapter_for, read_spec
    from fastdllm.export.decoding import recommended

    config = RELEASED[name][0]
    adapter = adapter_for(config)

    found = recommended(adapter, read_spec(adapter, config), generation)

    assert {option: entry["value"] for option, entry in found.items()} == expected
    for option, entry in found.items():
        said = adapter.follows_generation_config and option in generation
        assert entry["source"] == (
            "generation_config.json" if said else f"the family {adapter.family}"
        )


def test_a_value_that_no_option_takes_is_refused() -> None:
    pytest.importorskip("torch", reason="exporting needs torch")
    from released_configs import RELEASED

    from fastdllm.export import CheckpointError
    from fastdllm.export.adapters import adapter_for, read_spec
    from fastdllm.export.decoding import recommended

    config = RELEASED["SDAR-4B-Chat"][0]
    adapter = adapter_for(config)
    with pytest.raises(CheckpointError, match=r"generation_config.json: top_p"):
        recommended(adapter, read_spec(adapter, config), {"top_p": 7})


@pytest.fixture
def recommending(package_of: PackageOf, tmp_path: Path) -> Path:
    """A package that recommends, as its fastdllm.json says."""
    folder = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), folder)
    metadata = json.loads((folder / "fastdllm.json").read_text("utf-8"))
    metadata["decoding"] = {
        "frechet": {"value": 0.25, "source": "the family someone"},
        "max_new_tokens": {"value": 16, "source": "generation_config.json"},
    }
    (folder / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")
    return folder


def test_llm_decodes_as_recommended_where_nothing_is_said(recommending: Path) -> None:
    llm = fastdllm.LLM(recommending, threads=1)
    prompt = "Sam had 27 balls, bought 9 and lost 7. How many are left?"

    found = llm.generate(prompt)

    config = fastdllm.GenerationConfig(max_new_tokens=16, frechet=0.25)
    assert llm.default_config == config
    assert found.token_ids.tolist() == llm.generate(prompt, config).token_ids.tolist()
    given = llm.generate(prompt, fastdllm.GenerationConfig(max_new_tokens=8))
    assert len(given.token_ids) <= 8


def test_without_a_recommendation_it_is_what_it_was() -> None:
    assert recommended_config({}) == default_config()


def test_info_shows_it_with_its_source(recommending: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastdllm", "info", recommending],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0.25 (the family someone)" in done.stdout
    assert "16 (generation_config.json)" in done.stdout


@pytest.mark.parametrize(
    "entry", [[], {"threshold": 0.9}, {"threshold": {"value": 7}}, {"twist": {"value": 1}}], ids=str
)
def test_a_damaged_recommendation_is_a_package_error(entry: Any) -> None:
    with pytest.raises(fastdllm.PackageError, match=r"fastdllm.json: decoding"):
        recommended_config({"decoding": entry})
