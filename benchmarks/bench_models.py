"""The checkpoints, packages and prompts of the benchmark suite, made once in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from measuring import ROOT
from scenarios import TRAINED, Scenario
from synthetic import SHAPES, write_checkpoint

import fastdllm.export

SHIPPED = ROOT / "benchmarks" / "tiny_math" / "checkpoint"
LONGER = 1024


class Models:
    """Makes what a scenario needs: what is not in the folder, or of an older exporter."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._exporter = _exporter_key()

    def checkpoint(self, model: str) -> Path:
        """Return the folder of a model's checkpoint."""
        if model == TRAINED[0]:
            return SHIPPED
        if model == TRAINED[1]:
            return self._make(model, _key(SHIPPED), _write_longer)
        shape = SHAPES[model]
        key = repr(dataclasses.astuple(shape))
        return self._make(model, key, lambda folder: write_checkpoint(folder, shape))

    def package(self, model: str, precision: str) -> Path:
        """Return the folder of a model's package."""
        checkpoint = self.checkpoint(model)
        key = f"{self._exporter} {_key(checkpoint)}"

        def export(folder: Path) -> None:
            fastdllm.export.export_package(
                checkpoint,
                folder,
                precision=precision,  # type: ignore[arg-type]
                in_memory=model in TRAINED,
                text=(checkpoint / "tokenizer.json").exists(),
                allow_no_eos=model not in TRAINED,
                progress=False,
            )

        return self._make(f"{model}-{precision}", key, export)

    def prompts(self, scenario: Scenario) -> list[list[int]]:
        """Return the token ids of a scenario's prompts, the same every time."""
        if scenario.trained:
            return _problems(self.package(scenario.model, "fp32"), scenario.prompts)
        numbers = random.Random(0)
        mask_token_id = SHAPES[scenario.model].vocabulary - 1
        return [
            [numbers.randrange(mask_token_id) for _ in range(scenario.prompt_length or 0)]
            for _ in range(scenario.prompts)
        ]

    def eos_token_ids(self, model: str) -> list[int]:
        """Return the ids that end an answer."""
        config = json.loads((self.checkpoint(model) / "config.json").read_text("utf-8"))
        return [config["eos_token_id"]] if "eos_token_id" in config else []

    def _make(self, name: str, key: str, make: Callable[[Path], object]) -> Path:
        made, stamp = self._folder / name, self._folder / f"{name}.made-of"
        if made.exists() and stamp.exists() and stamp.read_text("utf-8") == key:
            return made
        self._say(f"making {made}")
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        make(made)
        stamp.write_text(key, "utf-8")  # last: what was left half made is made anew
        return made


def _key(checkpoint: Path) -> str:
    """Identify a checkpoint: what is random of it follows from config.json."""
    digest = hashlib.sha256((checkpoint / "config.json").read_bytes())
    if checkpoint == SHIPPED:
        digest.update((checkpoint / "model.safetensors").read_bytes())
    return digest.hexdigest()[:16]


def _exporter_key() -> str:
    """Identify the exporter's sources, so that no package of an older one is measured."""
    digest = hashlib.sha256(fastdllm.__version__.encode())
    folder = Path(fastdllm.export.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _write_longer(folder: Path) -> None:
    """Copy the shipped checkpoint with room for more positions; what they hold means nothing."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("problems.jsonl"))
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | {"max_sequence_length": LONGER}
    path.write_text(json.dumps(config), "utf-8")


def _problems(package: Path, count: int) -> list[list[int]]:
    from fastdllm.check import read_metadata
    from fastdllm.text import TextCodec

    codec = TextCodec(package, read_metadata(package)["tokenizer"])
    lines = (SHIPPED / "problems.jsonl").read_text("utf-8").splitlines()[:count]
    questions = [json.loads(line)["question"] for line in lines]
    return [codec.encode_chat([{"role": "user", "content": question}]) for question in questions]
