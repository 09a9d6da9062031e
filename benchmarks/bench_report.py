"""What the repeats of a scenario come to: medians, agreement of tokens and passes, ratios."""

from __future__ import annotations

import statistics
from typing import Any

from scenarios import CONTENDERS, Contender, Scenario

Run = dict[str, Any]  # what bench_worker.measure returns
RUN_KEYS = (
    "seconds",
    "tokens",
    "tokens_per_second",
    "passes",
    "tokens_per_forward",
    "ttft_ms",
    "refresh_ms",
    "step_ms",
    "outside_us",
    "load_seconds",
    "weights_bytes",
    "cache_bytes",
    "peak_bytes",
)


def summarize(scenario: Scenario, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Return a scenario's part of the report. runs: by contender, its repeats."""
    rows = [_contender(CONTENDERS[name], repeats) for name, repeats in runs.items()]
    return {
        "name": scenario.name,
        "config": {
            "model": scenario.model,
            "prompts": scenario.prompts,
            "prompt_length": scenario.prompt_length,
            "threads": scenario.threads,
            "batch": scenario.batch,
            **scenario.config,
        },
        "contenders": rows,
        "agreement": agreement(scenario, runs),
        "ratios": [
            {
                "of": rows[0]["name"],
                "over": other["name"],
                "tokens_per_second": ratio(rows[0], other, "tokens_per_second"),
                "peak_bytes": ratio(rows[0], other, "peak_bytes"),
            }
            for other in rows[1:]
        ],
    }


def _contender(contender: Contender, repeats: list[Run]) -> dict[str, Any]:
    medians = {}
    for key in RUN_KEYS:
        values = [run[key] for run in repeats if run[key] is not None]
        medians[key] = statistics.median(values) if values else None
    return {
        "name": contender.name,
        "precision": contender.precision,
        **medians,
        "peak_bytes": max(run["peak_bytes"] for run in repeats),
        "repeats": [{key: run[key] for key in RUN_KEYS} for run in repeats],
    }


def ratio(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    """Return the median, over the turns that contenders took, of one's number over the other's."""
    pairs = zip(one["repeats"], other["repeats"], strict=True)
    return statistics.median(a[key] / b[key] for a, b in pairs)


def agreement(scenario: Scenario, runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Compare each contender with the first one of its method, over all repeats.

    Where both compute in f32 a trained model owes the same tokens by the same passes. Of random
    weights, near ties decide which token is best, so only the passes have to be the same. Where
    fastdllm ends an answer early, torch, which never does, has more passes.
    """
    found: list[dict[str, Any]] = []
    references: dict[bool, str] = {}
    for name, repeats in runs.items():
        contender = CONTENDERS[name]
        reference = references.setdefault(contender.naive, name)
        tokens_owed = scenario.trained and contender.precision == "fp32"
        passes_owed = tokens_owed or scenario.fixed_schedule
        early = not scenario.config.get("ignore_eos")
        if early and contender.torch != CONTENDERS[reference].torch:
            passes_owed = False
        counts = _same(runs[reference], repeats)
        same_passes = all(
            a["passes_of_answers"] == b["passes_of_answers"]
            for a, b in zip(runs[reference], repeats, strict=True)
        )
        held = counts["same_answers"] == counts["answers"] or not tokens_owed
        found.append(
            {
                "contender": name,
                "reference": reference,
                **counts,
                "same_passes": same_passes,
                "tokens_owed": tokens_owed,
                "passes_owed": passes_owed,
                "agrees": held and (same_passes or not passes_owed),
            }
        )
    return found


def _same(references: list[Run], repeats: list[Run]) -> dict[str, Any]:
    """Count equal answers and tokens, against the reference's first repeat."""
    expected: list[list[int]] = references[0]["token_ids"]
    pairs = [
        (ours, theirs)
        for run in repeats
        for ours, theirs in zip(run["token_ids"], expected, strict=True)
    ]
    same = sum(a == b for ours, theirs in pairs for a, b in zip(ours, theirs, strict=False))
    return {
        "answers": len(pairs),
        "same_answers": sum(ours == theirs for ours, theirs in pairs),
        "same_tokens": same / sum(max(len(ours), len(theirs)) for ours, theirs in pairs),
    }


def all_agree(report: dict[str, Any]) -> bool:
    return all(
        one["agrees"] for scenario in report["scenarios"] for one in scenario["agreement"]
    ) and not report.get("failures")
