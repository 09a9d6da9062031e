"""What the benchmark suite runs: scenarios.json, checked, and the contenders that it may name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthetic import SHAPES

from fastdllm import GenerationConfig

FILE = Path(__file__).resolve().parent / "scenarios.json"
# The shipped model, and the same with room for 1024 positions; others have random weights.
TRAINED = ("tiny_math", "tiny_math_1024")
# What the torch loop can honour.
TORCH_FIELDS = {
    "max_new_tokens",
    "block_length",
    "cache",
    "threshold",
    "steps_per_block",
    "ignore_eos",
}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who decodes. naive: without a cache and one token per pass, whatever the scenario says."""

    name: str
    torch: bool = False
    precision: str = "fp32"
    naive: bool = False
    compiled: bool = False


CONTENDERS = {
    one.name: one
    for one in (
        Contender(name="fastdllm"),
        Contender(name="fastdllm_int8", precision="int8"),
        Contender(name="fastdllm_int4", precision="int4"),
        Contender(name="fastdllm_bf16", precision="bf16"),
        Contender(name="fastdllm_fp16", precision="fp16"),
        Contender(name="fastdllm_naive", naive=True),
        Contender(name="torch_naive", torch=True, naive=True),  # LLaDA's own loop
        Contender(name="torch_eager", torch=True),  # Fast-dLLM's loop
        Contender(name="torch_compile", torch=True, compiled=True),
    )
}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Prompts, how they are decoded, and by whom; the first contender is compared with the others.

    prompts: how many, problems of the trained models, else random ids, prompt_length of them each.
    config: GenerationConfig's fields. batch: prompts decoded side by side, by fastdllm only.
    """

    name: str
    model: str
    prompts: int
    config: dict[str, Any]
    contenders: tuple[str, ...]
    groups: tuple[str, ...] = ()
    prompt_length: int | None = None
    threads: int = 2
    batch: int = 1

    def __post_init__(self) -> None:
        if self.model not in (*TRAINED, *SHAPES):
            raise ValueError(f"{self.name}: model {self.model} is none of {(*TRAINED, *SHAPES)}")
        if (self.prompt_length is None) != self.trained:
            raise ValueError(
                f"{self.name}: random prompts have a prompt_length, problems have none"
            )
        if min(self.prompts, self.threads, self.batch) < 1:
            raise ValueError(f"{self.name}: prompts, threads and batch are at least 1")
        if not self.contenders or len(set(self.contenders)) < len(self.contenders):
            raise ValueError(f"{self.name}: contenders are given once each, and at least one")
        GenerationConfig(**self.config)
        for name in self.contenders:
            if name not in CONTENDERS:
                raise ValueError(f"{self.name}: contender {name} is none of {list(CONTENDERS)}")
            if CONTENDERS[name].torch:
                self._check_torch(name)
        if not self.trained and not self.fixed_schedule:
            raise ValueError(f"{self.name}: random weights are decoded by a fixed schedule")

    def _check_torch(self, name: str) -> None:
        if others := sorted(set(self.config) - TORCH_FIELDS):
            raise ValueError(f"{self.name}: {name} knows no {', '.join(others)}")
        if {"threshold", "steps_per_block"} <= set(self.config):
            raise ValueError(f"{self.name}: {name} takes threshold or steps_per_block")
        if self.config.get("cache") not in ("none", "prefix", "dual"):
            raise ValueError(f"{self.name}: {name} needs a cache: none, prefix or dual")
        if "block_length" not in self.config or self.batch > 1:
            raise ValueError(f"{self.name}: {name} needs a block_length, and batch 1")

    @property
    def trained(self) -> bool:
        """Whether the model's tokens mean something, so that all contenders owe the same."""
        return self.model in TRAINED

    @property
    def fixed_schedule(self) -> bool:
        """Whether the number of passes does not depend on confidences."""
        rules = ("threshold", "factor", "frechet", "entropy_bound")
        return not any(self.config.get(rule) is not None for rule in rules)

    def config_for(self, contender: Contender) -> dict[str, Any]:
        """Return GenerationConfig's fields for a contender."""
        if not contender.naive:
            return self.config
        kept = ("max_new_tokens", "block_length", "ignore_eos")
        return {key: self.config[key] for key in kept if key in self.config} | {"cache": "none"}


def read(path: Path = FILE) -> list[Scenario]:
    """Read and check scenarios. Errors: ValueError and TypeError name what is wrong."""
    found = [
        Scenario(
            **entry | {key: tuple(entry[key]) for key in ("contenders", "groups") if key in entry}
        )
        for entry in json.loads(path.read_text("utf-8"))
    ]
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: several scenarios are named {', '.join(twice)}")
    return found


def chosen(scenarios: list[Scenario], names: list[str], group: str) -> list[Scenario]:
    """Return the scenarios of these names, or of a group where none is given."""
    known = {one.name for one in scenarios}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no scenario {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    found = [one for one in scenarios if (one.name in names if names else group in one.groups)]
    if not found:
        groups = sorted({group for one in scenarios for group in one.groups})
        raise ValueError(f"no scenario is in the group {group}; groups: {', '.join(groups)}")
    return found
