"""The GPU of this machine, asked through its driver: name, memory, what it copies in a second."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdllm import _core
from fastdllm.engine import find_cudart, find_onnxruntime, find_tensorrt

MAJOR, MINOR = 75, 76  # of the compute capability, among cuDeviceGetAttribute's numbers
COPIES = 10


class NoGpu(Exception):
    """There is no NVIDIA GPU here, or its driver does not answer."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first GPU. memory: bytes. free: those that nobody has taken."""

    name: str
    capability: str
    memory: int
    free: int


class Driver:
    """The driver's library, with the first GPU's context on this thread. Errors: NoGpu."""

    def __init__(self, library: Any = None) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1") if library is None else library
        except OSError as problem:
            raise NoGpu(f"no NVIDIA GPU here ({problem})") from None
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            raise NoGpu(f"no NVIDIA GPU that works here ({name} answers with error {status})")

    def gpu(self) -> Gpu:
        """Describe the GPU."""
        label = ctypes.create_string_buffer(256)
        major, minor = ctypes.c_int(), ctypes.c_int()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuDeviceGetName", label, len(label), self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(major), MAJOR, self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), MINOR, self._device)
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return Gpu(
            name=label.value.decode("ascii", "replace"),
            capability=f"sm{major.value}{minor.value}",
            memory=total.value,
            free=free.value,
        )

    def copied_gigabytes(self) -> float:
        """Measure gigabytes read and written in a second by copies on the GPU, at best of 5."""
        size = min(1 << 30, self.gpu().free // 4)
        pointers = [ctypes.c_uint64(), ctypes.c_uint64()]
        bytes_ = ctypes.c_size_t(size)
        try:
            for pointer in pointers:
                self._call("cuMemAlloc_v2", ctypes.byref(pointer), bytes_)
            best = float("inf")
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(COPIES):
                    self._call("cuMemcpyDtoDAsync_v2", *pointers, bytes_, None)
                self._call("cuCtxSynchronize")
                best = min(best, time.perf_counter() - start)
        finally:
            for pointer in pointers:
                if pointer.value:
                    self._call("cuMemFree_v2", pointer)
        return 2 * COPIES * size / best / 1e9


def read_gigabytes(free: int) -> float | None:
    """Measure gigabytes that a sum reads in a second, where torch has CUDA."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    numbers = torch.ones(min(2 << 30, free // 4) // 4, device="cuda")
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(COPIES):
            numbers.sum()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    size = numbers.nbytes
    del numbers
    torch.cuda.empty_cache()
    return COPIES * size / best / 1e9


def missing(backend: str) -> list[str]:
    """List what a backend lacks here, each with what gets it; nothing is loaded."""
    lacks: list[str] = []
    if not (find_cudart() or ctypes.util.find_library("cudart")):
        lacks.append(
            "CUDA's runtime: pip install nvidia-cuda-runtime-cu12, or set FASTDLLM_CUDART to"
            " libcudart.so"
        )
    if backend == "onnxruntime":
        folder = Path(find_onnxruntime()).parent
        if not (folder / "libonnxruntime_providers_cuda.so").exists():
            lacks.append(
                "ONNX Runtime with CUDA: pip uninstall -y onnxruntime && pip install"
                " 'onnxruntime-gpu[cuda,cudnn]' (on a Jetson: see cpp/JETSON.md)"
            )
        return lacks
    if "tensorrt" not in _core.built_backends():
        lacks.append(
            "a build with TensorRT's headers: cpp/cmake/get_tensorrt_headers.sh .deps && pip"
            " install ."
        )
    if not (find_tensorrt() or ctypes.util.find_library("nvinfer")):
        lacks.append("TensorRT: pip install tensorrt, or set FASTDLLM_TENSORRT to libnvinfer.so")
    return lacks
