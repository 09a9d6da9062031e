"""Compare a package on a GPU with ONNX Runtime's CPU: logits, tokens, times.

    python tests/gpu/compare_backends.py PACKAGE PROBLEMS.jsonl --backend tensorrt --device cuda

Exit code 1 when logits differ by more than the package's own tolerance to torch, when fewer than
9 of 10 answers have the same tokens, or when a CUDA graph changes a single token.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdllm import LLM, Completion, Error, GenerationConfig
from fastdllm.problems import read_problems

SAME_ANSWERS = 0.9  # of other precisions and kernels: a token may flip where two are all but equal


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The answers of one backend. seconds: of the second time, when everything is warm."""

    backend: str
    answers: list[Completion]
    logits: NDArray[np.float32]
    seconds: float
    passes: int


def ask(llm: LLM, prompts: list[list[int]], config: GenerationConfig) -> Outcome:
    """Answer the prompts one after the other, twice, and the logits of the first."""
    ids = [*prompts[0], *[llm.engine.package.mask_token_id] * 8]
    logits = llm.engine.logits(ids, range(len(prompts[0]), len(ids)))
    for prompt in prompts:
        llm.generate(prompt, config)
    start = time.perf_counter()
    answers = [llm.generate(prompt, config) for prompt in prompts]
    return Outcome(
        backend=llm.engine.backend,
        answers=answers,
        logits=logits,
        seconds=time.perf_counter() - start,
        passes=sum(answer.num_passes for answer in answers),
    )


def same_answers(one: Outcome, other: Outcome) -> float:
    """Return the share of answers with the same tokens."""
    pairs = zip(one.answers, other.answers, strict=True)
    return float(np.mean([np.array_equal(a.token_ids, b.token_ids) for a, b in pairs]))


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--backend", default="tensorrt")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=50, help="problems to ask")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()
    config = GenerationConfig(max_new_tokens=options.max_new_tokens, threshold=0.9, cache="dual")
    probes = json.loads((options.package / "probes.json").read_text(encoding="utf-8"))
    tolerance = float(probes["tolerance"])
    try:
        cpu = LLM(options.package)
        problems = read_problems(options.problems)[: options.count]
        prompts = [cpu.encode(problem.prompt) for problem in problems]
        expected = ask(cpu, prompts, config)
        found = {
            graph: ask(
                LLM(
                    options.package,
                    backend=options.backend,
                    device=options.device,
                    cuda_graph=graph,
                ),
                prompts,
                config,
            )
            for graph in (False, True)
        }
    except Error as problem:
        print(f"compare_backends: error: {problem}", file=sys.stderr)
        return 1

    for graph, outcome in [(None, expected), *found.items()]:
        note = "" if graph is None else f", cuda_graph {graph}"
        print(
            f"{outcome.backend}{note}: {len(prompts)} answers in {outcome.seconds:.3f} s,"
            f" {1e3 * outcome.seconds / outcome.passes:.3f} ms per pass"
        )
    scale = max(1.0, float(np.abs(expected.logits).max()))
    difference = float(np.abs(found[True].logits - expected.logits).max()) / scale
    share = same_answers(expected, found[True])
    graphs = same_answers(found[False], found[True])
    print(f"logits: largest difference {difference:.2g}, expected at most {tolerance:.2g}")
    print(f"answers: {share:.1%} the same tokens, expected at least {SAME_ANSWERS:.0%}")
    print(f"with and without CUDA graph: {graphs:.1%} the same tokens, expected 100%")
    return 0 if difference <= tolerance and share >= SAME_ANSWERS and graphs == 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
