"""Helpers for tests: golden cases, and a package as a forward function for the reference."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import GenerationConfig, read_package
from fastdllm.reference import Forward

Array = NDArray[Any]


def golden_config(case: Mapping[str, Any]) -> GenerationConfig:
    """Turn a case of shared/golden/*/golden.json into the config that reproduces it.

    Reads gen_length, block_length, steps, threshold, factor, cache, and where a case has them
    remasking, temperature, cfg_scale and seed. Goldens decode every block, so ignore_eos is True.
    """
    return GenerationConfig(
        max_new_tokens=case["gen_length"],
        block_length=case["block_length"],
        steps=case.get("steps"),
        threshold=case.get("threshold"),
        factor=case.get("factor"),
        cache=case.get("cache", "none"),
        remasking=case.get("remasking", "low_confidence"),
        temperature=case.get("temperature", 0.0),
        cfg_scale=case.get("cfg_scale", 0.0),
        seed=case.get("seed", 0),
        ignore_eos=True,
    )


def load_golden(folder: Path) -> dict[str, Any]:
    """Read a golden folder's golden.json."""
    content: dict[str, Any] = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    return content


def package_forward(package_dir: str | Path, *, threads: int = 2) -> Forward:
    """Run a package's graph by the onnxruntime module, as the reference's forward function."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    info = read_package(str(package_dir))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(info.graph, options, ["CPUExecutionProvider"])
    parts = [f"{layer}.{part}" for layer in range(info.num_layers) for part in ("key", "value")]
    dtype = {"float32": np.float32, "float16": np.float16}[info.cache_type]

    def forward(
        input_ids: Array,
        position_ids: Array,
        past: list[Array] | None,
        logit_indices: Array,
        present_length: int,
    ) -> tuple[Array, list[Array]]:
        batch, rows = input_ids.shape
        if past is None:
            past = [np.zeros((batch, info.num_kv_heads, 0, info.head_dim), dtype)] * len(parts)
        feed = {
            "input_ids": input_ids.astype(np.int64),
            "position_ids": position_ids.astype(np.int64),
            "attention_mask": np.ones((batch, 1, 1, past[0].shape[2] + rows), bool),
            "logit_indices": logit_indices.astype(np.int64),
            "present_length": np.array([present_length], np.int64),
        }
        feed |= {f"past_key_values.{part}": rows for part, rows in zip(parts, past, strict=True)}
        logits, *present = session.run(["logits", *(f"present.{part}" for part in parts)], feed)
        return logits, present

    return forward
