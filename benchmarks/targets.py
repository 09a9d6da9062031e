"""The targets of the project's speed and memory, and what the results say of each.

    python benchmarks/targets.py [--folder benchmarks/results]

Reads bench.json, floor.json, scaling.json and cold_start.json of the folder; what a missing file
would tell is not measured. Exit code 1: a measured target is missed; 2: bench.json is unfinished.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_report import ratio
from measuring import RESULTS
from synthetic import SHAPES, Shape

from fastdllm.bench import table

Results = dict[str, Any]  # by the name of the file, without its suffix
MARGIN, ALLOWANCE = 1.15, 100e6  # of weights and cache; bytes beside them
MODEL, THREADS = "100m", 2  # of floor.json and scaling.json


@dataclass(frozen=True, kw_only=True)
class Target:
    """A number that the results hold, and what it shall be at least or at most.

    read: takes the number out of the results. Errors: KeyError, ValueError where they lack it.
    """

    name: str
    bound: float
    at_least: bool
    read: Callable[[Results], float]
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A target and what was measured; None: nothing was."""

    target: Target
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether it is within the bound."""
        if self.measured is None:
            return None
        if self.target.at_least:
            return self.measured >= self.target.bound
        return self.measured <= self.target.bound


def contenders(results: Results, scenario: str) -> dict[str, Any]:
    """Return a scenario's contenders by name."""
    found = {one["name"]: one for one in results["bench"]["scenarios"]}
    return {one["name"]: one for one in found[scenario]["contenders"]}


def times(scenario: str, one: str, other: str, key: str) -> Callable[[Results], float]:
    """Return a reader of one contender's number over another's."""

    def read(results: Results) -> float:
        rows = contenders(results, scenario)
        return ratio(rows[one], rows[other], key)

    return read


def outside(*scenarios: str) -> Callable[[Results], float]:
    """Return a reader of the largest time outside the graph, microseconds per pass."""
    return lambda results: max(
        contenders(results, one)["fastdllm"]["outside_us"] for one in scenarios
    )


def memory(scenario: str) -> Callable[[Results], float]:
    """Return a reader of peak memory as a share of what weights and cache may take."""

    def read(results: Results) -> float:
        one = contenders(results, scenario)["fastdllm"]
        held: float = one["weights_bytes"] + one["cache_bytes"]
        return one["peak_bytes"] / (MARGIN * held + ALLOWANCE)

    return read


def over_floor(kind: str) -> Callable[[Results], float]:
    """Return a reader of a kind of pass, as a multiple of what the best GEMM would take."""

    def read(results: Results) -> float:
        found = results["floor"]
        if found["model"] != MODEL or found["threads"] != THREADS:
            raise ValueError(f"floor.json is not of {MODEL} with {THREADS} threads")
        return max(one["ratio"] for one in found["passes"] if one["kind"] == kind)

    return read


def cold_start(way: str, *parts: str) -> Callable[[Results], float]:
    """Return a reader of the seconds of a start's parts."""
    return lambda results: sum(results["cold_start"]["ways"][way][part] for part in parts) / 1e3


def steps_by_context(results: Results) -> dict[int, float]:
    """Return a step's time at each context. Errors: ValueError, of another model or threads."""
    found = results["scaling"]
    threads = {one["threads"] for one in found["context"]}
    if Shape(**found["config"]["shape"]) != SHAPES[MODEL] or threads != {THREADS}:
        raise ValueError(f"scaling.json is not of {MODEL} with {THREADS} threads")
    return {one["context"]: one["step_ms"] for one in found["context"]}


def growth(first: int, last: int) -> Callable[[Results], float]:
    """Return a reader of a step's time at one context over that at another."""
    return lambda results: steps_by_context(results)[last] / steps_by_context(results)[first]


def steepest(results: Results) -> float:
    """Return the largest exponent with which step time grows from one context to the next."""
    points = sorted(steps_by_context(results).items())
    return max(
        math.log(later / earlier) / math.log(longer / shorter)
        for (shorter, earlier), (longer, later) in pairwise(points)
    )


EAGER_SPEED = ("fastdllm", "torch_eager", "tokens_per_second")
EAGER_MEMORY = ("fastdllm", "torch_eager", "peak_bytes")
COLD_PARTS = ("import_ms", "engine_ms", "text_ms")


def at_least(bound: float, name: str, read: Callable[[Results], float]) -> Target:
    return Target(name=name, bound=bound, at_least=True, read=read)


def at_most(bound: float, name: str, read: Callable[[Results], float], unit: str = "") -> Target:
    return Target(name=name, bound=bound, at_least=False, read=read, unit=unit)


MEMORY = "peak memory over 1.15 * (weights + cache) + 100 MB"
TORCH_MEMORY = "peak memory over torch's"
OUTSIDE = "time outside the graph per pass"

TARGETS = (
    at_least(
        4,
        "tokens/s over torch's: shipped, dual, threshold 0.9, 64 new",
        times("tiny_dual_64", *EAGER_SPEED),
    ),
    at_least(
        4,
        "tokens/s over torch's: shipped, dual, threshold 0.9, 256 new",
        times("tiny_dual_256", *EAGER_SPEED),
    ),
    at_least(
        3,
        "tokens/s over torch's: 350M, vocabulary 126k, dual, fixed schedule",
        times("350m_dual", *EAGER_SPEED),
    ),
    at_least(
        20,
        "tokens/s over naive torch's: shipped, 512 new",
        times("tiny_naive_512", "fastdllm", "torch_naive", "tokens_per_second"),
    ),
    at_most(1.25, "a step over the GEMM floor: 100M", over_floor("step")),
    at_most(1.35, "a refresh over the GEMM floor: 100M", over_floor("refresh")),
    at_most(50, f"{OUTSIDE}: shipped", outside("tiny_dual_64", "tiny_dual_256"), " us"),
    at_most(50, f"{OUTSIDE}: 100M", outside("100m_dual"), " us"),
    at_most(1, f"{MEMORY}: shipped", memory("tiny_dual_64")),
    at_most(1, f"{MEMORY}: 100M", memory("100m_dual")),
    at_most(1, f"{MEMORY}: 350M", memory("350m_dual")),
    at_most(0.5, f"{TORCH_MEMORY}: shipped", times("tiny_dual_64", *EAGER_MEMORY)),
    at_most(0.5, f"{TORCH_MEMORY}: 100M", times("100m_dual", *EAGER_MEMORY)),
    at_most(0.5, f"{TORCH_MEMORY}: 350M", times("350m_dual", *EAGER_MEMORY)),
    at_least(
        1.8,
        "int8 over f32, tokens/s: 100M (speed alone)",
        times("100m_dual", "fastdllm_int8", "fastdllm", "tokens_per_second"),
    ),
    at_most(0.5, "cold start without Python", cold_start("C++, text", "process_ms"), " s"),
    at_most(1.5, "import and load with Python", cold_start("Python, text", *COLD_PARTS), " s"),
    at_most(1.25, "a step at 2048 positions over one at 256: 100M", growth(256, 2048)),
    at_most(1, "exponent of a step's time over context: 100M", steepest),
)


def results_beside(bench: Path) -> Results:
    """Read a report of bench.py, whatever its name, and the other results of its folder.

    Errors: ValueError, the report is unfinished.
    """
    others = ("floor", "scaling", "cold_start")
    paths = {"bench": bench} | {name: bench.parent / f"{name}.json" for name in others}
    found = {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()
    }
    if not found.get("bench", {}).get("finished", True):
        raise ValueError(f"{bench}: unfinished; run bench.py again")
    return found


def sources(results: Results) -> list[str]:
    """State the commit and the date of each file that was read."""
    return [
        f"{name}.json: {one.get('commit', 'unknown')[:7]}, {one.get('date', 'without a date')}"
        for name, one in results.items()
    ]


def judge(results: Results) -> list[Judged]:
    def measured(target: Target) -> float | None:
        try:
            return target.read(results)
        except (KeyError, ValueError):
            return None

    return [Judged(target=target, measured=measured(target)) for target in TARGETS]


HEADER = ("target", "bound", "measured", "met")


def rows_of(judged: list[Judged]) -> list[tuple[str, str, str, str]]:
    """Return target, bound, measured, met in words."""
    words = {True: "yes", False: "no", None: "not measured"}
    return [
        (
            one.target.name,
            f"{'>=' if one.target.at_least else '<='} {one.target.bound:g}{one.target.unit}",
            "-" if one.measured is None else f"{one.measured:.2f}{one.target.unit}",
            words[one.met],
        )
        for one in judged
    ]


def show_targets(judged: list[Judged]) -> str:
    return table([HEADER, *rows_of(judged)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the results are")
    options = parser.parse_args(arguments)
    try:
        results = results_beside(options.folder / "bench.json")
    except (OSError, ValueError) as problem:
        print(f"targets: error: {problem}", file=sys.stderr)
        return 2
    judged = judge(results)
    print(show_targets(judged))
    print("\n" + "\n".join(sources(results)))
    return 1 if any(one.met is False for one in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
