"""Output files of commands: checked before the work starts, written atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastdllm._core import Error


def check_writable(paths: dict[str, Path | None]) -> None:
    """Refuse names of files that could not be written, by their option. Errors: Error, OSError."""
    taken: dict[str, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        target = Path(os.path.realpath(path))
        folder = target.parent if path.is_symlink() else path.parent
        if (other := taken.setdefault(str(target), option)) != option:
            raise Error(f"{option} {path}: {other} names the same file")
        if path.is_dir():
            raise Error(f"{option} {path}: is a folder; expected the name of a file")
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise Error(f"{option} {path}: cannot be written to")
        elif not target.parent.is_dir():
            raise Error(f"{option} {path}: there is no folder {folder}")
        elif not os.access(target.parent, os.W_OK | os.X_OK):
            raise Error(f"{option} {path}: the folder {folder} cannot be written to")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file of the same suffix, that then takes the place of `path`.

    A symbolic link stays: what it names is written. What is no regular file, such as a pipe, is
    given the bytes. Errors: OSError that names `path`, which then is as it was.
    """
    try:
        if _is_special(path):
            with tempfile.TemporaryDirectory() as folder:
                beside = Path(folder, f"whole{path.suffix}")
                write(beside)
                with beside.open("rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except OSError as problem:
        if problem.errno is None:
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from None


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    made, name = tempfile.mkstemp(prefix=".", suffix=target.suffix, dir=target.parent)
    os.close(made)
    beside = Path(name)
    try:
        write(beside)
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
