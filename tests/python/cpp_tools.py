"""Programs of the C++ tests that answer JSON lines, for comparisons with Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build" / "dev"


def ask(name: str, argument: Path, requests: Iterable[Any]) -> list[Any]:
    """Return a program's answer to each request; skip where `make test-cpp` has not built it."""
    program = Path(os.environ.get("FASTDLLM_BUILD_DIR", BUILD)) / "tests" / "cpp" / "text" / name
    if not program.exists():
        pytest.skip(f"{program} is not built: make test-cpp")
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(
        [program, argument],
        input=lines,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]
