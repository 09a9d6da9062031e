"""Writes a package so that it is whole or not there."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
        _remove_remains(target)
        partial = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        )
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from None
    lock = os.open(partial, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system may have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # tells other exports that this one lives
        yield partial
        partial.chmod(0o755)
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        _swap(partial, target)
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from problem
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _remove_remains(target: Path) -> None:
    """Remove what exports to the same target left when they were killed.

    A folder that a living process writes to is locked, and stays.
    """
    remains = f".{glob.escape(target.name)}.????????"  # as tempfile names them
    for partial in target.parent.glob(f"{remains}.part"):
        lock = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)
    if target.exists():  # else the old package was set aside and never replaced: it may be wanted
        for old in target.parent.glob(f"{remains}.old"):
            shutil.rmtree(old, ignore_errors=True)


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
