"""How far a graph that rounds its activations (fp16, int8, int4) may be from torch, and why.

Such a graph and torch round at other places, so their results differ, and a sharp model makes much
of it: a fixed limit either refuses sound packages or takes broken ones. So the limit is measured.
On the same inputs and with the same stored weights, torch computes once as the precision says and
once in float32 without rounding any activation. What lies between the two is what rounding does to
this model. The graph rounds at about as many places, so it lies about as far from the float32
result (measured: rows 0.5 to 1.4 times as far); a fault lies as far away as the numbers are large.

Per output:

- logits, and keys and values of each layer: a row's distance is the norm of its difference, as a
  share of the output's typical row. The median row and the one that nine of ten stay below may be
  FACTOR times as far as torch's, and FLOOR more. Quantiles, as a few rows may be anywhere: the last
  bit chooses among experts or between neighbouring integers. In each comparison of several rows the
  median has to stay within FACTOR times what nine of ten rows stay below.
- token_ids: other best tokens than float32's in at most FACTOR times as many rows as torch's, and
  OTHER_TOKENS of all more (near ties, counted in few rows).
- confidence: on average at most FACTOR times as far from float32's as torch's, and CONFIDENCE more.
- token_ids, confidence, complement, second_confidence, entropy: what torch's head makes of the
  graph's own logits, in float32 in every precision, so within 1e-4 in each row (validate.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from fastdllm.export.errors import ValidationError
from fastdllm.export.quantize import RoundedLinear

FACTOR = 4.0  # other roundings than torch's, on another processor, of few rows
FLOOR = 2.0**-10  # a unit of float16: where torch happens to round nothing
OTHER_TOKENS = 0.05
CONFIDENCE = 0.01
SEVERAL = 8  # rows whose median one stray row does not decide

Rows = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The comparison that came closest to its limit: of what, what was found and allowed."""

    output: str
    found: float
    allowed: float

    def closer(self, other: Difference) -> Difference:
        """Return the one that is closer to its limit, or further beyond; NaN is beyond."""
        if math.isnan(other.share):
            return other
        return other if self.share < other.share else self

    @property
    def share(self) -> float:
        """Return what was found as a share of what is allowed."""
        return self.found / self.allowed


def compute_in_float32(model: torch.nn.Module) -> None:
    """Let a module compute in float32 without rounding activations; its weights stay as stored."""
    for module in model.modules():
        if isinstance(module, RoundedLinear):
            module.rounds = False
    model.float()


@dataclass(kw_only=True)
class _Distances:
    """Distances from the float32 result, per comparison: of the graph and of torch."""

    graph: list[Rows] = field(default_factory=list)
    torch: list[Rows] = field(default_factory=list)


class RoundingLimits:
    """Collects what graph, torch and float32 say of the same inputs; then says what is too far."""

    def __init__(self) -> None:
        self.rows: dict[str, _Distances] = {}
        self.tokens = _Distances()
        self.confidence = _Distances()

    def add(self, name: str, graph: Any, rounded: Any, exact: Any) -> None:
        """Take one comparison of one output, each of the same shape."""
        ours, torchs, wide = (np.asarray(x, dtype=np.float64) for x in (graph, rounded, exact))
        if name == "token_ids":
            self._put(self.tokens, ours != wide, torchs != wide)
        elif name == "confidence":
            self._put(self.confidence, np.abs(ours - wide), np.abs(torchs - wide))
        elif wide.size and (name == "logits" or name.startswith("present")):
            size = max(float(np.sqrt(np.mean(np.sum(wide**2, axis=-1)))), 1e-30)
            self._put(
                self.rows.setdefault(name, _Distances()),
                np.sqrt(np.sum((ours - wide) ** 2, axis=-1)) / size,
                np.sqrt(np.sum((torchs - wide) ** 2, axis=-1)) / size,
            )

    @staticmethod
    def _put(distances: _Distances, graph: Any, rounded: Any) -> None:
        distances.graph.append(np.asarray(graph, dtype=np.float64).reshape(-1))
        distances.torch.append(np.asarray(rounded, dtype=np.float64).reshape(-1))

    def worst(self) -> Difference:
        """Return the difference that is closest to its limit, or furthest beyond."""
        worst = Difference(output="none", found=0.0, allowed=1.0)
        for difference in self._differences():
            worst = difference.closer(worst)
        return worst

    def _differences(self) -> Iterator[Difference]:
        for name, distances in self.rows.items():
            graph, rounded = np.concatenate(distances.graph), np.concatenate(distances.torch)
            most = float(np.quantile(rounded, 0.9))
            for words, share in (("half of the rows", 0.5), ("nine of ten rows", 0.9)):
                yield Difference(
                    output=f"{name}, {words}",
                    found=float(np.quantile(graph, share)),
                    allowed=FACTOR * float(np.quantile(rounded, share)) + FLOOR,
                )
            for number, (ours, torchs) in enumerate(
                zip(distances.graph, distances.torch, strict=True)
            ):
                if len(ours) >= SEVERAL:
                    yield Difference(
                        output=f"{name}, half of the rows of case {number}",
                        found=float(np.median(ours)),
                        allowed=FACTOR * max(most, float(np.quantile(torchs, 0.9))) + FLOOR,
                    )
        for name, distances, floor in (
            ("token_ids", self.tokens, OTHER_TOKENS),
            ("confidence", self.confidence, CONFIDENCE),
        ):
            yield Difference(
                output=f"{name}, on average",
                found=float(np.mean(np.concatenate(distances.graph))),
                allowed=FACTOR * float(np.mean(np.concatenate(distances.torch))) + floor,
            )


def refuse(difference: Difference, precision: str) -> None:
    """Check a difference. Errors: ValidationError that says what is wrong and what to do."""
    if difference.share <= 1.0:
        return
    raise ValidationError(
        f"{difference.output}: differs from torch in float32 by {difference.found:.3g}; allowed "
        f"{difference.allowed:.3g}, from what rounding does to this model in torch ({precision}). "
        "The graph does not compute what torch computes, so no package was written. Export with "
        "--precision fp32, or the other --opset, to see whether these are right, and "
        f"report this with config.json, ONNX Runtime {onnxruntime.__version__} "
        f"and torch {torch.__version__}"
    )
