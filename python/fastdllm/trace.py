"""What each pass of an answer did, as plain values: for JSON, pages and pictures.

A trace document is the object

    {"package": str, "prompt": str, "config": {...}, "num_positions": int, "block_length": int,
     "passes": [PassFacts, ...], "completion": {"text", "finish_reason", "num_passes", ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from fastdllm._core import CommitEvent
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
