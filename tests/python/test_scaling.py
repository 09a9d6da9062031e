"""The benchmark of scaling: what counts as a step, the fitted cost, the picture."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdllm import Engine

from conftest import ROOT, PackageOf

pytest.importorskip("safetensors.torch", reason="synthetic.py writes checkpoints with it")
sys.path.insert(0, str(ROOT / "benchmarks"))

import cost_model
import scaling
from passes import Pass
from synthetic import SHAPES, Shape


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_that_all_requests_share_are_timed(package_of: PackageOf, batch: int) -> None:
    package = package_of("tiny_math")
    shape = Shape(layers=6, heads=3, mlp=512, vocabulary=512)
    point = scaling.Point(package=package, shape=shape, context=20, batch=batch, threads=1)

    times, cache_bytes = scaling.decode(Engine(package, threads=1), point)

    assert len(times["step"]) == len(times["wanted"])
    assert 1 <= len(times["step"]) <= scaling.STEPS + batch - 1
    assert len(times["refresh"]) == (batch == 1)
    assert all(20 - batch <= rows < 32 for rows in times["wanted"])
    assert cache_bytes >= batch * 2 * 4 * 6 * 192 * (20 + 32)


def test_every_point_is_measured_once_however_many_curves_it_is_on() -> None:
    packages = {size: Path(f"package_{size}") for size in scaling.VOCABULARIES}

    curves = scaling.points_of(packages)

    base = scaling.Point(package=packages[32000], shape=scaling.SHAPE)
    assert all(base in points for points in curves.values())
    assert [point.context for point in curves["context"]] == list(scaling.CONTEXTS)


def works() -> list[cost_model.Work]:
    shape = SHAPES["100m"]
    return [
        cost_model.Work.of(
            replace(shape, vocabulary=vocabulary),
            Pass(rows=rows, cached=cached, wanted=wanted),
            batch=batch,
        )
        for vocabulary in (32000, 126464)
        for rows, cached, wanted, batch in (
            (32, 256, 26, 1),
            (32, 4096, 26, 1),
            (32, 256, 20, 8),
            (288, 0, 32, 1),
            (4128, 0, 32, 1),
        )
    ]


def test_the_last_layer_of_a_refresh_is_counted_for_wanted_rows_only() -> None:
    shape = Shape(layers=1, heads=2, head_dim=8, mlp=24, vocabulary=100)
    hidden, rows, wanted = shape.hidden, 288, 32

    work = cost_model.Work.of(shape, Pass(rows=rows, cached=0, wanted=wanted), batch=2)

    all_but_keys_and_values = shape.layer_parameters - 2 * hidden**2 + shape.vocabulary * hidden
    multiplied = 2 * hidden**2 * rows + all_but_keys_and_values * wanted
    assert work.products == pytest.approx(2 * 2e-9 * multiplied)
    assert work.attention == pytest.approx(2 * 4e-9 * hidden * wanted * rows)
    assert work.weights == pytest.approx(4e-9 * (shape.layer_parameters + 100 * hidden))
    assert work.cache == pytest.approx(2 * 8e-9 * hidden * rows)


def test_a_point_without_shared_steps_or_memory_is_left_out_and_the_rest_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")

    def decoded(engine: object, point: scaling.Point, steps: int) -> tuple[scaling.Times, int]:
        alone = point.batch == 1
        step = [0.02 + 1e-6 * point.context] if alone else []
        wanted = [26.0] if alone else []
        return {"step": step, "refresh": [0.3] * alone, "wanted": wanted}, 0

    def killed(point: scaling.Point) -> dict[str, int]:
        if point.context == scaling.CONTEXTS[-1]:
            raise subprocess.CalledProcessError(-9, ["worker"])
        return {"loaded_bytes": 1, "peak_bytes": 8 * 10**8, "cache_bytes": 10**6}

    packages = {size: tmp_path / str(size) for size in scaling.VOCABULARIES}
    monkeypatch.setattr(scaling, "make_packages", lambda folder, sizes: packages)
    monkeypatch.setattr(scaling, "Engine", lambda *where, **how: None)
    monkeypatch.setattr(scaling, "decode", decoded)
    monkeypatch.setattr(scaling, "memory", killed)

    found = scaling.run(tmp_path, 1)
    scaling.render(found, tmp_path / "scaling.json")

    assert "memory left out" in capsys.readouterr().err
    assert ["peak_bytes" in row for row in found["context"]] == [True] * 4 + [False]
    assert ["wanted_rows" in row for row in found["batch"]] == [True, False, False, False]
    assert (tmp_path / "scaling.svg").exists()


def test_the_fit_finds_the_constants_that_made_the_times() -> None:
    true = cost_model.Model(fixed=1.5, products=6.0, weights=40.0, attention=9.0, cache=120.0)

    found = cost_model.fit(works(), [true.predict(work) for work in works()])

    for name, value in vars(true).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6)
    told = found.to_dict(works(), [true.predict(work) for work in works()])
    assert told["largest_error"] < 1e-6
    assert told["per_second"]["products"] == pytest.approx(1e3 / 6.0)


def test_no_fitted_constant_is_below_zero() -> None:
    true = cost_model.Model(fixed=-3.0, products=6.0, weights=40.0, attention=9.0, cache=0.0)

    found = cost_model.fit(works(), [true.predict(work) for work in works()])

    assert min(vars(found).values()) >= 0
    assert found.products == pytest.approx(6.0, rel=0.2)


def test_the_tables_and_the_picture_come_from_the_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    row: dict[str, Any] = {
        "vocabulary": 32000,
        "batch": 1,
        "threads": 2,
        "step_ms": 40.0,
        "step_predicted_ms": 41.0,
        "refresh_ms": 300.0,
        "refresh_predicted_ms": 310.0,
        "peak_bytes": 8e8,
        "weight_bytes": 5e8,
        "cache_bytes": 2e7,
    }
    rows = [row | {"context": context} for context in (256, 512)]
    model = cost_model.Model(fixed=1.0, products=6.0, weights=40.0, attention=9.0, cache=0.0)
    found = {
        "context": rows,
        "vocabulary": [row | {"context": 256, "vocabulary": 64000}],
        "batch": [row | {"context": 256, "batch": 2}],
        "threads": [*(one | {"threads": 1, "step_ms": 70.0} for one in rows), *rows],
        "model": model.to_dict(works(), [model.predict(work) for work in works()]),
        "ratios": {"step at context 2048 over 256": 1.2},
    }

    scaling.render(found, tmp_path / "scaling.json")

    assert "512" in cost_model.report(found)
    assert "largest error 0 %" in cost_model.report(found)
    assert (tmp_path / "scaling.svg").read_text("utf-8").startswith("<?xml")
