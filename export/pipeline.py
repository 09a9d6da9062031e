"""The export, from checkpoint folder to package folder."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from fastdllm._core import read_package
from fastdllm.export.adapters import (
    Adapter,
    ModelSpec,
    Rows,
    TensorNames,
    adapter_for,
    source_name,
)
from fastdllm.export.checkpoint import Checkpoint
from fastdllm.export.errors import ExportError
from fastdllm.export.graphs import TOP, Transformer, rope_frequencies
from fastdllm.export.onnx_export import OPSETS, save, store_as_bfloat16, trace
from fastdllm.export.package import (
    FORMAT_VERSION,
    GRAPH,
    METADATA,
    PROBES,
    WEIGHTS,
    file_entries,
    package_folder,
)
from fastdllm.export.precision import PRECISIONS, Precision
from fastdllm.export.text_assets import (
    TextAssets,
    mask_id_from_tokenizer,
    read_text_assets,
    to_json,
)
from fastdllm.export.validate import CASES, graph_probes, validate
from fastdllm.version import __version__


class _Progress:
    """A bar on stderr over the stages, tensors and comparisons of an export."""

    def __init__(self, total: int, shown: bool) -> None:
        self.bar = tqdm(total=total, disable=not shown, file=sys.stderr, unit="step", leave=False)

    def stage(self, name: str) -> None:
        self.bar.set_description(name)
        self.step()

    def step(self) -> None:
        self.bar.update(1)

    def close(self) -> None:
        self.bar.close()


def export_package(
    checkpoint_dir: str | Path,
    package_dir: str | Path,
    *,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    opset: int = 23,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Export a Hugging Face checkpoint folder into a package folder and return its path.

    precision: of weights and arithmetic, see PACKAGE.md. opset: 23 (Attention,
    RMSNormalization and RotaryEmbedding as single operators) or 20 (decomposed, for older
    TensorRT). overwrite: replace a package that is there, at the very end. progress: a bar on
    stderr; None = on a terminal.

    The graph is compared with torch before anything is put in place. Errors: ExportError and its
    kinds CheckpointError and ValidationError; package_dir is then as it was.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if opset not in OPSETS:
        raise ExportError(f"opset is {opset!r}; expected one of {', '.join(map(str, OPSETS))}")
    checkpoint = Checkpoint(Path(checkpoint_dir))
    adapter = adapter_for(checkpoint.config)
    spec, text = read_facts(checkpoint, adapter)
    names = adapter.tensor_names(spec)
    checkpoint.require_names(source_name(source) for source in names.values())
    with torch.device("meta"):  # sizes alone: nothing is allocated before the shapes are right
        model = Transformer(spec, opset).eval().requires_grad_(False)
    checkpoint.require(expected_shapes(model, names))
    shown = sys.stderr.isatty() if progress is None else progress
    bar = _Progress(len(names) + len(CASES) + 5, shown)
    try:
        with package_folder(Path(package_dir), overwrite=overwrite) as folder:
            _write(
                folder, checkpoint, adapter, model, names, PRECISIONS[precision], opset, text, bar
            )
    finally:
        bar.close()
    return Path(package_dir)


def read_facts(checkpoint: Checkpoint, adapter: Adapter) -> tuple[ModelSpec, TextAssets]:
    """Read what the package will state; the mask token may come from the tokenizer."""
    config: dict[str, Any] = dict(checkpoint.config)
    vocab_size = config.get("embedding_size") or config.get("vocab_size")
    text = read_text_assets(checkpoint.folder, vocab_size if isinstance(vocab_size, int) else 0)
    if config.get("mask_token_id") is None:
        config["mask_token_id"] = mask_id_from_tokenizer(text)
    spec = adapter.spec(config)
    if spec.vocab_size < TOP:
        raise ExportError(f"config.json: vocab_size is {spec.vocab_size}; expected at least {TOP}")
    if spec.head_dim % 2:
        raise ExportError(f"config.json: head dim is {spec.head_dim}; expected an even number")
    if spec.mask_token_id in spec.eos_token_ids:
        raise ExportError("config.json: mask_token_id is an end-of-text id too")
    return spec, text


def expected_shapes(model: Transformer, names: TensorNames) -> dict[str, tuple[int, ...]]:
    """Return the shape that each of the checkpoint's tensors must have."""
    shapes: dict[str, tuple[int, ...]] = {}
    for ours, parameter in model.named_parameters():
        source = names.get(ours)
        if isinstance(source, Rows):
            rows = max(source.end, shapes.get(source.name, (0,))[0])
            shapes[source.name] = (rows, *parameter.shape[1:])
        elif source is not None:
            shapes[source] = tuple(parameter.shape)
    return shapes


def load_weights(
    model: Transformer,
    checkpoint: Checkpoint,
    names: TensorNames,
    precision: Precision,
    bar: _Progress,
) -> None:
    """Fill the module, tensor by tensor, rounded to the package's weights.

    Errors: CheckpointError for a tensor that cannot be read or holds NaN or infinity.
    """
    weights: dict[str, torch.Tensor] = {}
    for ours, source in names.items():
        tensor = checkpoint.tensor(source_name(source))
        if isinstance(source, Rows):
            tensor = tensor[source.start : source.end]
        weights[ours] = tensor.to(precision.weight_dtype).to(precision.compute_dtype)
        bar.step()
    if model.spec.tied_embeddings:
        weights["head.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False)
    if model.spec.tied_embeddings:
        model.head.weight = model.embedding.weight
    model.inverse_frequencies = rope_frequencies(model.spec)


def _write(
    folder: Path,
    checkpoint: Checkpoint,
    adapter: Adapter,
    model: Transformer,
    names: TensorNames,
    precision: Precision,
    opset: int,
    text: TextAssets,
    bar: _Progress,
) -> None:
    bar.stage("reading weights")
    load_weights(model, checkpoint, names, precision, bar)
    bar.stage("tracing")
    graph = trace(model, precision.compute_dtype, opset)
    if precision.weight_dtype == torch.bfloat16:
        store_as_bfloat16(graph)
    bar.stage("writing weights")
    save(graph, folder / GRAPH, WEIGHTS)
    del graph
    bar.stage("comparing with torch")
    worst = validate(folder / GRAPH, model, precision, bar.step)
    probes = {
        "tolerance": 10 * precision.tolerance,
        "graph": graph_probes(folder / GRAPH, model.spec, precision),
        **text.probes,
    }
    (folder / PROBES).write_text(to_json(probes), encoding="utf-8")
    for name, content in text.files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")
    bar.stage("writing metadata")
    metadata = describe(adapter, model.spec, precision, opset, text)
    metadata["validation"] = {"tolerance": precision.tolerance, "largest_difference": worst}
    metadata["files"] = file_entries(folder)
    (folder / METADATA).write_text(to_json(metadata), encoding="utf-8")
    read_package(str(folder))  # what the runtime refuses is not put in place


def describe(
    adapter: Adapter, spec: ModelSpec, precision: Precision, opset: int, text: TextAssets
) -> dict[str, Any]:
    """Return the facts of fastdllm.json; PACKAGE.md says what each means."""
    facts = dataclasses.asdict(spec)
    keys = (
        *("num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_size", "vocab_size"),
        *("max_context_length", "mask_token_id", "eos_token_ids", "pad_token_id", "bos_token_id"),
        *("attention", "logits_shift", "block_length", "sub_block_length", "seed_token"),
        *("threshold_inclusive", "confidence", "min_prompt_length"),
    )
    return {
        "format_version": FORMAT_VERSION,
        "fastdllm_version": __version__,
        "family": adapter.family,
        "precision": precision.name,
        "opset": opset,
        "model": {key: facts[key] for key in keys},
        "graph": {"file": GRAPH, "cache_type": precision.cache_type},
        "tokenizer": text.entry,
    }
