"""Writes a package so that it is whole or not there."""

from __future__ import annotations

import errno
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
    names = _names_in(target)
    if names and not overwrite:
        raise ExportError(f"{target}: is not empty; overwrite it explicitly or choose another")
    if names and METADATA not in names:
        raise ExportError(f"{target}: is no package (no {METADATA}); it will not be overwritten")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_remains(target)
        partial, lock = _locked_folder(target)
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from None
    try:
        yield partial
        partial.chmod(0o755)
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        _swap(partial, target, overwrite=overwrite)
    except OSError as problem:
        raise ExportError(f"{target}: cannot be written: {problem}") from problem
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _names_in(folder: Path) -> list[str]:
    """List what is there at one moment. Errors: ExportError for a file."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise ExportError(f"{folder}: is a file; expected a folder or nothing") from None


def _locked_folder(target: Path) -> tuple[Path, int]:
    """Make a folder beside `target` and lock it, which tells other exports that this one lives.

    Another export may take the folder for a killed one's before it is locked, and remove it: then
    another one is made. Returns the folder and the open lock.
    """
    while True:
        folder = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        )
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system may have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a process that is removing it
        if folder.exists():
            return folder, lock
        os.close(lock)


def _remove_remains(target: Path) -> None:
    """Remove what exports to the same target left when they were killed.

    A folder that a living process writes to, or set aside, is locked, and stays.
    """
    remains = f".{glob.escape(target.name)}.????????"  # as tempfile names them
    for partial in target.parent.glob(f"{remains}.part"):
        _remove_unlocked(partial)
    if target.exists():  # else the old package was set aside and never replaced: it may be wanted
        for old in target.parent.glob(f"{remains}.old"):
            _remove_unlocked(old)


def _remove_unlocked(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(lock)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename partial to target; what was there goes away only afterwards.

    Another export may have put its package there meanwhile: it counts as one that was there.
    Errors: ExportError when there is one and it may not be overwritten.
    """
    while not _moved(partial, target):
        if not overwrite:
            raise ExportError(f"{target}: is not empty; another export was there first")
        with _set_aside(target):
            if _moved(partial, target):
                return


def _moved(partial: Path, target: Path) -> bool:
    """Rename partial to target where that replaces nothing but an empty folder."""
    try:
        partial.rename(target)
    except OSError as problem:
        if problem.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


@contextmanager
def _set_aside(target: Path) -> Iterator[None]:
    """Rename target for the time of the block; then it goes away, or comes back on an error."""
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    lock = None
    try:
        with suppress(FileNotFoundError):  # another export has just set it aside
            lock = os.open(target, os.O_RDONLY)
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not mistaken for remains
            target.rename(old)  # replaces the empty folder
        try:
            yield
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def file_entries(
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    only: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return size and SHA-256 of every file (or `only` these) by name.

    progress is called with the bytes read.
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
