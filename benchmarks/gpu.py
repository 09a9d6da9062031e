"""Measures a step, a refresh and tokens/s on a GPU, against the time to read the weights.

    python benchmarks/gpu.py [--model 8b --backends onnxruntime tensorrt --output FILE]
    python benchmarks/gpu.py --dry-run      # the same on the CPU, with a tiny model
    python benchmarks/gpu.py --only-make    # the package, for another machine's --package

The model has LLaDA-8B's sizes and random weights, which are made here: nothing is fetched. It is
exported in fp16, the only 16-bit arithmetic that packages have (a bf16 one widens its weights), and
kept (8b: 16 GB, and 16 GB more while it is made). 288 positions, 128 of them new, block length 32,
dual cache: a step is 32 rows over 256 cached ones. Fixed schedules give 1, 2, 4 and 8 tokens per
forward, whatever the weights. Exit code 2: there is no GPU, or no backend; 1: anything else failed.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_device import Driver, NoGpu, missing, read_gigabytes
from measuring import ROOT, head
from synthetic import SHAPES, Shape, write_checkpoint

from fastdllm import CommitEvent, Engine, Error, GenerationConfig
from fastdllm.bench import table
from fastdllm.check import read_metadata
from fastdllm.output import check_writable, write_whole

PROMPT, NEW_TOKENS, BLOCK = 160, 128, 32
CONTEXT = PROMPT + NEW_TOKENS
TOKENS_PER_FORWARD = (1, 2, 4, 8)
BACKENDS = ("onnxruntime", "tensorrt")
TRIAL = Shape(layers=2, heads=2, mlp=96, vocabulary=200, head_dim=16, longest=CONTEXT)
Say = Callable[[str], object]


def make_package(path: Path, shape: Shape, opset: int, say: Say) -> Path:
    """Make the model's fp16 package where it is not there from an earlier time."""
    if (path / "fastdllm.json").exists():
        say(f"{path}: taken as it is")
        return path
    from fastdllm.export import export_package

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        say(f"making {shape.parameters / 1e9:.2f} billion random weights")
        checkpoint = write_checkpoint(Path(folder, "checkpoint"), shape)
        say(f"exporting them to {path}")
        return export_package(
            checkpoint,
            path,
            precision="fp16",
            opset=opset,
            in_memory=False,
            text=False,
            allow_no_eos=True,
        )


def package_of(options: argparse.Namespace, say: Say) -> Path:
    if options.package is not None:
        return Path(options.package)
    path = options.folder / f"synthetic-{options.model}-fp16-opset{options.opset}"
    return make_package(path, SHAPES[options.model], options.opset, say)


def weight_bytes(package: Path) -> int:
    """Bytes of the weights that a pass reads: all but the embedding, of which it takes rows."""
    model = read_metadata(package)["model"]
    embedding: int = 2 * model["vocab_size"] * model["hidden_size"]
    return (package / "model.onnx.data").stat().st_size - embedding


def prepare_engine(package: Path, say: Say) -> None:
    """Compile the package for this GPU, where TensorRT's Python package is here.

    Without it, an engine of trtexec may lie there already; the runtime says where it does not.
    """
    if importlib.util.find_spec("tensorrt") is None:
        return
    from fastdllm.export.tensorrt import build_engine

    say(f"fastdllm build-engine {package} --max-context {CONTEXT} --rows-per-step {BLOCK}")
    built = build_engine(package, max_context=CONTEXT, rows_per_step=BLOCK)
    say(f"{built.path}: {'was there' if built.cached else f'compiled in {built.seconds:.0f} s'}")


class Ends:
    """When each pass ended, and whether it was a refresh: called after every one."""

    def __init__(self) -> None:
        self.ends: list[tuple[bool, float]] = []

    def __call__(self, event: CommitEvent) -> None:
        """Note a pass."""
        self.ends.append((event.refreshed, time.perf_counter()))


def measure(engine: Engine, repeat: int, say: Say) -> dict[str, Any]:
    """Decode by each schedule; a pass is timed from the end of the one before."""
    prompt = [1 + index % (engine.package.mask_token_id - 1) for index in range(PROMPT)]
    spent: dict[bool, list[float]] = {True: [], False: []}  # by whether it was a refresh
    rates: list[dict[str, Any]] = []
    for tokens in TOKENS_PER_FORWARD:
        say(f"{tokens} tokens per forward")
        config = GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            block_length=BLOCK,
            steps_per_block=BLOCK // tokens,
            cache="dual",
            ignore_eos=True,
        )
        engine.generate(prompt, config)  # warms up
        seconds: list[float] = []
        for _ in range(repeat):
            ends = Ends()
            start = time.perf_counter()
            result = engine.generate(prompt, config, ends)
            seconds.append(time.perf_counter() - start)
            for (_, before), (refreshed, after) in pairwise(ends.ends):
                spent[refreshed].append(1e3 * (after - before))
        rates.append(
            {
                "tokens_per_forward": NEW_TOKENS / result.num_passes,
                "steps_per_block": BLOCK // tokens,
                "passes": result.num_passes,
                "tokens_per_second": NEW_TOKENS / statistics.median(seconds),
            }
        )
    return {
        "backend": engine.backend,
        "step_ms": statistics.median(spent[False]),
        "refresh_ms": statistics.median(spent[True]),
        "rates": rates,
    }


def open_and_measure(
    package: Path, backend: str, device: str, floor_ms: float, repeat: int, say: Say
) -> dict[str, Any]:
    """Measure one backend; floor_ms: the time to read the weights. Errors: Error."""
    if backend == "tensorrt":
        prepare_engine(package, say)
    say(f"loading {package.name} with {backend}")
    start = time.perf_counter()
    engine = Engine(package, backend=backend, device=device)
    loaded = time.perf_counter() - start
    found = measure(engine, repeat, say)
    ratios = {f"{kind}_ratio": found[f"{kind}_ms"] / floor_ms for kind in ("step", "refresh")}
    return found | {"load_seconds": loaded} | ratios


def print_report(report: dict[str, Any]) -> None:
    gigabytes = report["bandwidth_gb_s"]
    measured = ", ".join(f"{name} {rate:.0f}" for name, rate in gigabytes.items() if rate)
    print(f"{report['device']['name']}: {measured} GB/s")
    print(
        f"{report['model']}, {report['precision']}: {report['weight_bytes'] / 1e9:.2f} GB of"
        f" weights in a pass, read in {report['weight_bytes_ms']:.2f} ms\n"
    )
    forward = [f"{tokens} per forward" for tokens in TOKENS_PER_FORWARD]
    lines = [["backend", "step ms", "x", "refresh ms", "x", *forward]]
    for row in report["backends"]:
        numbers = [
            row[f"{kind}_{what}"] for kind in ("step", "refresh") for what in ("ms", "ratio")
        ]
        rates = [f"{rate['tokens_per_second']:.1f}" for rate in row["rates"]]
        lines.append([row["backend"], *(f"{number:.2f}" for number in numbers), *rates])
    print(table(lines))
    print("\nx: of the time to read the weights. per forward: tokens/s at so many tokens a pass.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="8b", help="smaller for a small GPU")
    parser.add_argument(
        "--package", type=Path, help="made by this script elsewhere; no torch needed"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "packages", help="where packages lie")
    parser.add_argument("--only-make", action="store_true", help="make the package; no GPU needed")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--opset", type=int, choices=(23, 20), default=23, help="20: TensorRT 10.3")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, a tiny model")
    return parser.parse_args()


def main() -> int:
    options = parse()

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        check_writable({"--output": options.output})
        if options.dry_run:
            return dry_run(options, say)
        if options.only_make:
            print(package_of(options, say))
            return 0
        return on_gpu(options, say)
    except NoGpu as problem:
        print(f"gpu: error: {problem}; --dry-run tries this script on the CPU", file=sys.stderr)
        return 2
    except (Error, OSError, ImportError) as problem:
        print(f"gpu: error: {problem}", file=sys.stderr)
        return 1


def on_gpu(options: argparse.Namespace, say: Say) -> int:
    """Measure on the first GPU with what backends can run. Errors: NoGpu, Error, OSError."""
    driver = Driver()
    gpu = driver.gpu()
    usable = []
    for backend in options.backends:
        lacks = missing(backend)
        for part in lacks:
            say(f"{backend} lacks {part}")
        usable += [] if lacks else [backend]
    if not usable:
        print("gpu: error: no backend can run; see above what to install", file=sys.stderr)
        return 2
    package = package_of(options, say)
    gigabytes = {"copy": driver.copied_gigabytes(), "read": read_gigabytes(gpu.free)}
    return report_on(package, usable, "cuda", asdict(gpu), gigabytes, options, say)


def dry_run(options: argparse.Namespace, say: Say) -> int:
    from gemm import bandwidth

    with tempfile.TemporaryDirectory() as folder:
        package = make_package(Path(folder, "trial"), TRIAL, options.opset, say)
        device = {"name": "CPU (dry run)"}
        gigabytes: dict[str, float | None] = {**bandwidth(megabytes=16)}
        return report_on(package, ["onnxruntime"], "cpu", device, gigabytes, options, say)


def report_on(
    package: Path,
    backends: list[str],
    device: str,
    facts: dict[str, Any],
    gigabytes: dict[str, float | None],
    options: argparse.Namespace,
    say: Say,
) -> int:
    size = weight_bytes(package)
    floor_ms = size / max(rate for rate in gigabytes.values() if rate) / 1e6
    rows: list[dict[str, Any]] = []
    failed = False
    for backend in backends:
        try:
            rows.append(open_and_measure(package, backend, device, floor_ms, options.repeat, say))
        except Error as problem:
            failed = True
            print(f"gpu: {backend}: error: {problem}", file=sys.stderr)
        gc.collect()  # the weights on the GPU go before the next backend's come
    report = head(
        model=package.name,
        precision=read_metadata(package)["precision"],
        config={"prompt": PROMPT, "max_new_tokens": NEW_TOKENS, "block_length": BLOCK},
        device=facts,
        bandwidth_gb_s=gigabytes,
        weight_bytes=size,
        weight_bytes_ms=floor_ms,
        repeat=options.repeat,
        backends=rows,
    )
    if rows:
        print_report(report)
    if options.output is not None and rows:
        text = json.dumps(report, indent=1) + "\n"
        write_whole(options.output, lambda path: path.write_text(text, "utf-8"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
