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
    """A loaded package that decodes requests of token ids.

    >>> engine = Engine("packages/tiny_math", threads=2)
    >>> result = engine.generate([1, 2, 3], fastdllm.GenerationConfig(max_new_tokens=8))
    >>> result.token_ids.dtype
    dtype('int32')

    package_dir: the package folder. threads: CPU threads inside one run; 0 = automatic.
    onnxruntime_library: path of libonnxruntime. None = the library that this process has already
    opened, else the environment variable FASTDLLM_ONNXRUNTIME, else the installed onnxruntime
    wheel, else the loader's search path. A process opens only one: naming another is refused.
    backend: "onnxruntime", "tensorrt" or "auto". "auto" is TensorRT when the device is a GPU and
    there is an engine for it (tensorrt_engine, or one in the folder PACKAGE.engines), else ONNX
    Runtime. device: "cpu", "cuda" (the first GPU) or "cuda:N". tensorrt_engine: path of an engine
    made by `fastdllm build-engine`. tensorrt_library, cudart_library: paths; None = the environment
    variable FASTDLLM_TENSORRT or FASTDLLM_CUDART, else the installed wheel. cuda_graph: TensorRT
    replays steps of equal shapes as a CUDA graph.
    max_batch: requests that are decoded side by side. max_waiting: requests that may wait beyond
    them; further ones raise OverloadedError. cache_bytes: bytes for the K/V cache of all requests,
    and for attention scores where the graph holds them all (package.score_bytes);
    None = half of the physical memory, or half of the free memory of the GPU where the cache is.
    Requests wait for this memory in order; a request that needs more than all of it is refused.

    Errors: PackageError for the folder, BackendError for the library, ConfigError for an option.
    """

    @takes_engine_options
    def __init__(self, package_dir: str | os.PathLike[str], **options: Any) -> None:
        for name, find in _LIBRARIES.items():
            if options.get(name) is None:
                options[name] = find()
        super().__init__(package_dir, **options)
