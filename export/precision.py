"""The precisions a package may have: how each kind of weight is stored, and what is computed in.

ONNX Runtime's CPU provider has no bfloat16 arithmetic, so a bf16 package stores its matrices in
bfloat16 and computes in float32: half the bytes on disk, the values of the bf16 checkpoint, and it
runs everywhere. fp16 packages compute in float16 (norms, rotation, softmax in float32). int8 and
int4 packages store integers; norms, biases and the experts' router stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastdllm.export.quantize import Encoding, Int4, Int8, Plain


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How a package stores and computes.

    matrices, vocabulary: how the layers' matrices, and embedding and head, are stored; everything
    else is of compute_dtype. compute_dtype: of activations and cache. cache_type: its name in
    fastdllm.json. tolerance: largest difference allowed between the graph under ONNX Runtime and
    torch with the weights as stored, as a share of the largest absolute value of the output (at
    least 1): the order of sums differs with the kernels. None: activations are rounded on the way,
    and what that does in torch decides (rounding.py). probe_tolerance: allowed between two
    machines, of the logits.
    """

    name: str
    matrices: Encoding
    vocabulary: Encoding
    compute_dtype: torch.dtype
    cache_type: str
    tolerance: float | None
    probe_tolerance: float

    def encoding(self, parameter: str, dimensions: int) -> Encoding:
        """Choose how a parameter of the torch module is stored."""
        if dimensions < 2 or parameter.endswith("router.weight"):
            return Plain(self.compute_dtype)
        # One answer for both ends of the vocabulary: they may be tied.
        return self.vocabulary if parameter in VOCABULARY else self.matrices


FLOAT32_TOLERANCE = 1e-4  # thousands of float32 units, for sharp models; faults are 1e-2 and more
VOCABULARY = ("embedding.weight", "head.weight")
PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision(
            name="fp32",
            matrices=Plain(torch.float32),
            vocabulary=Plain(torch.float32),
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=FLOAT32_TOLERANCE,
            probe_tolerance=1e-3,
        ),
        Precision(
            name="fp16",
            matrices=Plain(torch.float16),
            vocabulary=Plain(torch.float16),
            compute_dtype=torch.float16,
            cache_type="float16",
            tolerance=None,
            probe_tolerance=2e-1,
        ),
        Precision(
            name="bf16",
            matrices=Plain(torch.bfloat16),
            vocabulary=Plain(torch.bfloat16),
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=FLOAT32_TOLERANCE,
            probe_tolerance=1e-3,
        ),
        Precision(
            name="int8",
            matrices=Int8(),
            vocabulary=Int8(),
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=None,
            probe_tolerance=2e-1,
        ),
        Precision(
            name="int4",
            matrices=Int4(128),
            vocabulary=Int8(),
            compute_dtype=torch.float32,
            cache_type="float32",
            tolerance=None,
            probe_tolerance=3e-1,
        ),
    )
}
