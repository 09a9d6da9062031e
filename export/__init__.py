"""Exports checkpoints into packages. Needs the extra `export` (torch, onnx, onnxscript)."""

from __future__ import annotations

import importlib.util
import os

# ONNX Runtime's own telemetry is on by default; an export is no reason to report to anyone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_missing = [
    name
    for name in ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tqdm")
    if importlib.util.find_spec(name) is None
]
if _missing:
    raise ImportError(
        f"fastdllm.export needs {', '.join(_missing)}: pip install 'fastdllm[export]'"
    )

from fastdllm.export.errors import CheckpointError, ExportError, ValidationError  # noqa: E402
from fastdllm.export.pipeline import export_graph, export_package  # noqa: E402

__all__ = [
    "CheckpointError",
    "ExportError",
    "ValidationError",
    "export_graph",
    "export_package",
]
