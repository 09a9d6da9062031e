"""Measures throughput and latency against the number of requests decoded side by side.

    python benchmarks/batching.py PACKAGE [--count 48 --repeat 3 --output FILE]
    python benchmarks/batching.py PACKAGE --against PYTHON [--count 400 --repeat 9]

For each batch size that many requests are kept under way until `count` have been answered: tokens/s
of all, and the latency of one (median, and of the slowest tenth). Then one short request, alone and
beside a long one that runs: how many times as long it takes. All as ratios within one run: the
batch sizes take turns, `repeat` times. Every position is decoded. Answers must agree with those of
batch size 1.

--against: short answers of two and three passes each, 8 side by side, and nothing else. Another
interpreter's fastdllm takes turns with this one's; the ratio of their tokens/s is printed, of each
pair and the median. A change of the scheduler shows where requests come and go all the time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from measuring import commit_id, processor, versions

from fastdllm import CommitEvent, Engine, GenerationConfig, Request

BATCHES = (1, 2, 4, 8, 16)
MODES: dict[str, dict[str, Any]] = {
    "dual": {"cache": "dual"},
    "dual + threshold 0.9": {"cache": "dual", "threshold": 0.9},
}
NEW_TOKENS, SHORT_TOKENS, LONG_TOKENS = 64, 32, 256
UNDER_WAY = (4, 64)  # passes of the long request when the short one comes
SHORT_STEPS, SHORT_BATCH = (2, 3), 8  # passes of short answers, how many are side by side


class Load:
    """Keeps a number of requests under way until all prompts are answered."""

    def __init__(
        self, engine: Engine, prompts: list[list[int]], *configs: GenerationConfig
    ) -> None:
        """configs: prompts have them in turn."""
        self.engine, self.configs = engine, configs
        self.prompts = list(enumerate(prompts))
        self.begun = [0.0] * len(prompts)
        self.ended = [0.0] * len(prompts)
        self.requests: list[Request | None] = [None] * len(prompts)
        self.left = len(prompts)
        self.finished = threading.Event()
        self.lock = threading.Lock()

    def submit(self) -> None:
        """Send the next prompt, if there is one."""
        with self.lock:
            if not self.prompts:
                return
            number, ids = self.prompts.pop(0)
        self.begun[number] = time.perf_counter()
        self.requests[number] = self.engine.submit(
            ids, self.configs[number % len(self.configs)], None, lambda: self.answered(number)
        )

    def answered(self, number: int) -> None:
        """Take the time and send another; on the engine's thread."""
        self.ended[number] = time.perf_counter()
        self.left -= 1
        if self.left == 0:
            self.finished.set()
        self.submit()

    def run(self, batch: int) -> dict[str, Any]:
        """Answer all prompts, `batch` at a time; a Load runs once."""
        for _ in range(batch):
            self.submit()
        self.finished.wait()
        answers = [request.result() for request in self.requests if request is not None]
        seconds = max(self.ended) - min(self.begun)
        latencies = sorted(b - a for a, b in zip(self.begun, self.ended, strict=True))
        return {
            "tokens_per_second": sum(len(answer.token_ids) for answer in answers) / seconds,
            "latency_ms": 1e3 * statistics.median(latencies),
            "slow_latency_ms": 1e3 * latencies[-max(1, len(latencies) // 10)],
            "token_ids": [answer.token_ids.tolist() for answer in answers],
        }


def random_prompts(engine: Engine, lengths: range, count: int) -> list[list[int]]:
    numbers, package = random.Random(0), engine.package
    ids = [i for i in range(package.vocab_size) if i != package.mask_token_id]
    return [[numbers.choice(ids) for _ in range(numbers.choice(lengths))] for _ in range(count)]


def measure_batches(options: argparse.Namespace, fields: dict[str, Any]) -> dict[str, Any]:
    engines = {
        batch: Engine(options.package, threads=options.threads, max_batch=batch)
        for batch in BATCHES
    }
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, ignore_eos=True, **fields)
    prompts = random_prompts(engines[1], range(20, 81), options.count)
    runs: dict[int, list[dict[str, Any]]] = {batch: [] for batch in BATCHES}
    for repeat in range(options.repeat + 1):
        for batch, engine in engines.items():
            found = Load(engine, prompts, config).run(batch)
            if repeat > 0:  # the first warms up
                runs[batch].append(found)
    base = runs[1][0]["token_ids"]
    rows = []
    for batch, repeats in runs.items():
        row = {
            key: statistics.median(run[key] for run in repeats)
            for key in ("tokens_per_second", "latency_ms", "slow_latency_ms")
        }
        same = sum(one == other for one, other in zip(repeats[0]["token_ids"], base, strict=True))
        rows.append({"batch": batch, **row, "same_answers": same, "answers": len(base)})
    for row in rows:
        row["throughput_ratio"] = row["tokens_per_second"] / rows[0]["tokens_per_second"]
        row["latency_ratio"] = row["latency_ms"] / rows[0]["latency_ms"]
    return {"rows": rows}


def seconds_of(engine: Engine, ids: list[int], config: GenerationConfig) -> float:
    start = time.perf_counter()
    engine.generate(ids, config)
    return time.perf_counter() - start


def seconds_beside(
    engine: Engine,
    ids: list[int],
    config: GenerationConfig,
    long: GenerationConfig,
    under_way: int,
) -> float:
    """Time a request that comes when a long one has run so many passes."""
    started = threading.Event()

    def note(event: CommitEvent) -> None:
        if event.step == under_way:
            started.set()

    running = engine.submit(ids, long, note)
    started.wait()
    seconds = seconds_of(engine, ids, config)
    if running.done:
        raise RuntimeError("the long request ended first: nothing was measured")
    running.cancel()
    running.result()
    return seconds


def measure_beside(options: argparse.Namespace, fields: dict[str, Any]) -> dict[str, float]:
    engine = Engine(options.package, threads=options.threads)
    (ids,) = random_prompts(engine, range(40, 41), 1)
    config = GenerationConfig(max_new_tokens=SHORT_TOKENS, ignore_eos=True, **fields)
    long = GenerationConfig(max_new_tokens=LONG_TOKENS, ignore_eos=True, cache="dual")
    ratios: dict[int, list[float]] = {under_way: [] for under_way in UNDER_WAY}
    alone: list[float] = []
    for repeat in range(5 * options.repeat + 1):
        for under_way in UNDER_WAY:
            solo = seconds_of(engine, ids, config)
            beside = seconds_beside(engine, ids, config, long, under_way)
            if repeat > 0:  # the first warms up
                alone.append(solo)
                ratios[under_way].append(beside / solo)
    return {"alone_ms": 1e3 * statistics.median(alone)} | {
        f"ratio_at_pass_{under_way}": statistics.median(found)
        for under_way, found in ratios.items()
    }


def short_answers(options: argparse.Namespace) -> float:
    """Return the tokens/s of short answers, after a run to warm up."""
    engine = Engine(options.package, threads=options.threads, max_batch=SHORT_BATCH)
    prompts = random_prompts(engine, range(20, 81), options.count)
    configs = [
        GenerationConfig(max_new_tokens=SHORT_TOKENS, steps=steps, cache="dual", ignore_eos=True)
        for steps in SHORT_STEPS
    ]
    Load(engine, prompts[: 4 * SHORT_BATCH], *configs).run(2 * SHORT_BATCH)
    found = Load(engine, prompts, *configs).run(2 * SHORT_BATCH)
    return float(found["tokens_per_second"])


def compare_short_answers(options: argparse.Namespace) -> int:
    """Let two installations take turns, each in a process of its own; print their ratios."""
    command = [__file__, options.package, "--short-answers", "--count", options.count]
    command += ["--threads", options.threads]
    ratios = []
    for repeat in range(options.repeat):
        found = {}
        pair = [sys.executable, options.against]
        for python in pair if repeat % 2 == 0 else pair[::-1]:
            line = subprocess.run(
                [python, *map(str, command)], check=True, capture_output=True, text=True
            ).stdout
            found[python] = float(line)
        here, there = found[sys.executable], found[options.against]
        ratios.append(here / there)
        print(f"{here:9.0f} tokens/s, {there:9.0f} there: {here / there:.3f}", flush=True)
    low, high = min(ratios), max(ratios)
    print(f"median {statistics.median(ratios):.3f}, from {low:.3f} to {high:.3f}")
    return 0


def print_report(report: dict[str, Any]) -> None:
    for name, mode in report["modes"].items():
        columns = f"{'tokens/s':>10}{'x':>6}{'latency ms':>12}{'x':>6}{'slow ms':>9}"
        print(f"\n{name}\n{'batch':>5}{columns}")
        for row in mode["rows"]:
            print(
                f"{row['batch']:5}{row['tokens_per_second']:10.0f}{row['throughput_ratio']:6.2f}"
                f"{row['latency_ms']:12.1f}{row['latency_ratio']:6.2f}{row['slow_latency_ms']:9.1f}"
            )
            if row["same_answers"] != row["answers"]:
                print(f"      {row['same_answers']} of {row['answers']} answers as alone")
        short = mode["short beside long"]
        ratios = ", ".join(f"{short[f'ratio_at_pass_{n}']:.2f} at its pass {n}" for n in UNDER_WAY)
        print(
            f"a request of {SHORT_TOKENS} tokens beside one of {LONG_TOKENS}, times its"
            f" {short['alone_ms']:.1f} ms alone: {ratios}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--count", type=int, default=48, help="requests per batch size")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    parser.add_argument("--against", metavar="PYTHON", help="compare short answers with its own")
    parser.add_argument("--short-answers", action="store_true", help="print their tokens/s alone")
    options = parser.parse_args()
    if options.against is not None:
        return compare_short_answers(options)
    if options.short_answers:
        print(short_answers(options))
        return 0
    modes = {
        name: measure_batches(options, fields)
        | {"short beside long": measure_beside(options, fields)}
        for name, fields in MODES.items()
    }
    report = {
        "commit": commit_id(),
        "processor": processor(),
        "versions": versions(),
        "config": {
            "package": options.package.name,
            "max_new_tokens": NEW_TOKENS,
            "requests": options.count,
            "repeat": options.repeat,
            "threads": options.threads,
        },
        "modes": modes,
    }
    print_report(report)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    rows = [row for mode in modes.values() for row in mode["rows"]]
    return 0 if all(row["same_answers"] == row["answers"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
