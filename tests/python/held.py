"""Engines held between two passes, so that tests decide who comes when."""

from __future__ import annotations

import threading

from fastdllm import CommitEvent, Engine, GenerationConfig, Request

SECONDS = 60  # for what must not hang
SHORT = GenerationConfig(max_new_tokens=4, ignore_eos=True)
LONG = GenerationConfig(max_new_tokens=64, block_length=32, ignore_eos=True)  # 64 passes


class Held:
    """A request that holds the engine after its first pass, until it is let go."""

    def __init__(self, engine: Engine, config: GenerationConfig = LONG) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.events = 0
        self.request = engine.submit([1, 2, 3], config, self.on_commit)
        assert self.reached.wait(SECONDS)

    def on_commit(self, event: CommitEvent) -> None:
        self.events += 1
        self.reached.set()
        assert self.released.wait(SECONDS)

    def release(self) -> None:
        self.released.set()


def ids_of(request: Request) -> list[int]:
    ids: list[int] = request.result(SECONDS).token_ids.tolist()
    return ids
