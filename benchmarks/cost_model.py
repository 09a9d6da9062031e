"""What a pass costs, from its arithmetic and the bytes it reads: a few constants, fitted.

    ms = fixed + products * GFLOP + weights * GB + attention * GFLOP + cache * GB

products: the layers' matrices times the rows fed, and the head times the rows wanted, those whose
logits are asked for; the last layer computes K and V of every row and all else of the wanted ones
only, as passes.py counts it. weights: the bytes of those matrices, read once a pass whatever the
rows. attention: every row with every key, in the last layer the wanted rows. cache: the bytes of
all keys and values. fixed: what is there without any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from passes import Pass, products, weight_bytes
from synthetic import Shape

from fastdllm.bench import table

FORMULA = "ms = fixed + products * GFLOP + weights * GB + attention * GFLOP + cache * GB"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a pass computes, in units of the model's constants."""

    products: float  # GFLOP
    weights: float  # GB
    attention: float  # GFLOP
    cache: float  # GB

    @classmethod
    def of(cls, shape: Shape, one: Pass, *, batch: int = 1) -> Work:
        """Count a pass of `batch` sequences side by side, each of them as `one` says."""
        operations = {True: 0, False: 0}  # by whether the model's weights are multiplied
        for product in products(shape, one):
            operations[product.weights] += product.operations
        return cls(
            products=1e-9 * batch * operations[True],
            weights=1e-9 * weight_bytes(shape, one),
            attention=1e-9 * batch * operations[False],
            cache=8e-9 * batch * shape.layers * shape.hidden * (one.cached + one.rows),
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """The constants: ms of every pass, and ms per unit of each part of Work."""

    fixed: float
    products: float
    weights: float
    attention: float
    cache: float

    def predict(self, work: Work) -> float:
        """Return the milliseconds of a pass."""
        parts = (getattr(self, one.name) * getattr(work, one.name) for one in fields(work))
        return float(self.fixed + sum(parts))

    def to_dict(self, works: Sequence[Work], measured: Sequence[float]) -> dict[str, Any]:
        """Return the constants, what they mean, and how far off they are."""
        errors = [
            abs(self.predict(work) / milliseconds - 1)
            for work, milliseconds in zip(works, measured, strict=True)
        ]
        return {
            "formula": FORMULA,
            "constants": asdict(self),
            "per_second": {
                one.name: 1e3 / getattr(self, one.name) if getattr(self, one.name) else None
                for one in fields(Work)
            },
            "points": len(errors),
            "largest_error": max(errors),
            "mean_error": sum(errors) / len(errors),
        }


def fit(works: Sequence[Work], measured: Sequence[float]) -> Model:
    """Fit the constants, none below 0, so that squared relative errors are smallest."""
    columns = [[1.0, *(getattr(work, one.name) for one in fields(work))] for work in works]
    scaled = np.array(columns) / np.array(measured)[:, None]
    kept = list(range(scaled.shape[1]))
    while True:  # least squares; a constant below 0 is left out, the lowest first
        solution, *_ = np.linalg.lstsq(scaled[:, kept], np.ones(len(measured)), rcond=None)
        if min(solution) >= 0:
            break
        kept.pop(int(np.argmin(solution)))
    constants = np.zeros(scaled.shape[1])
    constants[kept] = solution
    names = [one.name for one in fields(Model)]
    return Model(**{name: float(value) for name, value in zip(names, constants, strict=True)})


def report(found: dict[str, Any]) -> str:
    """Lay out what was measured beside what the model predicts."""
    lines = [["", "step ms", "predicted", "refresh ms", "predicted", "peak MB"]]
    lines[0] += ["weights MB", "cache MB"]
    for name in ("context", "vocabulary", "batch", "threads"):
        for row in found[name]:
            label = f"{name} {row[name]}"
            if name == "threads":
                label += f", context {row['context']}"
            lines.append(
                [
                    label,
                    *(
                        _number(row, key, 1)
                        for kind in ("step", "refresh")
                        for key in (f"{kind}_ms", f"{kind}_predicted_ms")
                    ),
                    _number(row, "peak_bytes", 1e6),
                    _number(row, "weight_bytes", 1e6),
                    _number(row, "cache_bytes", 1e6),
                ]
            )
    model = found["model"]
    constants = ", ".join(f"{name} {value:.3g}" for name, value in model["constants"].items())
    ratios = "\n".join(f"{name}: {ratio:.2f}" for name, ratio in found["ratios"].items())
    return (
        f"{table(lines)}\n\n{model['formula']}\n{constants}\nlargest error"
        f" {100 * model['largest_error']:.0f} %, mean {100 * model['mean_error']:.0f} %, over"
        f" {model['points']} points of {found['threads'][-1]['threads']} threads\n"
        f"{ratios}"
    )


def _number(row: dict[str, Any], key: str, unit: float) -> str:
    value = row.get(key)
    return "" if value is None else f"{value / unit:.1f}"
