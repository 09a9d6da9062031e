"""Reads a Hugging Face checkpoint folder: config.json and safetensors, nothing executed.

Tensors have the names that the family's own code gives them, however they are stored: names that a
wrapper put in front go, quantized matrices are one tensor each, and so are the matrices of experts
that one tensor holds for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fastdllm.export.adapters.base import Rows, TensorSource, source_name
from fastdllm.export.errors import CheckpointError
from fastdllm.export.lazy import RowsOf, Weight, in_memory
from fastdllm.export.published import read_json
from fastdllm.export.quantize import PIECE
from fastdllm.export.quantized import find_quantized

Shape = tuple[int, ...]


class Checkpoint:
    """A checkpoint folder. Tensors are read one at a time; nothing is kept in memory.

    Errors: CheckpointError for a folder, index or safetensors file that is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such checkpoint folder")
        self.config = read_json(folder / "config.json")
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, Shape] = {}
        self._stored: dict[str, str] = {}  # name -> that in the file, where they differ
        for path in self._weight_files():
            self._read_header(path)
        found = find_quantized(self._quantization(), self._raw, self.shapes)
        self._matrices = found.matrices
        for name in found.parts:
            self.shapes.pop(name, None)
        self.shapes |= {name: matrix.shape for name, matrix in found.matrices.items()}
        hidden = self.config.get("hidden_size", self.config.get("d_model"))
        self._experts = merged_experts(self.shapes, hidden if isinstance(hidden, int) else 0)
        for expert in {expert.name for expert in self._experts.values()}:
            del self.shapes[expert]
        self.shapes |= {name: expert.shape for name, expert in self._experts.items()}

    def _weight_files(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{index}: weight_map is missing or empty")
            names = sorted({str(name) for name in weight_map.values()})
            bad = [name for name in names if Path(name).name != name]
            if bad:
                raise CheckpointError(f"{index}: {bad[0]!r} is no plain file name")
            return [self.folder / name for name in names]
        return [self.folder / "model.safetensors"]

    def _read_header(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path}: weight file is missing")
        try:
            with safe_open(path, framework="pt") as tensors:
                for stored in tensors.keys():  # noqa: SIM118 - not a mapping
                    name = unwrapped(stored)
                    if name in self._stored and self._stored[name] != stored:
                        raise CheckpointError(
                            f"{path}: {self._stored[name]} and {stored} are the same tensor's names"
                        )
                    self._files[name], self._stored[name] = path, stored
                    self.shapes[name] = tuple(tensors.get_slice(stored).get_shape())
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(
                f"{path}: damaged or truncated ({path.stat().st_size} bytes): {problem}"
            ) from None

    def require_names(self, expected: Iterable[str]) -> None:
        """Check that every tensor is there; names some that are not."""
        missing = [name for name in expected if name not in self.shapes]
        if missing:
            raise CheckpointError(
                f"{self.folder}: {len(missing)} tensors are missing:\n  "
                + "\n  ".join(missing[:20])
            )

    def refuse_unread(self, read: Iterable[str]) -> None:
        """Check that no tensor is left out: the network would be another one."""
        left = sorted(set(self.shapes) - set(read))
        left = [name for name in left if not name.endswith("rotary_emb.inv_freq")]
        if left:
            raise CheckpointError(
                f"{self.folder}: {len(left)} tensors are not of the network that config.json "
                "describes:\n  " + "\n  ".join(left[:20])
            )

    def require(self, expected: Mapping[str, Shape]) -> None:
        """Check that every tensor, which is there, has its shape; lists those that do not."""
        problems = [
            f"{name}: is {list(self.shapes[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if self.shapes[name] != shape
        ]
        if problems:
            raise CheckpointError(
                f"{self.folder}: {len(problems)} tensors do not fit config.json:\n  "
                + "\n  ".join(problems[:20])
            )

    def _quantization(self) -> Any:
        """Return how weights are quantized: config.json says it, or a file of older writers."""
        if self.config.get("quantization_config") is not None:
            return self.config["quantization_config"]
        if self.config.get("compression_config") is not None:
            return self.config["compression_config"]
        for file, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
            if (self.folder / file).exists():
                return {"quant_method": method} | read_json(self.folder / file)
        return None

    def _raw(self, name: str) -> torch.Tensor:
        """Read a stored tensor as it is; it stays mapped to its file."""
        try:
            with safe_open(self._files[name], framework="pt") as tensors:
                tensor: torch.Tensor = tensors.get_tensor(self._stored[name])
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(f"{self._files[name]}: {name}: {problem}") from None
        return tensor

    def tensor(self, source: TensorSource) -> torch.Tensor:
        """Read one tensor, or rows of one, as numbers; a quantized one is computed.

        Errors: CheckpointError for a tensor that is unreadable, not of floats, NaN or infinite.
        """
        return in_memory(self.weight(source))

    def weight(self, source: TensorSource) -> Weight:
        """Read one tensor, or rows of one, in its own dtype; it stays mapped to its file.

        What is quantized is computed when it is asked for. Errors: as tensor().
        """
        name = source_name(source)
        if name in self._matrices:
            matrix = self._matrices[name]
            if isinstance(source, Rows):
                return RowsOf(matrix, source.start, source.end)
            return matrix
        if name in self._experts:
            expert = self._experts[name]
            tensor = self._raw(expert.name)[expert.index]
            tensor = (tensor.T if expert.turned else tensor)[expert.start : expert.end]
        else:
            tensor = self._raw(name)
        if isinstance(source, Rows):
            tensor = tensor[source.start : source.end]
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise CheckpointError(
                f"{self._file_of(name)}: {name} is {tensor.dtype}, and config.json has no "
                "quantization_config that says what it stands for; expected floats"
            )
        # In pieces, for the check makes temporaries.
        width = max(1, tensor[0].numel()) if tensor.dim() > 1 else 1
        pieces = torch.split(tensor, max(1, PIECE // width)) if tensor.dim() > 0 else (tensor,)
        if not all(bool(piece.isfinite().all()) for piece in pieces):
            raise CheckpointError(f"{self._file_of(name)}: {name} holds NaN or infinity")
        return tensor

    def _file_of(self, name: str) -> Path:
        stored = self._experts[name].name if name in self._experts else name
        return self._files[stored]


# What wrappers of a model put into its tensors' names: data parallel training, torch.compile, FSDP.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module"}


def unwrapped(name: str) -> str:
    """Return a tensor's name without what a wrapper of the model put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


@dataclass(frozen=True, kw_only=True)
class Expert:
    """One expert's matrix in a tensor of all: rows [start, end) of it, turned first or not."""

    name: str
    index: int
    turned: bool
    start: int
    end: int
    shape: tuple[int, int]


def merged_experts(shapes: Mapping[str, Shape], hidden: int) -> dict[str, Expert]:
    """Find tensors that hold one projection of all experts; return the matrices by usual names.

    They are [experts,out,in], or [experts,in,out], told apart by the hidden size. gate_up_proj
    holds the gate's rows, then those of up. Errors: CheckpointError where both orders are possible.
    """
    found: dict[str, Expert] = {}
    for name, shape in shapes.items():
        match = re.fullmatch(r"(.*\.experts)\.(gate_up|gate|up|down)_proj(\.weight)?", name)
        if match is None or len(shape) != 3:
            continue
        base, part, _ = match.groups()
        of_hidden = 1 if part == "down" else 2  # where torch's order has the hidden size
        if shape[1] == shape[2] or hidden not in shape[1:]:
            raise CheckpointError(
                f"{name} is {list(shape)}; which way round is not to be told by the hidden size "
                f"{hidden}"
            )
        turned = shape[of_hidden] != hidden
        rows, columns = (shape[2], shape[1]) if turned else (shape[1], shape[2])
        size = rows // 2 if part == "gate_up" else rows
        starts = {"gate": 0, "up": size} if part == "gate_up" else {part: 0}
        for index in range(shape[0]):
            for one, start in starts.items():
                found[f"{base}.{index}.{one}_proj.weight"] = Expert(
                    name=name,
                    index=index,
                    turned=turned,
                    start=start,
                    end=start + size,
                    shape=(size, columns),
                )
    return found
