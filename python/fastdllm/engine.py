"""The engine, with ONNX Runtime's library found in the installed wheel."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from fastdllm import _core

LIBRARY_VARIABLE = "FASTDLLM_ONNXRUNTIME"


def find_onnxruntime() -> str:
    """Return the path of ONNX Runtime's library: FASTDLLM_ONNXRUNTIME, else the installed wheel's.

    Returns "" when there is neither: the loader's own search is then tried. Imports nothing.
    """
    if named := os.environ.get(LIBRARY_VARIABLE):
        return named
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        libraries = sorted(Path(folder, "capi").glob("libonnxruntime.so*"))
        if libraries:
            return str(libraries[-1])
    return ""


class Engine(_core.Engine):
    """Token ids in, token ids out: a package, loaded once.

    package_dir: the package folder. threads: inside one pass, 0 = automatic. onnxruntime_library:
    path of libonnxruntime; None = the environment variable FASTDLLM_ONNXRUNTIME, else the installed
    onnxruntime wheel, else the loader's search. A process loads one ONNX Runtime, the first named.
    max_batch: requests that are decoded side by side; max_waiting: those that wait for a place,
    more are refused with OverloadedError. cache_bytes: K/V memory of all requests, None = half of
    the physical memory; requests wait for it in order, one that can never have it is refused.

    Errors: PackageError for the folder, BackendError for the library.

    >>> engine = Engine("package_dir", threads=2)  # doctest: +SKIP
    >>> engine.generate([1, 2, 3]).token_ids  # doctest: +SKIP
    """

    def __init__(
        self,
        package_dir: str | os.PathLike[str],
        *,
        threads: int = 0,
        onnxruntime_library: str | None = None,
        max_batch: int = 8,
        max_waiting: int = 1024,
        cache_bytes: int | None = None,
    ) -> None:
        library = find_onnxruntime() if onnxruntime_library is None else onnxruntime_library
        super().__init__(
            os.fspath(package_dir),
            threads=threads,
            onnxruntime_library=library,
            max_batch=max_batch,
            max_waiting=max_waiting,
            cache_bytes=cache_bytes,
        )
