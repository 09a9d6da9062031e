"""The floor of a pass: which matrix products it has, and a run of the script's parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conftest import ROOT, PackageOf, checkpoint_folder

sys.path.insert(0, str(ROOT / "benchmarks"))

import floor
import gemm
from passes import REFRESH, STEP, Pass, products, weight_bytes
from synthetic import SHAPES, Shape, shape_of, write_checkpoint

TINY = Shape(layers=2, heads=2, mlp=96, vocabulary=200, head_dim=16, longest=512)


def operations(shape: Shape, one: Pass) -> int:
    """Count what LLaDA computes: two operations a weight and row, and attention's."""
    hidden = shape.hidden
    of_row = hidden * hidden + 3 * hidden * shape.mlp + hidden * hidden  # query, MLP, output
    attention = 2 * hidden * (one.rows + one.cached)
    keys_values = shape.layers * one.rows * 2 * hidden * hidden
    deep_rows = (shape.layers - 1) * one.rows + one.wanted
    head = one.wanted * hidden * shape.vocabulary
    return 2 * (keys_values + deep_rows * (of_row + attention) + head)


@pytest.mark.parametrize("shape", [TINY, SHAPES["100m"], SHAPES["350m"]])
@pytest.mark.parametrize("one", [STEP, REFRESH, Pass(rows=32, cached=96, wanted=5)])
def test_the_products_are_all_that_a_pass_multiplies(shape: Shape, one: Pass) -> None:
    assert sum(product.operations for product in products(shape, one)) == operations(shape, one)


def test_a_pass_reads_every_matrix_but_the_embedding() -> None:
    shape = SHAPES["100m"]
    embedding = shape.vocabulary * shape.hidden
    assert weight_bytes(shape, STEP) == 4 * (shape.parameters - embedding)


def test_weights_rotate_through_more_than_a_cache_holds() -> None:
    shape = SHAPES["100m"]
    for product in products(shape, STEP):
        assert floor.copies_of(product, shape) >= product.count
        assert floor.copies_of(product, shape) * product.bytes >= floor.CACHE_BYTES


def test_a_checkpoint_gives_its_shape_back(tmp_path: Path) -> None:
    assert shape_of(write_checkpoint(tmp_path / "checkpoint", TINY)) == TINY


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_small_model_is_measured_from_end_to_end(
    package_of: PackageOf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(floor, "PAUSE", 0)
    monkeypatch.setattr(floor, "bandwidth", lambda: gemm.bandwidth(megabytes=1))
    package, shape = package_of("tiny_math"), shape_of(checkpoint_folder("tiny_math"))
    passes = floor.passes_of([32, 4])

    report = floor.measure(package, shape, passes, threads=1, repeat=1)
    report["operators"] = floor.profile(package, shape, passes, threads=1, repeat=1)
    floor.print_report(report)

    assert [one["wanted"] for one in report["passes"]] == [32, 4, 32]
    for one in report["passes"]:
        assert one["ratio"] == one["ms"] / one["floor_ms"]
    for row in report["products"]:
        assert row["best_ms"] == min(row["ms"].values())
        assert {"onnxruntime", "torch"} <= row["ms"].keys()
    for shares in report["operators"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert "MatMul" in shares
        assert "If" not in shares  # its branch's nodes are counted
    assert "refresh, 32 wanted" in capsys.readouterr().out
