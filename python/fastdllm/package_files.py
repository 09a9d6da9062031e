"""Reads a package's files, with different errors for missing and unreadable ones."""

from __future__ import annotations

from pathlib import Path

from fastdllm._core import PackageError


def read_package_file(path: Path) -> bytes:
    """Return a file's content. Errors: PackageError."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading a pipe would block
            raise PackageError(f"{path}: cannot be read: expected a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        raise PackageError(f"{path}: missing; a package folder holds it") from None
    except OSError as problem:
        raise PackageError(f"{path}: cannot be read: {problem.strerror or problem}") from None
