"""Packages exported once per session, and the engines that run them."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import fastdllm

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT.parent / "shared" / "golden"
PackageOf = Callable[[str], Path]
EngineOf = Callable[[str], fastdllm.Engine]


def checkpoint_folder(name: str) -> Path:
    if name == "tiny_math":
        folders = [
            ROOT / "benchmarks" / "tiny_math" / "checkpoint",
            ROOT.parent / "shared" / "tiny_math" / "checkpoint",
        ]
    else:
        folders = [GOLDEN / name]
    for folder in folders:
        if (folder / "model.safetensors").exists():
            return folder
    pytest.skip(f"no checkpoint at {' or '.join(map(str, folders))}")


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
def package_of(checkpoint_of: PackageOf, tmp_path_factory: pytest.TempPathFactory) -> PackageOf:
    """Export a checkpoint by name the first time it is asked for (f32)."""
    made: dict[str, Path] = {}

    def package(name: str) -> Path:
        if name not in made:
            pytest.importorskip("torch", reason="exporting needs torch")
            from fastdllm.export import export_package

            folder = tmp_path_factory.mktemp("packages") / name
            export_package(checkpoint_of(name), folder, precision="fp32")
            made[name] = folder
        return made[name]

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
def mha(engine_of: EngineOf) -> fastdllm.Engine:
    return engine_of("llada-mha")


@pytest.fixture(scope="session")
def llm(package_of: PackageOf) -> fastdllm.LLM:
    return fastdllm.LLM(package_of("tiny_math"), threads=2)
