"""Several engines on a Ray cluster: an application of Ray Serve and a batch job of Ray Data.

Needs the extra: pip install 'fastdllm[ray]'. See docs/ray.md.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdllm.ray.batch import answer_dataset
    from fastdllm.ray.serving import build_app

__all__ = ["answer_dataset", "build_app"]

_missing = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]
if _missing:
    raise ImportError(f"fastdllm.ray needs {' and '.join(_missing)}: pip install 'fastdllm[ray]'")


def __getattr__(name: str) -> Any:
    """Import a name at its first use: a batch job needs no web server."""
    if name == "answer_dataset":
        from fastdllm.ray.batch import answer_dataset

        return answer_dataset
    if name == "build_app":
        from fastdllm.ray.serving import build_app

        return build_app
    raise AttributeError(f"module 'fastdllm.ray' has no attribute {name!r}")
