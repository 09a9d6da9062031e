"""The command line: `fastdllm COMMAND`, a module for each family of commands."""

from __future__ import annotations

from fastdllm.cli.program import main

__all__ = ["main"]
