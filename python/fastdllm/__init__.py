"""Fast, exact decoding of masked diffusion language models.

>>> import fastdllm  # doctest: +SKIP
>>> llm = fastdllm.LLM("package_dir")  # doctest: +SKIP
>>> print(llm.generate("Tom has 3 boxes of 4 apples ...").text)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdllm._core import (
    BackendError,
    CommitEvent,
    ConfigError,
    EngineLoad,
    Error,
    GenerationConfig,
    GenerationResult,
    GenerationStats,
    NumericError,
    OverloadedError,
    PackageError,
    PackageInfo,
    Request,
)
from fastdllm.capabilities import Capabilities, capabilities
from fastdllm.engine import Engine
from fastdllm.version import __version__

if TYPE_CHECKING:
    from fastdllm.answer import Completion, StreamEvent
    from fastdllm.llm import LLM

__all__ = [
    "LLM",
    "BackendError",
    "Capabilities",
    "CommitEvent",
    "Completion",
    "ConfigError",
    "Engine",
    "EngineLoad",
    "Error",
    "GenerationConfig",
    "GenerationResult",
    "GenerationStats",
    "NumericError",
    "OverloadedError",
    "PackageError",
    "PackageInfo",
    "Request",
    "StreamEvent",
    "__version__",
    "capabilities",
]

for _error in (Error, BackendError, ConfigError, NumericError, OverloadedError, PackageError):
    _error.__module__ = "fastdllm"  # where users find them
del _error


def __getattr__(name: str) -> Any:
    """Import the names that need tokenizers and jinja2 at their first use."""
    if name in ("LLM", "Completion", "StreamEvent"):
        from fastdllm import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'fastdllm' has no attribute {name!r}")
