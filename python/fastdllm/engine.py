"""The engine, with the inference libraries found in the installed wheels."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from fastdllm import _core
from fastdllm.options import takes_engine_options

LIBRARY_VARIABLE = "FASTDLLM_ONNXRUNTIME"


def find_onnxruntime() -> str:
    """Return the path of ONNX Runtime's library: FASTDLLM_ONNXRUNTIME, else the installed wheel's.

    Returns "" when there is neither: the loader's own search is then tried. Imports nothing.
    """
    return _find(LIBRARY_VARIABLE, "onnxruntime", "capi/libonnxruntime.so*")


def find_tensorrt() -> str:
    """Return the path of TensorRT's library, in the same way: FASTDLLM_TENSORRT, else the wheel."""
    return _find("FASTDLLM_TENSORRT", "tensorrt_libs", "libnvinfer.so*")


def find_cudart() -> str:
    """Return the path of CUDA's runtime, in the same way: FASTDLLM_CUDART, else the wheel."""
    return _find("FASTDLLM_CUDART", "nvidia", "c*/lib/libcudart.so.*")


def _find(variable: str, module: str, pattern: str) -> str:
    if named := os.environ.get(variable):
        return named
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        libraries = sorted(Path(folder).glob(pattern))
        if libraries:
            return str(libraries[-1])
    return ""


def _open_or_found_onnxruntime() -> str:
    return _core.loaded_onnxruntime() or find_onnxruntime()


_LIBRARIES = {
    "onnxruntime_library": _open_or_found_onnxruntime,
    "tensorrt_library": find_tensorrt,
    "cudart_library": find_cudart,
}


class Engine(_core.Engine):
    """Token ids in, token ids out: a package, loaded once.

    package_dir: the package folder. threads: inside one pass, 0 = automatic. onnxruntime_library:
    path of libonnxruntime; None = the environment variable FASTDLLM_ONNXRUNTIME, else the installed
    onnxruntime wheel, else the loader's search. A process holds one ONNX Runtime, which is then
    what None means; naming another is refused.
    backend: "onnxruntime", "tensorrt", or "auto": TensorRT where the device is a GPU and an engine
    for it was named or lies in PACKAGE.engines, else ONNX Runtime. device: "cpu", "cuda" (the first
    GPU) or "cuda:N". tensorrt_engine: path of an engine that `fastdllm build-engine` made.
    tensorrt_library, cudart_library: paths, found like ONNX Runtime's by FASTDLLM_TENSORRT,
    FASTDLLM_CUDART or wheels. cuda_graph: TensorRT replays steps whose shapes stay.
    max_batch: requests that are decoded side by side; max_waiting: those that wait for a place,
    more are refused with OverloadedError. cache_bytes: K/V memory of all requests, None = half of
    the physical memory, or of what is free on the GPU that holds them; requests wait for it in
    order, one that can never have it is refused.

    Errors: PackageError for the folder, BackendError for the library.

    >>> engine = Engine("package_dir", threads=2)  # doctest: +SKIP
    >>> engine.generate([1, 2, 3]).token_ids  # doctest: +SKIP
    """

    @takes_engine_options
    def __init__(self, package_dir: str | os.PathLike[str], **options: Any) -> None:
        for name, find in _LIBRARIES.items():
            if options.get(name) is None:
                options[name] = find()
        super().__init__(package_dir, **options)
