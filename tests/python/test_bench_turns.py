"""The benchmark suite around its workers: turns, failures, a report as it grows, its targets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import bench
import bench_report
import compare
import readme
import scenarios
import targets
from synthetic import SHAPES, Shape

SMALL = {
    "name": "small",
    "groups": ["short"],
    "model": "small",
    "prompts": 2,
    "prompt_length": 12,
    "config": {"max_new_tokens": 24, "block_length": 16, "cache": "dual", "ignore_eos": True},
    "contenders": ["fastdllm", "fastdllm_naive", "torch_eager", "torch_naive"],
}


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "small", Shape(layers=2, heads=2, mlp=96, vocabulary=300))


def made_run() -> dict[str, Any]:
    return dict.fromkeys(bench_report.RUN_KEYS, 1) | {
        "token_ids": [[1], [2]],
        "passes_of_answers": [1, 1],
    }


def test_a_contender_that_fails_is_left_out_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_worker(job: dict[str, Any], folder: Path) -> Any:
        if job["torch"]:
            raise subprocess.CalledProcessError(1, "worker")
        return made_run()

    monkeypatch.setattr(bench, "run_worker", run_worker)
    monkeypatch.setattr(bench, "job_of", lambda _, contender, models: {"torch": contender.torch})
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps([SMALL]), "utf-8")

    status = bench.main(["--scenarios", str(path), "small", "--folder", str(tmp_path)])

    assert status == 1
    assert "small torch_eager: failed with exit code 1" in capsys.readouterr().err
    written = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert written["failures"] == ["small torch_eager", "small torch_naive"]
    names = [one["name"] for one in written["scenarios"][0]["contenders"]]
    assert names == ["fastdllm", "fastdllm_naive"]


def test_an_export_that_fails_and_output_that_is_no_json_fail_only_their_contender(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    worker = tmp_path / "worker.py"
    worker.write_text("print('a library says hello')", "utf-8")

    def job_of(_: Any, contender: scenarios.Contender, models: Any) -> dict[str, Any]:
        if not contender.torch:
            raise OSError("no space")
        return {}

    monkeypatch.setattr(bench, "WORKER", worker)
    monkeypatch.setattr(bench, "job_of", job_of)
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps([SMALL]), "utf-8")

    assert bench.main(["--scenarios", str(path), "small", "--folder", str(tmp_path)]) == 1

    written = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert sorted(written["failures"]) == sorted(f"small {name}" for name in SMALL["contenders"])
    assert written["finished"]
    (scenario,) = written["scenarios"]
    assert scenario["contenders"] == []
    picture = tmp_path / "a.svg"
    assert compare.main([str(tmp_path / "bench.json"), "--plot", str(picture)]) == 0
    assert picture.exists()


def test_a_report_is_there_after_every_scenario_and_refused_until_it_is_finished(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps([SMALL, SMALL | {"name": "second"}]), "utf-8")
    runs = iter([made_run()] * 4)

    def run_worker(job: dict[str, Any], folder: Path) -> Any:
        if (run := next(runs, None)) is None:
            raise KeyboardInterrupt
        return run

    monkeypatch.setattr(bench, "run_worker", run_worker)
    monkeypatch.setattr(bench, "job_of", lambda *_: {})
    options = ["--scenarios", str(path), "--group", "short", "--repeat", "1"]
    with pytest.raises(KeyboardInterrupt):
        bench.main([*options, "--folder", str(tmp_path)])

    written = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [one["name"] for one in written["scenarios"]] == ["small"]
    assert written["finished"] is False
    assert targets.main(["--folder", str(tmp_path)]) == 2
    assert "unfinished" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unfinished"):
        readme.rewritten(f"{readme.BEGIN}{readme.END}", tmp_path)


def test_contenders_take_every_other_turn_in_reverse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scenario = scenarios.Scenario(**SMALL | {"contenders": ("fastdllm", "torch_eager")})
    order: list[str] = []

    def run_worker(job: dict[str, Any], folder: Path) -> Any:
        order.append(job["name"])
        return made_run()

    monkeypatch.setattr(bench, "run_worker", run_worker)
    monkeypatch.setattr(bench, "job_of", lambda _, contender, models: {"name": contender.name})
    found = bench.run_scenario(scenario, None, 3, tmp_path, [])  # type: ignore[arg-type]

    ours, theirs = scenario.contenders
    assert order == [ours, theirs, theirs, ours, ours, theirs]
    assert [one["name"] for one in found["contenders"]] == [ours, theirs]


# --- targets ------------------------------------------------------------------------------------


def test_a_peak_within_the_margin_and_the_allowance_meets_its_target() -> None:
    one = {"name": "fastdllm", "weights_bytes": 90e6, "cache_bytes": 10e6, "peak_bytes": 215e6}
    results = {"bench": {"scenarios": [{"name": "tiny_dual_64", "contenders": [one]}]}}

    assert targets.memory("tiny_dual_64")(results) == pytest.approx(1)


@pytest.mark.parametrize("other", [{"model": "350m"}, {"threads": 1}])
def test_a_floor_of_another_model_or_thread_count_measures_no_target(
    other: dict[str, Any],
) -> None:
    passes = [{"kind": "step", "ratio": 1.1}]
    results = {"floor": {"model": "100m", "threads": 2, "passes": passes}}

    assert targets.over_floor("step")(results) == 1.1
    with pytest.raises(ValueError, match="100m with 2 threads"):
        targets.over_floor("step")({"floor": results["floor"] | other})


def test_targets_read_scaling_and_cold_start() -> None:
    context = [{"context": n, "threads": 2, "step_ms": 10 + n / 256} for n in (256, 512, 2048)]
    shape = asdict(SHAPES["100m"])
    way = {"process_ms": 90, "import_ms": 300, "engine_ms": 80, "text_ms": 20}
    results: dict[str, Any] = {
        "scaling": {"config": {"shape": shape}, "context": context},
        "cold_start": {"ways": {"C++, text": way, "Python, text": way}},
    }

    met = {one.target.name: one.met for one in targets.judge(results)}

    assert met["cold start without Python"]
    assert met["import and load with Python"]
    assert met["a step at 2048 positions over one at 256: 100M"] is False  # 18 over 11
    assert met["exponent of a step's time over context: 100M"]
    results["scaling"]["config"]["shape"]["layers"] = 1
    met = {one.target.name: one.met for one in targets.judge(results)}
    assert met["exponent of a step's time over context: 100M"] is None
