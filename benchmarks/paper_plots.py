"""Draws the paper's figures from paper.json. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plotting import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    QUIET,
    TEXT,
    label,
    legend,
    panels,
    save,
    ticks,
)

LOOKS = {
    "baseline": (BLACK, "o"),
    "parallel": (PINK, "D"),
    "prefix": (BLUE, "^"),
    "parallel, prefix": (BLUE, "^"),
    "dual": (ORANGE, "s"),
    "parallel, dual": (ORANGE, "s"),
    "threshold": (BLUE, "o"),
    "steps_per_block": (BLACK, "s"),
    "factor": (ORANGE, "^"),
    "frechet": (GREEN, "D"),
}
NAMES = {"steps_per_block": "fixed tokens per pass", "frechet": "Fréchet"}
Row = dict[str, Any]


def figures(report: dict[str, Any]) -> dict[str, Callable[[Path], None]]:
    """Return what draws each figure of the report into a file, by table."""
    draw: dict[str, Callable[[list[Row]], Any]] = {
        "1-2": _main,
        "3": partial(_long, key="shots", across="prompt tokens"),
        "4": partial(_long, key="new_tokens", across="new tokens"),
        "figure-4": _blocks,
        "figure-5": _policies,
    }
    tables = report["tables"]
    return {
        table: partial(save, make(tables[table])) for table, make in draw.items() if table in tables
    }


def interval(right: int, answers: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, in percent."""
    z = 1.96
    share, denominator = right / answers, 1 + z**2 / answers
    middle = (share + z**2 / (2 * answers)) / denominator
    spread = math.sqrt(share * (1 - share) / answers + z**2 / (4 * answers**2)) * z / denominator
    return 100 * max(0.0, middle - spread), 100 * min(1.0, middle + spread)


def accuracy_line(
    axes: Any, across: Sequence[float], rows: Sequence[Row], look: tuple[str, str], **more: Any
) -> None:
    """Draw accuracies with their intervals."""
    colour, marker = look
    values = [100 * row["accuracy"] for row in rows]
    ends = [interval(row["right"], row["answers"]) for row in rows]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
    axes.errorbar(
        across,
        values,
        yerr=[below, above],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2,
        **more,
    )


def _main(rows: list[Row]) -> Any:
    lengths = list(dict.fromkeys(row["new_tokens"] for row in rows))
    figure, axes = panels([f"{length} new tokens" for length in lengths], width=4.4, height=2.9)
    for one, length in zip(axes, lengths, strict=True):
        chosen = [row for row in rows if row["new_tokens"] == length]
        speeds = [row["tokens_per_second"] for row in chosen]
        honest = [row["answer_tokens_per_second"] for row in chosen]
        places = range(len(chosen))
        one.barh(places, speeds, height=0.62, color="#a9cbe6", label="all positions")
        one.barh(places, honest, height=0.28, color=BLUE, label="up to end-of-text")
        for place, row in zip(places, chosen, strict=True):
            told = f"{row['tokens_per_second']:.0f}   {row['speed_up']:.1f}x"
            one.annotate(
                told,
                (row["tokens_per_second"], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=TEXT,
            )
        one.set_yticks(places, [row["mode"] for row in chosen])
        one.invert_yaxis()
        one.set_xlim(0, max(speeds) * 1.36)
        one.grid(visible=False, axis="y")
        label(one, "tokens/s", "")
    legend(figure, axes[0], 2)
    return figure


def _long(rows: list[Row], *, key: str, across: str) -> Any:
    figure, (speed, cost, accuracy) = panels(["Speed", "Cost of a pass", "Accuracy"], width=3.5)
    values = list(dict.fromkeys(row[key] for row in rows))
    # Where a value lies: cells of fewer problems have other prompts, by a token or so.
    place = {value: round(_across(rows, key, value)) for value in values}
    width = max(place.values()) - min(place.values())
    for number, mode in enumerate(dict.fromkeys(row["mode"] for row in rows)):
        chosen = [row for row in rows if row["mode"] == mode]
        places = [place[row[key]] for row in chosen]
        colour, marker = LOOKS[mode]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.4}
        speed.plot(places, [row["tokens_per_second"] for row in chosen], label=mode, **style)
        cost.plot(places, [row["pass_ms"] for row in chosen], **style)
        beside = [one + 0.016 * width * (number - 1.5) for one in places]
        accuracy_line(accuracy, beside, chosen, LOOKS[mode])
    speed.set_yscale("log")
    for axes, up in ((speed, "tokens/s"), (cost, "ms per pass"), (accuracy, "accuracy in %")):
        label(axes, across, up)
        ticks(axes.xaxis, sorted(place.values()))
    cost.set_ylim(bottom=0)
    accuracy.set_ylim(-2, 103)
    legend(figure, speed, 4)
    return figure


def _across(rows: list[Row], key: str, value: float) -> float:
    if key != "shots":
        return value
    same = [row for row in rows if row["shots"] == value]
    return float(max(same, key=lambda row: int(row["answers"]))["prompt_tokens"])


def _blocks(rows: list[Row]) -> Any:
    figure, (accuracy, slow, fast) = panels(
        ["Accuracy", "Speed, one token per pass", "Speed, in parallel"], width=3.5
    )
    blocks = sorted({row["block_length"] for row in rows[1:]})
    for number, mode in enumerate(dict.fromkeys(row["mode"] for row in rows[1:])):
        chosen = [row for row in rows[1:] if row["mode"] == mode]
        across = [row["block_length"] for row in chosen]
        parallel = mode.startswith("parallel")
        colour, marker = LOOKS[mode]
        style = {"linestyle": "--" if parallel else "-"}
        beside = [one * 1.05 ** (number - 1.5) for one in across]
        accuracy_line(accuracy, beside, chosen, LOOKS[mode], **style)
        (fast if parallel else slow).plot(
            across,
            [row["tokens_per_second"] for row in chosen],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            **style,
        )
        accuracy.plot([], [], color=colour, marker=marker, label=mode, markersize=5, **style)
    slow.axhline(rows[0]["tokens_per_second"], color=BLACK, linewidth=1, linestyle=":")
    slow.annotate(
        "no cache",
        (blocks[0], rows[0]["tokens_per_second"]),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8,
        color=QUIET,
    )
    for axes in (accuracy, slow, fast):
        axes.set_xscale("log", base=2)
        label(axes, "block length", "accuracy in %" if axes is accuracy else "tokens/s")
        ticks(axes.xaxis, blocks)
    slow.set_ylim(bottom=0)
    fast.set_ylim(bottom=0)
    legend(figure, accuracy, 4)
    return figure


def _policies(rows: list[Row]) -> Any:
    figure, (whole, end) = panels(["All of the axis", "Its right end"], width=5.2, height=3.9)
    of_policy = {
        policy: sorted(
            (row for row in rows[1:] if row["mode"] == policy),
            key=lambda row: float(row["tokens_per_pass"]),
        )
        for policy in dict.fromkeys(row["mode"] for row in rows[1:])
    }
    for policy, chosen in of_policy.items():
        across = [row["tokens_per_pass"] for row in chosen]
        accuracy_line(whole, across, chosen, LOOKS[policy], label=NAMES.get(policy, policy))
        colour, marker = LOOKS[policy]
        shown = [100 * row["accuracy"] for row in chosen]
        end.plot(across, shown, color=colour, marker=marker, markersize=5, linewidth=1.2)
        if policy != "steps_per_block":
            _name_values(end, policy, chosen)
    longest = max(row["tokens_per_pass"] for row in rows)
    lowest = min([row["accuracy"] for row in rows[1:] if row["tokens_per_pass"] > 2], default=0.0)
    end.set_xlim(0.87 * longest, 1.01 * longest)
    end.set_ylim(100 * lowest - 0.8, 100.8)
    whole.set_xscale("log", base=2)
    ticks(whole.xaxis, [1, 2, 4, 8, 16])
    for axes in (whole, end):
        label(axes, "tokens per pass", "accuracy in %")
    legend(figure, whole, 4)
    return figure


def _name_values(axes: Any, policy: str, rows: Sequence[Row]) -> None:
    """Write a rule's numbers at its points: a threshold's all, of the others the ends."""
    for row in rows if policy == "threshold" else (rows[0], rows[-1]):
        below = policy != "threshold"
        axes.annotate(
            f"{row['rule'][policy]:g}",
            (row["tokens_per_pass"], 100 * row["accuracy"]),
            xytext=(0, -12) if below else (4, 5),
            textcoords="offset points",
            ha="center" if below else "left",
            fontsize=8,
            color=LOOKS[policy][0],
            annotation_clip=True,
        )
