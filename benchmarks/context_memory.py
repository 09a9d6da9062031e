"""Peak memory of decoding one block behind a long context, beside weights and cache.

python benchmarks/context_memory.py [--context 4096 16384 32768]

A model of random weights: 2 layers of width 64, one head. The last line of each context says how
many times weights, K/V and 200 MB its peak is; it may be 1.3 times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from synthetic import Shape, write_checkpoint

SPARE = 200e6
ALLOWED = 1.3
SHAPE = {"layers": 2, "heads": 1, "mlp": 128, "vocabulary": 512}
WORKER = """
import json, sys
sys.path.insert(0, sys.argv[4])
from measuring import peak_bytes
from fastdllm import Engine, GenerationConfig
engine = Engine(sys.argv[1], threads=int(sys.argv[3]))
before = peak_bytes()
rows = int(sys.argv[2]) - 32
fields = {"max_new_tokens": 32, "block_length": 32, "cache": "dual", "steps": 2}
config = GenerationConfig(**fields, ignore_eos=True)
engine.generate([i % 500 for i in range(rows)], config)
print(json.dumps([before, peak_bytes()]))
"""


def main() -> int:
    """Measure each context in a process of its own; 1 when one takes more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--context", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    from fastdllm.export import export_package

    met = True
    with tempfile.TemporaryDirectory() as folder:
        shape = Shape(**SHAPE, longest=max(options.context))
        write_checkpoint(Path(folder) / "checkpoint", shape)
        package = export_package(Path(folder) / "checkpoint", Path(folder) / "package", text=False)
        weights = (package / "model.onnx.data").stat().st_size
        for context in options.context:
            done = subprocess.run(
                [
                    *(sys.executable, "-c", WORKER),
                    *(str(package), str(context), str(options.threads)),
                    str(Path(__file__).parent),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
            before, peak = json.loads(done.stdout)
            cache = 2 * shape.layers * shape.hidden * 4 * context
            times = peak / (weights + cache + SPARE)
            met = met and times <= ALLOWED
            print(
                f"context {context}: peak {peak / 1e6:.0f} MB ({before / 1e6:.0f} loaded), weights"
                f" {weights / 1e6:.1f}, K/V {cache / 1e6:.0f}: {times:.2f} times with 200 MB",
                flush=True,
            )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
