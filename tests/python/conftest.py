"""Packages exported once per session, and the engines that run them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastdllm

from held import LONG, Held
from oracle import BIDIRECTIONAL, BLOCK_CAUSAL, Pair

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PackageOf = Callable[[str], Path]
EngineOf = Callable[[str], fastdllm.Engine]


def run_python(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program of the interpreter's own; its output, whatever its exit status."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded: counts that a reader wants to see."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


def load_golden(family: str) -> dict[str, Any]:
    """Read a golden folder's golden.json. Goldens are part of the project: a missing one fails."""
    content: dict[str, Any] = json.loads((GOLDEN / family / "golden.json").read_text("utf-8"))
    return content


def checkpoint_folder(name: str) -> Path:
    """Return the shipped model's checkpoint (tiny_math), or a golden's."""
    shipped = ROOT / "benchmarks" / "tiny_math" / "checkpoint"
    folder = shipped if name == "tiny_math" else GOLDEN / name
    if not (folder / "model.safetensors").exists():
        pytest.fail(f"no checkpoint at {folder}: it is part of the project")
    return folder


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> PackageOf:
    """Find a checkpoint by name, ready to be exported."""

    def checkpoint(name: str) -> Path:
        folder = checkpoint_folder(name)
        golden = folder / "golden.json"
        if not golden.exists() or "mask_id" not in (case := json.loads(golden.read_text("utf-8"))):
            return folder
        # The family's published config.json holds no mask id: state it, as a user would.
        copy = tmp_path_factory.mktemp("checkpoints") / name
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["mask_token_id"] = case["mask_id"]
        copy.chmod(0o755)
        (copy / "config.json").write_text(json.dumps(config), "utf-8")
        return copy

    return checkpoint


@pytest.fixture(scope="session")
def one_trace_per_structure() -> Iterator[None]:
    """Let exports of the same structure share a trace, which is most of a small export's time.

    test_export has the test that a second trace gives the same graph.
    """
    pytest.importorskip("torch", reason="exporting needs torch")
    from fastdllm.export import pipeline

    traced: dict[Any, Any] = {}
    trace = pipeline.trace

    def shared(model: Any, dtype: Any, opset: int) -> Any:
        key = (model.spec, dtype, opset)
        if key not in traced:
            traced[key] = trace(model, dtype, opset)
        return traced[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "trace", shared)
        yield


@pytest.fixture(scope="session")
def package_of(
    checkpoint_of: PackageOf,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> PackageOf:
    """Export a checkpoint by name the first time it is asked for (f32), whichever worker asks."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    folder = folder / "packages"
    folder.mkdir(exist_ok=True)

    def package(name: str) -> Path:
        made = folder / name
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                request.getfixturevalue("one_trace_per_structure")
                from fastdllm.export import export_package

                checkpoint = checkpoint_of(name)
                has_text = (checkpoint / "tokenizer.json").exists()
                export_package(
                    checkpoint, made, precision="fp32", text=has_text, allow_no_eos=not has_text
                )
        return made

    return package


@pytest.fixture(scope="session")
def engine_of(package_of: PackageOf) -> EngineOf:
    made: dict[str, fastdllm.Engine] = {}

    def engine(name: str) -> fastdllm.Engine:
        if name not in made:
            made[name] = fastdllm.Engine(package_of(name), threads=1)
        return made[name]

    return engine


@pytest.fixture(scope="session")
def pairs(package_of: PackageOf, engine_of: EngineOf) -> dict[str, Pair]:
    return {name: Pair(package_of(name), engine_of(name)) for name in BIDIRECTIONAL + BLOCK_CAUSAL}


@pytest.fixture(scope="session")
def mha(engine_of: EngineOf) -> fastdllm.Engine:
    return engine_of("llada-mha")


@pytest.fixture(scope="session")
def llm(package_of: PackageOf) -> fastdllm.LLM:
    return fastdllm.LLM(package_of("tiny_math"), threads=2)


@pytest.fixture
def engine_with(package_of: PackageOf) -> Callable[..., fastdllm.Engine]:
    def engine(**limits: int) -> fastdllm.Engine:
        return fastdllm.Engine(package_of("llada-mha"), threads=1, **limits)

    return engine


@pytest.fixture
def hold() -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def held(engine: fastdllm.Engine, config: fastdllm.GenerationConfig = LONG) -> Held:
        made.append(Held(engine, config))
        return made[-1]

    yield held
    for one in made:
        one.release()
