"""A package's files that exist and cannot be read: each reader says so, and of which."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastdllm
from fastdllm._core import read_package
from fastdllm.check import read_metadata
from fastdllm.text import TextCodec

from conftest import PackageOf
from programs import program, run_program

NOBODY = 65534
UNREADABLE = Path("/proc/self/mem")  # exists, opens, and gives an I/O error


def as_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_io_error(file: Path) -> None:
    file.unlink()
    file.symlink_to(UNREADABLE)


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


HOW: dict[str, tuple[Callable[[Path], None], str]] = {
    "a directory": (as_directory, "Is a directory"),
    "an I/O error": (as_io_error, "Input/output error"),
    "a pipe": (as_pipe, "expected a regular file"),
}


@pytest.fixture
def package(package_of: PackageOf, tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), folder)
    return folder


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Read as who may not read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def problem_of(read: Callable[[], object]) -> str:
    with pytest.raises(fastdllm.PackageError) as problem:
        read()
    return str(problem.value)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "name", ["fastdllm.json", "model.onnx", "tokenizer.json", "chat_template.jinja"]
)
def test_a_file_that_cannot_be_read_is_said_to_be_so(package: Path, name: str, how: str) -> None:
    make, words = HOW[how]
    make(package / name)

    said = problem_of(lambda: read_package(str(package)))

    assert f"{package / name}: cannot be read: {words}" in said
    answer = run_program(program("apps/fastdllm-cli"), "info", package)
    assert answer.returncode == 1
    assert f"{name}: cannot be read: {words}" in answer.stderr


@pytest.mark.parametrize("how", HOW)
def test_python_reads_the_metadata_and_texts_in_the_same_words(package: Path, how: str) -> None:
    make, words = HOW[how]
    entry = read_metadata(package)["tokenizer"]
    for name in ("tokenizer.json", "chat_template.jinja"):
        kept = (package / name).read_bytes()
        make(package / name)
        said = problem_of(lambda: TextCodec(package, entry))
        assert f"{package / name}: cannot be read: {words}" in said
        shutil.rmtree(package / name) if how == "a directory" else (package / name).unlink()
        (package / name).write_bytes(kept)
    make(package / "fastdllm.json")
    said = problem_of(lambda: read_metadata(package))
    assert f"{package / 'fastdllm.json'}: cannot be read: {words}" in said


@pytest.mark.parametrize("name", ["fastdllm.json", "model.onnx", "tokenizer.json"])
def test_a_file_without_permission_is_said_to_be_so(package: Path, name: str) -> None:
    for folder in (package, *package.parents):
        if folder.owner() == package.owner() and "pytest" in str(folder):
            folder.chmod(0o755)
    (package / name).chmod(0)
    with unprivileged():
        said = problem_of(lambda: read_package(str(package)))
    assert f"{package / name}: cannot be read: Permission denied" in said


def test_a_folder_without_permission_is_not_one_that_does_not_exist(package: Path) -> None:
    package.parent.chmod(0)
    try:
        with unprivileged():
            said = problem_of(lambda: read_package(str(package)))
            told = problem_of(lambda: read_metadata(package))
    finally:
        package.parent.chmod(0o755)
    assert said == f"{package}: cannot be read: Permission denied"
    assert told == f"{package / 'fastdllm.json'}: cannot be read: Permission denied"


def test_a_file_that_is_missing_still_is(package: Path) -> None:
    (package / "tokenizer.json").unlink()
    assert "tokenizer.json: missing; " in problem_of(lambda: read_package(str(package)))
    (package / "fastdllm.json").unlink()
    assert "fastdllm.json: missing; " in problem_of(lambda: read_package(str(package)))
    assert "fastdllm.json: missing; " in problem_of(lambda: read_metadata(package))
    nothing = package / "nothing"
    assert problem_of(lambda: read_package(str(nothing))).endswith("no such package folder")
