"""Writes a package so that it is whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastdllm.check import sha256_of_file
from fastdllm.export.errors import ExportError

METADATA = "fastdllm.json"
GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
PROBES = "probes.json"
FORMAT_VERSION = 1


@contextmanager
def package_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside `target` to write to; it becomes `target` when the block ends well.

    Whatever ends the block otherwise (an error, a full disk, Ctrl-C) removes it and leaves `target`
    as it was. An empty folder at `target` is replaced; a package there only with overwrite.
    Errors: ExportError when something is in the way or the disk does not take it.
    """
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is a file; expected a folder or nothing")
    occupied = target.is_dir() and any(target.iterdir())
    if occupied and not overwrite:
        raise ExportError(f"{target}: is not empty; overwrite it explicitly or choose another")
    if occupied and not (target / METADATA).exists():
        raise ExportError(f"{target}: is no package (no {METADATA}); it will not be overwritten")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        )
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from None
    try:
        yield partial
        partial.chmod(0o755)
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        _swap(partial, target)
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(partial: Path, target: Path) -> None:
    """Rename partial to target; what was there goes away only afterwards."""
    if not target.exists():
        partial.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old)  # replaces the empty folder
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def file_entries(
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return size and SHA-256 of every file (or `only` these) by name.

    progress is told the bytes read.
    """
    entries = {}
    for file in sorted(folder.iterdir()):
        if only is not None and file.name not in only:
            continue
        entries[file.name] = {
            "bytes": file.stat().st_size,
            "sha256": sha256_of_file(file, progress),
        }
    return entries
