"""A trace as a picture: the positions each pass unmasked, with confidences. Needs matplotlib."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from fastdllm.trace.document import PassFacts, TraceDocument

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.patches import Patch, Rectangle
    from PIL import Image
except ImportError as problem:
    raise ImportError(
        f"pictures need matplotlib: pip install 'fastdllm[plot]' ({problem})"
    ) from None

LEVELS = (0.5, 0.7, 0.9, 0.99)  # as in trace_view.js, and the colours of its light theme
LEVEL_NAMES = ("below 0.5", "0.5 to 0.7", "0.7 to 0.9", "0.9 to 0.99", "0.99 and above")
COLOURS = ("#c2410c", "#e39012", "#b9b29f", "#5aa5dc", "#1d5fae")
TEXT, QUIET, LINE = "#1a1e26", "#535c6b", "#cfd4dd"
WIDTH, DPI = 8.0, 150  # inches, dots per inch: 1200 pixels
LONGEST = 10  # characters of a token's text that are shown


def draw_png(trace: TraceDocument, path: Path) -> None:
    """Write the picture: positions to the right, passes downwards, 1200 pixels wide."""
    passes = trace["passes"]
    columns = max((one["block_end"] for one in passes), default=1)
    rows = max(1, len(passes))
    left, right, top = 0.55, 0.15, 0.72
    across = (WIDTH - left - right) / columns
    size = min(8.0, 72 * across * 0.92)  # of the tokens' text, in points
    end = trace["completion"]["completion_tokens"]
    texts = _texts(passes, end) if size >= 6 else {}
    gap = 0.06 if across >= 0.06 else 0.0
    below = 0.25 + max((len(text) for text in texts.values()), default=0) * size * 0.62 / 72
    plot = min(max(0.24 * rows, 0.7), 6.0)
    bottom = below + 0.62
    figure = Figure(figsize=(WIDTH, top + plot + bottom), dpi=DPI, facecolor="white")
    height = top + plot + bottom
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, plot / height)
    )
    axes.set_xlim(0, columns)
    axes.set_ylim(rows + 0.5, 0.5)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_color(LINE)
    boxes: list[Rectangle] = []
    for number, one in enumerate(passes, 1):
        boxes.append(
            Rectangle(
                (one["block_start"], number - 0.5),
                one["block_end"] - one["block_start"],
                1,
                facecolor="#f1f3f6",
                edgecolor="none",
            )
        )
        for position, confidence in zip(one["positions"], one["confidences"], strict=True):
            boxes.append(
                Rectangle(
                    (position + gap, number - 0.44),
                    1 - 2 * gap,
                    0.88,
                    facecolor=COLOURS[_level(confidence)],
                    edgecolor="none",
                    alpha=0.3 if position >= end else 1.0,
                )
            )
        if one["refreshed"]:
            axes.plot(
                -0.09 / across,
                number,
                marker=">",
                markersize=min(6.0, max(2.0, 72 * plot / rows * 0.5)),
                color=TEXT,
                clip_on=False,
            )
    axes.add_collection(PatchCollection(boxes, match_original=True), autolim=False)
    _mark_axes(axes, trace, columns, rows, slot=72 * plot / rows)
    for position, text in texts.items():
        axes.text(
            position + 0.5,
            rows + 0.5 + 0.06 * rows / plot,
            text,
            rotation=90,
            ha="center",
            va="top",
            fontsize=size,
            family="DejaVu Sans Mono",
            color=TEXT,
            parse_math=False,
        )
    _mark_figure(figure, trace, height)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    # A palette: the same picture in a quarter of the bytes.
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        path, format="png", optimize=True
    )


def _mark_axes(axes: Any, trace: TraceDocument, columns: int, rows: int, slot: float) -> None:
    """Draw block borders, and number passes and blocks. slot: a pass's height in points."""
    passes = trace["passes"]
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, rows) if n * slot >= 10)
    axes.set_yticks([n for n in range(1, rows + 1) if n == 1 or n % every == 0])
    axes.tick_params(axis="y", length=0, pad=12, labelsize=8, labelcolor=QUIET)
    axes.annotate(
        "pass",
        (0, 1),
        xycoords="axes fraction",
        xytext=(-12, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=QUIET,
    )
    axes.set_xticks([])
    if trace["config"].get("deferred_window") is not None:
        return
    blocks = {one["block"]: (one["block_start"], one["block_end"]) for one in passes}
    inches = (WIDTH - 0.7) / columns
    for number, (start, end) in blocks.items():
        if start:
            axes.axvline(start, color=QUIET, linewidth=1, linestyle=(0, (3, 2)))
        if (end - start) * inches >= 1.2:
            label = f"block {number + 1}: {start} to {end - 1}"
        elif (end - start) * inches >= 0.25:
            label = str(number + 1)
        else:
            continue
        axes.annotate(
            label,
            ((start + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=QUIET,
        )


def _mark_figure(figure: Any, trace: TraceDocument, height: float) -> None:
    """Write the title and the legend."""
    end = trace["completion"]
    left = 0.16 / WIDTH
    figure.text(
        left,
        1 - 0.1 / height,
        _shortened(trace["prompt"], 92),
        fontsize=10.5,
        fontweight="bold",
        color=TEXT,
        va="top",
        parse_math=False,
    )
    name = _shortened(trace["package"], 40)
    figure.text(
        left,
        1 - 0.31 / height,
        f"{name}: {_count(end['num_passes'], 'pass', 'es')}"
        f" ({_count(end['refresh_passes'], 'refresh', 'es')},"
        f" {_count(end['step_passes'], 'step', 's')}),"
        f" {_count(end['completion_tokens'], 'token', 's')},"
        f" {end['tokens_per_forward']:.1f} tokens per forward",
        fontsize=9,
        color=QUIET,
        va="top",
        parse_math=False,
    )
    handles: list[Any] = [
        Patch(facecolor=colour, label=label)
        for colour, label in zip(COLOURS, LEVEL_NAMES, strict=True)
    ]
    figure.text(left, 0.42 / height, "confidence", fontsize=8, color=TEXT, va="center")
    legend: dict[str, Any] = {
        "fontsize": 8,
        "frameon": False,
        "handlelength": 1.1,
        "columnspacing": 1.1,
    }
    legend |= {"handletextpad": 0.4, "labelcolor": TEXT, "borderpad": 0, "borderaxespad": 0}
    figure.legend(
        handles=handles,
        ncols=5,
        loc="center left",
        bbox_to_anchor=(0.95 / WIDTH, 0.42 / height),
        **legend,
    )
    figure.text(
        left,
        0.18 / height,
        "\u25b8 the pass refreshed the cache or read none"
        "    grey band: the block of the pass    pale: behind the end of the answer",
        fontsize=8,
        color=QUIET,
        va="center",
    )


def _texts(passes: list[PassFacts], end: int) -> dict[int, str]:
    """Return the text that ended up at each position before the end of the answer."""
    final: dict[int, str] = {}
    for one in passes:
        final.update(zip(one["positions"], one["tokens"], strict=True))
    return {
        position: _shortened(token, LONGEST) for position, token in final.items() if position < end
    }


def _shortened(text: str, longest: int) -> str:
    """Return text in one line that the font can draw: a box for each character that it cannot."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans Mono")))
    if text.isspace() and set(text) == {" "}:
        text = "\u2423" * len(text)
    shown = ""
    for character in text.replace("\n", "\u21b5"):
        if ord(character) < 0x20:
            character = chr(0x2400 + ord(character))
        elif unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            continue
        shown += character if font.get_char_index(ord(character)) else "\u25a1"
    shown = re.sub(r" +$", "", shown)
    return shown if len(shown) <= longest else shown[: longest - 1] + "\u2026"


def _level(confidence: float) -> int:
    return sum(confidence >= end for end in LEVELS)


def _count(number: int, what: str, plural: str) -> str:
    return f"{number} {what}{'' if number == 1 else plural}"
