"""Measures what a step, a refresh and memory cost as a model and its work grow; fits a cost model.

    python benchmarks/scaling.py [--repeat 3] [--output benchmarks/results/scaling.json]
    python benchmarks/scaling.py --render benchmarks/results/scaling.json

Context 256 to 4096, threads 1 and 2, batch 1 to 8, vocabulary 32,000 to 126,464, on the model of
random weights that synthetic.py calls 100m. A step feeds a block of 32 rows over the cached
context; a refresh feeds the context and the block. Both are timed where a user of the engine sees
them, from commit to commit, at one token per pass. Needs about 4 GB of disk (--folder) and memory.
--render makes scaling.svg from the JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from cost_model import Work, fit, report
from measuring import RESULTS, head, peak_bytes
from passes import BLOCK, Pass
from synthetic import SHAPES, Shape

from fastdllm import Engine, Error, GenerationConfig
from fastdllm.output import check_writable, write_whole

SHAPE = SHAPES["100m"]
CONTEXTS = (256, 512, 1024, 2048, 4096)
VOCABULARIES = (32000, 64000, 96000, 126464)
BATCHES = (1, 2, 4, 8)
THREADS = (1, 2)
CONTEXT = 256  # where another thing grows
STEPS = 12  # timed in every request; then the request is left
Times = dict[str, list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What is measured: an engine's model and threads, requests side by side, their context."""

    package: Path
    shape: Shape
    context: int = CONTEXT
    batch: int = 1
    threads: int = THREADS[-1]

    def work(self, kind: str, wanted: float) -> Work:
        """Return what a pass computes. wanted: rows per request that a step wants logits of."""
        refresh = kind == "refresh"
        return Work.of(
            self.shape,
            Pass(rows=self.context + BLOCK, cached=0)
            if refresh
            else Pass(rows=BLOCK, cached=self.context, wanted=round(wanted)),
            batch=1 if refresh else self.batch,
        )


class Commit(NamedTuple):
    """When a pass of a request was over, which it was, and whether it was a refresh."""

    time: float
    request: int
    refreshed: bool
    step: int


def prompt(point: Point, number: int) -> list[int]:
    """Return a prompt of its own, without the mask token (the last of the vocabulary)."""
    return [(7 * i + 11 * number) % (point.shape.vocabulary - 2) for i in range(point.context)]


def decode(engine: Engine, point: Point, steps: int = STEPS) -> tuple[Times, int]:
    """Decode the point's requests side by side; return seconds of passes and bytes of K/V.

    A step counts when it held all requests: between two commits of the first, each of the others
    committed once, and none of them refreshed. Refreshes count of a request that is alone.
    "wanted": rows per request whose logits the steps asked for.
    """
    events: list[Commit] = []

    def noted(number: int) -> Any:
        def on_commit(event: Any) -> bool:
            events.append(Commit(time.perf_counter(), number, event.refreshed, event.step))
            return bool(event.step < limit)

        return on_commit

    # Requests start one after the other: the first go on until the last has had its steps.
    limit = steps + point.batch - 1
    config = GenerationConfig(
        max_new_tokens=BLOCK, block_length=BLOCK, cache="dual", ignore_eos=True
    )
    start = time.perf_counter()
    requests = [
        engine.submit(prompt(point, number), config, noted(number)) for number in range(point.batch)
    ]
    results = [request.result() for request in requests]
    found: Times = {"step": [], "refresh": [], "wanted": []}
    ours = [index for index, event in enumerate(events) if event.request == 0]
    if point.batch == 1:
        found["refresh"].append(events[0].time - start)
    for before, after in pairwise(ours):
        commits = events[before + 1 : after + 1]
        requests_in = sorted(one.request for one in commits)
        if requests_in == list(range(point.batch)) and not any(one.refreshed for one in commits):
            found["step"].append(events[after].time - events[before].time)
            # One token per pass: so many of the block were there before.
            found["wanted"].append(BLOCK - statistics.fmean(one.step for one in commits))
    return found, sum(result.stats.cache_bytes for result in results)


def worker(point: Point) -> dict[str, int]:
    """Decode once in this process; return its peak memory, before and after, and the cache's."""
    engine = Engine(point.package, threads=point.threads)
    loaded = peak_bytes()
    _, cache = decode(engine, point)
    return {"loaded_bytes": loaded, "peak_bytes": peak_bytes(), "cache_bytes": cache}


def memory(point: Point) -> dict[str, int]:
    """Run worker() in a process of its own."""
    words = [sys.executable, __file__, "--worker", str(point.package), str(point.context)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(points: Sequence[Point], repeat: int) -> list[dict[str, Any]]:
    """Time the points in turn, `repeat` times after a first that warms up; return medians."""
    engines: dict[tuple[Path, int], Engine] = {}
    times: list[Times] = [{"step": [], "refresh": [], "wanted": []} for _ in points]
    for number in range(repeat + 1):
        for index, point in enumerate(points):
            told = f"repeat {number}/{repeat}, point {index + 1}/{len(points)}"
            print(told, file=sys.stderr, flush=True)
            key = (point.package, point.threads)
            if key not in engines:
                engines[key] = Engine(point.package, threads=point.threads, max_batch=BATCHES[-1])
            # A refresh and a step are enough to warm up a long context.
            long = number == 0 and point.context > CONTEXTS[1]
            found, _ = decode(engines[key], point, 1 if long else STEPS)
            if number > 0:
                for kind, seconds in found.items():
                    times[index][kind] += seconds
    rows = []
    for point, found in zip(points, times, strict=True):
        row: dict[str, Any] = {
            "context": point.context,
            "vocabulary": point.shape.vocabulary,
            "batch": point.batch,
            "threads": point.threads,
        }
        for kind in ("step", "refresh"):
            if found[kind]:
                row[f"{kind}_ms"] = 1e3 * statistics.median(found[kind])
        if found["wanted"]:  # as many as steps: none where requests never shared one
            row["wanted_rows"] = statistics.fmean(found["wanted"])
        rows.append(row)
    return rows


def make_packages(folder: Path, vocabularies: Sequence[int]) -> dict[int, Path]:
    """Write and export a model for each vocabulary."""
    from synthetic import write_checkpoint

    from fastdllm.export import export_package

    packages: dict[int, Path] = {}
    for size in vocabularies:
        package = folder / f"package_{size}"
        if not (package / "fastdllm.json").exists():
            print(f"exporting the model of vocabulary {size}", file=sys.stderr, flush=True)
            shape = dataclasses.replace(SHAPE, vocabulary=size)
            with tempfile.TemporaryDirectory(dir=folder) as beside:
                checkpoint = write_checkpoint(Path(beside) / "checkpoint", shape)
                export_package(
                    checkpoint,
                    package,
                    precision="fp32",
                    in_memory=False,
                    progress=False,
                    text=False,
                    allow_no_eos=True,
                )
        packages[size] = package
    return packages


def points_of(packages: dict[int, Path]) -> dict[str, list[Point]]:
    """Return what grows, by name."""
    base = Point(package=packages[SHAPE.vocabulary], shape=SHAPE)
    vary = dataclasses.replace
    return {
        "context": [vary(base, context=context) for context in CONTEXTS],
        "vocabulary": [
            vary(base, package=package, shape=vary(SHAPE, vocabulary=size))
            for size, package in packages.items()
        ],
        "batch": [vary(base, batch=batch) for batch in BATCHES],
        "threads": [
            vary(base, context=context, threads=threads)
            for context in CONTEXTS[:3]
            for threads in THREADS
        ],
    }


def run(folder: Path, repeat: int) -> dict[str, Any]:
    """Measure everything and fit the model of the cost."""
    start = time.perf_counter()
    points = points_of(make_packages(folder, VOCABULARIES))
    exported = time.perf_counter() - start
    different = list(dict.fromkeys(point for chosen in points.values() for point in chosen))
    rows = dict(zip(different, measure(different, repeat), strict=True))
    for point in dict.fromkeys(points["context"] + points["vocabulary"]):
        words = f"context {point.context}, vocabulary {point.shape.vocabulary}"
        print(f"memory: {words}", file=sys.stderr, flush=True)
        rows[point]["weight_bytes"] = 4 * point.shape.parameters
        try:
            rows[point] |= memory(point)
        except subprocess.CalledProcessError as problem:  # killed for its memory, say
            print(f"scaling: memory left out: {problem}", file=sys.stderr, flush=True)
    fitted = [
        (point, kind)
        for point, row in rows.items()
        for kind in ("step", "refresh")
        if f"{kind}_ms" in row and point.threads == THREADS[-1]
    ]
    works = [point.work(kind, rows[point].get("wanted_rows", BLOCK)) for point, kind in fitted]
    measured = [rows[point][f"{kind}_ms"] for point, kind in fitted]
    model = fit(works, measured)
    for (point, kind), work in zip(fitted, works, strict=True):
        rows[point][f"{kind}_predicted_ms"] = model.predict(work)
    found = {name: [rows[point] for point in chosen] for name, chosen in points.items()}
    step = {row["context"]: row["step_ms"] for row in found["context"]}
    ratios = {"step at context 2048 over 256": step[2048] / step[256]}
    peaks = [
        row["peak_bytes"] / (1.15 * (row["weight_bytes"] + row["cache_bytes"]) + 1e8)
        for row in found["context"]
        if "peak_bytes" in row
    ]
    if peaks:
        ratios["peak memory over 1.15 * (weights + cache) + 100 MB, at most"] = max(peaks)
    config = {
        "shape": dataclasses.asdict(SHAPE),
        "block": BLOCK,
        "repeat": repeat,
        "export_seconds": round(exported, 1),
        "seconds": round(time.perf_counter() - start - exported, 1),
    }
    return head(config=config, model=model.to_dict(works, measured), ratios=ratios) | found


def render(found: dict[str, Any], path: Path) -> None:
    """Print the tables and write the picture beside the JSON."""
    from scaling_plot import draw

    print(report(found))
    write_whole(path.with_suffix(".svg"), lambda beside: draw(found, beside))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="keep the packages here; default: /tmp, removed"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing")
    parser.add_argument("--worker", nargs=2, metavar=("PACKAGE", "CONTEXT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        package, context = options.worker
        vocabulary = json.loads((Path(package) / "fastdllm.json").read_text("utf-8"))["model"]
        shape = dataclasses.replace(SHAPE, vocabulary=vocabulary["vocab_size"])
        point = Point(package=Path(package), shape=shape, context=int(context))
        print(json.dumps(worker(point)))
        return 0
    output: Path = options.render or options.output
    try:
        if options.render is None:
            check_writable({"--output": output})
            with tempfile.TemporaryDirectory() as temporary:
                folder = options.folder or Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                text = json.dumps(run(folder, options.repeat), indent=1) + "\n"
            write_whole(output, lambda beside: beside.write_text(text, "utf-8"))
        render(json.loads(output.read_text("utf-8")), output)
    except (Error, OSError, ImportError) as problem:
        print(f"scaling: error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
