"""Measures a pass as a multiple of what this machine's best matrix products allow.

    python benchmarks/floor.py [--model 100m --threads 2 --repeat 15 --profile --output FILE]

A pass is at least its matrix products. Each of them is computed alone, at its own sizes, by ONNX
Runtime (weights packed), by torch, and by oneDNN; the fastest of them, summed over the pass, is the
floor. Another floor is the time to read the pass's weights from memory once. The pass itself runs
as the runtime runs it, in the same process, in turns with the products; reported are medians.

--model: a shape of synthetic.py, or a folder with a LLaDA checkpoint. --package: what was exported
of it in fp32 before. --profile: also the share of each operator in ONNX Runtime's own profile.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from gemm import Run, bandwidth, contenders, session_options
from measuring import head
from passes import REFRESH, STEP, Pass, Product, products, weight_bytes
from synthetic import SHAPES, Shape, shape_of, write_checkpoint

from fastdllm.bench import table
from fastdllm.export import export_package
from fastdllm.output import check_writable, write_whole

CACHE_BYTES = 64e6  # more than a core's share of any cache
PAUSE = 0.02  # seconds in which the threads of the last contender go to sleep
Sizes = tuple[int, int, int, int, bool]
Milliseconds = dict[str, dict[str, float]]


def sizes_of(product: Product) -> Sizes:
    return (product.m, product.k, product.n, product.heads, product.weights)


def passes_of(wanted: list[int]) -> list[Pass]:
    """Return a refresh, and a step for each number of wanted rows."""
    return [*(replace(STEP, wanted=number) for number in wanted), REFRESH]


def copies_of(product: Product, shape: Shape) -> int:
    """Return how many second factors to go through: no more stays in a cache than in the model."""
    model = min(CACHE_BYTES, float(weight_bytes(shape, STEP)))
    return max(product.count, math.ceil(model / product.bytes))


def bound_pass(session: onnxruntime.InferenceSession, shape: Shape, one: Pass) -> Run:
    """Return a call that runs a pass in memory that is bound once."""
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    for name, array in one.feeds(shape).items():
        binding.bind_ortvalue_input(name, value(array))
    for name, array in one.outputs(shape).items():
        binding.bind_ortvalue_output(name, value(array))
    return lambda: session.run_with_iobinding(binding)


def take_turns(runs: dict[Any, Run], repeat: int, say: Callable[[str], object]) -> dict[Any, float]:
    """Return the median milliseconds of each; a run of each wakes its threads, the next counts."""
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for turn in range(repeat):
        say(f"turn {turn + 1} of {repeat}")
        for key, run in runs.items():
            time.sleep(PAUSE)
            run()
            start = time.perf_counter()
            run()
            times[key].append(1e3 * (time.perf_counter() - start))
    return {key: statistics.median(found) for key, found in times.items()}


def measure(
    package: Path,
    shape: Shape,
    passes: list[Pass],
    *,
    threads: int,
    repeat: int,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Measure passes, their products and the memory; return what a report holds of them.

    threads: of ONNX Runtime; torch's are set by who calls.
    """
    say("memory")
    gigabytes = bandwidth()
    alone: dict[Sizes, tuple[Product, int]] = {}  # and copies
    for product in [product for one in passes for product in products(shape, one)]:
        copies = max(copies_of(product, shape), alone.get(sizes_of(product), (product, 0))[1])
        alone[sizes_of(product)] = (product, copies)
    say("packing weights")
    runs: dict[Any, Run] = {
        (sizes, name): run
        for sizes, (product, copies) in alone.items()
        for name, run in contenders(product, copies, threads).items()
    }
    session = onnxruntime.InferenceSession(
        package / "model.onnx", session_options(threads), providers=["CPUExecutionProvider"]
    )
    runs |= {one: bound_pass(session, shape, one) for one in passes}
    with torch.inference_mode():
        found = take_turns(runs, repeat, say)
    each: dict[Sizes, dict[str, float]] = {}
    for key, milliseconds in found.items():
        if not isinstance(key, Pass):
            each.setdefault(key[0], {})[key[1]] = milliseconds / alone[key[0]][1]
    rows = [row_of(one, product, each) for one in passes for product in products(shape, one)]
    return {
        "threads": threads,
        "repeat": repeat,
        "bandwidth_gb_s": gigabytes,
        "products": rows,
        "passes": [summary(one, shape, found[one], rows, gigabytes["read"]) for one in passes],
    }


def row_of(one: Pass, product: Product, each: dict[Sizes, dict[str, float]]) -> dict[str, Any]:
    milliseconds = {
        name: product.count * single for name, single in each[sizes_of(product)].items()
    }
    best = min(milliseconds, key=lambda name: milliseconds[name])
    facts = {key: fact for key, fact in asdict(product).items() if key != "weights"}
    rate = product.operations / milliseconds[best] / 1e6
    return {
        "pass": label(one),
        **facts,
        "ms": milliseconds,
        "best": best,
        "best_ms": milliseconds[best],
        "gflops": rate,
    }


def summary(
    one: Pass, shape: Shape, milliseconds: float, rows: list[dict[str, Any]], gigabytes: float
) -> dict[str, Any]:
    floor = sum(row["best_ms"] for row in rows if row["pass"] == label(one))
    return {
        "kind": one.kind,
        **asdict(one),
        "ms": milliseconds,
        "floor_ms": floor,
        "ratio": milliseconds / floor,
        "weight_bytes_ms": weight_bytes(shape, one) / gigabytes / 1e6,
    }


def label(one: Pass) -> str:
    return f"{one.kind}, {one.wanted} wanted"


def profile(
    package: Path, shape: Shape, passes: list[Pass], *, threads: int, repeat: int
) -> dict[str, dict[str, float]]:
    """Return each operator's share of the time in kernels, by pass, largest first."""
    found: dict[str, dict[str, float]] = {}
    for one in passes:
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = onnxruntime.InferenceSession(
                package / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            run = bound_pass(session, shape, one)
            for _ in range(repeat):
                run()
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        spent: dict[str, float] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                operator = event["args"]["op_name"]
                if operator != "If":  # its time contains its branch's nodes, which are there too
                    spent[operator] = spent.get(operator, 0.0) + event["dur"]
        total = sum(spent.values())
        ranking = sorted(spent, key=lambda operator: -spent[operator])
        found[label(one)] = {operator: spent[operator] / total for operator in ranking}
    return found


def print_report(report: dict[str, Any]) -> None:
    names = list(dict.fromkeys(name for row in report["products"] for name in row["ms"]))
    lines = [["product, ms in a pass", "m", "k", "n", "heads", "count", *names, "GFLOP/s"]]
    for one in dict.fromkeys(row["pass"] for row in report["products"]):
        lines.append([one, *[""] * (len(lines[0]) - 1)])
        for row in report["products"]:
            if row["pass"] == one:
                numbers = [str(row[key]) for key in ("m", "k", "n", "heads", "count")]
                times = [
                    f"{row['ms'][name]:.2f}" + ("*" if name == row["best"] else " ")
                    if name in row["ms"]
                    else ""
                    for name in names
                ]
                lines.append([f"  {row['name']}", *numbers, *times, f"{row['gflops']:.0f}"])
    print(table(lines))
    gigabytes = report["bandwidth_gb_s"]
    print(f"\nmemory: {gigabytes['read']:.1f} GB/s read, {gigabytes['copy']:.1f} GB/s copied\n")
    lines = [["pass", "rows", "cached", "ms", "floor ms", "ratio", "weights read ms"]]
    lines += [
        [
            f"{one['kind']}, {one['wanted']} wanted",
            str(one["rows"]),
            str(one["cached"]),
            *(f"{one[key]:.2f}" for key in ("ms", "floor_ms", "ratio", "weight_bytes_ms")),
        ]
        for one in report["passes"]
    ]
    print(table(lines))
    for name, shares in report.get("operators", {}).items():
        print(f"\n{name}")
        for operator, share in shares.items():
            if share >= 0.001:
                print(f"  {operator:24}{100 * share:6.1f} %")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="100m", help="a shape by name, or a checkpoint's folder")
    parser.add_argument("--package", type=Path, help="the model's fp32 package; default: export it")
    parser.add_argument("--wanted", type=int, nargs="+", default=[32, 8], help="of a step's rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="shares of operators too")
    parser.add_argument("--folder", type=Path, help="where 1 GB is free; default: /tmp")
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    if not all(1 <= number <= STEP.rows for number in options.wanted):
        parser.error(f"--wanted: expected 1 to {STEP.rows}")
    return options


def main() -> int:
    options = parse()
    check_writable({"--output": options.output})
    synthetic = options.model in SHAPES
    shape = SHAPES[options.model] if synthetic else shape_of(Path(options.model))

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    torch.set_num_threads(options.threads)
    passes = passes_of(options.wanted)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        package = options.package
        if package is None:
            say("exporting the model")
            checkpoint = Path(options.model)
            if synthetic:
                checkpoint = write_checkpoint(Path(folder, "checkpoint"), shape)
            package = export_package(
                checkpoint, Path(folder, "package"), in_memory=False, text=False, allow_no_eos=True
            )
        settings = {"threads": options.threads, "repeat": options.repeat}
        report = head(model=options.model, shape=asdict(shape))
        report |= measure(package, shape, passes, say=say, **settings)
        if options.profile:
            say("profile")
            report["operators"] = profile(package, shape, passes, **settings)
    print_report(report)
    if options.output is not None:
        text = json.dumps(report, indent=1) + "\n"
        write_whole(options.output, lambda path: path.write_text(text, "utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
