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

from fastdllm._core import Error, GenerationConfig
from fastdllm.engine import Engine
from fastdllm.export.adapters import ModelSpec
from fastdllm.export.errors import ValidationError
from fastdllm.export.graphs import Transformer
from fastdllm.export.onnx_export import HEADS, cache_names, example_inputs
from fastdllm.export.precision import FLOAT32_TOLERANCE, Precision
from fastdllm.export.rounding import Difference, RoundingLimits, compute_in_float32, refuse

Array = NDArray[Any]
SEED = 20250528
DEVIATING_BY_EXPERTS = 0.1  # of the rows of a model with experts, at most
ADVICE = (
    "No package was written. The graph does not compute what torch computes: try the other "
    f"--opset, or another ONNX Runtime than {onnxruntime.__version__}, and report this with "
    "config.json"
)
DEFAULT_BLOCK_LENGTH = 32  # the runtime's, where neither package nor config names one


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one comparison.

    padded: that many cached or fed rows are masked out. causal_block: fed rows see fed rows of
    their own and earlier blocks of this length only; 0 = all.
    """

    batch: int
    rows: int
    cached: int
    wanted: int
    kept: int
    padded: int = 0
    causal_block: int = 0


CASES = (
    Case(batch=1, rows=1, cached=0, wanted=1, kept=0),
    Case(batch=1, rows=9, cached=0, wanted=9, kept=9),
    Case(batch=1, rows=33, cached=0, wanted=5, kept=28),
    Case(batch=2, rows=24, cached=0, wanted=8, kept=16),
    Case(batch=1, rows=4, cached=13, wanted=2, kept=0),
    Case(batch=2, rows=7, cached=6, wanted=3, kept=10, padded=4),
    Case(batch=1, rows=33, cached=31, wanted=5, kept=64, padded=11),
    Case(batch=3, rows=32, cached=0, wanted=32, kept=17, padded=5),
    Case(batch=2, rows=24, cached=8, wanted=7, kept=20, causal_block=8),
)


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU, silently. Errors: ValidationError when ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Without VNNI, signed weights would be multiplied by a kernel whose sums overflow.
    options.add_session_config_entry("session.x64quantprecision", "1")
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
) -> Difference:
    """Compare every output in every case; return the difference that came closest to its limit.

    What is allowed, and why, stands in Precision and rounding.py. The model computes in float32
    afterwards. Errors: ValidationError naming output, found and allowed.
    """
    if precision.tolerance is None:
        return _validate_rounded(session, model, precision, step)
    return _validate_exact(session, model, precision, step)


def _validate_exact(
    session: onnxruntime.InferenceSession,
    model: Transformer,
    precision: Precision,
    step: Callable[[], object],
) -> Difference:
    """Hold every row to the tolerance; with experts, all but a few rows.

    A last bit decides between experts that the router finds nearly equal, which is no fault of the
    graph. Which rows they are differs with the processor.
    """
    spec, tolerance = model.spec, precision.tolerance or 0.0
    generator = torch.Generator().manual_seed(SEED)
    worst = Difference(output="none", found=0.0, allowed=tolerance)
    deviating, rows = 0, 0
    outputs = [*HEADS, *cache_names("present", spec.num_layers)]
    for case in CASES:
        inputs = case_inputs(case, spec, precision, generator)
        with torch.inference_mode():
            expected = model(*inputs)
        found = run_graph(session, spec, inputs, case.kept, outputs)
        for name, theirs, ours in zip(outputs, found, expected, strict=True):
            cut = ours[:, :, : case.kept] if name.startswith("present") else ours
            differences = _compare(name, case, theirs, cut, expected[len(HEADS) - 1])
            beyond = differences[~(differences <= tolerance)]
            if len(beyond) > 0 and spec.moe is None:
                raise ValidationError(
                    f"{name}: {case}: differs by {beyond.max():.3g} of its largest value; allowed "
                    f"{tolerance:g} ({precision.name}). {ADVICE}"
                )
            within = float(differences[differences <= tolerance].max(initial=0.0))
            worst = worst.closer(Difference(output=name, found=within, allowed=tolerance))
            deviating, rows = deviating + len(beyond), rows + len(differences)
        step()
    if deviating > DEVIATING_BY_EXPERTS * rows:
        raise ValidationError(
            f"{deviating} of {rows} rows differ by more than {tolerance:g} of the largest value; "
            f"allowed {DEVIATING_BY_EXPERTS:.0%} ({precision.name}). {ADVICE}"
        )
    return worst


def _validate_rounded(
    session: onnxruntime.InferenceSession,
    model: Transformer,
    precision: Precision,
    step: Callable[[], object],
) -> Difference:
    """Hold the graph to what rounding does in torch, and its head to torch's on the same logits."""
    spec = model.spec
    generator = torch.Generator().manual_seed(SEED)
    outputs = [*HEADS, *cache_names("present", spec.num_layers)]
    results = []
    for case in CASES:
        inputs = case_inputs(case, spec, precision, generator)
        with torch.inference_mode():
            expected = model(*inputs)
        found = run_graph(session, spec, inputs, case.kept, outputs)
        logits = torch.from_numpy(found[len(HEADS) - 1])
        for name, theirs, ours in zip(HEADS, found, model.candidates(logits), strict=False):
            beyond = float(_compare(name, case, theirs, ours, logits).max(initial=0.0))
            if not beyond <= FLOAT32_TOLERANCE:
                raise ValidationError(
                    f"{name}: {case}: differs by {beyond:.3g} from what torch makes of the graph's "
                    f"own logits; allowed {FLOAT32_TOLERANCE:g} ({precision.name}). {ADVICE}"
                )
        results.append((inputs, found, expected))
        step()
    compute_in_float32(model)
    limits = RoundingLimits()
    for case, (inputs, found, expected) in zip(CASES, results, strict=True):
        past = [(key.float(), value.float()) for key, value in inputs[4]]
        with torch.inference_mode():
            exact = model(*inputs[:4], past)
        for name, theirs, ours, wide in zip(outputs, found, expected, exact, strict=True):
            kept = slice(case.kept if name.startswith("present") else None)
            rounded = ours[:, :, kept] if name.startswith("present") else ours
            _check_shape(name, case, theirs, rounded)
            cut = wide[:, :, kept] if name.startswith("present") else wide
            limits.add(name, theirs, rounded.float().numpy(), cut.numpy())
    worst = limits.worst()
    refuse(worst, precision.name)
    return worst


def case_inputs(
    case: Case, spec: ModelSpec, precision: Precision, generator: torch.Generator
) -> tuple[Any, ...]:
    """Make the inputs of a case, padding and block-causal rows masked."""
    inputs = example_inputs(
        spec,
        precision.compute_dtype,
        batch=case.batch,
        rows=case.rows,
        cached=case.cached,
        wanted=case.wanted,
        generator=generator,
    )
    positions, mask = inputs[1], inputs[2]
    padded = torch.randperm(case.rows + case.cached, generator=generator)[: case.padded]
    mask[..., padded] = False
    if case.causal_block > 0:
        blocks = positions // case.causal_block
        mask[..., case.cached :] &= (blocks[:, :, None] >= blocks[:, None])[:, None]
    return inputs


def _compare(
    name: str, case: Case, found: Array, expected: torch.Tensor, logits: torch.Tensor
) -> NDArray[np.float64]:
    """Return each row's largest difference as a share of the output's largest value (at least 1).

    A row is what an output says of one fed row. Errors: ValidationError for another shape.
    """
    _check_shape(name, case, found, expected)
    if name == "token_ids":
        # Where two candidates are closer than the tolerance, either is right.
        chosen = torch.gather(logits, 2, torch.from_numpy(found)[..., None])[..., 0]
        best = torch.gather(logits, 2, expected[..., None])[..., 0]
        differences = (best - chosen).abs().double().numpy()
        scale = max(1.0, float(logits.abs().max()))
    else:
        wide = expected.double().numpy()
        differences = np.abs(found.astype(np.float64) - wide)
        scale = max(1.0, float(np.abs(wide).max(initial=0.0)))
    if differences.ndim > 2:
        differences = differences.max(axis=-1, initial=0.0)
    rows: NDArray[np.float64] = differences.reshape(-1) / scale
    return rows


def _check_shape(name: str, case: Case, found: Array, expected: torch.Tensor) -> None:
    if found.shape != tuple(expected.shape):
        raise ValidationError(
            f"{name}: {case}: shape {found.shape}; expected {tuple(expected.shape)}"
        )


def plain_mask(spec: ModelSpec, rows: int) -> torch.Tensor:
    """Return what the first `rows` positions see of each other: bool [1,1,Q,rows], Q 1 or rows."""
    if spec.attention == "bidirectional":
        return torch.ones(1, 1, 1, rows, dtype=torch.bool)
    block = torch.arange(rows) // (spec.block_length or DEFAULT_BLOCK_LENGTH)
    return (block[:, None] >= block)[None, None]


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
        ids, positions, _, wanted, past = inputs
        seen = plain_mask(spec, rows)
        (logits,) = run_graph(session, spec, (ids, positions, seen, wanted, past), 0, ["logits"])
        probes.append(
            {
                "input_ids": inputs[0][0].tolist(),
                "position": rows - 1,
                "vocab_ids": vocabulary.tolist(),
                "logits": [round(float(x), 6) for x in logits[0, 0, vocabulary]],
            }
        )
    return probes


def decode_probe(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    """Decode a few tokens with the runtime from a finished package folder, for `fastdllm check`."""
    length = max(1, min(24, spec.max_context_length // 2))
    allowed = [token for token in range(spec.vocab_size) if token != spec.mask_token_id]
    prompt = [allowed[(7 * i + 3) % len(allowed)] for i in range(min(11, length))]
    config: dict[str, Any] = {"max_new_tokens": length, "threshold": 0.9, "ignore_eos": True}
    try:
        result = Engine(folder, threads=1).generate(prompt, GenerationConfig(**config))
    except Error as problem:
        raise ValidationError(f"the runtime cannot decode with the package: {problem}") from None
    return {"prompt": prompt, "config": config, "token_ids": result.token_ids.tolist()}
