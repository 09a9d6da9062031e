"""Compares decoding modes of one package, as a table and as a `plot`."""

from __future__ import annotations

from fastdllm.bench.measuring import Measurement, Mode, measure, standard_modes, table

__all__ = ["Measurement", "Mode", "measure", "standard_modes", "table"]
