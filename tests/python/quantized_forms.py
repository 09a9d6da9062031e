"""The ways of storing a quantized matrix, written from their descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

Stored = tuple[dict[str, Any], Any]  # tensors by suffix, and the matrix that they stand for
GENERATOR = torch.Generator().manual_seed(5)


def pack(values: Any, bits: int, dim: int, order: tuple[int, ...] | None = None) -> Any:
    """Put unsigned integers into int32 words, along a dimension, filled up with zeros."""
    count = 32 // bits
    values = values.movedim(dim, -1).long()
    values = torch.nn.functional.pad(values, (0, -values.shape[-1] % count))
    values = values.unflatten(-1, (-1, count))
    words = torch.zeros(values.shape[:-1], dtype=torch.long)
    for place in range(count):
        words |= values[..., order[place] if order else place] << (bits * place)
    words = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return words.to(torch.int32).movedim(-1, dim)


def integers(bits: int, *shape: int) -> Any:
    return torch.randint(1 << bits, shape, generator=GENERATOR)


def scales(*shape: int) -> Any:
    return torch.rand(shape, generator=GENERATOR) * 0.1 + 0.01


def fp8(out: int, width: int) -> Stored:
    values = torch.randn(out, width, generator=GENERATOR).to(torch.float8_e4m3fn)
    scale = scales(-(-out // 16), -(-width // 32))
    wide = scale.repeat_interleave(16, 0)[:out].repeat_interleave(32, 1)[:, :width]
    return {"weight": values, "weight_scale_inv": scale}, values.float() * wide


def gptq(bits: int, *, version: int = 1, shuffled: bool = False) -> Callable[[int, int], Stored]:
    def make(out: int, width: int) -> Stored:
        groups = torch.arange(width) // 16
        if shuffled:
            groups = groups[torch.randperm(width, generator=GENERATOR)]
        count = -(-width // 16)
        values, zeros = integers(bits, width, out), integers(bits, count, out)
        scale = scales(count, out).half()
        stored = (zeros - (1 if version == 1 else 0)) % (1 << bits)
        tensors = {
            "qweight": pack(values, bits, 0),
            "qzeros": pack(stored, bits, 1),
            "scales": scale,
        }
        if shuffled:
            tensors["g_idx"] = groups.int()
        return tensors, ((values - zeros[groups]) * scale.float()[groups]).T

    return make


def awq(out: int, width: int) -> Stored:
    groups = torch.arange(width) // 16
    values, zeros = integers(4, width, out), integers(4, -(-width // 16), out)
    scale = scales(-(-width // 16), out).half()
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    tensors = {
        "qweight": pack(values, 4, 1, order),
        "qzeros": pack(zeros, 4, 1, order),
        "scales": scale,
    }
    return tensors, ((values - zeros[groups]) * scale.float()[groups]).T


def bnb4(kind: str, *, nested: bool) -> Callable[[int, int], Stored]:
    def make(out: int, width: int) -> Stored:
        codes = integers(4, out * width)
        table = torch.linspace(-1, 1, 16)
        count = -(-out * width // 64)
        state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": [out, width]}
        tensors: dict[str, Any] = {"weight.quant_map": table}
        if nested:
            state |= {"nested_blocksize": 8, "nested_dtype": "float32", "nested_offset": 0.05}
            absmax, inner, inner_table = integers(8, count), scales(-(-count // 8)), scales(256)
            scale = inner_table[absmax] * inner[torch.arange(count) // 8] + 0.05
            tensors |= {
                "weight.absmax": absmax.to(torch.uint8),
                "weight.nested_absmax": inner,
                "weight.nested_quant_map": inner_table,
            }
        else:
            scale = scales(count)
            tensors["weight.absmax"] = scale
        text = json.dumps(state).encode()
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(
            list(text), dtype=torch.uint8
        )
        tensors["weight"] = (codes[::2] << 4 | codes[1::2]).to(torch.uint8)[:, None]
        values = table[codes] * scale.repeat_interleave(64)[: out * width]
        return tensors, values.view(out, width)

    return make


def bnb8(out: int, width: int) -> Stored:
    values = (integers(8, out, width) - 128).to(torch.int8)
    scale = scales(out)
    tensors = {"weight": values, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, values.float() * scale[:, None] / 127


def packed(bits: int, *, zeros: bool) -> Callable[[int, int], Stored]:
    def make(out: int, width: int) -> Stored:
        half, groups = 1 << (bits - 1), torch.arange(width) // 16
        values, scale = integers(bits, out, width), scales(out, -(-width // 16)).bfloat16()
        tensors = {
            "weight_packed": pack(values, bits, 1),
            "weight_scale": scale,
            "weight_shape": torch.tensor([out, width]),
        }
        zero = torch.full((out, -(-width // 16)), half)
        if zeros:
            zero = integers(bits, out, -(-width // 16))
            tensors["weight_zero_point"] = pack(zero, bits, 0)
        return tensors, (values - zero[:, groups]) * scale.float()[:, groups]

    return make


def by_channel(dtype: Any) -> Callable[[int, int], Stored]:
    def make(out: int, width: int) -> Stored:
        values = (torch.randn(out, width, generator=GENERATOR) * 20).to(dtype)
        scale = scales(out, 1)
        return {"weight": values, "weight_scale": scale}, values.float() * scale

    return make


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


GPTQ = {"quant_method": "gptq", "group_size": 16, "desc_act": False, "sym": False}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FORMS: dict[str, tuple[dict[str, Any], Callable[[int, int], Stored]]] = {
    "fp8": ({"quant_method": "fp8", "weight_block_size": [16, 32], "fmt": "e4m3"}, fp8),
    "fbgemm_fp8": ({"quant_method": "fbgemm_fp8"}, by_channel(torch.float8_e4m3fn)),
    "gptq4": (GPTQ | {"bits": 4}, gptq(4)),
    "gptq2": (GPTQ | {"bits": 2}, gptq(2)),
    "gptq8": (GPTQ | {"bits": 8}, gptq(8)),
    "gptq_act_order": (GPTQ | {"bits": 4, "desc_act": True}, gptq(4, shuffled=True)),
    "gptq_v2": (GPTQ | {"bits": 4, "checkpoint_format": "gptq_v2"}, gptq(4, version=2)),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}, awq),
    "nf4": (BNB, bnb4("nf4", nested=False)),
    "nf4_nested": (BNB, bnb4("nf4", nested=True)),
    "fp4": (BNB | {"bnb_4bit_quant_type": "fp4"}, bnb4("fp4", nested=False)),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, bnb8),
    "pack4": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=16),
        packed(4, zeros=False),
    ),
    "pack8_zeros": (
        compressed("pack-quantized", num_bits=8, strategy="group", group_size=16),
        packed(8, zeros=True),
    ),
    "float-quantized": (
        compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
        by_channel(torch.float8_e4m3fn),
    ),
    "int-quantized": (
        compressed("int-quantized", num_bits=8, type="int", strategy="channel"),
        by_channel(torch.int8),
    ),
}
