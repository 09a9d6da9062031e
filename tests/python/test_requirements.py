"""What a build needs and finds missing, and the versions that are promised."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMPILER = "a C++20 compiler"
HEADERS = "headers of ONNX Runtime"
PYTHON_HEADERS = "Python's headers"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")


def configure(tmp_path: Path, *missing: str) -> str:
    """CMake's errors where `missing` is not there; a build of the Python module."""
    includes = tmp_path / "include"
    (includes / "nlohmann").mkdir(parents=True)
    for header in ("onnxruntime_cxx_api.h", "nlohmann/json.hpp", "Python.h"):
        (includes / header).touch()
    options = {
        "FASTDLLM_BUILD_PYTHON": "ON",
        "FASTDLLM_BUILD_TESTS": "OFF",
        "FASTDLLM_BUILD_TEXT": "OFF",
        "FASTDLLM_BUILD_EXAMPLES": "OFF",
        "FASTDLLM_GET_HEADERS": "OFF",
        "FASTDLLM_ONNXRUNTIME_INCLUDE": "" if HEADERS in missing else str(includes),
        "FASTDLLM_JSON_INCLUDE": "" if HEADERS in missing else str(includes),
        "Python_INCLUDE_DIR": "/nowhere" if PYTHON_HEADERS in missing else str(includes),
        "Python_EXECUTABLE": sys.executable,
    }
    if HEADERS in missing:
        options |= dict.fromkeys(
            ["FASTDLLM_ONNXRUNTIME_INCLUDE", "FASTDLLM_JSON_INCLUDE"], "X-NOTFOUND"
        )
        options["CMAKE_FIND_ROOT_PATH"] = str(tmp_path / "empty")  # nothing of the system or .deps
        options["CMAKE_FIND_ROOT_PATH_MODE_INCLUDE"] = "ONLY"
    environment = os.environ | {"CXX": "/nowhere/g++" if COMPILER in missing else "c++"}
    command = ["cmake", "-S", REPOSITORY, "-B", tmp_path / "build"]
    command += [f"-D{name}={value}" for name, value in options.items()]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode != 0
    return run.stderr


def test_all_that_is_missing_is_named_in_one_error(tmp_path: Path) -> None:
    errors = configure(tmp_path, COMPILER, HEADERS, PYTHON_HEADERS)
    assert errors.count("CMake Error") == 1
    for what in (COMPILER, HEADERS, PYTHON_HEADERS, "FASTDLLM_GET_HEADERS is OFF"):
        assert what in errors
    assert "apt-get install g++ python3-dev" in errors


@pytest.mark.parametrize("missing", [COMPILER, HEADERS, PYTHON_HEADERS])
def test_what_is_there_is_not_named(tmp_path: Path, missing: str) -> None:
    errors = configure(tmp_path, missing)
    named = [what for what in (COMPILER, HEADERS, PYTHON_HEADERS) if what in errors]
    assert named == [missing]


def test_the_promised_onnxruntime_is_one_version_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (floor,) = re.findall(r"onnxruntime>=([\d.]+)", " ".join(project["dependencies"]))
    loader = (REPOSITORY / "cpp/src/backends/onnxruntime/loader.cpp").read_text()
    (minor,) = re.findall(r"oldest_minor = (\d+);", loader)
    pages = [(REPOSITORY / "docs" / name).read_text() for name in ("cpp.md", "stability.md")]
    promised = re.findall(r"ONNX Runtime (1\.\d+) (?:or|and) newer", "\n".join(pages))
    assert promised == [f"1.{minor}"] * 2
    assert floor == f"1.{minor}.1"  # the first release of 1.24


def test_a_green_run_of_the_cpp_tests_stays_green_where_nothing_was_packed(tmp_path: Path) -> None:
    # A make around this test would speak in the output: "Leaving directory".
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    recipe = subprocess.run(
        ["make", "-n", "test-cpp"],
        cwd=REPOSITORY,
        env=alone,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    last = recipe.rstrip().splitlines()[-1]
    assert "LastTest.log" in last
    log = tmp_path / "build/dev/Testing/Temporary/LastTest.log"
    log.parent.mkdir(parents=True)
    log.write_text("100% tests passed\n")
    subprocess.run(["sh", "-ec", last], cwd=tmp_path, check=True)
