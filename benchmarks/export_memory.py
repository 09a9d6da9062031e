"""Measures the peak memory of exporting a checkpoint that is larger than it.

    python benchmarks/export_memory.py [--precision bf16 --shards 2 --folder DIR --output FILE]

Writes a checkpoint of 3 billion random bfloat16 weights (Qwen2.5-3B's shape, as a Fast-dLLM v2
model), exports it in a process of its own, reports that process's resident high-water mark beside
the bound of 1.3 times the largest shard + 1 GB, and deletes both. The shard counts because reading
maps it: pages of it that are in memory are the system's to drop.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["Fast_dLLM_QwenForCausalLM"],
    "model_type": "Fast_dLLM_Qwen",
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "mask_token_id": 151665,
    "eos_token_id": 151645,
    "bd_size": 32,
}
EXPORT = """
import sys
from fastdllm.export import export_package
export_package(sys.argv[1], sys.argv[2], precision=sys.argv[3], in_memory=False, text=False)
"""


def write_checkpoint(folder: Path, shards: int) -> None:
    """Write config.json and random weights, a shard at a time."""
    import torch
    from safetensors.torch import save_file

    from fastdllm.export.adapters import adapter_for
    from fastdllm.export.graphs import Transformer
    from fastdllm.export.pipeline import expected_shapes

    adapter = adapter_for(CONFIG)
    spec = adapter.spec(CONFIG)
    with torch.device("meta"):
        shapes = expected_shapes(Transformer(spec, 23), adapter.tensor_names(spec))
    noise = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    parts: list[list[str]] = [[] for _ in range(shards)]
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    done = 0
    for name, shape in shapes.items():
        shard = min(shards - 1, done * shards // total)
        parts[shard].append(name)
        done += torch.Size(shape).numel()
    weight_map = {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        tensors = {}
        for name in names:
            count = torch.Size(shapes[name]).numel()
            tensors[name] = noise.repeat(-(-count // len(noise)))[:count].view(shapes[name]).clone()
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def run(*command: object) -> tuple[int, float]:
    """Run a Python process: its peak resident bytes, and seconds."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    return 1024 * usage.ru_maxrss, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where 13 GB and more are free; default: /tmp")
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write_checkpoint(options.write, options.shards)
        return 0
    place = options.folder or Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    if free < 20e9:
        print(f"{place}: {free / 1e9:.0f} GB are free; expected 20", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=place) as name:
        checkpoint, package = Path(name) / "checkpoint", Path(name) / "package"
        checkpoint.mkdir()
        # Not in this process: a child's high-water mark begins with its parent's.
        run(__file__, "--write", checkpoint, "--shards", options.shards)
        shards = [file.stat().st_size for file in checkpoint.glob("*.safetensors")]
        peak, seconds = run("-c", EXPORT, checkpoint, package, options.precision)
        result = {
            "precision": options.precision,
            "checkpoint_bytes": sum(shards),
            "largest_shard_bytes": max(shards),
            "package_bytes": sum(file.stat().st_size for file in package.iterdir()),
            "peak_bytes": peak,
            "bound_bytes": round(1.3 * max(shards) + 1e9),
            "seconds": round(seconds, 1),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0 if peak <= result["bound_bytes"] else 1


if __name__ == "__main__":
    sys.exit(main())
