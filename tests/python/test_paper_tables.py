"""The benchmark of the paper's tables: small cells, and what is made of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdllm import LLM
from fastdllm.problems import read_problems

from conftest import ROOT, PackageOf

sys.path.insert(0, str(ROOT / "benchmarks"))

import paper_cells
import paper_text
from paper_cells import Cell, Counts

PROBLEMS = ROOT / "benchmarks" / "tiny_math" / "checkpoint" / "problems.jsonl"


@pytest.fixture(scope="module")
def llm(package_of: PackageOf) -> LLM:
    return LLM(package_of("tiny_math"), threads=1)


@pytest.fixture
def two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every table a baseline and one cell beside it."""
    cells = paper_cells.cells_of

    def few(table: str) -> list[Cell]:
        return [replace(cell, new_tokens=32) for cell in cells(table)[:2]]

    monkeypatch.setattr(paper_cells, "cells_of", few)


@pytest.mark.usefixtures("two_cells")
@pytest.mark.parametrize("table", paper_cells.TABLES)
def test_a_cell_of_a_table_counts_what_its_answers_took(llm: LLM, table: str) -> None:
    counts = Counts(usual=1, naive=1, long=2)

    baseline, other = paper_cells.measure(llm, read_problems(PROBLEMS), table, counts)

    assert baseline["mode"] == "baseline"
    assert baseline["passes"] == 32
    assert baseline["speed_up"] == 1
    assert other["answers"] in (1, 2)
    assert other["passes"] <= 32
    assert other["tokens_per_pass"] == pytest.approx(32 / other["passes"])
    assert 0 < other["answer_tokens"] <= 32
    assert other["accuracy"] == other["right"] / other["answers"]


def test_every_cell_is_a_config_and_has_a_baseline_of_its_lengths() -> None:
    for table in paper_cells.TABLES:
        cells = paper_cells.cells_of(table)
        baselines = {(cell.new_tokens, cell.shots) for cell in cells if cell.baseline}

        assert {(cell.new_tokens, cell.shots) for cell in cells} == baselines
        assert all(cell.config.cache == cell.cache for cell in cells)


def test_slow_cells_answer_fewer_problems() -> None:
    counts = Counts(usual=200, naive=20, long=50)
    naive = Cell(mode="baseline", cache="none")
    fast = Cell(mode="parallel", cache="none", rule={"threshold": 0.9})

    assert counts.of("1-2", naive) == 20
    assert counts.of("4", replace(naive, new_tokens=384)) == 5
    assert counts.of("1-2", fast) == 200
    assert counts.of("3", fast) == 50
    assert counts.of("figure-5", fast) == 400
    assert counts.of("figure-5", replace(fast, rule={"threshold": 1.0})) == 50


def test_examples_stand_before_the_question_in_one_prompt() -> None:
    asked, shown = read_problems(PROBLEMS)[:2]

    text = paper_cells.prompt_of(asked, [shown])

    assert text == f"{shown.prompt}\n{shown.answer}\n\n{asked.prompt}"


def made_up(table: str) -> list[dict[str, Any]]:
    """Return rows as measure() does, of no measurement."""
    return [
        {
            "mode": cell.mode,
            "cache": cell.cache,
            "rule": dict(cell.rule),
            "new_tokens": cell.new_tokens,
            "block_length": cell.block_length,
            "shots": cell.shots,
            "answers": 4,
            "right": 3,
            "accuracy": 0.75,
            "prompt_tokens": 40.0 + 50 * cell.shots,
            "passes": 8.0,
            "tokens_per_pass": 3.0 + 0.1 * number,
            "tokens_per_second": 1234.0,
            "answer_tokens_per_second": 321.0,
            "pass_ms": 5.0,
            "speed_up": 2.5,
        }
        for number, cell in enumerate(paper_cells.cells_of(table))
    ]


@pytest.fixture
def made_up_report() -> dict[str, Any]:
    return {
        "commit": "0123456789abcdef",
        "date": "2026-01-01",
        "machine": {"processor": "a processor", "cores": 2},
        "config": {
            "package": "tiny_math",
            "block_length": 32,
            "threshold": 0.9,
            "threads": 2,
            "seconds": 60.0,
        },
        "tables": {table: made_up(table) for table in paper_cells.TABLES},
    }


def test_the_page_has_every_cell_and_the_papers_numbers_beside(
    made_up_report: dict[str, Any],
) -> None:
    page = paper_text.markdown(made_up_report, {"figure-5": "paper_figure-5.svg"})

    cells = sum(map(len, made_up_report["tables"].values())) - 2  # figures leave out the baseline
    assert page.count("| 75.0 % |") == cells
    assert (
        "| +both, prefix | 4 | 75.0 % | 1234 | 321 | 8.0 | 5.0 | 2.5x | 78.5 % | 54.4 | 8.1x |"
        in page
    )
    assert "76.0 % / 19.3 (27.6x)" in page
    assert "![figure-5](paper_figure-5.svg)" in page


def test_the_page_states_the_command_that_measured(made_up_report: dict[str, Any]) -> None:
    def first(report: dict[str, Any]) -> str:
        return paper_text.markdown(report, {}).splitlines()[2].strip()

    counts = {"count": 100, "naive_count": 10, "long_count": 25}
    counted = made_up_report | {"config": made_up_report["config"] | counts}

    assert first(made_up_report) == "python benchmarks/paper.py"
    assert first(counted).endswith("paper.py --count 100 --naive-count 10 --long-count 25")
    assert first(counted | {"command": "what was run"}) == "what was run"


def test_a_report_of_some_tables_is_rendered_without_the_others(
    made_up_report: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    import paper

    made_up_report["tables"] = {"3": made_up_report["tables"]["3"]}
    path = tmp_path / "paper.json"
    path.write_text(json.dumps(made_up_report), "utf-8")

    made = paper.render(made_up_report, path)

    assert {one.name for one in made} == {"paper.md", "paper_3.svg"}
    assert "Table 4" not in (tmp_path / "paper.md").read_text("utf-8")


def test_all_figures_are_drawn(made_up_report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import paper

    made = paper.render(made_up_report, tmp_path / "paper.json")

    assert {one.name for one in made} == {"paper.md"} | {
        f"paper_{table}.svg" for table in paper_cells.TABLES
    }


def test_a_figure_of_the_same_numbers_is_the_same_file(
    made_up_report: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from paper_plots import figures

    for name in ("first.svg", "second.svg"):
        figures(made_up_report | {"tables": {"1-2": made_up("1-2")}})["1-2"](tmp_path / name)

    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
