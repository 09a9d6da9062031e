"""To check a package against a reference: golden cases, and a graph for `fastdllm.reference`."""

from __future__ import annotations

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
    """Turn a case of tests/golden/*/golden.json into the config that reproduces it.

    The references name their parameters differently; a case's keys tell which one ran.
    """
    options: dict[str, Any] = {
        key: case[key]
        for key in ("block_length", "threshold", "factor", "remasking", "temperature", "seed")
        if case.get(key) is not None
    }
    options["cache"] = case.get("cache", "prefix")
    prompt = len(case["prompt"])
    if "small_block_size" in case:  # Fast-dLLM v2: whole blocks, and the next one's first token
        blocks = case["max_new_tokens"] // case["block_length"]
        options["max_new_tokens"] = (
            blocks * case["block_length"] - prompt % case["block_length"] + 1
        )
        options["sub_block_length"] = case["small_block_size"]
        options["cache"] = "dual" if case["use_block_cache"] else "prefix"
        options["stop_token_ids"] = [case["stop_id"]]
    elif "strategy" in case:  # SDAR: the canvas is filled to the end of its last block
        end = -(-(prompt + case["gen_length"]) // case["block_length"]) * case["block_length"]
        options["max_new_tokens"] = end - prompt
        options["steps_per_block"] = case["denoising_steps"]
        options["stop_token_ids"] = case["stop_ids"]
        options["stop_at"] = "block"
        if case["strategy"] != "low_confidence_dynamic":
            options.pop("threshold", None)
        if case["strategy"] == "sequential":
            options["remasking"] = "sequential"
    elif "eos_id" in case:  # LLaDA2.x
        options["max_new_tokens"] = case["gen_length"]
        options["stop_token_ids"] = [case["eos_id"]]
        if "editing_threshold" in case:
            options["editing_threshold"] = case["editing_threshold"]
            options["max_post_steps"] = case["max_post_steps"]
            options["steps_per_block"] = case["block_length"] // case["num_to_transfer"]
        else:
            options["steps_per_block"] = case["steps"]
    else:  # LLaDA and Dream; every block is decoded
        options["max_new_tokens"] = case["gen_length"]
        options["steps"] = case.get("steps")
        options["cfg_scale"] = case.get("cfg_scale", 0.0)
        options["ignore_eos"] = True
        if "cache" not in case:
            options["cache"] = "none"
        options.setdefault("block_length", case["gen_length"])
        if "alg" in case:  # Dream's generation config inherits transformers' default
            options["top_k"] = 50
        ranks = {"maskgit_plus": "low_confidence", "topk_margin": "margin", "entropy": "entropy"}
        if case.get("alg") in ranks:
            options["remasking"] = ranks[case["alg"]]
            options["eps"] = case["eps"]
    return GenerationConfig(**options)


def package_forward(package_dir: str | Path, *, threads: int = 2) -> Forward:
    """Run a package's graph by the onnxruntime module, as the reference's forward function."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    info = read_package(str(package_dir))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1")  # see PACKAGE.md
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
        attention_mask: Array | None = None,
    ) -> tuple[Array, list[Array]]:
        batch, rows = input_ids.shape
        if past is None:
            past = [np.zeros((batch, info.num_kv_heads, 0, info.head_dim), dtype)] * len(parts)
        feed = {
            "input_ids": input_ids.astype(np.int64),
            "position_ids": position_ids.astype(np.int64),
            "attention_mask": np.ones((batch, 1, 1, past[0].shape[2] + rows), bool)
            if attention_mask is None
            else attention_mask,
            "logit_indices": logit_indices.astype(np.int64),
            "present_length": np.array([present_length], np.int64),
        }
        feed |= {f"past_key_values.{part}": rows for part, rows in zip(parts, past, strict=True)}
        logits, *present = session.run(["logits", *(f"present.{part}" for part in parts)], feed)
        return logits, present

    return forward
