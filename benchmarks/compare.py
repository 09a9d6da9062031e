"""Shows a report of bench.py, or compares two.

    python benchmarks/compare.py REPORT [--targets --plot FILE]
    python benchmarks/compare.py OLD NEW [--over torch_eager --tolerance 0.1 --targets --plot FILE]

Two reports: tokens/s of every contender in both, old and new. --over compares speed-ups over a
contender of the same run instead, which a faster or busier machine does not move. Exit code 1: a
contender got slower by more than the tolerance, is missing from the new report, failed there or
gave other answers than it owes; nothing is in both; or --targets and a measured target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench_report import all_agree, ratio

from fastdllm.bench import table

Report = dict[str, Any]


def show(report: Report) -> str:
    """Lay a report out: a table per scenario, agreement that is not whole, and ratios."""
    parts: list[str] = []
    for scenario in report["scenarios"]:
        parts.append(f"{scenario['name']}: {describe(scenario['config'])}")
        parts.append(table([COLUMNS, *(_row(one) for one in scenario["contenders"])]))
        for one in scenario["ratios"]:
            parts.append(
                f"{one['of']} over {one['over']}: {one['tokens_per_second']:.2f} times the"
                f" tokens/s, {one['peak_bytes']:.2f} times the memory"
            )
        parts += filter(None, map(_difference, scenario["agreement"]))
        parts.append("")
    parts += [f"FAILED: {name}" for name in report.get("failures", [])]
    return "\n".join(parts).rstrip()


def describe(config: dict[str, Any]) -> str:
    """State a scenario's model, prompts and options in a line."""
    length = f" of {config['prompt_length']} ids" if config["prompt_length"] else ""
    said = [config["model"], f"{config['prompts']} prompts{length}"]
    skipped = ("model", "prompts", "prompt_length")
    return ", ".join(said + [f"{k} {v}" for k, v in config.items() if k not in skipped])


COLUMNS = (
    "contender",
    "tokens/s",
    "passes",
    "tokens/forward",
    "TTFT ms",
    "refresh ms",
    "step ms",
    "outside us",
    "peak MB",
)


def _row(one: dict[str, Any]) -> list[str]:
    def number(key: str, digits: int = 1, scale: float = 1.0) -> str:
        value = one[key]
        return "-" if value is None else f"{value * scale:.{digits}f}"

    return [
        one["name"],
        number("tokens_per_second"),
        number("passes", 0),
        number("tokens_per_forward"),
        number("ttft_ms"),
        number("refresh_ms", 2),
        number("step_ms", 2),
        number("outside_us", 0),
        number("peak_bytes", 0, 1e-6),
    ]


def _difference(one: dict[str, Any]) -> str:
    """Say how a contender's answers differ from its reference's; nothing if they do not."""
    if one["same_answers"] == one["answers"] and (one["same_passes"] or not one["passes_owed"]):
        return ""
    verdict = "" if one["agrees"] else "DIFFERS: "
    passes = "the same" if one["same_passes"] else "other"
    return (
        f"{verdict}{one['contender']} gave {one['same_answers']} of {one['answers']} answers as"
        f" {one['reference']}, {100 * one['same_tokens']:.1f} % of the tokens, {passes} passes"
    )


def speeds(report: Report, over: str | None) -> dict[tuple[str, str], float]:
    """Return tokens/s, or speed-ups over a contender, by scenario and contender."""
    found: dict[tuple[str, str], float] = {}
    for scenario in report["scenarios"]:
        rows = {one["name"]: one for one in scenario["contenders"]}
        for name, one in rows.items():
            if over is None:
                found[scenario["name"], name] = one["tokens_per_second"]
            elif over in rows and name != over:
                found[scenario["name"], name] = ratio(one, rows[over], "tokens_per_second")
    return found


def compare(old: Report, new: Report, over: str | None, tolerance: float) -> tuple[str, bool]:
    """Return the table of what both reports measured in the same way, and if the new one holds.

    It does where nothing is slower or missing, none of its contenders failed or differs, and
    anything could be compared.
    """
    configs = {one["name"]: one["config"] for one in old["scenarios"]}
    changed = {
        one["name"]
        for one in new["scenarios"]
        if configs.get(one["name"], one["config"]) != one["config"]
    }
    before, after = speeds(old, over), speeds(new, over)
    missing = [key for key in before if key not in after and key[0] not in changed]
    rows: list[list[str]] = []
    held = all_agree(new) and not missing
    for key in (key for key in after if key in before and key[0] not in changed):
        times = after[key] / before[key]
        slower = times < 1 - tolerance
        held &= not slower
        rows.append(
            [
                " ".join(key),
                f"{before[key]:.2f}",
                f"{after[key]:.2f}",
                f"{times:.2f}",
                "SLOWER" if slower else "",
            ]
        )
    unit = "tokens/s" if over is None else f"times {over}'s tokens/s"
    header = ["scenario and contender", f"old {unit}", "new", "new / old", ""]
    parts = [table([header, *rows])]
    parts += [f"{name}: other options, not compared" for name in sorted(changed)]
    parts += [f"MISSING: {' '.join(key)}" for key in missing]
    parts += [f"FAILED: {name}" for name in new.get("failures", [])]
    for scenario in new["scenarios"]:
        told = (_difference(one) for one in scenario["agreement"] if not one["agrees"])
        parts += [f"{scenario['name']}: {text}" for text in told]
    if not rows:
        parts.append("nothing is in both reports: nothing was compared")
    return "\n".join(parts), held and bool(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT")
    parser.add_argument("--over", metavar="CONTENDER", help="compare speed-ups over this one")
    parser.add_argument("--tolerance", type=float, default=0.1, help="share that may be lost")
    parser.add_argument("--targets", action="store_true", help="check the targets too")
    parser.add_argument("--plot", type=Path, help="draw the last report, .svg or .png")
    options = parser.parse_args(arguments)
    if len(options.reports) > 2:
        parser.error("one report or two")
    try:
        reports = [json.loads(path.read_text("utf-8")) for path in options.reports]
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    held = True
    if len(reports) == 1:
        print(show(reports[0]))
    else:
        text, held = compare(*reports, options.over, options.tolerance)
        print(text)
    if options.targets:
        from targets import judge, results_beside, show_targets, sources

        try:
            results = results_beside(options.reports[-1])
        except ValueError as problem:
            parser.error(str(problem))
        judged = judge(results)
        print("\n" + show_targets(judged))
        print("\n" + "\n".join(sources(results)))
        held &= not any(one.met is False for one in judged)
    if options.plot is not None:
        from compare_plot import draw

        draw(reports[-1], options.plot)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
