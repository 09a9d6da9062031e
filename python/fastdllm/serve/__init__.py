"""An HTTP server with OpenAI's API: `fastdllm serve`. Needs the extra `serve`.

>>> from fastdllm.serve import Settings, create_app  # doctest: +SKIP
>>> app = create_app({"name": fastdllm.LLM("package_dir")}, Settings())  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdllm.serve.settings import Settings

if TYPE_CHECKING:
    from fastdllm.serve.app import create_app
    from fastdllm.serve.server import serve

__all__ = ["Settings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    """Import the names that need the extra at their first use."""
    if name not in ("create_app", "serve"):
        raise AttributeError(f"module 'fastdllm.serve' has no attribute {name!r}")
    try:
        from fastdllm.serve import app, server
    except ImportError as problem:
        if problem.name is not None and problem.name.startswith("fastdllm"):
            raise
        raise ImportError(f"{problem}; the server needs: pip install 'fastdllm[serve]'") from None
    return {"create_app": app.create_app, "serve": server.serve}[name]
