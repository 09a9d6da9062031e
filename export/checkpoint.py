"""Reads a Hugging Face checkpoint folder: config.json and safetensors, nothing executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from fastdllm.export.adapters.base import Rows, TensorSource, source_name
from fastdllm.export.errors import CheckpointError
from fastdllm.export.published import read_json
from fastdllm.export.quantize import PIECE

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
        for path in self._weight_files():
            self._read_header(path)

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
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    self._files[name] = path
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
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

    def tensor(self, source: TensorSource) -> torch.Tensor:
        """Read one tensor, or rows of one, in its own dtype; it stays mapped to its file.

        Errors: CheckpointError for a tensor that is unreadable, not of floats, NaN or infinite.
        """
        name = source_name(source)
        try:
            with safe_open(self._files[name], framework="pt") as tensors:
                tensor: torch.Tensor = tensors.get_tensor(name)
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(f"{self._files[name]}: {name}: {problem}") from None
        if isinstance(source, Rows):
            tensor = tensor[source.start : source.end]
        if not tensor.is_floating_point():
            raise CheckpointError(f"{self._files[name]}: {name} is {tensor.dtype}; expected floats")
        # In pieces, for the check makes temporaries.
        if not all(bool(piece.isfinite().all()) for piece in torch.split(tensor.flatten(), PIECE)):
            raise CheckpointError(f"{self._files[name]}: {name} holds NaN or infinity")
        return tensor
