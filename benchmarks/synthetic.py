"""Checkpoints of real shapes with random weights, the same everywhere: LLaDA's layers.

Random weights decide nothing sensibly: what is compared on them decodes by a fixed schedule, so
that every contender makes the same passes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARD_BYTES = 1_000_000_000  # a larger checkpoint is written in several files


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model; heads of head_dim, gated MLP, embedding and head not tied."""

    layers: int
    heads: int
    mlp: int
    vocabulary: int
    head_dim: int = 64
    kv_heads: int | None = None  # None: as many as heads
    longest: int = 8192

    @property
    def hidden(self) -> int:
        """The width of a row."""
        return self.heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer's matrices."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.mlp

    @property
    def parameters(self) -> int:
        """All weights of matrices, embedding and head included."""
        return self.layers * self.layer_parameters + 2 * self.vocabulary * self.hidden


SHAPES = {
    # 85M in layers, 25M in the head, 25M in the embedding, of which a pass reads a few rows
    "100m": Shape(layers=12, heads=12, mlp=2048, vocabulary=32000),
    # LLaDA's vocabulary: 156M in layers, twice 97M in embedding and head
    "350m": Shape(layers=22, heads=12, mlp=2048, vocabulary=126464),
    "8b": Shape(
        layers=32, heads=32, mlp=12288, vocabulary=126464, head_dim=128
    ),  # LLaDA-8B's, for GPUs
}


def shape_of(checkpoint: Path) -> Shape:
    """Read the sizes of a LLaDA checkpoint, which has as many K/V heads as heads."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text("utf-8"))
    if config.get("n_kv_heads") not in (None, config["n_heads"]):
        raise ValueError(f"{checkpoint}: grouped heads; expected as many K/V heads as heads")
    return Shape(
        layers=config["n_layers"],
        heads=config["n_heads"],
        mlp=config["mlp_hidden_size"],
        vocabulary=config.get("embedding_size") or config["vocab_size"],
        head_dim=config["d_model"] // config["n_heads"],
        longest=config["max_sequence_length"],
    )


def config_of(shape: Shape) -> dict[str, Any]:
    """Return the config.json of such a model."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rms_norm_eps": 1e-5,
        "rope": True,
        "d_model": shape.hidden,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads or shape.heads,
        "mlp_hidden_size": shape.mlp,
        "vocab_size": shape.vocabulary,
        "max_sequence_length": shape.longest,
        "rope_theta": 10000.0,
        "weight_tying": False,
        "mask_token_id": shape.vocabulary - 1,
    }


def write_checkpoint(folder: Path, shape: Shape) -> Path:
    """Write config.json and weights (bfloat16) into a new folder, a gigabyte at a time; return it.

    Up to a gigabyte is one model.safetensors, more are shards and their index.
    """
    from safetensors.torch import save_file

    from fastdllm.export.adapters import adapter_for
    from fastdllm.export.twin import RandomWeights

    folder.mkdir(parents=True)
    config = config_of(shape)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    adapter = adapter_for(config)
    spec = adapter.spec(config)
    random = RandomWeights(spec)
    shards: list[list[str]] = []
    tensors: dict[str, Any] = {}

    def flush() -> None:
        shards.append(list(tensors))
        save_file(tensors, folder / f"{len(shards)}.safetensors")
        tensors.clear()

    for ours, theirs in adapter.tensor_names(spec).items():
        tensor = random(ours).bfloat16()
        if (
            tensors
            and sum(other.nbytes for other in tensors.values()) + tensor.nbytes > SHARD_BYTES
        ):
            flush()
        tensors[str(theirs)] = tensor
    flush()
    if len(shards) == 1:
        (folder / "1.safetensors").rename(folder / "model.safetensors")
    else:
        files = {
            name: f"{number}.safetensors"
            for number, names in enumerate(shards, 1)
            for name in names
        }
        index = json.dumps({"weight_map": files})
        (folder / "model.safetensors.index.json").write_text(index, "utf-8")
    return folder
