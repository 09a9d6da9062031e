"""The comparison with torch in each precision: sound graphs always pass, broken ones never do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

import onnx_ir as ir
import torch
from torch import Tensor

from fastdllm.export import ValidationError, pipeline
from fastdllm.export.precision import PRECISIONS
from fastdllm.export.quantize import Int4, Int8

from conftest import checkpoint_folder
from export_fixtures import SMALL, export_bare, random_tensors, write_checkpoint

ALL = tuple(PRECISIONS)
SEEDS = int(os.environ.get("FASTDLLM_EXPORT_SEEDS", "4"))  # more seeds look harder, and take longer
WIDE: dict[str, Any] = {  # wide enough for several blocks of int4 in a row
    "d_model": 256,
    "mlp_hidden_size": 512,
    "include_qkv_bias": True,
}


def wide_tensors(seed: int = 0) -> dict[str, Tensor]:
    tensors = random_tensors(SMALL | WIDE, seed)
    return {n: t * 8**-0.5 if t.dim() == 2 else t for n, t in tensors.items()}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(
        tmp_path_factory.mktemp("wide") / "checkpoint", tensors=wide_tensors(), **WIDE
    )


# --- sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [23, 20])
@pytest.mark.parametrize("name", ALL)
def test_the_shipped_checkpoint_exports_in_every_precision(
    name: Any, opset: int, tmp_path: Path
) -> None:
    folder = checkpoint_folder("tiny_math")

    package = export_bare(folder, tmp_path / "package", precision=name, opset=opset)

    assert (package / "fastdllm.json").exists()


@pytest.mark.usefixtures("one_trace_per_structure")
@pytest.mark.parametrize("name", ALL)
def test_random_checkpoints_never_fail_by_chance(
    name: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    passed = 0
    for seed in range(SEEDS):
        changes = {"include_qkv_bias": seed % 2 == 1, "n_kv_heads": 4 if seed % 4 < 2 else 2}
        tensors = random_tensors(SMALL | changes, seed)
        size = 2 ** (seed % 3 - 1)  # from flat to sharp
        tensors = {n: t * size if t.dim() == 2 else t for n, t in tensors.items()}
        checkpoint = write_checkpoint(tmp_path / f"{seed}", tensors=tensors, **changes)

        export_bare(checkpoint, tmp_path / "package", precision=name, overwrite=True)

        passed += 1
    record_property("exports", f"{name}: {passed} of {SEEDS} random checkpoints")


# --- broken -----------------------------------------------------------------------------------

Fault = Callable[[pytest.MonkeyPatch], None]


def weights_changed(patch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Write other weights than those that torch gets; change: makes one reader of another."""
    write = pipeline.write_weights
    patch.setattr(
        pipeline,
        "write_weights",
        lambda placed, read, *rest: write(placed, change(read), *rest),
    )


def renamed(names: Mapping[str, str]) -> Fault:
    return lambda patch: weights_changed(
        patch, lambda read: lambda name: read(names.get(name, name))
    )


def altered(name: str, change: Callable[[Tensor], Tensor]) -> Fault:
    return lambda patch: weights_changed(
        patch, lambda read: lambda asked: change(read(asked)) if asked == name else read(asked)
    )


def swapped(one: str, other: str) -> Fault:
    return renamed({one: other, other: one})


def wrong_rope_base(patch: pytest.MonkeyPatch) -> None:
    trace = pipeline.trace

    def wrong(*args: Any) -> ir.Model:
        model = trace(*args)
        value = model.graph.initializers["inverse_frequencies"]
        assert value.const_value is not None
        name = value.name
        value.const_value = ir.tensor(value.const_value.numpy() ** 1.2, name=name)  # base 63,000
        return model

    patch.setattr(pipeline, "trace", wrong)


def scale_of_another_row(patch: pytest.MonkeyPatch) -> None:
    pieces = Int8.pieces

    def wrong(self: Int8, weight: Tensor, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        for part, piece in pieces(self, weight, transposed=transposed):
            yield part, piece.roll(1) if part == 1 else piece

    patch.setattr(Int8, "pieces", wrong)


def no_scale(patch: pytest.MonkeyPatch) -> None:
    pieces = Int8.pieces

    def wrong(self: Int8, weight: Tensor, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        for part, piece in pieces(self, weight, transposed=transposed):
            yield part, torch.full_like(piece, float(piece.mean())) if part == 1 else piece

    patch.setattr(Int8, "pieces", wrong)


def scale_of_another_block(patch: pytest.MonkeyPatch) -> None:
    pieces = Int4.pieces

    def wrong(self: Int4, weight: Tensor, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        for part, piece in pieces(self, weight, transposed=transposed):
            yield part, piece.roll(1) if part == 1 else piece

    patch.setattr(Int4, "pieces", wrong)


def blocks_of_another_size(patch: pytest.MonkeyPatch) -> None:
    """Round by blocks of 64 and store the scales as if they were of 128."""
    pieces = Int4.pieces

    def wrong(self: Int4, weight: Tensor, *, transposed: bool) -> Iterator[tuple[int, Tensor]]:
        for part, piece in pieces(Int4(64), weight, transposed=transposed):
            yield part, piece[::2].contiguous() if part == 1 else piece

    patch.setattr(Int4, "pieces", wrong)


LAYER = "layers.1"
FAULTS: dict[str, Fault] = {
    "query and key swapped": swapped(f"{LAYER}.query.weight", f"{LAYER}.key.weight"),
    "key and value swapped": swapped(f"{LAYER}.key.weight", f"{LAYER}.value.weight"),
    "gate and up swapped": swapped(f"{LAYER}.mlp.gate.weight", f"{LAYER}.mlp.up.weight"),
    "layers swapped": swapped("layers.0.mlp.down.weight", "layers.1.mlp.down.weight"),
    "norms swapped": swapped(f"{LAYER}.mlp_norm.weight", f"{LAYER}.attention_norm.weight"),
    "head and embedding swapped": swapped("head.weight", "embedding.weight"),
    "output transposed": altered(f"{LAYER}.output.weight", lambda w: w.T.contiguous()),
    "key transposed": altered(f"{LAYER}.key.weight", lambda w: w.T.contiguous()),
    "scale of the values dropped": altered(f"{LAYER}.value.weight", lambda w: w / w.abs().max()),
    "key's bias lost": altered(f"{LAYER}.key.bias", torch.zeros_like),
    "query's bias lost": altered("layers.0.query.bias", torch.zeros_like),
    "value's bias lost": altered(f"{LAYER}.value.bias", torch.zeros_like),
    "last norm lost": altered("final_norm.weight", torch.ones_like),
    "wrong RoPE base": wrong_rope_base,
}
FAULTS_OF_INTEGERS: dict[tuple[str, str], Fault] = {
    ("int8", "scales of other rows"): scale_of_another_row,
    ("int8", "one scale for all rows"): no_scale,
    ("int4", "scales of other blocks"): scale_of_another_block,
    ("int4", "blocks of another size"): blocks_of_another_size,
}
CASES = [*((name, fault) for name in ALL for fault in FAULTS), *FAULTS_OF_INTEGERS]


@pytest.mark.usefixtures("one_trace_per_structure")
@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_fault_is_never_taken_for_rounding(
    name: Any, fault: str, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = FAULTS_OF_INTEGERS.get((name, fault)) or FAULTS[fault]
    chosen(monkeypatch)

    with pytest.raises(ValidationError, match=r"allowed .*No package was written|no package was"):
        export_bare(wide, tmp_path / "package", precision=name)

    assert not (tmp_path / "package").exists()
