"""The precisions a package may have.

ONNX Runtime's CPU provider has no bfloat16 arithmetic, so a bf16 package stores its matrices in
bfloat16 and computes in float32: half the bytes on disk, the values of the bf16 checkpoint, and it
runs everywhere. fp16 packages compute in float16 (norms, rotation, softmax in float32).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How a package stores and computes.

    weight_dtype: what the weights are rounded to. compute_dtype: of activations and cache.
    cache_type: the name of compute_dtype in fastdllm.json. tolerance: largest difference allowed
    between the graph under ONNX Runtime and torch, as a share of the largest absolute value of the
    output (at least 1): the order of sums differs with the kernels.
    """

    name: str
    weight_dtype: torch.dtype
    compute_dtype: torch.dtype
    cache_type: str
    tolerance: float


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision(
            name="fp32",
            weight_dtype=torch.float32,
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=1e-4,
        ),
        Precision(
            name="fp16",
            weight_dtype=torch.float16,
            compute_dtype=torch.float16,
            cache_type="float16",
            tolerance=2e-2,
        ),
        Precision(
            name="bf16",
            weight_dtype=torch.bfloat16,
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=1e-4,
        ),
    )
}
