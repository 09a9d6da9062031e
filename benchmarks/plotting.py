"""What the benchmarks' figures look like. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

# Okabe and Ito's: told apart by colour-blind eyes too. Markers tell them apart in grey.
BLACK, BLUE, ORANGE, GREEN, PINK = "#333333", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
TEXT, QUIET, GRID = "#1a1e26", "#535c6b", "#e4e4e4"
matplotlib.rcParams["svg.hashsalt"] = "fastdllm"  # the same file for the same numbers


def save(figure: Figure, path: Path) -> None:
    """Write a figure as the suffix says, without the date."""
    if path.suffix.lower() == ".svg":
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(path, metadata={"Date": None})
    else:
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(path, metadata={"Software": None})


def panels(titles: Sequence[str], *, width: float = 4.2, height: float = 3.3) -> tuple[Any, Any]:
    """Return a figure and its axes side by side, in the house style."""
    figure = Figure(
        figsize=(width * len(titles), height), dpi=150, facecolor="white", layout="constrained"
    )
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for one, title in zip(axes, titles, strict=True):
        plain(one, title)
    return figure, axes


def plain(axes: Any, title: str) -> None:
    """Take the clutter off."""
    axes.set_title(title, fontsize=10, loc="left", color=TEXT)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=QUIET, labelcolor=TEXT, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)


def label(axes: Any, across: str, up: str) -> None:
    axes.set_xlabel(across, fontsize=9, color=TEXT)
    axes.set_ylabel(up, fontsize=9, color=TEXT)


def ticks(axis: Any, values: Sequence[float]) -> None:
    """Mark exactly these values."""
    axis.set_ticks(list(values), [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Any, axes: Any, columns: int) -> None:
    """Name what one of the axes shows, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
        frameon=False,
    )
