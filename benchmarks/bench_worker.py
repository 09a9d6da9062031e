"""Decodes a scenario's prompts as one contender: a job as JSON on standard input, what it took out.

bench.py starts it in a process of its own for each contender and repeat.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from measuring import peak_bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """New token ids, passes, and each pass: whether it was a refresh, and its seconds."""

    token_ids: list[int]
    num_passes: int
    passes: list[tuple[bool, float]]
    cache_bytes: int
    outside_seconds: float | None = None


class Decoder(Protocol):
    """A contender at work."""

    weights_bytes: int

    def decode(self, prompts: Sequence[list[int]], *, observed: bool) -> list[Answer]:
        """Decode prompts side by side. observed: time each pass, where that costs anything."""


class FastdllmDecoder:
    """The engine, through its Python API."""

    def __init__(self, job: dict[str, Any]) -> None:
        from fastdllm import Engine, GenerationConfig

        package = Path(job["package"])
        self.weights_bytes = (package / "model.onnx.data").stat().st_size
        self._engine = Engine(package, threads=job["threads"], max_batch=job["batch"])
        self._config = GenerationConfig(**job["config"])

    def decode(self, prompts: Sequence[list[int]], *, observed: bool) -> list[Answer]:
        """Decode prompts side by side. observed: with a callback after every pass."""
        passes: list[list[tuple[bool, float]]] = [[] for _ in prompts]
        last = [time.perf_counter()] * len(prompts)

        def listener(number: int) -> Any:
            def listen(event: Any) -> None:
                now = time.perf_counter()
                passes[number].append((event.refreshed, now - last[number]))
                last[number] = now

            return listen if observed else None

        if len(prompts) == 1:
            results = [self._engine.generate(prompts[0], self._config, listener(0))]
        else:
            requests = [
                self._engine.submit(prompt, self._config, listener(number))
                for number, prompt in enumerate(prompts)
            ]
            results = [request.result() for request in requests]
        return [
            Answer(
                token_ids=result.token_ids.tolist(),
                num_passes=result.num_passes,
                passes=timed,
                cache_bytes=result.stats.cache_bytes,
                outside_seconds=result.stats.total_seconds - result.stats.graph_seconds,
            )
            for result, timed in zip(results, passes, strict=True)
        ]


class TorchDecoder:
    """The torch loop."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        # As fastdllm does; first of all, since threads take it over from the one that starts them.
        torch.set_flush_denormal(True)
        from torch_loop import decode
        from torch_model import TorchModel

        torch.set_num_threads(job["threads"])
        self._model = TorchModel(Path(job["checkpoint"]), compiled=job["compiled"])
        self.weights_bytes = self._model.weights_bytes
        self._decode = decode
        self._config = {key: value for key, value in job["config"].items() if key != "ignore_eos"}

    def decode(self, prompts: Sequence[list[int]], *, observed: bool) -> list[Answer]:
        """Decode prompts one after another; each pass is timed anyway."""
        answers = []
        for prompt in prompts:
            found = self._decode(self._model, prompt, **self._config)
            rows = len(prompt) + len(found.token_ids)
            cached = self._config["cache"] != "none"
            answers.append(
                Answer(
                    token_ids=found.token_ids,
                    num_passes=len(found.passes),
                    passes=[(one.refreshed, one.seconds) for one in found.passes],
                    cache_bytes=self._model.cache_bytes(rows) if cached else 0,
                )
            )
        return answers


def up_to_eos(token_ids: list[int], eos_token_ids: Sequence[int]) -> list[int]:
    """Return an answer up to its first end-of-text token, that included."""
    ends = [n for n, token in enumerate(token_ids) if token in eos_token_ids]
    return token_ids[: ends[0] + 1] if ends else token_ids


def median_ms(seconds: Sequence[float]) -> float | None:
    return 1e3 * statistics.median(seconds) if seconds else None


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Decode everything for the clock, and where a callback would tell once more to time passes.

    Torch times its passes anyway, and naive ones are too long for a callback to matter.
    """
    once = job["torch"] or job["naive"]
    prompts: list[list[int]] = job["prompts"]
    batches = [prompts[n : n + job["batch"]] for n in range(0, len(prompts), job["batch"])]
    start = time.perf_counter()
    decoder: Decoder = TorchDecoder(job) if job["torch"] else FastdllmDecoder(job)
    load_seconds = time.perf_counter() - start
    warm: set[tuple[int, ...]] = set()
    for batch in batches:  # every prompt length once: what is measured is a process that is warm
        lengths = tuple(map(len, batch))
        if lengths not in warm:
            decoder.decode(batch, observed=False)
            warm.add(lengths)
    start = time.perf_counter()
    answers = [answer for batch in batches for answer in decoder.decode(batch, observed=once)]
    seconds = time.perf_counter() - start
    timed = answers
    if not once:
        timed = [answer for batch in batches for answer in decoder.decode(batch, observed=True)]
    ends = [] if job["config"].get("ignore_eos") else job["eos_token_ids"]
    token_ids = [up_to_eos(answer.token_ids, ends) for answer in answers]
    num_passes = sum(answer.num_passes for answer in answers)
    tokens = sum(map(len, token_ids))
    outside = [one.outside_seconds for one in answers if one.outside_seconds is not None]
    alone = job["batch"] == 1  # beside others a pass belongs to all of them
    every = [one for answer in timed for one in answer.passes] if alone else []
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "passes": num_passes,
        "tokens_per_forward": tokens / num_passes,
        "ttft_ms": median_ms([answer.passes[0][1] for answer in timed]),
        "refresh_ms": median_ms([took for refreshed, took in every if refreshed]),
        "step_ms": median_ms([took for refreshed, took in every if not refreshed]),
        "outside_us": 1e6 * sum(outside) / num_passes if outside and alone else None,
        "load_seconds": load_seconds,
        "weights_bytes": decoder.weights_bytes,
        "cache_bytes": max(answer.cache_bytes for answer in answers)
        * min(job["batch"], len(prompts)),
        "peak_bytes": peak_bytes(),
        "token_ids": token_ids,
        "passes_of_answers": [answer.num_passes for answer in answers],
    }


if __name__ == "__main__":
    try:
        print(json.dumps(measure(json.load(sys.stdin))))
    except KeyboardInterrupt:  # bench.py says it
        sys.exit(130)
