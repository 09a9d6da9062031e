"""Draws a report of bench.py: tokens/s of every contender, a row per scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_report import ratio
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from plotting import BLUE, GREEN, GRID, ORANGE, PINK, QUIET, TEXT, save
from readme import NAMES, what

from fastdllm.output import write_whole

# Told apart by colour-blind eyes (Okabe and Ito), and by shape: round is fastdllm.
LOOKS = {
    "fastdllm": (BLUE, "o"),
    "fastdllm_int8": ("#56b4e9", "o"),
    "fastdllm_int4": (GREEN, "o"),
    "fastdllm_bf16": ("#f0e442", "o"),
    "fastdllm_fp16": ("#ffffff", "o"),
    "fastdllm_naive": ("#999999", "o"),
    "torch_eager": (ORANGE, "s"),
    "torch_compile": ("#e69f00", "D"),
    "torch_naive": (PINK, "v"),
}
ROW = 0.34  # inches
LEFT, RIGHT = 0.42, 0.79  # the frame; right of it are the ratios
COLUMNS = {"torch_eager": "torch", "torch_compile": "compiled", "torch_naive": "naive"}
COLUMN = 0.065  # of the width


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture as the suffix of path says: .svg or .png."""
    scenarios = report["scenarios"]
    names = [
        name
        for name in LOOKS
        if any(one["name"] == name for row in scenarios for one in row["contenders"])
    ]
    top, bottom = 1.15, 0.5
    height = top + bottom + ROW * len(scenarios)
    figure = Figure(figsize=(10, height), dpi=150, facecolor="white")
    axes = figure.add_axes((LEFT, bottom / height, RIGHT - LEFT, 1 - (top + bottom) / height))
    for place, scenario in enumerate(scenarios):
        _row(axes, scenario, place)
        _ratios(figure, scenario, 1 - (top + (place + 0.5) * ROW) / height)
    axes.set_ylim(len(scenarios) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(scenarios)), [what(one["config"]) for one in scenarios])
    axes.tick_params(axis="y", length=0, labelsize=8.5, labelcolor=TEXT)
    axes.tick_params(axis="x", labelsize=8.5, labelcolor=QUIET, which="both", color=QUIET)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("new tokens per second", fontsize=9, color=TEXT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    note = f"{report['machine']['cores']} cores, {report['machine']['processor']}"
    turns = f"median of {report['repeat']} turns; grey dots are single ones. "
    title = "fastdllm against torch loops of the same method"
    _say(figure, 0.02, 1 - 0.1 / height, title, colour=TEXT, fontsize=11, fontweight="bold")
    _say(figure, 0.02, 1 - 0.36 / height, (turns if report["repeat"] > 1 else "") + note)
    _say(figure, RIGHT + 0.02, 1 - (top - 0.44) / height, "times the tokens/s of")
    for number, name in enumerate(COLUMNS.values()):
        _say(figure, RIGHT + 0.02 + COLUMN * number, 1 - (top - 0.22) / height, name)
    marks = [axes.plot([], [], **_look(name))[0] for name in names]
    axes.legend(
        marks,
        [NAMES.get(name, name) for name in names],
        loc="lower left",
        bbox_to_anchor=(0.02, 1 - (top - 0.1) / height),
        bbox_transform=figure.transFigure,
        ncols=4,
        frameon=False,
        fontsize=8.5,
        labelcolor=TEXT,
        borderaxespad=0,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    write_whole(path, lambda beside: save(figure, beside))


def _look(name: str) -> dict[str, Any]:
    colour, marker = LOOKS[name]
    edge = {"markeredgecolor": TEXT, "markeredgewidth": 0.6}
    return {"color": colour, "marker": marker, "markersize": 7, "linestyle": ""} | edge


def _row(axes: Any, scenario: dict[str, Any], place: int) -> None:
    """Draw a scenario: a line from the slowest to the fastest, and a mark each."""
    every = {one["name"]: one for one in scenario["contenders"]}
    if not every:  # all of them failed
        return
    speeds = [one["tokens_per_second"] for one in every.values()]
    axes.plot([min(speeds), max(speeds)], [place, place], color="#c9ced6", linewidth=2, zorder=1)
    for name, one in every.items():
        turns = [run["tokens_per_second"] for run in one["repeats"]]
        axes.plot(turns, [place] * len(turns), ".", color="#7d8592", markersize=4, zorder=2)
        axes.plot(one["tokens_per_second"], place, zorder=3, **_look(name))


def _ratios(figure: Figure, scenario: dict[str, Any], y: float) -> None:
    """List how many times fastdllm's tokens/s are torch's."""
    every = {one["name"]: one for one in scenario["contenders"]}
    first = every.get("fastdllm")
    if first is None:
        return
    for number, name in enumerate(COLUMNS):
        if name in every:
            times = ratio(first, every[name], "tokens_per_second")
            text = f"{times:.1f}" if times < 10 else f"{times:.0f}"
            _say(figure, RIGHT + 0.02 + COLUMN * number, y, text, colour=TEXT, va="center")


def _say(
    figure: Figure, x: float, y: float, text: str, *, colour: str = QUIET, **looks: Any
) -> None:
    looks = {"fontsize": 8.5, "va": "top", "parse_math": False} | looks
    figure.text(x, y, text, color=colour, **looks)
