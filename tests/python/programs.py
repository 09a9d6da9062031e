"""The C++ programs that `make test-cpp` builds before these tests, and how they are run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fastdllm.engine import LIBRARY_VARIABLE, find_onnxruntime

from conftest import ROOT

BUILD = Path(os.environ.get("FASTDLLM_BUILD_DIR", ROOT / "build" / "dev"))
ENVIRONMENT = {**os.environ, LIBRARY_VARIABLE: find_onnxruntime()}


def program(name: str, build: Path = BUILD) -> Path:
    """Find a program by its path below cpp/ in a build folder, or skip the test."""
    path = build / "cpp" / name
    if not path.exists():
        pytest.skip(f"{path} is not built: cmake --preset dev && cmake --build --preset dev")
    return path


def run_program(
    path: str | Path, *args: object, stdin: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output, whatever its exit status."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [str(path), *map(os.fsencode, map(str, args))],
        input=given,
        capture_output=True,
        timeout=120,
        env=ENVIRONMENT,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), os.fsdecode(done.stderr)
    )
