"""An engine that replays commits, and codecs of known tokens: what no model can be told to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastdllm import LLM, GenerationConfig
from fastdllm._core import OverloadedError
from fastdllm.text import TextCodec

PATIENCE = 20.0  # seconds after which a wait that should end has failed
Commits = Sequence[tuple[int, int]]  # (position, token id) of one pass


class ByteCodec(TextCodec):
    """A token is a byte of UTF-8: the hardest case for streaming. 256 ends the text."""

    control_tokens_in_messages = True  # it has none

    def __init__(self) -> None:
        self.chat_template = None
        self.longest = 0  # most tokens that were decoded at once

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        listed = list(ids)
        self.longest = max(self.longest, len(listed))
        return bytes(i for i in listed if i < 256).decode("utf-8", errors="replace")


class RunCodec(ByteCodec):
    """Bytes that make no text are all replaced, as byte fallback does it with a run of them."""

    def decode(self, ids: Iterable[int]) -> str:
        text = super().decode(listed := list(ids))
        return "\ufffd" * len(listed) if "\ufffd" in text else text


class WordCodec(TextCodec):
    """A token is a text of its own; 0 ends the text."""

    control_tokens_in_messages = True  # it has none

    def __init__(self, words: Mapping[int, str]) -> None:
        self.chat_template = None
        self.words = words

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.words[i] for i in ids)


class ScriptedRequest:
    """A request whose passes run in a thread of its own."""

    def __init__(self, work: Callable[[ScriptedRequest], Any], on_done: Any) -> None:
        self.was_cancelled = threading.Event()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(work, on_done), daemon=True)
        self.outcome: Any = None
        self.thread.start()

    def _run(self, work: Callable[[ScriptedRequest], Any], on_done: Any) -> None:
        try:
            self.outcome = work(self)
        except BaseException as problem:
            self.outcome = problem
        self.over.set()
        if on_done is not None:
            on_done()

    def result(self, timeout: float | None = PATIENCE) -> Any:
        if not self.over.wait(timeout):
            raise TimeoutError("the request did not end")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.was_cancelled.set()


class ScriptedEngine:
    """Answers every request with the same passes.

    before_pass(request, step): called on the request's thread; what it raises ends the request.
    max_waiting: requests under way beyond which another is refused.
    """

    def __init__(
        self,
        passes: Sequence[Commits],
        before_pass: Callable[[ScriptedRequest, int], None] | None = None,
        *,
        eos_token_ids: Sequence[int] = (0, 256),
        max_waiting: int = 1024,
    ) -> None:
        self.package = SimpleNamespace(eos_token_ids=list(eos_token_ids), mask_token_id=257)
        self.requests: list[ScriptedRequest] = []
        self.prompts: list[list[int]] = []
        self.configs: list[GenerationConfig] = []
        self.passes_run = 0
        self._passes = passes
        self._before_pass = before_pass
        self._max_waiting = max_waiting

    def submit(
        self, prompt_ids: list[int], config: GenerationConfig, on_commit: Any, on_done: Any
    ) -> ScriptedRequest:
        if sum(not request.over.is_set() for request in self.requests) >= self._max_waiting:
            raise OverloadedError("the queue is full")
        self.prompts.append(prompt_ids)
        self.configs.append(config)
        self.requests.append(ScriptedRequest(lambda r: self._answer(r, on_commit), on_done))
        return self.requests[-1]

    def _answer(self, request: ScriptedRequest, on_commit: Any) -> Any:
        tokens: dict[int, int] = {}
        reason = "length"
        for step, commits in enumerate(self._passes):
            if request.was_cancelled.is_set():
                reason = "abort"
                break
            if self._before_pass is not None:
                self._before_pass(request, step)
            self.passes_run += 1
            tokens.update(commits)
            last = step == len(self._passes) - 1
            if on_commit is not None and on_commit(event_of(step, commits, last)) is False:
                reason = "abort"
                break
        ids = [tokens[i] for i in range(len(tokens)) if all(j in tokens for j in range(i))]
        for i, token in enumerate(ids):
            if token in self.package.eos_token_ids:
                ids, reason = ids[: i + 1], "stop"
                break
        return SimpleNamespace(
            token_ids=np.array(ids, np.int32),
            logprobs=-np.arange(len(ids), dtype=np.float64),
            finish_reason=reason,
            num_passes=self.passes_run,
            stats=None,
        )


def event_of(step: int, commits: Commits, finished: bool) -> Any:
    """Return what a CommitEvent of one block would say."""
    return SimpleNamespace(
        step=step,
        block=0,
        block_start=0,
        block_end=len(commits),
        block_finished=finished,
        refreshed=step == 0,
        rows=len(commits),
        positions=np.array([position for position, _ in commits], np.int32),
        token_ids=np.array([token for _, token in commits], np.int32),
        confidences=np.ones(len(commits)),
    )


def scripted_llm(engine: Any, codec: TextCodec) -> LLM:
    """Return an LLM without a package."""
    llm = LLM.__new__(LLM)
    llm.engine, llm.codec, llm.default_config = engine, codec, GenerationConfig()
    return llm


def left_to_right(tokens: Iterable[int]) -> list[Commits]:
    """Return passes that commit one token each."""
    return [[(position, token)] for position, token in enumerate(tokens)]
