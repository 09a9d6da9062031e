"""Measures a mixture of experts under ONNX Runtime: the chosen experts alone against all of them.

    python benchmarks/moe.py [--shape llada-moe llada2-mini] [--layers 1] [--rows 1 32 256]
    python benchmarks/moe.py --structure [--shape llada2-mini --layers 19]

Layers of router and experts at the published models' sizes, f32 and random; random rows spread over
the experts evenly, which is the hardest case. Both forms of the graph (export/experts.py) run the
same rows in turn, so that the ratio of a pair means something on a machine that others use; the
median of the ratios is given. Needs about 11 GB of memory and 4 GB of disk (TMPDIR) per layer.

--structure: the graph alone, with matrices of two numbers: nodes, seconds to build and to load.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from fastdllm.export.adapters import MoeSpec
from fastdllm.export.experts import Form, expand_experts, experts_apart, read_dense
from fastdllm.export.graphs import Experts
from fastdllm.export.precision import PRECISIONS
from fastdllm.export.weights import place_weights, write_weights

SHAPES = {  # hidden size and mixture
    "llada-moe": (2048, MoeSpec(num_experts=64, experts_per_token=8, expert_size=1024)),
    "llada2-mini": (
        2048,
        MoeSpec(
            num_experts=256,
            experts_per_token=8,
            expert_size=512,
            score="sigmoid",
            num_groups=8,
            groups_per_token=4,
            renormalize=True,
            scale=2.5,
        ),
    ),
}
FORMS: tuple[Form, ...] = get_args(Form)


class Layers(nn.Module):
    """Mixtures behind each other, each with its residual."""

    def __init__(self, hidden: int, moe: MoeSpec, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Experts(hidden, moe) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [B,T,hidden] to the same."""
        for layer in self.layers:
            x = x + layer(nn.functional.rms_norm(x, (x.shape[-1],)))
        return x


def make_layers(hidden: int, moe: MoeSpec, layers: int) -> Layers:
    """Make layers of random weights that keep the size of what they multiply."""
    generator = torch.Generator().manual_seed(1)
    with torch.device("meta"):
        model = Layers(hidden, moe, layers).eval().requires_grad_(False)
    weights = {
        name: torch.empty(value.shape).normal_(generator=generator) / value.shape[-1] ** 0.5
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(weights, assign=True)
    return model


def write_graph(model: Layers, hidden: int, moe: MoeSpec, form: Form, path: Path) -> int:
    """Trace the layers and write them as the exporter does; returns the number of nodes."""
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), experts_apart(model):
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 5, hidden),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: free, 1: free},),
            opset_version=20,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch exported nothing")
    expand_experts(program.model, form)
    placed = place_weights(program.model, PRECISIONS["fp32"])
    read = model.get_parameter
    write_weights(
        placed, lambda name: read_dense(read, name, moe.num_experts), path.with_name("weights")
    )
    ir.save(program.model, path)
    return len(program.model.graph)


def load(path: Path, threads: int) -> tuple[onnxruntime.InferenceSession, float]:
    """Open a graph; returns the seconds it took, too."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.x64quantprecision", "1")  # see PACKAGE.md
    options.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, time.perf_counter() - start


def timed(session: onnxruntime.InferenceSession, feed: dict[str, Any]) -> tuple[Any, float]:
    """Run a pass; returns its output and milliseconds."""
    start = time.perf_counter()
    (output,) = session.run(["y"], feed)
    return output, 1e3 * (time.perf_counter() - start)


def compare(name: str, layers: int, row_counts: list[int], threads: int, repeat: int) -> None:
    """Print a table line per number of rows."""
    hidden, moe = SHAPES[name]
    model = make_layers(hidden, moe, layers)
    sessions = {}
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            nodes = write_graph(model, hidden, moe, form, path)
            sessions[form], seconds = load(path, threads)
        print(f"{name}, {layers} layers, {form}: {nodes} nodes, loaded in {seconds:.1f} s")
    for rows in row_counts:
        x = torch.randn(1, rows, hidden, generator=torch.Generator().manual_seed(rows))
        feed = {"x": x.numpy()}
        first = {form: timed(session, feed)[0] for form, session in sessions.items()}
        difference = np.abs(first["dispatch"] - first["dense"]).max()
        chosen = model.layers[0].route(nn.functional.rms_norm(x, (hidden,)))[1].unique().numel()
        times: dict[Form, list[float]] = {form: [] for form in FORMS}
        for _ in range(repeat):
            for form, session in sessions.items():
                times[form].append(timed(session, feed)[1])
        dense, dispatch = times["dense"], times["dispatch"]
        ratio = statistics.median(a / b for a, b in zip(dense, dispatch, strict=True))
        print(
            f"| {name} | {rows} | {chosen} of {moe.num_experts} | {statistics.median(dense):.0f} "
            f"| {statistics.median(dispatch):.0f} | {ratio:.1f} | {difference:.0e} |",
            flush=True,
        )


def structure(name: str, layers: int, threads: int) -> None:
    """Print what the graph of many layers costs apart from its weights."""
    moe = dataclasses.replace(SHAPES[name][1], expert_size=2)
    hidden = 2
    model = make_layers(hidden, moe, layers)
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            start = time.perf_counter()
            nodes = write_graph(model, hidden, moe, form, path)
            built = time.perf_counter() - start
            session, seconds = load(path, threads)
            _, step = timed(session, {"x": np.ones((1, 32, hidden), np.float32)})
            step = min(timed(session, {"x": np.ones((1, 32, hidden), np.float32)})[1], step)
            print(
                f"{name}, {layers} layers, {form}: {nodes} nodes, "
                f"{path.stat().st_size / 1e6:.1f} MB graph, built in {built:.0f} s, "
                f"loaded in {seconds:.1f} s, {step:.1f} ms per pass of 32 rows"
            )


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--structure", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the tracer's advice
    warnings.simplefilter("ignore")
    if not arguments.structure:
        print("| shape | rows | experts chosen | dense ms | dispatch ms | ratio | difference |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.shape:
        if arguments.structure:
            structure(name, arguments.layers, arguments.threads)
        else:
            compare(name, arguments.layers, arguments.rows, arguments.threads, arguments.repeat)


if __name__ == "__main__":
    main()
