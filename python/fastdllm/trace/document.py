"""What each pass of an answer did, as plain values: for JSON, pages and pictures.

A trace document is the JSON of TraceDocument.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypedDict

from fastdllm._core import CommitEvent, GenerationConfig
from fastdllm.answer import Completion
from fastdllm.llm import LLM, Stop
from fastdllm.text import TextCodec

MASK = "\u2591"  # how a text shows a position that is still masked


class PassFacts(TypedDict):
    """A pass: CommitEvent's fields as plain values, and more.

    tokens: each committed token's own text; a part of a character is U+FFFD. text: see
    current_text(). seconds: since the request was made.
    """

    step: int
    block: int
    block_start: int
    block_end: int
    block_finished: bool
    refreshed: bool
    rows: int
    positions: list[int]
    token_ids: list[int]
    confidences: list[float]
    tokens: list[str]
    text: str
    seconds: float


class AnswerCost(TypedDict):
    """The passes and seconds of an answer.

    tokens_per_forward: completion_tokens, which count no padding, by num_passes. seconds: from the
    request to its end.
    """

    finish_reason: str
    num_passes: int
    refresh_passes: int
    step_passes: int
    prompt_tokens: int
    completion_tokens: int
    tokens_per_forward: float
    seconds: float


class CompletionFacts(AnswerCost):
    """The end of an answer: the fields of Completion and its stats."""

    text: str


class TraceDocument(TypedDict):
    """An answer and all its passes.

    package: the package's name. config: GenerationConfig's fields. num_positions: new positions
    that were asked for, of which blocks behind the end of the answer are in no pass.
    block_length: of a block; the first and the last one may be shorter.
    """

    package: str
    prompt: str
    config: dict[str, Any]
    num_positions: int
    block_length: int
    passes: list[PassFacts]
    completion: CompletionFacts


class Canvas:
    """The new tokens of an answer while they are filled."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._token_ids: dict[int, int] = {}
        self._end = 0

    def take(self, event: CommitEvent, seconds: float) -> PassFacts:
        """Commit what a pass did; return its facts, with the whole text as it now stands."""
        positions, token_ids = event.positions.tolist(), event.token_ids.tolist()
        self._token_ids.update(zip(positions, token_ids, strict=True))
        self._end = max(self._end, event.block_end)
        return {
            "step": event.step,
            "block": event.block,
            "block_start": event.block_start,
            "block_end": event.block_end,
            "block_finished": event.block_finished,
            "refreshed": event.refreshed,
            "rows": event.rows,
            "positions": positions,
            "token_ids": token_ids,
            "confidences": event.confidences.tolist(),
            "tokens": [self._codec.decode_token(token) for token in token_ids],
            "text": current_text(self._codec, self._token_ids, self._end),
            "seconds": seconds,
        }


def current_text(codec: TextCodec, token_ids: Mapping[int, int], end: int) -> str:
    """Return the text of positions [0, end): neighbours are decoded together, a mask is MASK."""
    parts: list[str] = []
    run: list[int] = []
    for position in range(end):
        if position in token_ids:
            run.append(token_ids[position])
            continue
        parts += [codec.decode(run), MASK]
        run = []
    return "".join([*parts, codec.decode(run)])


def make_trace(
    llm: LLM,
    prompt: str,
    config: GenerationConfig,
    *,
    package: str,
    stop: Stop = None,
    raw: bool = False,
) -> TraceDocument:
    """Answer a prompt and keep what every pass did. package: the name that the document gives.

    Errors: as LLM.generate().
    """
    canvas = Canvas(llm.codec)
    passes: list[PassFacts] = []
    start = time.perf_counter()

    def take(event: CommitEvent) -> None:
        passes.append(canvas.take(event, time.perf_counter() - start))

    completion = llm.generate(prompt, config, stop=stop, on_commit=take, raw=raw)
    seconds = time.perf_counter() - start
    return {
        "package": package,
        "prompt": prompt,
        "config": config.to_dict(),
        "num_positions": config.max_new_tokens,
        "block_length": config.block_length or llm.engine.package.block_length or 32,
        "passes": passes,
        "completion": describe_completion(completion, seconds),
    }


def describe_completion(completion: Completion, seconds: float) -> CompletionFacts:
    """Return an answer's facts; seconds: since the request was made."""
    stats = completion.stats
    return {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "num_passes": completion.num_passes,
        "refresh_passes": stats.refresh_passes,
        "step_passes": stats.step_passes,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "tokens_per_forward": completion.completion_tokens / max(1, completion.num_passes),
        "seconds": seconds,
    }
