"""The C++ library that comes in the wheel, used by another CMake project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from fastdllm.engine import find_onnxruntime

CONSUMER = Path(__file__).parents[1] / "install"

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("c++") is None,
    reason="cmake or a C++ compiler is missing",
)


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | variables, check=False
    )


@pytest.fixture(scope="module")
def cmake_dir() -> Path:
    answer = run(sys.executable, "-m", "fastdllm", "--cmake-dir")
    assert answer.returncode == 0, answer.stderr
    return Path(answer.stdout.rstrip("\n"))


def configure(cmake_dir: Path, build: Path, with_text: str) -> subprocess.CompletedProcess[str]:
    return run(
        *("cmake", "-S", CONSUMER, "-B", build, f"-Dfastdllm_DIR={cmake_dir}"),
        f"-DWITH_TEXT={with_text}",
    )


def test_a_project_builds_with_the_library_of_the_wheel(
    cmake_dir: Path, tmp_path: Path, package_of: Callable[[str], Path]
) -> None:
    configured = configure(cmake_dir, tmp_path, "OFF")
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr

    for program in ("consumer", "c_consumer"):
        ran = run(
            tmp_path / program,
            FASTDLLM_TEST_PACKAGE=str(package_of("tiny_math")),
            FASTDLLM_ONNXRUNTIME=find_onnxruntime(),
        )
        assert ran.returncode == 0, ran.stderr
        assert "40 tokens" in ran.stdout


def test_text_is_refused_with_the_way_to_get_it(cmake_dir: Path, tmp_path: Path) -> None:
    configured = configure(cmake_dir, tmp_path, "ON")
    assert configured.returncode != 0
    assert "no component text" in " ".join(configured.stderr.split())
    assert "tar.gz" in configured.stderr


def test_the_wheel_is_for_every_python_from_3_10() -> None:
    assert "Tag: cp311-abi3-linux" in (metadata.distribution("fastdllm").read_text("WHEEL") or "")


def test_a_source_folder_has_no_cmake_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastdllm import cli
    from fastdllm.cli import program

    monkeypatch.setattr(program, "__file__", str(tmp_path / "cli" / "program.py"))
    assert cli.main(["--cmake-dir"]) == 1
    assert "not installed from a wheel" in capsys.readouterr().err
