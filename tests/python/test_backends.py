"""Choosing a backend and a device, where neither a GPU nor TensorRT is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fastdllm
from fastdllm import cli

from conftest import PackageOf


def test_names_are_refused(package_of: PackageOf) -> None:
    package = package_of("tiny_math")

    with pytest.raises(fastdllm.ConfigError, match="backend is 'trt'; expected auto, onnx"):
        fastdllm.Engine(package, backend="trt")
    with pytest.raises(fastdllm.ConfigError, match="device is 'gpu'; expected cpu, cuda or cuda:N"):
        fastdllm.LLM(package, device="gpu")
    with pytest.raises(fastdllm.ConfigError, match="'tensorrt' computes on a GPU; device is 'cpu'"):
        fastdllm.Engine(package, backend="tensorrt")


def test_a_library_that_is_missing_is_named(package_of: PackageOf) -> None:
    with pytest.raises(fastdllm.BackendError, match=r"built without TensorRT|/nowhere/libcudart"):
        fastdllm.Engine(
            package_of("tiny_math"),
            backend="tensorrt",
            device="cuda",
            cudart_library="/nowhere/libcudart.so",
        )


def test_libraries_are_found_in_wheels_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdllm.engine import find_cudart, find_tensorrt

    for variable in ("FASTDLLM_CUDART", "FASTDLLM_TENSORRT"):
        monkeypatch.delenv(variable, raising=False)
    for library in ("nvidia/cuda_runtime/lib/libcudart.so.12", "tensorrt_libs/libnvinfer.so.10"):
        (tmp_path / library).parent.mkdir(parents=True)
        (tmp_path / library).touch()
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    assert find_cudart().endswith("libcudart.so.12")
    assert find_tensorrt() == str(tmp_path / "tensorrt_libs" / "libnvinfer.so.10")
    monkeypatch.setenv("FASTDLLM_TENSORRT", "/opt/libnvinfer.so.10")
    assert find_tensorrt() == "/opt/libnvinfer.so.10"


def test_capabilities_tell_of_tensorrt(capsys: pytest.CaptureFixture[str]) -> None:
    built = "tensorrt" in fastdllm._core.built_backends()

    assert cli.main(["info", "--json"]) == 0

    backends = {part["name"]: part for part in json.loads(capsys.readouterr().out)["backends"]}
    assert backends["onnxruntime"]["available"]
    if not built:
        assert "built without" in backends["tensorrt"]["detail"]
    elif not backends["tensorrt"]["available"]:
        assert "FASTDLLM_TENSORRT" in backends["tensorrt"]["detail"]
