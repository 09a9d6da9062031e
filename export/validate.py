"""Compares the written graph under ONNX Runtime with the torch module it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from fastdllm.export.adapters import ModelSpec
from fastdllm.export.errors import ValidationError
from fastdllm.export.graphs import Transformer
from fastdllm.export.onnx_export import HEADS, cache_names, example_inputs
from fastdllm.export.precision import Precision

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one comparison; padded: that many cached or fed rows are masked out."""

    batch: int
    rows: int
    cached: int
    wanted: int
    kept: int
    padded: int = 0


CASES = (
    Case(batch=1, rows=1, cached=0, wanted=1, kept=0),
    Case(batch=1, rows=9, cached=0, wanted=9, kept=9),
    Case(batch=1, rows=4, cached=13, wanted=2, kept=0),
    Case(batch=2, rows=7, cached=6, wanted=3, kept=10, padded=4),
    Case(batch=1, rows=33, cached=31, wanted=5, kept=64, padded=11),
    Case(batch=3, rows=32, cached=0, wanted=32, kept=17, padded=5),
)


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU, silently. Errors: ValidationError when ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise ValidationError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the graph: {problem}"
        ) from None


def run_graph(
    session: onnxruntime.InferenceSession,
    spec: ModelSpec,
    inputs: tuple[Any, ...],
    kept: int,
    outputs: Sequence[str],
) -> list[Array]:
    """Run one pass on torch inputs of Transformer.forward."""
    ids, positions, mask, wanted, past = inputs
    feed = {
        "input_ids": ids.numpy(),
        "position_ids": positions.numpy(),
        "attention_mask": mask.numpy(),
        "logit_indices": wanted.numpy(),
        "present_length": np.array([kept], dtype=np.int64),
    }
    tensors = [tensor for pair in past for tensor in pair]
    names = cache_names("past_key_values", spec.num_layers)
    feed |= {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    results: list[Array] = session.run(outputs, feed)
    return results


def validate(
    session: onnxruntime.InferenceSession,
    model: Transformer,
    precision: Precision,
    step: Callable[[], object] = lambda: None,
) -> float:
    """Compare every output in every case; return the largest difference found, as a share.

    Errors: ValidationError naming output, case, found and allowed.
    """
    spec = model.spec
    generator = torch.Generator().manual_seed(20250528)
    worst = 0.0
    outputs = [*HEADS, *cache_names("present", spec.num_layers)]
    for case in CASES:
        inputs = example_inputs(
            spec,
            precision.compute_dtype,
            batch=case.batch,
            rows=case.rows,
            cached=case.cached,
            wanted=case.wanted,
            generator=generator,
        )
        padded = torch.randperm(case.rows + case.cached, generator=generator)[: case.padded]
        inputs[2][..., padded] = False
        with torch.inference_mode():
            expected = model(*inputs)
        found = run_graph(session, spec, inputs, case.kept, outputs)
        for name, theirs, ours in zip(outputs, found, expected, strict=True):
            cut = ours[:, :, : case.kept] if name.startswith("present") else ours
            worst = max(
                worst, _compare(name, case, theirs, cut, expected[len(HEADS) - 1], precision)
            )
        step()
    return worst


def _compare(
    name: str,
    case: Case,
    found: Array,
    expected: torch.Tensor,
    logits: torch.Tensor,
    precision: Precision,
) -> float:
    if found.shape != tuple(expected.shape):
        raise ValidationError(
            f"{name}: {case}: shape {found.shape}; expected {tuple(expected.shape)}"
        )
    allowed = precision.tolerance
    if name == "token_ids":
        # Where two candidates are closer than the tolerance, either is right.
        chosen = torch.gather(logits, 2, torch.from_numpy(found)[..., None])[..., 0]
        best = torch.gather(logits, 2, expected[..., None])[..., 0]
        difference = float((best - chosen).abs().max())
        scale = max(1.0, float(logits.abs().max()))
    else:
        wide = expected.float().numpy()
        difference = float(np.abs(found.astype(np.float32) - wide).max(initial=0.0))
        scale = max(1.0, float(np.abs(wide).max(initial=0.0)))
    if not difference <= allowed * scale:
        raise ValidationError(
            f"{name}: {case}: differs by {difference:.3g}; allowed {allowed * scale:.3g} "
            f"({precision.name} tolerance {allowed:g} of {scale:.3g})"
        )
    return difference / scale


def graph_probes(
    session: onnxruntime.InferenceSession, spec: ModelSpec, precision: Precision
) -> list[dict[str, Any]]:
    """Run a few plain passes and keep some logits, for `fastdllm check` on the target machine."""
    generator = torch.Generator().manual_seed(7)
    vocabulary = np.unique(np.linspace(0, spec.vocab_size - 1, 64).astype(int))
    probes = []
    for rows in (1, 5, 33):
        rows = min(rows, spec.max_context_length)
        inputs = example_inputs(
            spec,
            precision.compute_dtype,
            batch=1,
            rows=rows,
            cached=0,
            wanted=1,
            generator=generator,
        )
        inputs[1][0] = torch.arange(rows)
        inputs[0][0, rows // 2 :] = spec.mask_token_id
        inputs[3][0, 0] = rows - 1
        (logits,) = run_graph(session, spec, inputs, 0, ["logits"])
        probes.append(
            {
                "input_ids": inputs[0][0].tolist(),
                "position": rows - 1,
                "vocab_ids": vocabulary.tolist(),
                "logits": [round(float(x), 6) for x in logits[0, 0, vocabulary]],
            }
        )
    return probes
