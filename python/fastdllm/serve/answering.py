"""The answers of one request under way: all are submitted together, events come as they happen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial

from fastdllm._core import CommitEvent, GenerationConfig
from fastdllm.answer import Answer, Completion, StreamEvent
from fastdllm.llm import LLM
from fastdllm.serve.plan import Question
from fastdllm.serve.responses import Stats

_Told = StreamEvent | CommitEvent | None


class Answers:
    """The answers to a request's questions; an answer's number is its choice's index."""

    def __init__(
        self, llm: LLM, questions: Sequence[Question], stop: tuple[str, ...], *, watched: bool
    ) -> None:
        """Submit all of them, or none. watched: events() tells every pass, not only the ends.

        Errors: ConfigError, OverloadedError.
        """
        self.started = time.monotonic()
        self._arrived: asyncio.Queue[tuple[int, _Told]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.answers = [
            Answer(llm.engine, llm.codec, question.ids, config, stop=stop)
            for question in questions
            for config in question.configs
        ]
        try:
            for number, answer in enumerate(self.answers):
                put = partial(self._put, number)
                answer.start(on_event=put if watched else None, on_done=partial(put, None))
        except BaseException:
            self.cancel()
            raise

    def _put(self, number: int, told: _Told) -> None:
        """Hand over what happened; called on the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (number, told))

    def __len__(self) -> int:
        return len(self.answers)

    async def events(self) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """Yield (number, event) as they come, each answer's completion last.

        Errors: NumericError, BackendError of any answer. Leaving it cancels what still runs.
        """
        try:
            left = len(self.answers)
            while left:
                number, told = await self._arrived.get()
                answer = self.answers[number]
                if told is None:
                    left -= 1
                yield number, answer.last_event() if told is None else answer.event(told)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End what still runs before its next pass."""
        for answer in self.answers:
            answer.cancel()


class Infills:
    """The same of gaps in front of a text: each question's answer ends where the suffix begins.

    A gap has max_new_tokens tokens and is filled to its end.
    """

    def __init__(self, llm: LLM, questions: Sequence[Question], suffix: str) -> None:
        self.started = time.monotonic()
        self._llm = llm
        self._suffix = suffix
        self._asked = [(question.ids, one) for question in questions for one in question.configs]
        self._tasks: list[asyncio.Task[Completion]] = []

    def __len__(self) -> int:
        return len(self._asked)

    async def events(self) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """Yield each answer's completion. Errors: the engine's; ConfigError, OverloadedError."""
        self._tasks = [asyncio.ensure_future(self._fill(*asked)) for asked in self._asked]
        try:
            for number, task in enumerate(self._tasks):
                completion = await task
                yield number, StreamEvent(piece="", text=completion.text, completion=completion)
        finally:
            self.cancel()

    async def _fill(self, ids: list[int], config: GenerationConfig) -> Completion:
        gap = config.max_new_tokens
        whole = await self._llm.ainfill([gap, self._suffix], config, prompt=ids)
        return replace(
            whole,
            text=whole.filled[0],
            token_ids=whole.token_ids[:gap],
            logprobs=whole.logprobs[:gap],
        )

    def cancel(self) -> None:
        """End what still runs before its next pass."""
        for task in self._tasks:
            task.cancel()


def stats_of(completion: Completion, seconds: float) -> Stats:
    """Return what an answer cost."""
    passes = completion.num_passes
    return Stats(
        num_passes=passes,
        refresh_passes=completion.stats.refresh_passes,
        step_passes=completion.stats.step_passes,
        tokens_per_forward=completion.completion_tokens / passes if passes else 0.0,
        seconds=seconds,
    )
