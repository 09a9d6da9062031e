"""Finds the quantized matrices of a checkpoint by what its quantization_config says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastdllm.export.dequantize import Awq, BitsAndBytes4, Gptq, PackedRows, Scaled, unpack
from fastdllm.export.errors import CheckpointError
from fastdllm.export.lazy import LazyMatrix

Raw = Callable[[str], Tensor]  # a stored tensor by its name, whatever its type
Shapes = Mapping[str, tuple[int, ...]]
Settings = Mapping[str, Any]
KNOWN = "fp8, fbgemm_fp8, gptq, awq, bitsandbytes, compressed-tensors"


@dataclass(frozen=True)
class Found:
    """Matrices by the name they have unquantized, and the stored tensors that they consist of."""

    matrices: dict[str, LazyMatrix] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)

    def add(self, base: str, matrix: LazyMatrix, parts: Iterable[str]) -> None:
        """Note a matrix."""
        self.matrices[f"{base}.weight"] = matrix
        self.parts.update(parts)


class Reader:
    """Stored tensors by name; what is missing or of another shape is an error that names both."""

    def __init__(self, raw: Raw, shapes: Shapes) -> None:
        self.raw, self.shapes = raw, shapes

    def bases(self, suffix: str) -> list[str]:
        """Return what stands before this suffix, in all names that end so."""
        return [name[: -len(suffix)] for name in self.shapes if name.endswith(suffix)]

    def get(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """Read a tensor of this shape; None = any size."""
        if name not in self.shapes:
            raise CheckpointError(f"{name} is missing; the quantized matrix needs it")
        found = self.shapes[name]
        fits = len(found) == len(shape) and all(
            want is None or have == want for have, want in zip(found, shape, strict=True)
        )
        if not fits:
            expected = ["any" if size is None else size for size in shape]
            raise CheckpointError(f"{name} is {list(found)}; expected {expected}")
        return self.raw(name)


def find_quantized(settings: Settings | None, raw: Raw, shapes: Shapes) -> Found:
    """Return the quantized matrices. settings: config.json's quantization_config, None = plain.

    Errors: CheckpointError for a method that is not known, or none of its tensors.
    """
    if settings is None:
        return Found()
    if not isinstance(settings, Mapping):
        raise CheckpointError(
            f"config.json: quantization_config is {settings!r}; expected an object"
        )
    method = str(settings.get("quant_method", "")).lower()
    readers = {
        "fp8": _fp8,
        "fbgemm_fp8": _fbgemm,
        "gptq": _gptq,
        "awq": _awq,
        "bitsandbytes": _bitsandbytes,
        "compressed-tensors": _compressed,
    }
    if method not in readers:
        raise CheckpointError(
            f"config.json: quantization_config is of method {method!r}; this exporter reads {KNOWN}"
        )
    found = readers[method](settings, Reader(raw, shapes))
    if not found.matrices:
        raise CheckpointError(
            f"config.json: quantization_config says {method}, and no tensor is stored that way; "
            "remove the key where the weights are plain"
        )
    return found


def _whole_number(settings: Settings, key: str, allowed: tuple[int, ...], default: Any) -> int:
    value = settings.get(key, default)
    if isinstance(value, bool) or value not in allowed:
        raise CheckpointError(
            f"config.json: quantization_config: {key} is {value!r}; this exporter reads "
            + " or ".join(map(str, allowed))
        )
    return int(value)


def _only(settings: Settings, key: str, allowed: tuple[object, ...], default: object) -> object:
    value = settings.get(key, default)
    if value not in allowed:
        raise CheckpointError(
            f"config.json: quantization_config: {key} is {value!r}; this exporter reads "
            + " or ".join(map(repr, allowed))
        )
    return value


def _fp8(settings: Settings, reader: Reader) -> Found:
    """DeepSeek's and Qwen's: float8 and weight_scale_inv, which multiplies, per block or whole."""
    _only(settings, "fmt", ("e4m3", "float8_e4m3fn", "e5m2", None), None)
    block = settings.get("weight_block_size")
    if block is not None and (
        not isinstance(block, list)
        or len(block) != 2
        or not all(isinstance(size, int) and size > 0 for size in block)
    ):
        raise CheckpointError(
            f"config.json: quantization_config: weight_block_size is {block!r}; expected two sizes"
        )
    found = Found()
    for suffix in (".weight_scale_inv", ".weight_scale"):
        for base in reader.bases(suffix):
            rows, columns = _matrix_shape(reader, f"{base}.weight")
            per = (rows, columns) if block is None else (block[0], block[1])
            scale = _scale(reader, base + suffix, (-(-rows // per[0]), -(-columns // per[1])))
            values = reader.get(f"{base}.weight", (rows, columns))
            _require_float8(f"{base}.weight", values)
            parts = (f"{base}.weight", base + suffix, *_activation_scales(reader, base))
            found.add(base, Scaled(f"{base}.weight", values, scale, per), parts)
    return found


def _fbgemm(settings: Settings, reader: Reader) -> Found:
    """Float8 with a scale per row."""
    found = Found()
    for base in reader.bases(".weight_scale"):
        rows, columns = _matrix_shape(reader, f"{base}.weight")
        scale = _scale(reader, f"{base}.weight_scale", (rows, 1))
        values = reader.get(f"{base}.weight", (rows, columns))
        _require_float8(f"{base}.weight", values)
        parts = (f"{base}.weight", f"{base}.weight_scale", *_activation_scales(reader, base))
        found.add(base, Scaled(f"{base}.weight", values, scale, (1, columns)), parts)
    return found


def _matrix_shape(reader: Reader, name: str) -> tuple[int, int]:
    shape = reader.shapes.get(name, ())
    if len(shape) != 2:
        raise CheckpointError(f"{name} is {list(shape)}; expected a quantized matrix")
    return shape[0], shape[1]


def _scale(reader: Reader, name: str, shape: tuple[int, int]) -> Tensor:
    """Read scales of this shape; a single one, or one per row, may have fewer dimensions."""
    found = reader.shapes.get(name, ())
    if shape[0] * shape[1] == torch.Size(found).numel() and len(found) < 2:
        return reader.raw(name).float().reshape(shape)
    return reader.get(name, shape).float()


def _activation_scales(reader: Reader, base: str) -> list[str]:
    """Return the names of scales of activations, which an export does not round."""
    names = (f"{base}.activation_scale", f"{base}.input_scale", f"{base}.input_scale_ub")
    return [name for name in names if name in reader.shapes]


def _require_float8(name: str, values: Tensor) -> None:
    if values.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
        raise CheckpointError(f"{name} is {values.dtype} beside its scale; expected float8")


def _gptq(settings: Settings, reader: Reader) -> Found:
    bits = _whole_number(settings, "bits", (2, 4, 8), None)
    form = _only(settings, "checkpoint_format", ("gptq", "gptq_v2"), "gptq")
    found = Found()
    for base in reader.bases(".qweight"):
        qweight = reader.get(f"{base}.qweight", (None, None))
        width, out = qweight.shape[0] * 32 // bits, qweight.shape[1]
        scales = reader.get(f"{base}.scales", (None, out))
        qzeros = reader.get(f"{base}.qzeros", (len(scales), out * bits // 32))
        _require_ints(f"{base}.qweight", qweight)
        parts = [f"{base}.{part}" for part in ("qweight", "qzeros", "scales")]
        if f"{base}.g_idx" in reader.shapes:
            groups = reader.get(f"{base}.g_idx", (width,)).long()
            parts.append(f"{base}.g_idx")
        else:
            groups = torch.arange(width) // _group_size(settings, width, len(scales), base)
        _require_groups(base, groups, len(scales))
        offset = 1 if form == "gptq" else 0
        matrix = Gptq(
            f"{base}.qweight", qweight, qzeros, scales, groups, bits=bits, zero_offset=offset
        )
        found.add(base, matrix, [*parts, *_zero_bias(reader, base)])
    return found


def _group_size(settings: Settings, width: int, count: int, base: str) -> int:
    """Return how many columns share a scale. Errors: CheckpointError where scales do not fit."""
    stated = settings.get("group_size", settings.get("q_group_size"))
    size = width if stated in (None, -1) else stated
    if not isinstance(size, int) or size < 1 or -(-width // size) != count:
        raise CheckpointError(
            f"{base}: {count} groups of scales for {width} columns; quantization_config says "
            f"group_size {stated!r}"
        )
    return size


def _zero_bias(reader: Reader, base: str) -> list[str]:
    """Return the name of a bias that GPTQ's writers add to layers without one: zeros.

    A bias that is not zero stays a tensor of the checkpoint, which the network must know.
    """
    name = f"{base}.bias"
    if name in reader.shapes and not bool(reader.raw(name).any()):
        return [name] if base.rsplit(".", 1)[-1] not in ("q_proj", "k_proj", "v_proj") else []
    return []


def _require_ints(name: str, values: Tensor) -> None:
    if values.dtype != torch.int32:
        raise CheckpointError(f"{name} is {values.dtype}; expected int32")


def _require_groups(base: str, groups: Tensor, count: int) -> None:
    if len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= count):
        raise CheckpointError(f"{base}: names a group of scales beyond the {count} there are")


def _awq(settings: Settings, reader: Reader) -> Found:
    _whole_number(settings, "bits", (4,), settings.get("w_bit", 4))
    version = settings.get("version", "gemm")
    if str(version).lower() != "gemm":
        raise CheckpointError(
            f"config.json: quantization_config: version is {version!r}; this exporter reads 'gemm'"
        )
    found = Found()
    for base in reader.bases(".qweight"):
        qweight = reader.get(f"{base}.qweight", (None, None))
        width, out = qweight.shape[0], qweight.shape[1] * 8
        scales = reader.get(f"{base}.scales", (None, out))
        qzeros = reader.get(f"{base}.qzeros", (len(scales), out // 8))
        _require_ints(f"{base}.qweight", qweight)
        group = _group_size(settings, width, len(scales), base)
        matrix = Awq(f"{base}.qweight", qweight, qzeros, scales, group)
        found.add(base, matrix, [f"{base}.{part}" for part in ("qweight", "qzeros", "scales")])
    return found


def _bitsandbytes(settings: Settings, reader: Reader) -> Found:
    found = Found()
    for kind in ("nf4", "fp4"):
        state = f".weight.quant_state.bitsandbytes__{kind}"
        for base in reader.bases(state):
            _bitsandbytes_4(found, reader, base, base + state)
    for base in reader.bases(".SCB"):
        name = f"{base}.weight"
        rows, columns = _matrix_shape(reader, name)
        values = reader.get(name, (rows, columns))
        if values.dtype != torch.int8:
            raise CheckpointError(f"{name} is {values.dtype} beside SCB; expected int8")
        scale = reader.get(f"{base}.SCB", (rows,)).float()[:, None] / 127
        parts = [name, f"{base}.SCB"]
        if f"{base}.weight_format" in reader.shapes:
            parts.append(f"{base}.weight_format")
            if bool(reader.raw(parts[-1]).any()):
                raise CheckpointError(f"{parts[-1]}: another order than by rows; it is not read")
        found.add(base, Scaled(name, values, scale, (1, columns)), parts)
    return found


def _bitsandbytes_4(found: Found, reader: Reader, base: str, state_name: str) -> None:
    name = f"{base}.weight"
    try:
        state = json.loads(bytes(reader.raw(state_name).tolist()).decode("utf-8"))
        rows, columns = (int(size) for size in state["shape"])
        block, nested = int(state["blocksize"]), state.get("nested_blocksize")
    except (ValueError, KeyError, TypeError) as problem:
        raise CheckpointError(f"{state_name}: not a state of bitsandbytes: {problem}") from None
    count = -(-rows * columns // block)
    codes = reader.raw(name) if name in reader.shapes else torch.empty(0)
    if codes.dtype != torch.uint8 or codes.numel() != -(-rows * columns // 2):
        raise CheckpointError(f"{name} is not {rows} x {columns} numbers of 4 bits")
    table = reader.get(f"{name}.quant_map", (16,))
    scale = reader.get(f"{name}.absmax", (count,))
    parts = [name, state_name, f"{name}.quant_map", f"{name}.absmax"]
    if nested is not None:
        inner = reader.get(f"{name}.nested_absmax", (-(-count // int(nested)),)).float()
        map_of = reader.get(f"{name}.nested_quant_map", (256,)).float()
        of_block = inner[torch.arange(count) // int(nested)]
        scale = map_of[scale.long()] * of_block + float(state.get("nested_offset", 0.0))
        parts += [f"{name}.nested_absmax", f"{name}.nested_quant_map"]
    matrix = BitsAndBytes4(name, codes, table, scale.float(), block, (rows, columns))
    found.add(base, matrix, parts)


def _compressed(settings: Settings, reader: Reader) -> Found:
    form = str(settings.get("format"))
    groups = settings.get("config_groups")
    weights = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
    ]
    schemes = [scheme for scheme in weights if isinstance(scheme, Mapping)]
    if len(schemes) != 1:
        raise CheckpointError(
            f"config.json: quantization_config holds {len(schemes)} ways of storing weights; "
            "this exporter reads one"
        )
    if form == "pack-quantized":
        bits = _whole_number(schemes[0], "num_bits", (4, 8), None)
        return _compressed_packed(reader, bits, schemes[0])
    if form not in ("float-quantized", "int-quantized", "naive-quantized"):
        raise CheckpointError(
            f"config.json: quantization_config: format is {form!r}; this exporter reads "
            "'pack-quantized', 'float-quantized', 'int-quantized' or 'naive-quantized'"
        )
    return _compressed_plain(reader, schemes[0])


def _compressed_plain(reader: Reader, scheme: Settings) -> Found:
    _whole_number(scheme, "num_bits", (8,), None)
    found = Found()
    for base in reader.bases(".weight_scale"):
        name = f"{base}.weight"
        rows, columns = _matrix_shape(reader, name)
        values = reader.get(name, (rows, columns))
        if values.dtype != torch.int8:
            _require_float8(name, values)
        block = _compressed_block(reader, base, scheme, (rows, columns))
        shape = (-(-rows // block[0]), -(-columns // block[1]))
        scale = _scale(reader, f"{base}.weight_scale", shape)
        parts = [name, f"{base}.weight_scale", *_activation_scales(reader, base)]
        if f"{base}.weight_zero_point" in reader.shapes:
            parts.append(f"{base}.weight_zero_point")
            if bool(reader.raw(parts[-1]).float().any()):
                raise CheckpointError(
                    f"{parts[-1]} is not zero; it is read where values are packed"
                )
        found.add(base, Scaled(name, values, scale, block), parts)
    return found


def _compressed_block(
    reader: Reader, base: str, scheme: Settings, shape: tuple[int, int]
) -> tuple[int, int]:
    """Return the rows and columns that share a scale."""
    strategy = scheme.get("strategy")
    if strategy == "tensor":
        return shape
    if strategy == "channel":
        return (1, shape[1])
    if strategy == "group":
        return (1, int(scheme.get("group_size") or shape[1]))
    block = scheme.get("block_structure")
    if strategy == "block" and isinstance(block, list) and len(block) == 2:
        return (int(block[0]), int(block[1]))
    raise CheckpointError(
        f"config.json: quantization_config: strategy is {strategy!r}; this exporter reads "
        "'tensor', 'channel', 'group' and 'block'"
    )


def _compressed_packed(reader: Reader, bits: int, scheme: Settings) -> Found:
    found = Found()
    for base in reader.bases(".weight_packed"):
        packed = reader.get(f"{base}.weight_packed", (None, None))
        _require_ints(f"{base}.weight_packed", packed)
        sizes = [int(size) for size in reader.get(f"{base}.weight_shape", (2,)).tolist()]
        rows, columns = sizes
        if packed.shape != (rows, -(-columns * bits // 32)):
            raise CheckpointError(f"{base}.weight_packed is not {rows} x {columns} numbers")
        scale = reader.get(f"{base}.weight_scale", (rows, None))
        count = scale.shape[1]
        parts = [f"{base}.{part}" for part in ("weight_packed", "weight_shape", "weight_scale")]
        zeros = None
        if f"{base}.weight_zero_point" in reader.shapes:
            parts.append(f"{base}.weight_zero_point")
            words = reader.get(parts[-1], (-(-rows * bits // 32), count))
            zeros = unpack(words, bits, 0)[:rows] - (1 << (bits - 1))
        groups = torch.arange(columns) // _group_size(scheme, columns, count, base)
        if f"{base}.weight_g_idx" in reader.shapes:
            parts.append(f"{base}.weight_g_idx")
            stated = reader.get(parts[-1], (columns,)).long()
            groups = groups if bool((stated < 0).all()) else stated
        _require_groups(base, groups, count)
        matrix = PackedRows(
            f"{base}.weight_packed", packed, scale, zeros, groups, bits=bits, shape=(rows, columns)
        )
        found.add(base, matrix, [*parts, *_activation_scales(reader, base)])
    return found
