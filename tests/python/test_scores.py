"""Graphs that hold all attention scores of a pass say so, and the engine counts them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from fastdllm import ConfigError, Engine, GenerationConfig, cli
from fastdllm._core import read_package

from export_fixtures import SMALL, export_bare, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
HOLDING: dict[str, dict[str, Any]] = {
    "fp16": {"precision": "fp16"},
    "opset20": {"opset": 20},
    "int8, opset20": {"precision": "int8", "opset": 20},
}


def exported(folder: Path, how: dict[str, Any], **changes: Any) -> Path:
    write_checkpoint(folder / "checkpoint", **changes)
    return export_bare(folder / "checkpoint", folder / "package", **how)


def facts_of(package: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((package / "fastdllm.json").read_text("utf-8"))
    return facts


def config(new: int, **fields: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=new, block_length=8, ignore_eos=True, **fields)


@pytest.mark.parametrize("how", HOLDING.values(), ids=HOLDING)
def test_requests_whose_scores_do_not_fit_are_refused_and_smaller_ones_run(
    how: dict[str, Any], tmp_path: Path
) -> None:
    package = exported(tmp_path, how)
    each = read_package(str(package)).score_bytes
    assert each > 2 * SMALL["n_heads"]  # no number is smaller than two bytes
    engine = Engine(package, threads=1, max_batch=1, cache_bytes=each * 64**2)

    for cache in ("none", "dual"):
        assert len(engine.generate([1] * 16, config(16, cache=cache)).token_ids) == 16
        with pytest.raises(ConfigError, match="attention scores, which this graph holds") as caught:
            engine.generate([1] * 80, config(16, cache=cache))
        text = str(caught.value)
        assert f" {each * 96**2} of them for attention scores" in text
        assert f"cache_bytes, {each * 64**2} (a package exported as fp32 or bf16" in text
    assert engine.logits([1] * 64, [0]).shape == (1, SMALL["vocab_size"])
    with pytest.raises(ConfigError, match=r"a pass of 65 ids may need \d+ bytes"):
        engine.logits([1] * 65, [0])
    assert engine.load().cache_bytes_used == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_graphs_that_go_tile_by_tile_count_nothing(precision: str, tmp_path: Path) -> None:
    package = exported(tmp_path, {"precision": precision})
    assert "score_bytes" not in facts_of(package)["graph"]
    assert read_package(str(package)).score_bytes == 0
    engine = Engine(package, threads=1, cache_bytes=1)
    assert len(engine.generate([1] * 80, config(16, cache="none")).token_ids) == 16


def test_an_older_package_counts_nothing(tmp_path: Path) -> None:
    package = exported(tmp_path, {"precision": "fp16"})
    facts = facts_of(package)
    del facts["graph"]["score_bytes"]
    (package / "fastdllm.json").write_text(json.dumps(facts), "utf-8")
    engine = Engine(package, threads=1, cache_bytes=1)
    assert len(engine.generate([1] * 80, config(16, cache="none")).token_ids) == 16


def test_scores_are_one_number_per_head_and_pair_at_least(tmp_path: Path) -> None:
    few = exported(tmp_path / "few", {"opset": 20})
    many = exported(tmp_path / "many", {"opset": 20}, n_heads=8, n_kv_heads=8)
    found = [read_package(str(package)).score_bytes for package in (few, many)]
    assert found[1] - found[0] >= 4 * (8 - SMALL["n_heads"])


def test_info_shows_what_a_pair_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = exported(tmp_path, {"precision": "fp16"})
    assert cli.main(["info", str(package)]) == 0
    found = re.search(r"^score_bytes +(\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert found
    assert int(found[1]) == read_package(str(package)).score_bytes
