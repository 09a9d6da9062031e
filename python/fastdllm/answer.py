"""A running request and its text: the part that all methods of LLM share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import (
    CommitEvent,
    ConfigError,
    GenerationConfig,
    GenerationStats,
    OverloadedError,
)
from fastdllm.engine import Engine
from fastdllm.text import TextCodec, TextStream

if TYPE_CHECKING:
    from fastdllm._core import Request

CommitCallback = Callable[[CommitEvent], bool | None]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer: its text without special tokens, and the engine's result.

    token_ids: int32 [n], the tokens of the text; an end-of-text token that ended it is the last of
    them. A stop string ends them with the last token that holds text before it, and such a token's
    own text may go on behind it. logprobs: float64 [n], each token's natural log of its probability
    when it was committed. finish_reason: 'stop', 'length' or 'abort'. stop: the stop string that
    ended the text, or None. completion_tokens: generated tokens up to the end of the answer, the
    stop string's or the end-of-text token included; what stands behind that is padding and counts
    only where ignore_eos asks for it. filled: of an infill, the text of each gap.
    """

    text: str
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float64]
    finish_reason: str
    stop: str | None
    num_passes: int
    prompt_tokens: int
    completion_tokens: int
    stats: GenerationStats
    filled: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    """One pass of an answer that streams, or its end.

    commit: what the pass committed, at any positions. piece: the text that became final with it,
    often "". text: all final text, the longest beginning of the answer in whole characters. The
    last event has no commit but the completion, and the piece that was held back until then.
    """

    piece: str
    text: str
    commit: CommitEvent | None = None
    completion: Completion | None = None


def facts_of(answer: Completion, config: GenerationConfig) -> dict[str, Any]:
    """Return an answer for JSON, which has no infinities: the log of a probability 0 is None."""
    facts = {field.name: getattr(answer, field.name) for field in fields(answer)}
    return facts | {
        "token_ids": answer.token_ids.tolist(),
        "logprobs": [log if math.isfinite(log) else None for log in answer.logprobs.tolist()],
        "stats": answer.stats.to_dict(),
        "config": config.to_dict(),
    }


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return stop strings as a tuple. Errors: ConfigError for an empty one, TypeError."""
    strings = (stop,) if isinstance(stop, str) else () if stop is None else stop
    is_list = isinstance(strings, Sequence | Set) and not isinstance(strings, bytes)
    if not is_list or not all(isinstance(text, str) for text in strings):
        raise TypeError(f"stop is {stop!r}; expected a string or strings")
    if not all(strings):
        raise ConfigError(f"stop is {stop!r}; expected strings that are not empty")
    return tuple(strings)


class Answer:
    """One request: submitted by start(), and its text.

    A request that nobody watches (no stop string, no callback, no stream) costs no Python between
    its passes. With a stop string the engine's thread keeps the text, so that the request ends with
    the pass that completes it; else who streams does, and the engine hardly waits for Python.
    Editing models' tokens become text when their block is finished.
    """

    def __init__(
        self,
        engine: Engine,
        codec: TextCodec,
        ids: list[int],
        config: GenerationConfig,
        *,
        stop: tuple[str, ...] = (),
        on_commit: CommitCallback | None = None,
    ) -> None:
        named = config.stop_token_ids
        self._stop_ids = frozenset(engine.package.eos_token_ids if named is None else named)
        if config.ignore_eos:
            self._stop_ids = frozenset()
        self._engine = engine
        self._ids = ids
        self._config = config
        self._edits = config.editing_threshold is not None
        self._watched = bool(stop)
        self._on_commit = on_commit
        self._on_event: Callable[[StreamEvent | CommitEvent], None] | None = None
        ends_text = config.stop_at == "token"
        self._text = TextStream(codec, self._stop_ids if ends_text else (), stop)
        self._unsettled: dict[int, int] = {}  # tokens that can still be edited
        self._request: Request | None = None

    def start(
        self,
        *,
        on_event: Callable[[StreamEvent | CommitEvent], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Submit the request. The callbacks run on the engine's thread.

        on_event: gets what event() makes an event of, in the same order, once.
        Errors: ConfigError; OverloadedError, after which it may be started again.
        """
        self._on_event = on_event
        told = self._take if self._watched else on_event or self._on_commit
        self._request = self._engine.submit(self._ids, self._config, told, on_done)

    def event(self, told: StreamEvent | CommitEvent) -> StreamEvent:
        """Return the event for the arguments of on_event."""
        return told if isinstance(told, StreamEvent) else self._event_of(told)

    def cancel(self) -> None:
        """End the request between two passes, if it runs, and release it."""
        request, self._request = self._request, None
        if request is not None:
            request.cancel()

    def wait(self) -> None:
        """Wait for the end. Errors: the request's own."""
        assert self._request is not None, "the request was not started"
        self._request.result()

    def completion(self) -> Completion:
        """Wait for the end, once. Errors: the request's own."""
        _, completion = self._finish()
        return completion

    def last_event(self) -> StreamEvent:
        """Wait for the end, once; return the event that ends a stream. Errors: the request's."""
        piece, completion = self._finish()
        return StreamEvent(piece=piece, text=completion.text, completion=completion)

    def _event_of(self, commit: CommitEvent) -> StreamEvent:
        tokens = zip(commit.positions.tolist(), commit.token_ids.tolist(), strict=True)
        self._unsettled.update(tokens)
        piece = ""
        if not self._edits or commit.block_finished:
            piece = self._text.push(self._unsettled.keys(), self._unsettled.values())
            self._unsettled.clear()
        return StreamEvent(piece=piece, text=self._text.text, commit=commit)

    def _take(self, commit: CommitEvent) -> bool | None:
        event = self._event_of(commit)
        if self._on_event is not None:
            self._on_event(event)
        go_on = self._on_commit(commit) if self._on_commit is not None else None
        return False if self._text.stop is not None else go_on

    def _finish(self) -> tuple[str, Completion]:
        assert self._request is not None, "the request was not started"
        result = self._request.result()
        ids = result.token_ids.tolist()
        text = self._text
        piece = text.push(range(len(ids)), ids) + text.finish()
        kept = len(ids)
        generated = next((i + 1 for i, t in enumerate(ids) if t in self._stop_ids), kept)
        if text.stop is not None:
            kept = text.tokens_of(text.text)
            generated = text.tokens_of(text.text + text.stop)
        return piece, Completion(
            text=text.text,
            token_ids=result.token_ids[:kept],
            logprobs=result.logprobs[:kept],
            finish_reason=result.finish_reason if text.stop is None else "stop",
            stop=text.stop,
            num_passes=result.num_passes,
            prompt_tokens=len(self._ids),
            completion_tokens=generated,
            stats=result.stats,
        )


def start_all(
    answers: Sequence[Answer], on_done: Sequence[Callable[[], None] | None]
) -> Iterator[int]:
    """Submit answers in order.

    Yields the number of one to wait for whenever the engine's queue is full: a list may be longer
    than the queue. Errors: as Answer.start(); OverloadedError when the queue is full of others.
    """
    oldest = 0
    for number, answer in enumerate(answers):
        while True:
            try:
                answer.start(on_done=on_done[number])
                break
            except OverloadedError:
                if oldest == number:
                    raise
                yield oldest
                oldest += 1
