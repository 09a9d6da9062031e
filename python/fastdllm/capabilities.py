"""What this installation can do: families, precisions, backends, options."""

from __future__ import annotations

import ctypes.util
import importlib.util
from dataclasses import asdict, dataclass
from typing import Any

from fastdllm import _core
from fastdllm.engine import LIBRARY_VARIABLE, find_onnxruntime, find_tensorrt
from fastdllm.version import __version__

EXPORT_MODULES = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tqdm")


@dataclass(frozen=True, kw_only=True)
class Part:
    """An optional part: whether it is available, and if not, why. For people."""

    name: str
    available: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What this build and this machine have.

    families: names of the adapters with the model_type they read. precisions: what packages may
    have. backends: what runs a package. compilers: what builds engines. exporter: what turns
    checkpoints into packages.
    """

    version: str
    package_format: int
    families: dict[str, list[str]]
    precisions: list[str]
    backends: list[Part]
    compilers: list[Part]
    exporter: Part

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)


def capabilities() -> Capabilities:
    """Find out what is installed, without loading a model or an inference library."""
    from fastdllm.export.adapters import ADAPTERS

    missing = [name for name in EXPORT_MODULES if importlib.util.find_spec(name) is None]
    library = find_onnxruntime()
    return Capabilities(
        version=__version__,
        package_format=_core.supported_format_version,
        families={adapter.family: list(adapter.model_types) for adapter in ADAPTERS},
        precisions=_core.precisions(),
        backends=[
            Part(
                name="onnxruntime",
                available=bool(library),
                detail=library or f"pip install onnxruntime, or set {LIBRARY_VARIABLE}",
            ),
            _tensorrt(),
        ],
        compilers=[
            _module("tensorrt", "tensorrt", "pip install tensorrt"),
            _module(
                "tensorrt-rtx", "tensorrt_rtx_bindings", "pip install 'fastdllm[tensorrt-rtx]'"
            ),
        ],
        exporter=Part(
            name="export",
            available=not missing,
            detail=f"pip install 'fastdllm[export]' ({', '.join(missing)})" if missing else "ready",
        ),
    )


def _tensorrt() -> Part:
    if "tensorrt" not in _core.built_backends():
        return Part(name="tensorrt", available=False, detail="built without TensorRT's headers")
    library = find_tensorrt() or ctypes.util.find_library("nvinfer") or ""
    remedy = "install TensorRT, or set FASTDLLM_TENSORRT"
    return Part(name="tensorrt", available=bool(library), detail=library or remedy)


def _module(name: str, module: str, remedy: str) -> Part:
    found = importlib.util.find_spec(module) is not None
    return Part(name=name, available=found, detail="installed" if found else remedy)
