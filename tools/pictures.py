"""Draws the documentation's pictures of decodes, into docs/pictures.

    python tools/pictures.py [PACKAGE] [--output FOLDER]

Each is a decode of the package, by default the shipped model's (packages/tiny_math), as its passes
report it. The same package gives the same files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import fastdllm
from fastdllm import CommitEvent, GenerationConfig

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Sam had 27 balls, bought 9 and lost 7. How many are left?"
TOKENS = 64
RULES: dict[str, dict[str, Any]] = {
    "one": {},
    "steps": {"steps_per_block": 8},
    "threshold": {"threshold": 0.9},
    "factor": {"factor": 1.0},
    "frechet": {"frechet": 0.25},
    "entropy": {"entropy_bound": 0.1},
}
NEW, OLD, MASK, INK, PALE = "#2f6fdb", "#c3c8d1", "#eceef2", "#30343b", "#7b818c"
COMPUTED, REUSED = "#e07b39", "#9db7dd"
FONT = "font-family='ui-monospace,DejaVu Sans Mono,Menlo,Consolas,monospace'"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a pass committed, where its block was, and how many rows it fed."""

    new: frozenset[int]
    tokens: dict[int, int]
    block: tuple[int, int]
    refreshed: bool
    rows: int


def decode(llm: fastdllm.LLM, **options: Any) -> list[Pass]:
    """Decode the question; what each pass did, positions from the answer's first."""
    passes: list[Pass] = []

    def note(event: CommitEvent) -> None:
        positions = [int(position) for position in event.positions]
        passes.append(
            Pass(
                new=frozenset(positions),
                tokens=dict(zip(positions, map(int, event.token_ids), strict=True)),
                block=(event.block_start, event.block_end),
                refreshed=event.refreshed,
                rows=event.rows,
            )
        )

    options.setdefault("cache", "dual")
    config = GenerationConfig(max_new_tokens=TOKENS, **options)
    llm.engine.generate(llm.encode(QUESTION), config, on_commit=note)
    return passes


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Return a filled rectangle."""
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='2' fill='{colour}'/>"
    )


def cells(colours: Sequence[str], x: float, y: float, step: float, height: float) -> list[str]:
    """Draw a row of cells, neighbours of one colour as one rectangle; columns() parts them."""
    parts = []
    start = 0
    for at in range(1, len(colours) + 1):
        if at == len(colours) or colours[at] != colours[start]:
            width = (at - start) * step
            parts.append(rectangle(x + start * step, y, width, height, colours[start]))
            start = at
    return parts


def columns(count: int, x: float, top: float, bottom: float, step: float) -> str:
    """Draw white lines between the columns of cells."""
    lines = "".join(f"M{x + at * step - 0.5:g} {top:g}V{bottom:g}" for at in range(count + 1))
    return f"<path d='{lines}' stroke='#ffffff'/>"


def label(x: float, y: float, text: str, *, colour: str = PALE, size: int = 12) -> str:
    """Return a line of text, at its base line."""
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}' {FONT}"
        f" xml:space='preserve'>{escape(text)}</text>"
    )


def svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Return a picture on white, so that it can be read on a dark page, too."""
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}'"
            f" viewBox='0 0 {width:g} {height:g}' role='img'>",
            f"<title>{escape(title)}</title>",
            f"<rect width='{width:g}' height='{height:g}' rx='6' fill='#ffffff'/>",
            *parts,
            "</svg>\n",
        ]
    )


def draw_decoding(llm: fastdllm.LLM) -> str:
    """Draw a row of text per pass: masks as dots, what the pass committed in blue."""
    passes = decode(llm, threshold=0.9)
    final = {at: token for one in passes for at, token in one.tokens.items()}
    stop = set(llm.engine.package.eos_token_ids)
    end = min(at for at, token in final.items() if token in stop)
    words = [llm.codec.decode([final[at]]).replace("\n", "¶") for at in range(end)]
    words.append("[end]")
    size, line, left, top = 7.8, 30, 88, 74
    starts = [sum(map(len, words[:at])) for at in range(end + 2)]
    parts = [label(16, 28, QUESTION, colour=INK, size=14)]
    for number, one in enumerate(passes):
        y = top + number * line
        parts.append(label(16, y, f"pass {number + 1}"))
        filled = {at for earlier in passes[: number + 1] for at in earlier.new}
        for at, word in enumerate(words):
            x, width = left + starts[at] * size, len(word) * size
            if at in one.new:
                parts.append(rectangle(x + 0.5, y - 14, width - 1, 20, NEW))
            colour = "#ffffff" if at in one.new else INK if at in filled else PALE
            text = word if at in filled else "·" * len(word)
            parts.append(
                f"<text x='{x:g}' y='{y:g}' font-size='13' textLength='{width:g}'"
                f" lengthAdjust='spacingAndGlyphs' fill='{colour}' {FONT}"
                f" xml:space='preserve'>{escape(text)}</text>"
            )
    height = top + len(passes) * line + 8
    parts.append(label(16, height - 12, "blue: filled in this pass    dots: masks    ¶: line end"))
    width = left + starts[-1] * size + 20
    return svg(width, height, f"{len(passes)} passes of one answer", parts)


def draw_rule(llm: fastdllm.LLM, options: dict[str, Any]) -> str:
    """Draw a row of squares per pass, one for each position of the answer."""
    passes = decode(llm, **options)
    cell = 10 if len(passes) < 30 else 7
    left, top, step = 60, 26, cell + 1
    parts = [label(left, 16, f"{len(passes)} passes for {TOKENS} positions", size=11)]
    filled: set[int] = set()
    for number, one in enumerate(passes):
        y = top + number * step
        if number % 8 == 0 or len(passes) < 20:
            parts.append(label(12, y + cell - 1, f"pass {number + 1}", size=10))
        colours = [NEW if at in one.new else OLD if at in filled else MASK for at in range(TOKENS)]
        parts += cells(colours, left, y, step, cell)
        filled |= one.new
    bottom = top + len(passes) * step
    parts.append(columns(TOKENS, left, top, bottom, step))
    edges = {edge for one in passes for edge in one.block} - {0, TOKENS}
    for edge in sorted(edges):
        x = left + edge * step - 0.5
        parts.append(f"<path d='M{x:g} {top - 3}V{bottom:g}' stroke='{INK}'/>")
    return svg(left + TOKENS * step + 12, bottom + 8, f"Unmasking by {options or 'default'}", parts)


def computed_rows(one: Pass, cache: str, prompt: int) -> range:
    """Return the rows of the canvas that a pass fed."""
    if one.refreshed or cache == "none":
        return range(prompt + TOKENS)
    start, end = one.block
    return range(prompt + start, prompt + (TOKENS if cache == "prefix" else end))


def draw_caches(llm: fastdllm.LLM) -> str:
    """Draw which rows each pass computes and which it reuses, a group of rows for each cache."""
    prompt = len(llm.encode(QUESTION))
    cell, left, y = 6, 84, 34
    parts = [
        label(left, 18, "prompt", size=11),
        label(left + prompt * (cell + 1), 18, "answer", size=11),
    ]
    for cache in ("none", "prefix", "dual"):
        passes = decode(llm, threshold=0.9, cache=cache)
        parts.append(label(12, y + 10, cache, colour=INK))
        for one in passes:
            rows = computed_rows(one, cache, prompt)
            if len(rows) != one.rows:
                raise RuntimeError(f"{cache}: {one.rows} rows were fed, {len(rows)} are drawn")
            colours = [COMPUTED if at in rows else REUSED for at in range(prompt + TOKENS)]
            parts += cells(colours, left, y, cell + 1, 10)
            y += 12
        y += 14
    parts.append(columns(prompt + TOKENS, left, 24, y - 12, cell + 1))
    x = left + prompt * (cell + 1) - 0.5
    parts.append(f"<path d='M{x:g} 24V{y - 12:g}' stroke='{INK}'/>")
    parts.append(rectangle(left, y, 10, 10, COMPUTED))
    parts.append(label(left + 16, y + 9, "computed", size=11))
    parts.append(rectangle(left + 110, y, 10, 10, REUSED))
    parts.append(label(left + 126, y + 9, "reused from the cache", size=11))
    width = left + (prompt + TOKENS) * (cell + 1) + 12
    return svg(width, y + 22, "Rows computed and reused, by cache", parts)


def pictures(llm: fastdllm.LLM) -> dict[str, str]:
    """Return every picture by its file's name."""
    drawn = {"decoding.svg": draw_decoding(llm), "caches.svg": draw_caches(llm)}
    return drawn | {f"rule_{name}.svg": draw_rule(llm, rule) for name, rule in RULES.items()}


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, default=ROOT / "packages" / "tiny_math")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(fastdllm.LLM(options.package, threads=1)).items():
        (options.output / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
