"""A small model of the same structure, to try an export on that is too large to load.

Whatever a family asks of the graph (grouped heads, biases, norms, partial rotation, experts and
their groups) the twin has too; only sizes are smaller, and its weights are random.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
from torch import Tensor

from fastdllm.export.adapters import ModelSpec, MoeSpec
from fastdllm.export.graphs import Transformer
from fastdllm.export.rope_spec import RopeSpec

# No powers of two: a stored block of 32, 64 or 128 that is not full is tried as well.
HIDDEN, MLP, EXPERT, VOCABULARY = 192, 320, 96, 500
LENGTH = 24  # in the place of a long original context


def twin_spec(spec: ModelSpec) -> ModelSpec:
    """Shrink every size and keep every rule."""
    kv_heads = min(2, spec.num_kv_heads)
    return replace(
        spec,
        num_layers=min(2, spec.num_layers),
        num_heads=kv_heads * (spec.num_heads // spec.num_kv_heads),
        num_kv_heads=kv_heads,
        hidden_size=HIDDEN,
        mlp_size=MLP,
        vocab_size=VOCABULARY,
        mask_token_id=VOCABULARY - 1,
        eos_token_ids=(),
        pad_token_id=None,
        bos_token_id=None,
        rope=_shorter(spec.rope),
        moe=_fewer_experts(spec.moe) if spec.moe else None,
    )


def _shorter(rope: RopeSpec) -> RopeSpec:
    """Let what depends on positions change within the few that are compared."""
    changes = rope.by_length or rope.query_beta != 0.0
    return replace(rope, original_length=LENGTH) if changes else rope


def _fewer_experts(moe: MoeSpec) -> MoeSpec:
    eligible_groups = moe.groups_per_token if moe.num_groups > 1 else 1
    per_group = max(2, -(-moe.experts_per_token // eligible_groups))
    return replace(
        moe,
        num_experts=min(moe.num_experts, moe.num_groups * per_group),
        expert_size=EXPERT,
        shared_size=EXPERT if moe.shared_size else 0,
        first_layer=min(1, moe.first_layer),
    )


class RandomWeights:
    """Weights of a size that keeps a network's numbers lively, the same for the same name."""

    def __init__(self, spec: ModelSpec) -> None:
        with torch.device("meta"):
            self._shapes = {n: p.shape for n, p in Transformer(spec, 23).named_parameters()}

    def __call__(self, parameter: str) -> Tensor:
        """Make a parameter's tensor, f32."""
        shape = self._shapes[parameter]
        generator = torch.Generator().manual_seed(zlib.crc32(parameter.encode()))
        numbers = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            return torch.mul(numbers, shape[-1] ** -0.5)
        return 0.1 * numbers + (1.0 if parameter.endswith("norm.weight") else 0.0)
