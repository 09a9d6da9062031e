"""Compares decoding modes on the user's prompts, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastdllm._core import GenerationConfig
from fastdllm.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to decode, by name."""

    name: str
    config: GenerationConfig


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Sums over all prompts and repeats of one mode. Seconds are wall-clock.

    num_tokens counts every new position: end-of-text stops nothing here, so that modes compare.
    """

    name: str
    num_tokens: int
    num_passes: int
    seconds: float
    graph_seconds: float

    @property
    def tokens_per_pass(self) -> float:
        """Tokens per forward."""
        return self.num_tokens / self.num_passes

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second."""
        return self.num_tokens / self.seconds

    @property
    def outside_microseconds(self) -> float:
        """Microseconds per pass that were not spent in the graph."""
        return 1e6 * (self.seconds - self.graph_seconds) / self.num_passes


def standard_modes(
    *, max_new_tokens: int = 64, block_length: int | None = None, threshold: float = 0.9
) -> tuple[Mode, ...]:
    """Return naive, prefix, dual, and dual + threshold; each decodes every position.

    block_length: None = the package's.
    """

    def config(cache: str, threshold: float | None = None) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            block_length=block_length,
            cache=cache,
            threshold=threshold,
            ignore_eos=True,
        )

    return (
        Mode(name="naive", config=config("none")),
        Mode(name="prefix", config=config("prefix")),
        Mode(name="dual", config=config("dual")),
        Mode(name=f"dual + threshold {threshold:g}", config=config("dual", threshold)),
    )


def measure(
    engine: Engine, prompts: Sequence[Sequence[int]], mode: Mode, *, repeat: int = 1
) -> Measurement:
    """Decode all prompts `repeat` times."""
    tokens = passes = 0
    seconds = graph_seconds = 0.0
    for _ in range(repeat):
        for prompt in prompts:
            result = engine.generate(prompt, mode.config)
            tokens += len(result.token_ids)
            passes += result.num_passes
            seconds += result.stats.total_seconds
            graph_seconds += result.stats.graph_seconds
    return Measurement(
        name=mode.name,
        num_tokens=tokens,
        num_passes=passes,
        seconds=seconds,
        graph_seconds=graph_seconds,
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; the first row is the header, the first column left-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
