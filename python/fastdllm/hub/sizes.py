"""How large a model is: its weights in each precision, and a context's keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdllm.export.adapters import ModelSpec

INT4_BLOCK = 128  # of a row, with an f32 scale each
_PLAIN_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_CACHE_BYTES = {"fp16": 2}  # all other precisions compute, and cache, in float32


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """Matrices of one shape; vocabulary: embedding or head; is_router: stays as computed in."""

    count: int
    rows: int
    columns: int
    is_vocabulary: bool = False
    is_router: bool = False


def _matrices(spec: ModelSpec) -> list[Matrices]:
    hidden, layers = spec.hidden_size, spec.num_layers
    query, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    ends = 1 if spec.tied_embeddings else 2
    found = [
        Matrices(count=ends, rows=spec.vocab_size, columns=hidden, is_vocabulary=True),
        Matrices(count=layers, rows=query, columns=hidden),
        Matrices(count=2 * layers, rows=kv, columns=hidden),
        Matrices(count=layers, rows=hidden, columns=query),
    ]
    moe = spec.moe
    dense = layers if moe is None else moe.first_layer
    mlps = [(dense, spec.mlp_size)]
    if moe is not None:
        sparse = layers - moe.first_layer
        mlps.append((sparse * moe.num_experts, moe.expert_size))
        mlps.append((sparse, moe.shared_size))
        found.append(Matrices(count=sparse, rows=moe.num_experts, columns=hidden, is_router=True))
    for count, size in mlps:
        found.append(Matrices(count=2 * count, rows=size, columns=hidden))
        found.append(Matrices(count=count, rows=hidden, columns=size))
    return [item for item in found if item.count and item.rows and item.columns]


def _vector_elements(spec: ModelSpec) -> int:
    per_layer = 2 * spec.hidden_size
    if spec.qkv_bias:
        per_layer += (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    if spec.qk_norm:
        per_layer += 2 * spec.head_dim
    biases = 0
    if spec.moe is not None and spec.moe.expert_bias:
        biases = (spec.num_layers - spec.moe.first_layer) * spec.moe.num_experts
    return spec.num_layers * per_layer + biases + spec.hidden_size


def count_weights(spec: ModelSpec) -> int:
    """Count a model's weights; a tied head counts once."""
    matrices = sum(item.count * item.rows * item.columns for item in _matrices(spec))
    return matrices + _vector_elements(spec)


def weight_bytes(spec: ModelSpec, precision: str) -> int:
    """Count the bytes of a package's weights, which are also what they take in memory."""
    computed = _PLAIN_BYTES[precision] if precision in ("fp16", "fp32") else 4
    total = _vector_elements(spec) * computed
    for item in _matrices(spec):
        elements = item.rows * item.columns
        if item.is_router:
            size = elements * computed
        elif precision in _PLAIN_BYTES:
            size = elements * _PLAIN_BYTES[precision]
        elif precision == "int4" and not item.is_vocabulary:
            blocks = -(-item.columns // INT4_BLOCK)
            size = item.rows * blocks * (INT4_BLOCK // 2 + 4)
        else:
            size = elements + 4 * item.rows
        total += item.count * size
    return total


def cache_bytes(spec: ModelSpec, precision: str, context: int) -> int:
    """Count the bytes of the keys and values of a context of so many tokens."""
    row = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim
    return context * row * _CACHE_BYTES.get(precision, 4)
