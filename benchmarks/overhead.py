"""Measures the time per pass outside the graph, as C++ counts it and as Python sees it.

    python benchmarks/overhead.py PACKAGE [--repeat 20 --output FILE]

C++: GenerationStats.total_seconds - graph_seconds. Python: wall clock around Engine.generate() less
graph_seconds, thus with the conversion of prompt and result; the same with a callback, and around
LLM.stream_events(), read by another thread than the engine's, without and with a stop string. Per
mode, the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdllm import LLM, CommitEvent, GenerationConfig, GenerationStats

MODES: dict[str, dict[str, Any]] = {
    "none": {"cache": "none"},
    "prefix": {"cache": "prefix"},
    "dual": {"cache": "dual"},
    "dual + threshold 0.9": {"cache": "dual", "threshold": 0.9},
    "dual, temperature 1": {"cache": "dual", "temperature": 1.0},
}


def listen(event: CommitEvent) -> None:
    """Stand for a caller's callback."""


def stream(
    llm: LLM, prompt: list[int], config: GenerationConfig, stop: str | None
) -> GenerationStats:
    *_, last = llm.stream_events(prompt, config, stop=stop)
    assert last.completion is not None
    return last.completion.stats


def measure(llm: LLM, fields: dict[str, Any], repeat: int) -> dict[str, float]:
    config = GenerationConfig(max_new_tokens=64, block_length=32, ignore_eos=True, **fields)
    engine = llm.engine
    prompt = [i for i in range(41) if i != engine.package.mask_token_id][:40]
    ways: dict[str, Callable[[], GenerationStats]] = {
        "python_us": lambda: engine.generate(prompt, config).stats,
        "callback_us": lambda: engine.generate(prompt, config, listen).stats,
        "stream_us": lambda: stream(llm, prompt, config, None),
        "stop_us": lambda: stream(llm, prompt, config, "a text that no model writes"),
    }
    found: dict[str, list[float]] = {"cpp_us": []} | {key: [] for key in ways}
    passes = engine.generate(prompt, config).num_passes  # the first one warms up
    for _ in range(repeat):
        for key, run in ways.items():
            start = time.perf_counter()
            stats = run()
            seconds = time.perf_counter() - start
            found[key].append(1e6 * (seconds - stats.graph_seconds) / passes)
            if key == "python_us":
                outside = stats.total_seconds - stats.graph_seconds
                found["cpp_us"].append(1e6 * outside / passes)
    return {"passes": passes} | {key: statistics.median(times) for key, times in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    llm = LLM(options.package, threads=options.threads)
    engine = llm.engine
    rows = {name: measure(llm, fields, options.repeat) for name, fields in MODES.items()}
    print(f"{engine.backend}; microseconds per pass outside the graph, median of {options.repeat}")
    columns = f"{'C++':>8}{'Python':>8}{'with callback':>15}{'stream':>8}{'stop':>8}"
    print(f"{'mode':24}{'passes':>8}{columns}")
    for name, row in rows.items():
        print(
            f"{name:24}{row['passes']:>8.0f}{row['cpp_us']:>8.1f}{row['python_us']:>8.1f}"
            f"{row['callback_us']:>15.1f}{row['stream_us']:>8.1f}{row['stop_us']:>8.1f}"
        )
    if options.output is not None:
        report = {"backend": engine.backend, "repeat": options.repeat, "modes": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
