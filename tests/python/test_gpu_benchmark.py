"""The benchmark for GPUs, here without one; see benchmarks/gpu.py."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu
import gpu_device
import synthetic
from gpu_device import Driver, NoGpu


class PretendedCuda:
    """A driver's library of a GPU with 4 GiB; `broken` fails. Keeps what was asked."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.asked.append(name)
            if name == "cuDeviceGetName":
                arguments[0].value = b"Pretended"
            if name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 7}[arguments[1]]
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 3 << 30, 4 << 30
            if name == "cuMemAlloc_v2":
                assert isinstance(arguments[0]._obj, ctypes.c_uint64)
                arguments[0]._obj.value = 4096
            return 999 if name == self.broken else 0

        return call


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, options)])
    return gpu.main()


def no_driver(library: Any = None) -> Driver:
    raise NoGpu("no NVIDIA GPU here")


def test_the_whole_of_it_runs_dry_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu.json"

    assert run(monkeypatch, "--dry-run", "--repeat", 1, "--output", output) == 0

    report = json.loads(output.read_text("utf-8"))
    (row,) = report["backends"]
    assert [rate["tokens_per_forward"] for rate in row["rates"]] == [1, 2, 4, 8]
    assert [rate["passes"] for rate in row["rates"]] == [128, 64, 32, 16]
    assert row["step_ratio"] == pytest.approx(row["step_ms"] / report["weight_bytes_ms"])
    shape = gpu.TRIAL
    matrices = 2 * (shape.parameters - shape.vocabulary * shape.hidden)
    assert matrices <= report["weight_bytes"] < 1.2 * matrices  # norms, offsets between tensors
    assert "CPU (dry run)" in capsys.readouterr().out


def test_a_package_is_made_without_a_gpu_and_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "Driver", no_driver)
    monkeypatch.setitem(gpu.SHAPES, "100m", gpu.TRIAL)
    make = ("--model", "100m", "--folder", tmp_path / "new", "--only-make")

    assert run(monkeypatch, *make) == run(monkeypatch, *make) == 0

    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "new" / "synthetic-100m-fp16-opset23")] * 2
    assert "taken as it is" in said.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["synthetic-100m-fp16-opset23"]


def test_without_a_gpu_it_ends_at_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "Driver", no_driver)

    assert run(monkeypatch, "--folder", tmp_path) == 2

    said = capsys.readouterr().err
    assert said.startswith("gpu: error: no NVIDIA GPU here")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_a_backend_lacks_is_named_with_what_gets_it_before_a_model_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "Driver", lambda: Driver(PretendedCuda()))
    for find in ("find_cudart", "find_onnxruntime", "find_tensorrt"):
        monkeypatch.setattr(gpu_device, find, lambda: "")
    monkeypatch.setattr(gpu_device.ctypes.util, "find_library", lambda name: None)

    assert run(monkeypatch, "--folder", tmp_path) == 2

    said = capsys.readouterr().err
    assert "onnxruntime lacks ONNX Runtime with CUDA: pip " in said
    assert "tensorrt lacks TensorRT: pip install tensorrt" in said
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_not_there_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "Driver", lambda: Driver(PretendedCuda()))
    monkeypatch.setattr(gpu, "missing", lambda backend: [])
    monkeypatch.setattr(gpu, "read_gigabytes", lambda free: None)

    assert run(monkeypatch, "--package", tmp_path / "none") == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gpu: error: {tmp_path / 'none' / 'fastdllm.json'}: missing")
    assert "--dry-run" not in line


def test_a_gpu_that_fails_later_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "Driver", lambda: Driver(PretendedCuda("cuMemAlloc_v2")))
    monkeypatch.setattr(gpu, "missing", lambda backend: [])

    assert run(monkeypatch, "--package", tmp_path) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "cuMemAlloc_v2 answers with error 999" in line


def test_the_driver_says_what_gpu_is_here_and_gives_the_memory_back() -> None:
    cuda = PretendedCuda()
    driver = Driver(cuda)

    found = driver.gpu()

    assert (found.name, found.capability) == ("Pretended", "sm87")
    assert (found.free, found.memory) == (3 << 30, 4 << 30)
    assert driver.copied_gigabytes() > 0
    assert cuda.asked.count("cuMemAlloc_v2") == cuda.asked.count("cuMemFree_v2") == 2


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain"])
def test_a_driver_that_fails_is_no_gpu(call: str) -> None:
    with pytest.raises(NoGpu, match=f"{call} answers with error 999"):
        Driver(PretendedCuda(call))


def test_a_large_checkpoint_is_written_in_pieces_that_hold_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fastdllm.export.checkpoint import Checkpoint

    whole = Checkpoint(synthetic.write_checkpoint(tmp_path / "whole", gpu.TRIAL))
    monkeypatch.setattr(synthetic, "SHARD_BYTES", 10_000)
    pieces = Checkpoint(synthetic.write_checkpoint(tmp_path / "pieces", gpu.TRIAL))

    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 2
    assert pieces.shapes == whole.shapes
    for name in whole.shapes:
        assert pieces.tensor(name).equal(whole.tensor(name))
