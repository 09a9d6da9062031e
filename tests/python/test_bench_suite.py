"""The benchmark suite: what it runs, that its baselines decode the same, and what it reports."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdllm import Engine, GenerationConfig

from conftest import ROOT, PackageOf

pytest.importorskip("torch", reason="the baselines are torch loops")
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench
import bench_report
import bench_worker
import compare
import readme
import scenarios
import targets
import torch
from synthetic import SHAPES, Shape

from torch_loop import Decoded, decode, shares
from torch_model import TorchModel

SCHEDULE = {"max_new_tokens": 24, "block_length": 16, "cache": "dual", "steps_per_block": 4}
SMALL = {
    "name": "small",
    "groups": ["short"],
    "model": "small",
    "prompts": 2,
    "prompt_length": 12,
    "threads": 1,
    "config": SCHEDULE | {"ignore_eos": True},
    "contenders": ["fastdllm", "fastdllm_naive", "torch_eager", "torch_naive"],
}


# --- scenarios ----------------------------------------------------------------------------------
def test_the_scenarios_are_well_formed_and_each_group_has_some() -> None:
    every = scenarios.read()

    assert {group for one in every for group in one.groups} == {"short", "full"}
    for group in ("short", "full"):
        assert scenarios.chosen(every, [], group)


def test_the_targets_name_scenarios_and_contenders_that_the_full_group_has() -> None:
    made = {
        one.name: {"contenders": [{"name": name} for name in one.contenders]}
        for one in scenarios.chosen(scenarios.read(), [], "full")
    }
    fake = {"bench": {"scenarios": [{"name": name, **one} for name, one in made.items()]}}

    for target in targets.TARGETS:
        lacks = "repeats|outside_us|weights_bytes|floor|cold_start|scaling"
        with pytest.raises(KeyError, match=lacks):  # all but the numbers is there
            target.read(fake)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "1b"}, "model 1b is none of"),
        ({"contenders": ["vllm"]}, "contender vllm is none of"),
        ({"contenders": []}, "at least one"),
        ({"batch": 2}, "batch 1"),
        ({"prompt_length": None}, "random prompts have a prompt_length"),
        ({"config": SCHEDULE | {"threshold": 0.9}}, "threshold or steps_per_block"),
        ({"config": SCHEDULE | {"factor": 1.0}}, "knows no factor"),
        ({"config": SCHEDULE | {"cache": "auto"}}, "needs a cache"),
        ({"config": SCHEDULE | {"max_new_tokens": 0}}, "max_new_tokens"),
        ({"contenders": ["fastdllm"], "config": {"threshold": 0.9}}, "fixed schedule"),
    ],
)
def test_a_scenario_that_cannot_be_run_is_refused_by_name(
    change: dict[str, Any], told: str, small_model: None, tmp_path: Path
) -> None:
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps([SMALL | change]), "utf-8")

    with pytest.raises(ValueError, match=told):
        scenarios.read(path)


def test_unknown_names_and_groups_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["fast"], "no scenario fast"),
        (["--group", "huge"], "no scenario is in the group huge"),
        (["--repeat", "0"], "--repeat: at least 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            bench.main(arguments)
        assert ended.value.code == 2
        assert told in capsys.readouterr().err


# --- baselines ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def torch_model(checkpoint_of: PackageOf) -> Iterator[TorchModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchModel(checkpoint_of("tiny_math"))
    torch.set_num_threads(before)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("rule", [{}, {"threshold": 0.9}, {"steps_per_block": 5}])
def test_the_torch_loop_gives_the_engines_tokens_by_the_same_passes(
    cache: Any, rule: dict[str, Any], torch_model: TorchModel, engine_of: Any
) -> None:
    engine: Engine = engine_of("tiny_math")
    prompt = list(range(3, 40))
    fields = {"max_new_tokens": 40, "block_length": 16, "cache": cache} | rule
    seen: list[bool] = []

    expected = engine.generate(
        prompt,
        GenerationConfig(ignore_eos=True, **fields),
        lambda event: seen.append(event.refreshed),
    )
    found: Decoded = decode(torch_model, prompt, **fields)

    assert found.token_ids == expected.token_ids.tolist()
    assert [one.refreshed for one in found.passes] == seen


def test_a_block_is_divided_among_its_passes_as_the_engine_does() -> None:
    assert shares(32, 5) == [7, 7, 6, 6, 6]
    assert shares(32, 8) == [4] * 8
    assert shares(3, 5) == [1, 1, 1, 0, 0]


def test_the_torch_model_counts_its_weights_and_cache(torch_model: TorchModel) -> None:
    assert torch_model.weights_bytes == sum(t.nbytes for t in torch_model.weights.values())
    assert torch_model.cache_bytes(10) == 2 * 6 * 3 * 64 * 4 * 10


# --- a run --------------------------------------------------------------------------------------
@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "small", Shape(layers=2, heads=2, mlp=96, vocabulary=300))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A scenario run from its checkpoint to its report."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "scenarios.json"
    path.write_text(json.dumps([SMALL]), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "small", Shape(layers=2, heads=2, mlp=96, vocabulary=300))
        options = ["--scenarios", str(path), "--group", "short", "--repeat", "1"]
        status = bench.main([*options, "--folder", str(folder / "models")])
    written: dict[str, Any] = json.loads((folder / "models" / "bench.json").read_text("utf-8"))
    return written | {"status": status}


def test_a_run_states_machine_versions_options_and_every_repeat(report: dict[str, Any]) -> None:
    assert report["status"] == 0
    assert {"commit", "date", "machine", "versions", "command", "load_average"} <= set(report)
    (scenario,) = report["scenarios"]
    assert scenario["config"]["steps_per_block"] == 4
    assert [one["name"] for one in scenario["contenders"]] == SMALL["contenders"]
    for one in scenario["contenders"]:
        assert set(one["repeats"][0]) == set(bench_report.RUN_KEYS)
        assert len(one["repeats"]) == report["repeat"] == 1
        assert one["tokens"] == 2 * 24
        assert one["ttft_ms"] > 0
        assert one["refresh_ms"] > 0
        assert 0 < one["weights_bytes"] < one["peak_bytes"]


def test_a_run_tells_refreshes_from_steps_and_time_outside_the_graph(
    report: dict[str, Any],
) -> None:
    rows = {one["name"]: one for one in report["scenarios"][0]["contenders"]}

    assert rows["fastdllm"]["passes"] == rows["torch_eager"]["passes"] == 2 * (4 + 4)
    assert rows["fastdllm_naive"]["passes"] == rows["torch_naive"]["passes"] == 2 * 24
    assert rows["torch_eager"]["step_ms"] > 0
    assert rows["torch_naive"]["step_ms"] is None  # every pass starts from nothing
    assert rows["fastdllm"]["outside_us"] > 0
    assert rows["torch_eager"]["outside_us"] is None
    rows_held = 2 * 2 * 2 * 64 * 4 * (12 + 24)
    assert rows["torch_eager"]["cache_bytes"] == rows_held
    assert rows["fastdllm"]["cache_bytes"] >= rows_held
    assert rows["torch_naive"]["cache_bytes"] == 0


def test_a_run_compares_each_contender_with_the_first_of_its_method(
    report: dict[str, Any],
) -> None:
    (scenario,) = report["scenarios"]

    references = {one["contender"]: one["reference"] for one in scenario["agreement"]}
    assert references["torch_eager"] == "fastdllm"
    assert references["torch_naive"] == "fastdllm_naive"
    assert all(one["agrees"] and one["same_passes"] for one in scenario["agreement"])
    assert [one["over"] for one in scenario["ratios"]] == SMALL["contenders"][1:]


def test_an_answer_is_counted_up_to_its_end_of_text_token() -> None:
    assert bench_worker.up_to_eos([5, 6, 2, 7, 2], [2]) == [5, 6, 2]
    assert bench_worker.up_to_eos([5, 6], [2]) == [5, 6]


# --- agreement ----------------------------------------------------------------------------------
def made_runs(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, list[Any]]:
    def run(token_ids: list[list[int]]) -> list[Any]:
        return [{"token_ids": token_ids, "passes_of_answers": [len(ids) for ids in token_ids]}]

    return {"fastdllm": run(ours), "torch_eager": run(theirs)}


def test_other_tokens_fail_a_trained_model_and_are_counted_for_random_weights(
    small_model: None,
) -> None:
    random = scenarios.Scenario(**SMALL | {"contenders": ("fastdllm", "torch_eager")})
    trained = replace(random, model="tiny_math", prompt_length=None)
    runs = made_runs([[1, 2, 3, 4]], [[1, 2, 3, 5]])

    for scenario, agrees in ((trained, False), (random, True)):
        _, found = bench_report.agreement(scenario, runs)
        assert found["agrees"] is agrees
        assert found["same_tokens"] == 0.75
        assert found["same_answers"] == 0


def test_other_passes_fail_where_the_schedule_is_fixed(small_model: None) -> None:
    random = scenarios.Scenario(**SMALL | {"contenders": ("fastdllm", "torch_eager")})

    _, found = bench_report.agreement(random, made_runs([[1, 2, 3]], [[1, 2, 3, 4]]))

    assert not found["agrees"]


# --- compare, targets, README ---------------------------------------------------------------------
def slower(report: dict[str, Any], name: str, times: float) -> dict[str, Any]:
    changed = copy.deepcopy(report)
    for one in changed["scenarios"][0]["contenders"]:
        if one["name"] in name.split():
            one["tokens_per_second"] /= times
            for run in one["repeats"]:
                run["tokens_per_second"] /= times
    return changed


def run_compare(tmp_path: Path, *reports: dict[str, Any], options: tuple[str, ...] = ()) -> int:
    paths = [tmp_path / f"{number}.json" for number in range(len(reports))]
    for path, one in zip(paths, reports, strict=True):
        path.write_text(json.dumps(one), "utf-8")
    return compare.main([*map(str, paths), *options])


def test_one_report_is_shown_with_its_ratios(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_compare(tmp_path, report) == 0
    shown = capsys.readouterr().out
    assert "fastdllm over torch_eager: " in shown
    assert "TTFT ms" in shown


def test_what_got_slower_than_the_tolerance_fails_the_comparison(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = slower(report, "fastdllm", 1.3)

    assert run_compare(tmp_path, report, report) == 0
    assert run_compare(tmp_path, report, lost) == 1
    assert "0.77  SLOWER" in capsys.readouterr().out
    assert run_compare(tmp_path, report, lost, options=("--tolerance", "0.3")) == 0


def test_a_slower_machine_does_not_move_speed_ups(report: dict[str, Any], tmp_path: Path) -> None:
    everyone = slower(report, " ".join(SMALL["contenders"]), 2)
    over = ("--over", "torch_eager")

    assert run_compare(tmp_path, report, everyone) == 1
    assert run_compare(tmp_path, report, everyone, options=over) == 0
    assert run_compare(tmp_path, report, slower(report, "fastdllm", 2), options=over) == 1


def test_scenarios_whose_options_changed_are_not_compared(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = copy.deepcopy(report["scenarios"][0]) | {"name": "second"}
    both = report | {"scenarios": [*report["scenarios"], second]}
    other = slower(both, "fastdllm", 2)
    other["scenarios"][0]["config"]["threads"] = 2

    assert run_compare(tmp_path, both, other) == 0
    shown = capsys.readouterr().out
    assert "small: other options, not compared" in shown
    assert "MISSING" not in shown


def test_reports_with_nothing_in_common_fail_the_comparison(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy.deepcopy(report)
    other["scenarios"][0]["config"]["threads"] = 2

    assert run_compare(tmp_path, report, other) == 1
    assert "nothing was compared" in capsys.readouterr().out
    assert run_compare(tmp_path, report | {"scenarios": []}, report) == 1


def test_what_the_new_report_lacks_is_missing_and_fails(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = copy.deepcopy(report["scenarios"][0]) | {"name": "second"}
    both = report | {"scenarios": [*report["scenarios"], second]}
    fewer = copy.deepcopy(report)
    del fewer["scenarios"][0]["contenders"][-1]

    assert run_compare(tmp_path, both, fewer) == 1
    shown = capsys.readouterr().out
    assert "MISSING: small torch_naive" in shown
    assert all(f"MISSING: second {name}" in shown for name in SMALL["contenders"])
    assert run_compare(tmp_path, fewer, both) == 0  # what is new is no loss


def test_failures_and_other_answers_of_the_new_report_fail(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    differs = copy.deepcopy(report)
    differs["scenarios"][0]["agreement"][2] |= {"agrees": False, "same_answers": 0}
    failed = report | {"failures": ["small torch_compile"]}

    assert run_compare(tmp_path, report, differs) == 1
    assert "small: DIFFERS: torch_eager gave 0 of 2 answers" in capsys.readouterr().out
    assert run_compare(tmp_path, report, failed) == 1
    assert "FAILED: small torch_compile" in capsys.readouterr().out
    assert run_compare(tmp_path, failed, report) == 0


@pytest.mark.parametrize(("ratio", "status"), [(1.2, 0), (1.4, 1)])
def test_a_missed_target_fails_and_what_was_not_measured_does_not(
    ratio: float,
    status: int,
    report: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    passes = [{"kind": "step", "ratio": 1.1}, {"kind": "refresh", "ratio": ratio}]
    floor: dict[str, Any] = {
        "commit": "abc1234567",
        "date": "2026-11-27",
        "model": "100m",
        "threads": 2,
    }
    floor["passes"] = passes
    (tmp_path / "floor.json").write_text(json.dumps(floor), "utf-8")

    assert run_compare(tmp_path, report, options=("--targets",)) == status
    lines = capsys.readouterr().out.splitlines()
    (refresh,) = (line for line in lines if "refresh over the GEMM floor" in line)
    assert refresh.split()[-2:] == [f"{ratio:.2f}", "no" if status else "yes"]
    assert sum("not measured" in line for line in lines) == len(targets.TARGETS) - 2
    assert "floor.json: abc1234, 2026-11-27" in lines


def test_pictures_are_drawn_of_a_report(report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    for name, start in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        assert run_compare(tmp_path, report, options=("--plot", str(tmp_path / name))) == 0
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_pages_are_what_the_results_give(page: Path) -> None:
    text = page.read_text("utf-8")

    wanted = readme.rewritten(text, readme.RESULTS, readme.PAGES[page])

    assert wanted == text, "run python benchmarks/readme.py"


def test_the_page_tells_every_contender_and_target_of_a_report(
    report: dict[str, Any], tmp_path: Path
) -> None:
    report = copy.deepcopy(report)
    (tmp_path / "bench.json").write_text(json.dumps(report), "utf-8")
    text = f"before\n{readme.BEGIN}\nof another run\n{readme.END}\nafter\n"

    written = readme.rewritten(text, tmp_path)

    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "of another run" not in written
    for told in (
        "| over torch | over torch.compile | over naive torch |",
        "| small, dual, 4 steps per block,",
        "| small, no cache, one token per pass,",
    ):
        assert told in written
    assert written.count("| not measured |") == len(targets.TARGETS)
    assert f"`bench.json: {report['commit'][:7]}, {report['date']}`" in written
    assert "decode on behind" not in written  # only where an end-of-text token ends an answer
    assert readme.rewritten(written, tmp_path) == written
    with pytest.raises(ValueError, match="once each"):
        readme.rewritten("no marks", tmp_path)
    del report["scenarios"][0]["config"]["ignore_eos"]
    (tmp_path / "bench.json").write_text(json.dumps(report), "utf-8")
    assert "; the torch loops, as their authors', decode on behind that" in readme.rewritten(
        text, tmp_path
    )
