"""Measures fastdllm against its naive loop and against plain torch, as ratios within one run.

    python benchmarks/compare_torch.py PACKAGE CHECKPOINT [--count 20 --repeat 3 --output FILE]

Every contender answers the same problems (CHECKPOINT/problems.jsonl) in a process of its own, one
after another, `repeat` times in turn, so that whatever else the machine does falls on all alike.
Tokens must agree. Peak memory is the process's resident high-water mark.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import commit_id, peak_bytes, processor, versions

NEW_TOKENS, BLOCK_LENGTH, THRESHOLD = 64, 32, 0.9
CONTENDERS = ("fastdllm naive", "fastdllm dual + 0.9", "torch naive", "torch dual + 0.9")
PAIRS = (("fastdllm naive", "torch naive"), ("fastdllm dual + 0.9", "torch dual + 0.9"))
Decode = Callable[[list[int]], tuple[list[int], int]]


def fastdllm_decoder(package: Path, threads: int, name: str) -> Decode:
    from fastdllm import Engine, GenerationConfig

    engine = Engine(package, threads=threads)
    naive = name.endswith("naive")
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        block_length=BLOCK_LENGTH,
        cache="none" if naive else "dual",
        threshold=None if naive else THRESHOLD,
        ignore_eos=True,
    )

    def decode(prompt: list[int]) -> tuple[list[int], int]:
        result = engine.generate(prompt, config)
        return result.token_ids.tolist(), result.num_passes

    return decode


def torch_decoder(checkpoint: Path, threads: int, name: str) -> Decode:
    import torch

    from torch_loop import block_cache_loop, naive_loop
    from torch_model import TorchModel

    torch.set_num_threads(threads)
    model = TorchModel(checkpoint)

    def decode(prompt: list[int]) -> tuple[list[int], int]:
        if name.endswith("naive"):
            result = naive_loop(model, prompt, new_tokens=NEW_TOKENS, block_length=BLOCK_LENGTH)
        else:
            result = block_cache_loop(
                model,
                prompt,
                new_tokens=NEW_TOKENS,
                block_length=BLOCK_LENGTH,
                threshold=THRESHOLD,
            )
        return result.token_ids, result.num_passes

    return decode


def work(options: argparse.Namespace) -> None:
    """Answer the prompts on standard input as one contender; print what it took."""
    prompts: list[list[int]] = json.load(sys.stdin)
    if options.worker.startswith("fastdllm"):
        decode = fastdllm_decoder(options.package, options.threads, options.worker)
    else:
        decode = torch_decoder(options.checkpoint, options.threads, options.worker)
    for prompt in prompts:  # every length once: what is measured is a process that is warm
        decode(prompt)
    start = time.perf_counter()
    answers = [decode(prompt) for prompt in prompts]
    seconds = time.perf_counter() - start
    report = {
        "seconds": seconds,
        "token_ids": [ids for ids, _ in answers],
        "passes": sum(passes for _, passes in answers),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(report))


def read_prompts(package: Path, checkpoint: Path, count: int) -> list[list[int]]:
    from fastdllm.check import read_metadata
    from fastdllm.text import TextCodec

    codec = TextCodec(package, read_metadata(package)["tokenizer"])
    lines = (checkpoint / "problems.jsonl").read_text("utf-8").splitlines()[:count]
    questions = [json.loads(line)["question"] for line in lines]
    return [codec.encode_chat([{"role": "user", "content": question}]) for question in questions]


def run_contender(name: str, options: argparse.Namespace, prompts: list[list[int]]) -> Any:
    command = [sys.executable, __file__, str(options.package), str(options.checkpoint)]
    command += ["--worker", name, "--threads", str(options.threads)]
    done = subprocess.run(
        command, input=json.dumps(prompts), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def summarize(name: str, runs: list[Any], count: int) -> dict[str, Any]:
    rates = [count * NEW_TOKENS / run["seconds"] for run in runs]
    return {
        "name": name,
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_of_repeats": rates,
        "passes": runs[0]["passes"],
        "peak_megabytes": max(run["peak_bytes"] for run in runs) / 1e6,
    }


def agreement(runs: dict[str, list[Any]]) -> dict[str, Any]:
    """Compare tokens and passes of each pair; a difference fails the benchmark."""
    found: dict[str, Any] = {}
    for ours, theirs in PAIRS:
        a, b = runs[ours][0], runs[theirs][0]
        same = sum(x == y for x, y in zip(a["token_ids"], b["token_ids"], strict=True))
        found[ours] = {
            "same_answers": same,
            "answers": len(a["token_ids"]),
            "same_passes": a["passes"] == b["passes"],
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=20, help="problems")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return 0
    prompts = read_prompts(options.package, options.checkpoint, options.count)
    runs: dict[str, list[Any]] = {name: [] for name in CONTENDERS}
    for repeat in range(options.repeat):
        for name in CONTENDERS:
            print(f"repeat {repeat + 1}/{options.repeat}: {name}", file=sys.stderr)
            runs[name].append(run_contender(name, options, prompts))
    rows = {name: summarize(name, runs[name], len(prompts)) for name in CONTENDERS}
    same = agreement(runs)
    fast, torch_fast = rows["fastdllm dual + 0.9"], rows["torch dual + 0.9"]
    ratios = {
        "speed over fastdllm naive": fast["tokens_per_second"]
        / rows["fastdllm naive"]["tokens_per_second"],
        "speed over torch dual + 0.9": fast["tokens_per_second"] / torch_fast["tokens_per_second"],
        "peak memory over torch dual + 0.9": fast["peak_megabytes"] / torch_fast["peak_megabytes"],
    }
    report = {
        "commit": commit_id(),
        "processor": processor(),
        "versions": versions(),
        "config": {
            "max_new_tokens": NEW_TOKENS,
            "block_length": BLOCK_LENGTH,
            "threshold": THRESHOLD,
            "problems": len(prompts),
            "repeat": options.repeat,
            "threads": options.threads,
        },
        "contenders": list(rows.values()),
        "agreement": same,
        "ratios": ratios,
    }
    print_report(report)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    agree = all(
        pair["same_passes"] and pair["same_answers"] == pair["answers"] for pair in same.values()
    )
    return 0 if agree else 1


def print_report(report: dict[str, Any]) -> None:
    print(f"{'contender':22}{'tokens/s':>10}{'passes/answer':>15}{'peak MB':>10}")
    for row in report["contenders"]:
        passes = row["passes"] / report["config"]["problems"]
        print(
            f"{row['name']:22}{row['tokens_per_second']:>10.0f}{passes:>15.1f}"
            f"{row['peak_megabytes']:>10.0f}"
        )
    for ours, pair in report["agreement"].items():
        print(
            f"{ours}: {pair['same_answers']} of {pair['answers']} answers as torch's, "
            f"passes {'the same' if pair['same_passes'] else 'DIFFER'}"
        )
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    sys.exit(main())
