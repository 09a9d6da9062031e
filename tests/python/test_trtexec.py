"""The script that builds an engine with trtexec, run with a trtexec that only looks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from fastdllm.check import read_metadata, sha256_of_file
from fastdllm.export import ExportError
from fastdllm.export.tensorrt import profiles_for
from fastdllm.export.trtexec import input_ranges, main, trtexec_script

from conftest import PackageOf


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def device(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine whose trtexec keeps its arguments as the engine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    executable(
        folder / "trtexec",
        'for a in "$@"; do case "$a" in --saveEngine=*) out=${a#*=};; esac; done\n'
        'printf "%s\\n" "$@" >"$out"',
    )
    executable(folder / "dpkg-query", "printf 10.3.0.30-1+cuda12.5")
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def run(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh"], input=script, cwd=folder, env=environment, text=True, capture_output=True
    )


@pytest.mark.parametrize("name", ["tiny_math", "llada-mha", "sdar"])
def test_every_input_of_the_graph_has_its_ranges(name: str, package_of: PackageOf) -> None:
    onnx = pytest.importorskip("onnx")
    package = package_of(name)
    model = read_metadata(package)["model"]
    profile = profiles_for(model)[1]
    ranges = input_ranges(model, profile)
    graph = onnx.load(package / "model.onnx", load_external_data=False).graph
    assert list(ranges) == [tensor.name for tensor in graph.input]
    for tensor in graph.input:
        if tensor.name == "present_length":
            continue  # a shape tensor: the range is its value's
        dimensions = tensor.type.tensor_type.shape.dim
        for dimension, found in zip(dimensions, ranges[tensor.name], strict=True):
            if dimension.dim_param:
                assert found == profile.sizes()[dimension.dim_param]
            else:
                assert set(found) == {dimension.dim_value}


def test_the_script_builds_both_profiles_and_writes_the_record(
    package_of: PackageOf, device: dict[str, str]
) -> None:
    package = package_of("tiny_math")
    script = trtexec_script(package, max_context=96, rows_per_step=16)
    done = run(script, package.parent, device)
    assert done.returncode == 0, done.stderr
    engine = package.with_name(f"{package.name}.engines") / "tensorrt-sm87.engine"
    arguments = engine.read_text().splitlines()
    assert f"--onnx={package.name}/model.onnx" in arguments
    shapes = [
        dict(shape.split(":") for shape in argument.split("=")[1].split(","))
        for argument in arguments
        if "Shapes=" in argument
    ]
    assert [a for a in arguments if a.startswith("--profile=")] == ["--profile=0", "--profile=1"]
    assert len(shapes) == 6  # least, usual and most of two profiles
    assert shapes[2]["input_ids"] == "1x96"
    assert shapes[5]["input_ids"] == "1x16"
    assert shapes[3]["past_key_values.0.key"].split("x")[2] == "0"
    assert shapes[5]["attention_mask"] == "1x1x16x112"
    assert shapes[5]["present_length"] == "112"
    record = json.loads(engine.with_suffix(".json").read_text())
    assert record == {
        "record_version": 1,
        "compiler": "TensorRT 10.3.0.30",
        "target": "sm87",
        "package_sha256": sha256_of_file(package / "fastdllm.json"),
        "bytes": engine.stat().st_size,
    }


def test_the_script_refuses_another_package(
    package_of: PackageOf, device: dict[str, str], tmp_path: Path
) -> None:
    package = package_of("tiny_math")
    other = tmp_path / package.name
    other.mkdir()
    (other / "fastdllm.json").write_text("{}")
    done = run(trtexec_script(package), tmp_path, device)
    assert done.returncode != 0
    assert "fastdllm.json: FAILED" in done.stdout
    assert not (tmp_path / f"{package.name}.engines").exists()


def test_a_limit_out_of_range_is_one_line(
    package_of: PackageOf, capsys: pytest.CaptureFixture[str]
) -> None:
    package = package_of("tiny_math")
    with pytest.raises(ExportError, match="max_batch is 0"):
        trtexec_script(package, max_batch=0)
    assert main([str(package), "--max-batch", "0"]) == 1
    assert capsys.readouterr().err.endswith("max_batch is 0; expected 1 to 64\n")
