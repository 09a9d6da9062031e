"""What a precision costs: the package's answers beside those of the float32 model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from fastdllm.export.adapters import ModelSpec
from fastdllm.export.graphs import Transformer
from fastdllm.export.precision import Precision
from fastdllm.export.validate import plain_mask, run_graph

MASKED = 32  # positions asked for after each prompt, as a first pass over a block does
Pass = tuple[Tensor, Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Over `positions` masked positions: the share whose best token (never the mask) is float32's.

    kl: of the package's distribution from float32's, in nats.
    """

    positions: int
    agreement: float
    kl: float


def quality_passes(spec: ModelSpec, prompts: list[list[int]], dtype: torch.dtype) -> list[Pass]:
    """Make a plain pass per prompt: its ids, then masked positions, whose logits are wanted."""
    passes = []
    for prompt in prompts:
        ids = (prompt + [spec.mask_token_id] * MASKED)[: spec.max_context_length]
        rows = len(ids)
        past = torch.zeros(1, spec.num_kv_heads, 0, spec.head_dim, dtype=dtype)
        passes.append(
            (
                torch.tensor([ids]),
                torch.arange(rows)[None],
                plain_mask(spec, rows),
                torch.arange(max(0, rows - MASKED), rows)[None],
                [(past, past)] * spec.num_layers,
            )
        )
    return passes


def random_prompts(spec: ModelSpec) -> list[list[int]]:
    """Make prompts for a model without a tokenizer."""
    generator = torch.Generator().manual_seed(11)
    return [
        torch.randint(spec.vocab_size, (length,), generator=generator).tolist()
        for length in (4, 16, 48)
    ]


def reference_logits(model: Transformer, prompts: list[list[int]]) -> list[Tensor]:
    """Run the float32 model: logits f32 [N,V] per prompt."""
    found = []
    for inputs in quality_passes(model.spec, prompts, torch.float32):
        ids, positions, mask, wanted, past = inputs
        square = mask.expand(-1, -1, ids.shape[1], -1)
        with torch.inference_mode():
            found.append(model(ids, positions, square, wanted, past)[5][0])
    return found


def measure_quality(
    session: onnxruntime.InferenceSession,
    spec: ModelSpec,
    precision: Precision,
    prompts: list[list[int]],
    expected: list[Tensor],
) -> Quality:
    """Compare the graph's logits with the float32 model's."""
    agreeing, divergence = [], []
    for inputs, theirs in zip(
        quality_passes(spec, prompts, precision.compute_dtype), expected, strict=True
    ):
        (ours,) = run_graph(session, spec, inputs, 0, ["logits"])
        p = theirs.log_softmax(dim=-1)
        q = torch.from_numpy(np.asarray(ours[0])).log_softmax(dim=-1)
        tokens = torch.arange(spec.vocab_size) != spec.mask_token_id
        agreeing.append(p[:, tokens].argmax(dim=-1) == q[:, tokens].argmax(dim=-1))
        divergence.append((p.exp() * (p - q)).sum(dim=-1))
    same, kl = torch.cat(agreeing), torch.cat(divergence)
    return Quality(
        positions=len(same), agreement=float(same.float().mean()), kl=max(0.0, float(kl.mean()))
    )
