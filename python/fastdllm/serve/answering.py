"""The answers of one running request: submitted together, with events as they happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fastdllm._core import CommitEvent, ConfigError, GenerationConfig, OverloadedError
from fastdllm.answer import Answer, Completion, StreamEvent
from fastdllm.infill import gap_ids
from fastdllm.llm import LLM
from fastdllm.serve.plan import Question
from fastdllm.serve.responses import Stats

if TYPE_CHECKING:
    from fastdllm._core import Request

_Told = StreamEvent | CommitEvent | None


class Answers:
    """The answers to a request's questions; an answer's number is its choice's index."""

    def __init__(
        self, llm: LLM, questions: Sequence[Question], stop: tuple[str, ...], *, watched: bool
    ) -> None:
        """Submit all of them, or none. watched: events() tells every pass, not only the ends.

        Errors: ConfigError, OverloadedError.
        """
        self._arrived: asyncio.Queue[tuple[int, _Told]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.answers = [
            Answer(llm.engine, llm.codec, question.ids, config, stop=stop)
            if question.suffix_ids is None
            else _Infill(llm, question.ids, question.suffix_ids, config)
            for question in questions
            for config in question.configs
        ]
        _require_room(llm, len(self.answers))
        try:
            for number, answer in enumerate(self.answers):
                put = partial(self._put, number)
                answer.start(on_event=put if watched else None, on_done=partial(put, None))
        except BaseException:
            self.cancel()
            raise

    def _put(self, number: int, told: _Told) -> None:
        """Queue an event; called on the engine's thread."""
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


def _require_room(llm: LLM, count: int) -> None:
    """Refuse answers that do not all fit. Errors: OverloadedError.

    Those that were submitted before one is refused would hold places until the engine looks again.
    """
    load = llm.engine.load()
    under_way = load.running + load.waiting
    if under_way + count > load.max_batch + load.max_waiting:
        raise OverloadedError(
            f"{under_way} requests run or wait; expected room for {count} more within max_batch +"
            f" max_waiting, {load.max_batch} + {load.max_waiting}"
        )


class _Infill:
    """The same as an Answer of a gap between a prompt and a suffix.

    The gap has max_new_tokens tokens and is filled to its end; its text comes with the completion.
    """

    def __init__(
        self, llm: LLM, ids: list[int], suffix_ids: list[int], config: GenerationConfig
    ) -> None:
        self._llm = llm
        self._config = config
        self._gap = slice(len(ids), len(ids) + config.max_new_tokens)
        others = len(ids) + len(suffix_ids)
        gap = gap_ids(llm.engine.package, config.max_new_tokens, others, "max_new_tokens")
        try:
            self._canvas = [*ids, *gap, *suffix_ids]
        except MemoryError:
            raise ConfigError(
                f"the canvas is {others + len(gap)} tokens long: there is no memory for it"
            ) from None
        self._request: Request | None = None

    def start(
        self,
        *,
        on_event: Callable[[CommitEvent], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._request = self._llm.engine.submit_infill(
            self._canvas, self._config, on_event, on_done
        )

    def event(self, told: StreamEvent | CommitEvent) -> StreamEvent:
        if isinstance(told, StreamEvent):
            return told
        return StreamEvent(piece="", text="", commit=told)

    def last_event(self) -> StreamEvent:
        assert self._request is not None, "the request was not started"
        result = self._request.result()
        token_ids = result.token_ids[self._gap]
        text = self._llm.codec.decode(token_ids)
        completion = Completion(
            text=text,
            token_ids=token_ids,
            logprobs=result.logprobs[self._gap],
            finish_reason=result.finish_reason,
            stop=None,
            num_passes=result.num_passes,
            prompt_tokens=len(self._canvas) - len(token_ids),
            completion_tokens=len(token_ids),
            stats=result.stats,
        )
        return StreamEvent(piece=text, text=text, completion=completion)

    def cancel(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.cancel()


def stats_of(completion: Completion, seconds: float) -> Stats:
    """Return the passes and times of an answer."""
    passes = completion.num_passes
    return Stats(
        num_passes=passes,
        refresh_passes=completion.stats.refresh_passes,
        step_passes=completion.stats.step_passes,
        tokens_per_forward=completion.completion_tokens / passes if passes else 0.0,
        seconds=seconds,
    )
