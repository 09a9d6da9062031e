"""The form that graphs take for ONNX Runtime on the CPU, and which keep to standard operators."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

import numpy as np
import onnx_ir as ir
import torch

from fastdllm.export import validate
from fastdllm.export.adapters import adapter_for
from fastdllm.export.graphs import Transformer
from fastdllm.export.onnx_export import cache_names, trace

from export_fixtures import SMALL, export_bare, write_checkpoint


def traced(dtype: torch.dtype = torch.float32, opset: int = 23, **changes: Any) -> ir.Model:
    spec = adapter_for(SMALL).spec(SMALL | changes)
    with torch.device("meta"):
        model = Transformer(spec, opset).eval().requires_grad_(False)
    return trace(model, dtype, opset)


def operators(graph: ir.Graph) -> Counter[str]:
    return Counter(f"{node.domain}:{node.op_type}" for node in graph)


def test_attention_chooses_between_tiles_and_scores() -> None:
    model = traced()

    choices = [node for node in model.graph if node.op_type == "If"]
    assert len(choices) == SMALL["n_layers"]
    for choice in choices:
        tiles = choice.attributes["then_branch"].as_graph()
        scores = choice.attributes["else_branch"].as_graph()
        (tiled,) = (node for node in tiles if node.op_type == "MultiHeadAttention")
        (scored,) = (node for node in scores if node.op_type == "MultiHeadAttention")
        assert len(tiled.inputs) == 3  # neither bias nor cache: else all scores would be held
        assert [value is None for value in scored.inputs] == [False] * 3 + [True] * 2 + [False] * 3


@pytest.mark.parametrize("shared", [1, 2])
def test_shared_heads_go_tile_by_tile_too(shared: int) -> None:
    model = traced(n_kv_heads=shared)

    choices = [node for node in model.graph if node.op_type == "If"]
    assert len(choices) == SMALL["n_layers"]
    for choice in choices:
        tiles = choice.attributes["then_branch"].as_graph()
        scores = choice.attributes["else_branch"].as_graph()
        (tiled,) = (node for node in tiles if node.op_type == "MultiHeadAttention")
        assert len(tiled.inputs) == 3
        assert operators(scores)[":Attention"] == 1  # as it was, which reads shared heads in place


@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 2}], ids=["plain", "grouped"])
def test_a_mask_of_one_row_is_expanded_only_beside_scores(changes: dict[str, Any]) -> None:
    """A row per fed row would take memory by the square of the context in a refresh."""
    model = traced(**changes)

    mask = model.graph.inputs[2]
    widened = [use.node for use in mask.uses() if use.node.op_type == "Expand"]
    assert len(widened) == SMALL["n_layers"] - 1  # the last layer gathers its rows
    assert not any(node.graph is model.graph for node in widened)


@pytest.mark.parametrize("cached", [0, 5])
@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("shared", [4, 2])
def test_a_mask_of_one_row_means_the_same_for_every_row(
    cached: int, hidden: int, shared: int, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", n_kv_heads=shared)
    package = export_bare(checkpoint, tmp_path / "package")
    session = validate.open_graph(package / "model.onnx")
    numbers = np.random.default_rng(1)
    one = np.ones((2, 1, 1, cached + 9), dtype=bool)
    one[..., numbers.permutation(cached + 9)[:hidden]] = False
    feed: dict[str, Any] = {
        "input_ids": numbers.integers(0, 60, (2, 9)),
        "position_ids": numbers.permuted(np.tile(np.arange(9), (2, 1)), axis=1),
        "logit_indices": numbers.integers(0, 9, (2, 4)),
        "present_length": np.array([cached + 9]),
    }
    for past in session.get_inputs():
        if past.name.startswith("past"):
            shape = (2, past.shape[1], cached, past.shape[3])
            feed[past.name] = numbers.standard_normal(shape).astype(np.float32)

    of_one = session.run(None, feed | {"attention_mask": one})
    of_all = session.run(None, feed | {"attention_mask": one.repeat(9, axis=2)})

    for output, ours, theirs in zip(session.get_outputs(), of_one, of_all, strict=True):
        assert np.array_equal(ours, theirs), output.name


def test_sums_are_normalized_where_they_are_made() -> None:
    found = operators(traced().graph)

    assert found["com.microsoft:SkipSimplifiedLayerNormalization"] == 2 * SMALL["n_layers"]
    assert found[":RMSNormalization"] == 1  # of the embedding


@pytest.mark.parametrize(
    ("dtype", "opset"),
    [(torch.float16, 23), (torch.float16, 20), (torch.float32, 20)],
    ids=["fp16", "fp16, opset 20", "opset 20"],
)
@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 2}], ids=["plain", "grouped"])
def test_other_graphs_keep_to_standard_operators(
    dtype: torch.dtype, opset: int, changes: dict[str, Any]
) -> None:
    assert not [name for name in operators(traced(dtype, opset, **changes).graph) if name[0] != ":"]


def test_the_contract_is_the_same_in_both_forms() -> None:
    joined, standard = traced().graph, traced(opset=20).graph

    def told(values: Sequence[ir.Value]) -> list[tuple[str | None, str, str]]:
        return [(value.name, str(value.type), str(value.shape)) for value in values]

    assert "com.microsoft:MultiHeadAttention" not in operators(standard)
    assert told(joined.inputs) == told(standard.inputs)
    assert told(joined.outputs) == told(standard.outputs)
    names = [value.name for value in joined.outputs]
    assert names[-len(cache_names("present", 2)) :] == cache_names("present", 2)


def test_no_initializer_is_left_that_nothing_reads() -> None:
    assert not [name for name, value in traced().graph.initializers.items() if not value.uses()]


def test_the_layers_are_as_before_after_a_trace() -> None:
    spec = adapter_for(SMALL).spec(SMALL)
    with torch.device("meta"):
        model = Transformer(spec, 23).eval().requires_grad_(False)

    trace(model, torch.float32, 23)

    assert not any(layer.joined for layer in model.layers)


@pytest.mark.parametrize(
    "changes",
    [{}, {"include_qkv_bias": True}, {"n_kv_heads": 2}, {"n_kv_heads": 1}],
    ids=["plain", "bias", "grouped", "one shared"],
)
def test_a_long_refresh_gives_what_torch_gives(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = validate.Case(batch=1, rows=1100, cached=0, wanted=32, kept=1068)  # several tiles
    monkeypatch.setattr(validate, "CASES", (case,))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **changes)

    package = export_bare(checkpoint, tmp_path / "package")  # compares, or raises

    facts = json.loads((package / "fastdllm.json").read_text("utf-8"))
    assert facts["validation"]["largest_difference"] < 1e-5


class Head(torch.nn.Module):
    """The last part of the graph alone: what is said of given logits."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = adapter_for(SMALL).spec(SMALL)

    def forward(self, logits: torch.Tensor) -> list[torch.Tensor]:
        return list(Transformer.candidates(self, logits))  # type: ignore[arg-type]


def test_onnx_runtime_leaves_no_confidence_where_a_logit_is_no_number(tmp_path: Path) -> None:
    logits = torch.randn(1, 4, SMALL["vocab_size"], generator=torch.Generator().manual_seed(1))
    logits[0, 1, 5], logits[0, 2, 5], logits[0, 3, 5] = torch.inf, torch.nan, -torch.inf
    torch.onnx.export(
        Head().eval(),
        (logits,),
        tmp_path / "head.onnx",
        dynamo=True,
        input_names=["x"],
        verbose=False,
    )

    outputs = validate.open_graph(tmp_path / "head.onnx").run(None, {"x": logits.numpy()})
    confidence, complement = outputs[1][0], outputs[2][0]

    assert np.isnan(confidence).tolist() == [False, True, True, False]
    assert np.isnan(complement).tolist() == [False, True, True, False]
    best = logits[0].softmax(dim=-1).max(dim=-1).values
    assert np.allclose(confidence[[0, 3]], best[[0, 3]])
