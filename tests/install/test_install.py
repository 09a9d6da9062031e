"""fastdllm as it reaches a machine: from a clone, from the sdist, inside another project.

Every test starts from the files of the repository alone, without .deps, in an environment of its
own, and compiles all: `make test-install`, minutes.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# What is tested is that all is there and builds: without optimization it compiles twice as fast.
FAST = ["-C", "cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"]


def run(
    *command: str | Path, check: bool = True, cwd: Path = Path("/"), **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository's files, those of an uncommitted change too."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=REPOSITORY).stdout
    for name in filter(None, listed.splitlines()):
        if (REPOSITORY / name).is_file():  # not one that a change removed
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what a wheel is built with."""
    folder = tmp_path_factory.mktemp("builder")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    run(python, "-m", "pip", "install", "-q", "scikit-build-core", "nanobind", "nanobind-backend")
    return python


def test_pip_install_of_a_fresh_clone(clone: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    log = run(python, "-m", "pip", "install", "-v", *FAST, clone).stdout
    assert "is deprecated" not in log
    built = "from fastdllm._core import built_backends as b; print(*b())"
    assert run(python, "-c", built).stdout.split() == ["onnxruntime", "tensorrt"]


def test_the_sdist_is_small_and_builds_without_the_network(
    clone: Path, builder: Path, tmp_path: Path
) -> None:
    run("cmake", f"-DDESTINATION={tmp_path}/headers", "-P", clone / "cpp/cmake/get_headers.cmake")
    shutil.rmtree(clone / ".deps", ignore_errors=True)
    make = "import scikit_build_core.build as b; print(b.build_sdist('dist'))"
    run(builder, "-c", make, cwd=clone)
    (sdist,) = (clone / "dist").iterdir()
    assert sdist.stat().st_size < 1_000_000
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert not tops & {"tests", "benchmarks", "packages", ".deps", ".ci"}
    assert tops > {"CMakeLists.txt", "cpp", "bindings", "export", "python", "README.md", "LICENSE"}

    offline = ["--no-index", "--no-deps", "--no-build-isolation", "-w", tmp_path / "wheels"]
    offline += [*FAST, "-C", "cmake.define.FASTDLLM_GET_HEADERS=OFF"]
    log = run(
        *[builder, "-m", "pip", "wheel", "-v", *offline, sdist],
        ONNXRUNTIME_ROOT=f"{tmp_path}/headers",
    ).stdout
    assert len(list((tmp_path / "wheels").glob("fastdllm-*.whl"))) == 1
    assert "The TensorRT backend is not built" in log


@pytest.mark.parametrize("way", ["FetchContent", "add_subdirectory"])
def test_another_project_needs_no_option(clone: Path, tmp_path: Path, way: str) -> None:
    use = {
        "FetchContent": "include(FetchContent)\n"
        f"FetchContent_Declare(fastdllm SOURCE_DIR {clone})\nFetchContent_MakeAvailable(fastdllm)",
        "add_subdirectory": f"add_subdirectory({clone} fastdllm)",
    }[way]
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\n"
        f"{use}\nadd_executable(other main.cpp)\n"
        "target_link_libraries(other PRIVATE fastdllm::fastdllm)\n"
    )
    (project / "main.cpp").touch()
    before = sorted(clone.rglob("*"))
    run("cmake", "-S", project, "-B", tmp_path / "build")
    assert sorted(clone.rglob("*")) == before  # another project's sources are left as they are


def test_pip_names_at_once_all_that_is_missing(clone: Path, builder: Path, tmp_path: Path) -> None:
    # Python without its headers, as Debian's is without python3-dev.
    (tmp_path / "sitecustomize.py").write_text(
        "import sysconfig\nget_path = sysconfig.get_path\n"
        "sysconfig.get_path = lambda name, *a, **k: "
        "'/nowhere' if name == 'include' else get_path(name, *a, **k)\n"
    )
    log = run(
        *[
            builder,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            clone,
        ],
        check=False,
        CXX="/nowhere/g++",
        PYTHONPATH=str(tmp_path),
    )
    assert log.returncode != 0
    assert log.stdout.count("CMake Error") == 1
    for part in ("a C++20 compiler", "/nowhere/Python.h", "apt-get install g++ python3-dev"):
        assert part in log.stdout
