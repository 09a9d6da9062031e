"""Shows an answer on a terminal while it is decoded. Needs `rich`, the extra [chat]."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from fastdllm._core import CommitEvent
from fastdllm.chat.conversation import tokens_per_forward
from fastdllm.text import TextCodec, escaped
from fastdllm.trace import MASK

SURE, UNSURE = 0.9, 0.5  # confidences from which a token has no tint, and below which a strong one
_SECONDS = 0.04  # at least, from one drawing to the next


@dataclass(frozen=True)
class Span:
    """Neighbouring text with the same colour. tint: "sure", "medium", "unsure" or "mask"."""

    text: str
    tint: str
    in_block: bool


def spans(
    codec: TextCodec,
    tokens: Mapping[int, tuple[int, float]],
    block: tuple[int, int],
    end: int,
) -> Iterator[Span]:
    """Yield the text of a canvas up to a position.

    tokens: (token id, confidence) by position; a position that is none of them is masked.
    block: from, to. Neighbours are decoded together, and never apart inside a character.
    """
    run: list[int] = []
    looks = ("", False)
    for position in range(end):
        in_block = block[0] <= position < block[1]
        token, confidence = tokens.get(position, (None, 1.0))
        look = (_tint(confidence) if token is not None else "mask", in_block)
        text = codec.decode(run) if run and look != looks else ""
        if run and look != looks and (token is None or not text.endswith("\ufffd")):
            yield Span(text, *looks)
            run = []
        if token is None:
            yield Span(MASK, *look)
        else:
            looks = looks if run else look
            run.append(token)
    if run:
        yield Span(codec.decode(run), *looks)


def _tint(confidence: float) -> str:
    return "sure" if confidence >= SURE else "medium" if confidence >= UNSURE else "unsure"


_STYLES = {"sure": "", "medium": "yellow", "unsure": "red", "mask": "dim"}


class LiveAnswer:
    """Draws the answer in place and removes the drawing at the end.

    Where it is taller than the terminal its last lines are shown.
    """

    def __init__(self, console: Console, codec: TextCodec, stop_ids: frozenset[int]) -> None:
        self._codec = codec
        self._stop_ids = stop_ids
        self._tokens: dict[int, tuple[int, float]] = {}
        self._block = (0, 0)
        self._end = 0  # of what is shown: the first stop token, or the block's end
        self._number = 0
        self._passes = 0
        self._drawn = -1.0
        self._live = Live(
            self,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveAnswer:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def take(self, event: CommitEvent) -> None:
        """Show what a pass committed."""
        committed = zip(event.token_ids.tolist(), event.confidences.tolist(), strict=True)
        self._tokens.update(zip(event.positions.tolist(), committed, strict=True))
        self._block = (event.block_start, event.block_end)
        stops = [
            position for position, (token, _) in self._tokens.items() if token in self._stop_ids
        ]
        self._end = min(stops, default=max(event.block_end, max(self._tokens) + 1))
        self._number = event.block + 1
        self._passes = event.step + 1
        now = time.monotonic()
        if event.block_finished or now - self._drawn >= _SECONDS:
            self._drawn = now
            self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the last lines that have room, and a line of counts."""
        text = Text()
        for span in spans(self._codec, self._tokens, self._block, self._end):
            style = f"{_STYLES[span.tint]} underline" if span.in_block else _STYLES[span.tint]
            text.append(escaped(span.text), style.strip())
        text.expand_tabs(8)
        yield from text.wrap(console, options.max_width, overflow="fold")[2 - console.height :]
        count = sum(position < self._end for position in self._tokens)
        counts = (
            f"block {self._number} · pass {self._passes} ·"
            f" {tokens_per_forward(count, self._passes):.1f} tokens per pass"
        )
        yield Text(counts, style="dim", no_wrap=True, overflow="ellipsis")
