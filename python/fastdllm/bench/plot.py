"""Draws `fastdllm bench`: tokens/s and passes of each mode. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastdllm.bench.measuring import Measurement

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
except ImportError as problem:
    raise ImportError(
        f"pictures need matplotlib: pip install 'fastdllm[plot]' ({problem})"
    ) from None

SUFFIXES = (".png", ".svg")
SPEED, PASSES, TEXT, QUIET = "#1d5fae", "#d97706", "#1a1e26", "#535c6b"


def draw_bench(
    results: Sequence[Measurement], path: Path, *, title: str, subtitle: str, repeat: int
) -> None:
    """Write bars of each mode, and their ratios to the first, as the suffix of path says."""
    height = 1.25 + 0.42 * len(results)
    figure = Figure(figsize=(8, height), dpi=150, facecolor="white")
    figure.text(
        0.02,
        1 - 0.1 / height,
        title,
        fontsize=11,
        fontweight="bold",
        va="top",
        color=TEXT,
        parse_math=False,
    )
    figure.text(
        0.02, 1 - 0.34 / height, subtitle, fontsize=9, va="top", color=QUIET, parse_math=False
    )
    speeds = [one.tokens_per_second for one in results]
    passes = [one.num_passes / repeat for one in results]
    times = [f"{value:.0f}   {value / speeds[0]:.1f}x" for value in speeds]
    fewer = [f"{value:.0f}   {passes[0] / value:.1f}x" for value in passes]
    bottom, top = 0.12 / height, 1 - 0.95 / height
    names = [one.name for one in results]
    left = figure.add_axes((0.225, bottom, 0.37, top - bottom))
    _bars(left, speeds, times, "tokens/s, and times more than the first", SPEED)
    left.set_yticks(range(len(names)), names)
    right = figure.add_axes((0.625, bottom, 0.355, top - bottom))
    _bars(right, passes, [*fewer], "passes, and times fewer than the first", PASSES)
    right.set_yticks([])
    if path.suffix.lower() == ".svg":
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(path, metadata={"Date": None})
    else:
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(path, metadata={"Software": None})


def _bars(
    axes: Any, values: Sequence[float], labels: Sequence[str], title: str, colour: str
) -> None:
    axes.barh(range(len(values)), values, height=0.62, color=colour)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.42)  # room for the labels
    axes.set_xticks([])
    axes.set_title(title, fontsize=9, color=QUIET, loc="left")
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=TEXT)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(QUIET)
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.annotate(
            label,
            (value, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=TEXT,
        )
