"""Finds the best rule and cache for the user's prompts: a sweep, its report and its `plot`."""

from __future__ import annotations

from fastdllm.tune.tuning import (
    CACHES,
    CAREFUL,
    POLICIES,
    Outcome,
    Setting,
    grid,
    pareto_front,
    policy_values,
    recommended,
    report,
    sweep,
    within,
)

__all__ = [
    "CACHES",
    "CAREFUL",
    "POLICIES",
    "Outcome",
    "Setting",
    "grid",
    "pareto_front",
    "policy_values",
    "recommended",
    "report",
    "sweep",
    "within",
]
