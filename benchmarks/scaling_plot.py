"""Draws scaling.json: what was measured as points, what the model of the cost says as lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plotting import BLACK, BLUE, GREEN, ORANGE, QUIET, label, legend, panels, plain, save, ticks

Row = dict[str, Any]


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the picture, as the suffix of the path says."""
    figure, _ = panels(["", ""], width=5.4, height=7.4)
    figure.clear()
    axes = figure.subplots(3, 2)
    titles = (
        "Step over context",
        "Refresh over context",
        "Memory over context",
        "Step over vocabulary",
        "Step over batch",
        "Threads",
    )
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    for one, title in zip(axes.flat, titles, strict=True):
        plain(one, title)
    step, refresh, memory, vocabulary, batch, threads = axes.flat
    _curve(step, found["context"], "context", "step", "context in tokens")
    _curve(refresh, found["context"], "context", "refresh", "context in tokens")
    refresh.set_yscale("log")
    refresh.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    refresh.yaxis.set_major_formatter(ScalarFormatter())
    refresh.yaxis.set_minor_locator(NullLocator())
    _memory(memory, found["context"])
    _curve(vocabulary, found["vocabulary"], "vocabulary", "step", "vocabulary in tokens")
    _curve(batch, found["batch"], "batch", "step", "requests side by side")
    shared = [row for row in found["batch"] if "step_ms" in row]
    each = [row["step_ms"] / row["batch"] for row in shared]
    batches = [row["batch"] for row in shared]
    batch.plot(batches, each, color=GREEN, marker="D", markersize=4, linewidth=1.2)
    batch.annotate(
        "per request",
        (batches[-1], each[-1]),
        xytext=(0, 6),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=GREEN,
    )
    _threads(threads, found["threads"])
    legend(figure, step, 2)
    save(figure, path)


def _curve(axes: Any, rows: list[Row], key: str, kind: str, across: str) -> None:
    rows = [row for row in rows if f"{kind}_ms" in row]
    values = [row[key] for row in rows]
    predicted = [row[f"{kind}_predicted_ms"] for row in rows]
    measured = [row[f"{kind}_ms"] for row in rows]
    axes.plot(values, predicted, color=BLACK, linewidth=1.2, label="the model of the cost")
    axes.plot(values, measured, color=BLUE, marker="o", markersize=5, linewidth=0, label="measured")
    if key == "context":
        axes.set_xscale("log", base=2)
    ticks(axes.xaxis, values)
    if kind == "step":
        axes.set_ylim(0, 1.12 * max(*predicted, *measured))
    label(axes, across, f"ms per {kind}")


def _memory(axes: Any, rows: list[Row]) -> None:
    rows = [row for row in rows if "peak_bytes" in row]
    if not rows:
        return
    values = [row["context"] for row in rows]
    weights = [row["weight_bytes"] / 1e6 for row in rows]
    cache = [row["cache_bytes"] / 1e6 for row in rows]
    peak = [row["peak_bytes"] / 1e6 for row in rows]
    axes.stackplot(values, weights, cache, colors=["#c9cdd4", "#a9cbe6"])
    axes.plot(values, peak, color=ORANGE, marker="s", markersize=5, linewidth=1.2)
    for text, height in (
        ("weights", weights[0] / 2),
        ("+ cache of K/V", weights[-1] + cache[-1] / 3),
    ):
        place = values[0] if text == "weights" else values[-1]
        side = "left" if text == "weights" else "right"
        axes.annotate(
            text,
            (place, height),
            xytext=(4 if side == "left" else -4, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            color=QUIET,
        )
    axes.annotate(
        "peak",
        (values[0], peak[0]),
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=8,
        color=ORANGE,
    )
    axes.set_xscale("log", base=2)
    ticks(axes.xaxis, values)
    axes.set_ylim(0, 1.15 * max(peak))
    label(axes, "context in tokens", "MB")


def _threads(axes: Any, rows: list[Row]) -> None:
    contexts = sorted({row["context"] for row in rows})
    fewest = min(row["threads"] for row in rows)
    most = max(row["threads"] for row in rows)
    places = range(len(contexts))
    for offset, kind, colour in ((-0.19, "step", BLUE), (0.19, "refresh", ORANGE)):
        time = {(row["context"], row["threads"]): row[f"{kind}_ms"] for row in rows}
        ratios = [time[context, fewest] / time[context, most] for context in contexts]
        spots = [place + offset for place in places]
        axes.bar(spots, ratios, width=0.34, color=colour)
        for spot, ratio in zip(spots, ratios, strict=True):
            axes.annotate(
                f"{ratio:.2f}x",
                (spot, ratio),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=QUIET,
            )
            axes.annotate(
                kind,
                (spot, 0),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color="white",
            )
    axes.set_xticks(places, [f"{context}" for context in contexts])
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.15 * most)
    label(axes, "context in tokens", f"speed-up of {most} threads over {fewest}")
