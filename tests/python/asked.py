"""Requests as values: asked of an engine alone, or beside others."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import fastdllm
from fastdllm import CommitEvent, Engine, GenerationConfig, GenerationResult

BIDIRECTIONAL = ["llada-mha", "dream-gqa"]
BLOCK_CAUSAL = ["sdar", "fast-dllm-v2", "llada2-moe"]
CACHES = ["none", "prefix", "dual", "auto"]
VOCABULARY = 249  # ids that no family keeps for its eos or mask token


def prompt_of(length: int, seed: int = 0) -> list[int]:
    numbers = random.Random(1000 * seed + length)
    return [numbers.randrange(VOCABULARY) for _ in range(length)]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request; an infill's ids hold mask tokens."""

    ids: list[int]
    fields: dict[str, Any]
    infill: bool = False

    @property
    def config(self) -> GenerationConfig:
        return GenerationConfig(**self.fields)

    def submit(
        self, engine: Engine, on_commit: Callable[[CommitEvent], bool | None] | None = None
    ) -> fastdllm.Request:
        submit = engine.submit_infill if self.infill else engine.submit
        return submit(self.ids, self.config, on_commit)

    def answer(self, engine: Engine) -> GenerationResult:
        call = engine.infill if self.infill else engine.generate
        return call(self.ids, self.config)

    def __str__(self) -> str:
        kind = "infill of" if self.infill else "prompt of"
        return f"{kind} {len(self.ids)} ids, {self.fields}"


def told(result: GenerationResult) -> tuple[list[int], str]:
    """Return what must not depend on the batch."""
    return result.token_ids.tolist(), result.finish_reason
