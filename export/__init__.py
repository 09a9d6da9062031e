"""Exports checkpoints into packages, and compiles packages into TensorRT engines.

Exporting needs the extra `export` (torch, onnx, onnxscript); it is loaded when first asked for, so
that `fastdllm.export.tensorrt` works on a device without torch.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from fastdllm.export.errors import (
    CheckpointError,
    ExportError,
    ExportWarning,
    ValidationError,
)

if TYPE_CHECKING:
    from fastdllm.export.pipeline import export_graph, export_package

__all__ = [
    "CheckpointError",
    "ExportError",
    "ExportWarning",
    "ValidationError",
    "export_graph",
    "export_package",
]

# ONNX Runtime's own telemetry is on by default; an export is no reason to report to anyone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_NEEDED = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tqdm")


def __getattr__(name: str) -> Any:
    """Load the exporter when first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'fastdllm.export' has no attribute {name!r}")
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"fastdllm.export needs {', '.join(missing)}: pip install 'fastdllm[export]'"
        )
    from fastdllm.export import pipeline

    return getattr(pipeline, name)
