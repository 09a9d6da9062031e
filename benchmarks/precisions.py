"""Measures what a pass costs in each precision, on a model of 134 million random weights.

    python benchmarks/precisions.py [--threads 2 --repeat 15 --folder DIR --output FILE]

The model has LLaDA's layers (12 of width 768, vocabulary 32000). A step computes a block of 32 rows
over 256 cached ones, a refresh 288 rows. The precisions take turns in every repeat, so that
whatever else the machine does falls on all alike; reported are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from passes import REFRESH, STEP
from synthetic import SHAPES, write_checkpoint

from fastdllm.export import export_package
from fastdllm.export.precision import PRECISIONS

SHAPE = SHAPES["100m"]


def measure(packages: dict[str, Path], threads: int, repeat: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of each pass, by precision."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1")  # see PACKAGE.md
    sessions = {
        name: onnxruntime.InferenceSession(
            package / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        for name, package in packages.items()
    }
    found: dict[str, dict[str, float]] = {name: {} for name in packages}
    for one in (STEP, REFRESH):
        outputs = list(one.outputs(SHAPE))
        times: dict[str, list[float]] = {name: [] for name in packages}
        for _ in range(repeat + 1):
            for name, session in sessions.items():
                half = PRECISIONS[name].cache_type == "float16"
                feed = one.feeds(SHAPE, np.float16 if half else np.float32)
                start = time.perf_counter()
                session.run(outputs, feed)
                times[name].append(1e3 * (time.perf_counter() - start))
        for name, milliseconds in times.items():
            found[name][one.kind] = statistics.median(milliseconds[1:])  # the first warms up
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="where 2 GB are free; default: /tmp")
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", SHAPE)
        packages = {
            name: export_package(
                checkpoint,
                Path(folder) / name,
                precision=name,
                in_memory=False,
                text=False,
                allow_no_eos=True,
            )  # type: ignore[arg-type]
            for name in PRECISIONS
        }
        found: dict[str, Any] = dict(measure(packages, options.threads, options.repeat))
        for name, package in packages.items():
            found[name]["bytes"] = (package / "model.onnx.data").stat().st_size
    print(f"{'':6}{'MB':>8}{'step ms':>10}{'x':>6}{'refresh ms':>12}{'x':>6}")
    base = found["fp32"]
    for name, row in found.items():
        print(
            f"{name:6}{row['bytes'] / 1e6:8.0f}{row['step']:10.1f}{base['step'] / row['step']:6.2f}"
            f"{row['refresh']:12.1f}{base['refresh'] / row['refresh']:6.2f}"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
