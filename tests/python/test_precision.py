"""Precisions: what is stored, what is computed with it, what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import fastdllm
from fastdllm.export import export_package, quantize
from fastdllm.export.precision import PRECISIONS
from fastdllm.export.quantize import Encoding, Int4, Int8, Plain
from fastdllm.problems import is_right, read_problems

from conftest import checkpoint_folder
from export_fixtures import SMALL, export_bare, random_tensors, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
ALL = tuple(PRECISIONS)
INTEGERS = ("int8", "int4")
BYTES_PER_WEIGHT = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.67}
AGREEMENT = {"fp16": 0.95, "bf16": 0.9, "int8": 0.7, "int4": 0.4}  # of a random network, at least
# Wide enough that scales and alignment weigh little; head and embedding are 2/7 of the weights.
WIDE: dict[str, Any] = {"d_model": 256, "mlp_hidden_size": 512, "embedding_size": 1024}
TIED: dict[str, Any] = {
    "n_layers": 1,
    "weight_tying": True,
    "n_kv_heads": 2,
    "include_qkv_bias": True,
}


def random_matrix(rows: int = 37, columns: int = 300) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


def stored(encoding: Encoding, weight: Tensor, *, transposed: bool) -> list[NDArray[Any]]:
    """Return the tensors that a weight is stored in, put together from their pieces."""
    parts = encoding.parts(tuple(weight.shape), transposed=transposed)
    pieces: list[list[Tensor]] = [[] for _ in parts]
    for index, piece in encoding.pieces(weight, transposed=transposed):
        pieces[index].append(piece)
    whole = [torch.cat([p.flatten() for p in some]) for some in pieces]
    return [w.numpy().reshape(part.shape) for w, part in zip(whole, parts, strict=True)]


def metadata_of(package: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((package / "fastdllm.json").read_text("utf-8"))
    return content


# --- encodings --------------------------------------------------------------------------------


def test_int8_rounds_to_the_nearest_of_255_numbers_per_row() -> None:
    weight = random_matrix()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    error = (Int8().decoded(weight) - weight).abs()
    assert bool((error <= step / 2 * 1.0001).all())


def test_int8_stores_what_it_says_it_computes_with() -> None:
    weight = random_matrix()
    integers, scale = stored(Int8(), weight, transposed=True)
    assert integers.dtype == np.int8
    assert integers.shape == (300, 37)
    np.testing.assert_allclose(integers.T * scale[:, None], Int8().decoded(weight), rtol=1e-6)


@pytest.mark.parametrize("block", [32, 128])
def test_int4_stores_what_it_says_it_computes_with(block: int) -> None:
    weight = random_matrix()
    codes, scale = stored(Int4(block), weight, transposed=False)
    numbers = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], block) - 8.0
    wide = (numbers * scale.reshape(37, -1, 1)).reshape(37, -1)[:, :300]
    np.testing.assert_allclose(wide, Int4(block).decoded(weight), rtol=1e-6)


def test_int4_finds_smaller_errors_than_the_largest_number_alone_gives() -> None:
    weight = random_matrix(64, 1024)
    blocks = weight.unflatten(1, (-1, 128))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 8
    plain = ((blocks / scale).round().clamp(-8, 7) * scale).flatten(1)
    found = (Int4(128).decoded(weight) - weight).square().sum()
    assert float(found) < 0.95 * float((plain - weight).square().sum())


@pytest.mark.parametrize("encoding", [Plain(torch.float16), Int8(), Int4(32)])
def test_zero_rows_stay_zero(encoding: Encoding) -> None:
    weight = random_matrix()
    weight[5] = 0
    assert bool((encoding.decoded(weight)[5] == 0).all())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("encoding", [Plain(torch.float16), Plain(torch.float32), Int8(), Int4(32)])
def test_pieces_of_any_size_give_the_same_bytes_and_leave_the_weight(
    encoding: Encoding, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = random_matrix()
    before = weight.clone()
    whole = stored(encoding, weight, transposed=transposed)
    monkeypatch.setattr(quantize, "PIECE", 700)
    in_pieces = stored(encoding, weight, transposed=transposed)
    for one, other in zip(whole, in_pieces, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", INTEGERS)
def test_norms_biases_and_routers_stay_float32(name: str) -> None:
    precision = PRECISIONS[name]
    assert precision.encoding("layers.0.mlp.router.weight", 2) == Plain(torch.float32)
    assert precision.encoding("layers.0.mlp_norm.weight", 1) == Plain(torch.float32)
    assert precision.encoding("layers.0.query.bias", 1) == Plain(torch.float32)
    assert precision.encoding("head.weight", 2) == Int8()


# --- packages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wide")
    tensors = random_tensors(SMALL | WIDE)  # of a size that suits a width of 32
    tensors = {n: t * 8**-0.5 if t.dim() == 2 else t for n, t in tensors.items()}
    checkpoint = write_checkpoint(folder / "checkpoint", tensors=tensors, **WIDE)
    return {
        name: export_bare(checkpoint, folder / name, precision=name)  # type: ignore[arg-type]
        for name in ALL
    }


@pytest.mark.parametrize("name", ALL)
def test_weights_take_the_bytes_that_the_precision_promises(
    name: str, wide_packages: dict[str, Path]
) -> None:
    sizes = {n: (p / "model.onnx.data").stat().st_size for n, p in wide_packages.items()}
    assert sizes[name] == pytest.approx(sizes["fp32"] / 4 * BYTES_PER_WEIGHT[name], rel=0.05)


@pytest.mark.parametrize("name", [name for name in ALL if name != "fp32"])
def test_the_package_says_what_the_precision_cost(
    name: str, wide_packages: dict[str, Path]
) -> None:
    quality = metadata_of(wide_packages[name])["quality"]
    assert quality["positions"] == 96
    assert AGREEMENT[name] <= quality["agreement"] <= 1
    assert 0 <= quality["kl"] < (0.01 if name in ("fp16", "bf16") else 0.5)
    assert "quality" not in metadata_of(wide_packages["fp32"])


@pytest.mark.parametrize("opset", [23, 20])
@pytest.mark.parametrize("name", ALL)
def test_tied_embeddings_are_stored_once_and_compared_with_torch(
    name: str, opset: int, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **TIED)
    package = export_bare(
        checkpoint,
        tmp_path / "package",
        precision=name,  # type: ignore[arg-type]
        opset=opset,
    )
    graph = onnx.load(package / "model.onnx", load_external_data=False).graph
    names = [initializer.name for initializer in graph.initializer]
    vocabulary = [name for name in names if name.startswith(("embedding.weight", "head.weight"))]
    assert len(vocabulary) == (2 if name in INTEGERS else 1)  # with its scales
    validation = metadata_of(package)["validation"]
    assert validation["compared"] == "weights"
    assert validation["largest_difference"] <= validation["tolerance"]


def test_an_int8_row_depends_on_no_other_row_of_its_pass(wide_packages: dict[str, Path]) -> None:
    from fastdllm.testing import package_forward

    forward = package_forward(wide_packages["int8"])
    alone, beside = np.array([[1, 5, 9, 63, 63]]), np.array([[1, 5, 9, 63, 63], [40, 2, 2, 8, 63]])

    def logits(ids: NDArray[Any]) -> NDArray[Any]:
        rows = np.broadcast_to(np.arange(5), ids.shape)
        return forward(ids, rows, None, rows, 0)[0]

    np.testing.assert_allclose(logits(beside)[0], logits(alone)[0], atol=1e-4)


def right_of_100(model: fastdllm.LLM) -> int:
    problems = read_problems(checkpoint_folder("tiny_math") / "problems.jsonl")[:100]
    config = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
    return sum(is_right(model.generate(p.prompt, config).text, p.answer or "") for p in problems)


@pytest.fixture(scope="module")
def right_in_float32(llm: fastdllm.LLM) -> int:
    return right_of_100(llm)


@pytest.mark.parametrize(("name", "points"), [("int8", 2), ("int4", 4)])
def test_tiny_math_answers_nearly_as_well_from_integers(
    name: str, points: int, right_in_float32: int, tmp_path: Path
) -> None:
    folder = checkpoint_folder("tiny_math")

    package = export_package(folder, tmp_path / name, precision=name)  # type: ignore[arg-type]

    assert right_of_100(fastdllm.LLM(package, threads=2)) >= right_in_float32 - points
