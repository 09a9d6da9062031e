"""Peak memory of decoding one block behind a long context, beside weights and cache.

python benchmarks/context_memory.py [--form default grouped fp16 opset20] [--context 4096 16384]

A model of random weights: 2 layers of width 64, one head; grouped: two heads that share K/V. The
line of each context says how many times weights, K/V, counted attention scores and 200 MB its peak
is; it may be 1.3 times. Scores are counted in fp16 and opset20 (graph.score_bytes in PACKAGE.md),
where ONNX Runtime holds all of them: 14 GB and more at 32,768 positions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic import Shape, write_checkpoint

SPARE = 200e6
ALLOWED = 1.3
SHAPE = {"layers": 2, "heads": 1, "mlp": 128, "vocabulary": 512}
WORKER = """
import json, sys
sys.path.insert(0, sys.argv[4])
from measuring import peak_bytes
from fastdllm import Engine, GenerationConfig
engine = Engine(sys.argv[1], threads=int(sys.argv[3]), max_batch=1)
before = peak_bytes()
rows = int(sys.argv[2]) - 32
fields = {"max_new_tokens": 32, "block_length": 32, "cache": "dual", "steps": 2}
config = GenerationConfig(**fields, ignore_eos=True)
result = engine.generate([i % 500 for i in range(rows)], config)
scores = engine.package.score_bytes * int(sys.argv[2]) ** 2
print(json.dumps([before, peak_bytes(), result.stats.cache_bytes, scores]))
"""


FORMS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "default": (Shape(**SHAPE), {}),
    "grouped": (Shape(**SHAPE | {"heads": 2, "kv_heads": 1, "head_dim": 32}), {}),
    "fp16": (Shape(**SHAPE), {"precision": "fp16"}),
    "opset20": (Shape(**SHAPE), {"opset": 20}),
}


def main() -> int:
    """Measure each context in a process of its own; 1 when one takes more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--form", nargs="+", choices=FORMS, default=["default"])
    parser.add_argument("--context", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    from fastdllm.export import export_package

    met = True
    for form in options.form:
        shape, how = FORMS[form]
        shape = replace(shape, longest=max(options.context))
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder) / "checkpoint", shape)
            package = export_package(
                Path(folder) / "checkpoint",
                Path(folder) / "package",
                text=False,
                allow_no_eos=True,
                **how,
            )
            for context in options.context:
                met = measure(form, package, context, options.threads) and met
    return 0 if met else 1


def measure(form: str, package: Path, context: int, threads: int) -> bool:
    """Decode behind a context; say whether the peak is within what is allowed."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", WORKER),
            *(str(package), str(context), str(threads)),
            str(Path(__file__).parent),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        print(f"{form}, context {context}: {done.stderr.splitlines()[-1]}", flush=True)
        return False
    before, peak, cache, scores = json.loads(done.stdout)
    weights = (package / "model.onnx.data").stat().st_size
    times = peak / (weights + cache + scores + SPARE)
    print(
        f"{form}, context {context}: peak {peak / 1e6:.0f} MB ({before / 1e6:.0f} loaded), weights"
        f" {weights / 1e6:.1f}, K/V {cache / 1e6:.0f}, scores {scores / 1e6:.0f}: {times:.2f} times"
        " with 200 MB",
        flush=True,
    )
    return times <= ALLOWED


if __name__ == "__main__":
    sys.exit(main())
