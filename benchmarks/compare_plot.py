"""Draws a report of bench.py: tokens/s of every contender, a group of bars per scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from readme import NAMES, what

from fastdllm.output import write_whole

TEXT, QUIET = "#1a1e26", "#535c6b"
# Told apart by colour-blind eyes too (Okabe and Ito): blues are fastdllm's, the others torch's.
COLOURS = {
    "fastdllm": "#0072b2",
    "fastdllm_int8": "#56b4e9",
    "fastdllm_int4": "#56b4e9",
    "fastdllm_bf16": "#9ad1f0",
    "fastdllm_fp16": "#9ad1f0",
    "fastdllm_naive": "#8c96a5",
    "torch_eager": "#d55e00",
    "torch_compile": "#e69f00",
    "torch_naive": "#cc79a7",
}
BAR, GAP = 0.24, 0.36  # inches: a bar, and what parts two scenarios


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture as the suffix of path says: .svg or .png."""
    scenarios = report["scenarios"]
    bars = sum(len(one["contenders"]) for one in scenarios)
    top, bottom = 0.62, 0.55
    height = top + bottom + BAR * bars + GAP * len(scenarios)
    figure = Figure(figsize=(9, height), dpi=150, facecolor="white")
    axes = figure.add_axes((0.40, bottom / height, 0.57, 1 - (top + bottom) / height))
    place, ticks, names = 0.0, [], []
    speeds = [one["tokens_per_second"] for scenario in scenarios for one in scenario["contenders"]]
    left = 10 ** _exponent_below(min(speeds))
    for scenario in scenarios:
        axes.annotate(
            what(scenario["config"]),
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-8, 1),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8.5,
            fontweight="bold",
            color=TEXT,
        )
        over = {one["over"]: one["tokens_per_second"] for one in scenario["ratios"]}
        place += GAP / 2 + BAR / 2
        for one in scenario["contenders"]:
            _bar(axes, one, place, left, over.get(one["name"]))
            ticks.append(place)
            names.append(NAMES.get(one["name"], one["name"]))
            place += BAR
        place += GAP / 2 - BAR / 2 + 0.06
    axes.set_ylim(place - GAP / 2, -GAP / 2)
    axes.set_xscale("log")
    axes.set_xlim(left, max(speeds) * 6)  # room for the labels
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0, labelsize=8.5, labelcolor=QUIET)
    axes.tick_params(axis="x", labelsize=8.5, labelcolor=QUIET, which="both", color=QUIET)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("new tokens per second (logarithmic)", fontsize=9, color=TEXT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    figure.text(
        0.02,
        1 - 0.1 / height,
        "fastdllm against torch loops of the same method",
        fontsize=11,
        fontweight="bold",
        va="top",
        color=TEXT,
    )
    figure.text(
        0.02,
        1 - 0.34 / height,
        f"median of {report['repeat']} turns, dots are single ones; in brackets: how many times"
        f" faster the first bar is. {report['machine']['cores']} cores,"
        f" {report['machine']['processor']}",
        fontsize=8.5,
        va="top",
        color=QUIET,
        parse_math=False,
    )
    if path.suffix.lower() == ".svg":
        svg: Any = FigureCanvasSVG(figure)
        write_whole(path, lambda beside: svg.print_svg(beside, metadata={"Date": None}))
    else:
        png: Any = FigureCanvasAgg(figure)
        write_whole(path, lambda beside: png.print_png(beside, metadata={"Software": None}))


def _bar(axes: Any, one: dict[str, Any], place: float, left: float, over: float | None) -> None:
    speed = one["tokens_per_second"]
    axes.barh(place, speed - left, left=left, height=BAR * 0.8, color=COLOURS[one["name"]])
    every = [run["tokens_per_second"] for run in one["repeats"]]
    axes.plot(every, [place] * len(every), ".", color=TEXT, markersize=3, zorder=3)
    times = "" if over is None else f"  ({over:.2g}x)" if over < 10 else f"  ({over:.0f}x)"
    axes.annotate(
        f"{speed:.3g}{times}" if speed < 100 else f"{speed:.0f}{times}",
        (max(speed, *every), place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=TEXT,
    )


def _exponent_below(value: float) -> int:
    exponent = 0
    while 10**exponent > value:
        exponent -= 1
    while 10 ** (exponent + 1) <= value:
        exponent += 1
    return exponent
