"""A mixture of experts: eager, dispatched and dense forms compute the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fastdllm.export.adapters import MoeSpec
from fastdllm.export.experts import Form, expand_experts, experts_apart, read_dense
from fastdllm.export.graphs import Experts
from fastdllm.export.onnx_export import OPSETS
from fastdllm.export.precision import PRECISIONS
from fastdllm.export.validate import open_graph
from fastdllm.export.weights import place_weights, write_weights

from conftest import PackageOf, load_golden

HIDDEN, SIZE, EXPERTS, CHOSEN = 24, 12, 8, 2
SOFTMAX = MoeSpec(num_experts=EXPERTS, experts_per_token=CHOSEN, expert_size=SIZE)
GROUPED = MoeSpec(
    num_experts=EXPERTS,
    experts_per_token=CHOSEN,
    expert_size=SIZE,
    score="sigmoid",
    expert_bias=True,
    num_groups=4,
    groups_per_token=2,
    renormalize=True,
    scale=2.5,
    shared_size=16,
)
FORMS: tuple[Form, ...] = get_args(Form)


def mixture(moe: MoeSpec = SOFTMAX) -> Experts:
    """Make a mixture with random weights."""
    torch.manual_seed(5)
    made = Experts(HIDDEN, moe)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval().requires_grad_(False)


class Residual(nn.Module):
    """A mixture as a layer of a model has it."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.mlp = experts

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.mlp(x)
        return y


def graph_of(experts: Experts, form: Form, opset: int = 23) -> ir.Model:
    """Trace x + mixture(x), as the exporter does with a whole model."""
    residual = Residual(experts).eval()
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), experts_apart(residual):
        program = torch.onnx.export(
            residual,
            (torch.zeros(2, 5, HIDDEN),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: free, 1: free},),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    expand_experts(program.model, form)
    return program.model


class Graph:
    """A mixture's graph under ONNX Runtime, less the residual."""

    def __init__(
        self, experts: Experts, form: Form, opset: int, folder: Path, precision: str = "fp32"
    ) -> None:
        model = graph_of(experts, form, opset)
        read = Residual(experts).get_parameter
        placed = place_weights(model, PRECISIONS[precision])
        write_weights(placed, lambda name: read_dense(read, name, EXPERTS), folder / "weights")
        ir.save(model, folder / "mixture.onnx")
        self.session: onnxruntime.InferenceSession = open_graph(folder / "mixture.onnx")

    def __call__(self, x: Tensor) -> np.ndarray[Any, Any]:
        y: np.ndarray[Any, Any] = self.session.run(["y"], {"x": x.numpy()})[0]
        return y - x.numpy()


def rows(batch: int, count: int) -> Tensor:
    return torch.randn(batch, count, HIDDEN, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("moe", [SOFTMAX, GROUPED], ids=["softmax", "grouped"])
def test_the_eager_form_sums_what_the_chosen_experts_say(moe: MoeSpec) -> None:
    experts, x = mixture(moe), rows(2, 9)
    weights, chosen = experts.route(x)

    expected = experts.shared(x) if moe.shared_size else torch.zeros_like(x)
    for batch, row in np.ndindex(2, 9):
        for weight, index in zip(weights[batch, row], chosen[batch, row].tolist(), strict=True):
            expected[batch, row] += weight * experts.experts[index](x[batch, row])

    torch.testing.assert_close(experts(x), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", OPSETS)
def test_both_forms_compute_what_eager_does(form: Form, opset: int, tmp_path: Path) -> None:
    experts = mixture(GROUPED)
    graph = Graph(experts, form, opset, tmp_path)
    for batch, count in ((1, 1), (3, 1), (1, 33), (3, 7)):  # some experts get no row
        x = rows(batch, count)

        np.testing.assert_allclose(graph(x), experts(x).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_all_rows_may_choose_the_same_experts(form: Form, tmp_path: Path) -> None:
    experts, x = mixture(), rows(2, 8)
    direction = experts.router.weight[3].clone()
    x = torch.where((x @ direction)[..., None] < 0, -x, x)
    experts.router.weight[:] = 0.0
    experts.router.weight[3], experts.router.weight[4] = direction, direction / 2
    assert experts.route(x)[1].flatten(0, 1).tolist() == [[3, 4]] * 16

    found = Graph(experts, form, 23, tmp_path)(x)

    np.testing.assert_allclose(found, experts(x).numpy(), rtol=1e-4, atol=1e-4)


def test_every_expert_may_be_chosen(tmp_path: Path) -> None:
    experts = mixture(dataclasses.replace(SOFTMAX, experts_per_token=EXPERTS))
    x = rows(1, 4)

    found = Graph(experts, "dispatch", 20, tmp_path)(x)

    np.testing.assert_allclose(found, experts(x).numpy(), rtol=1e-4, atol=1e-4)


def test_each_expert_multiplies_by_its_own_three_matrices() -> None:
    model = graph_of(mixture(), "dispatch")
    matrices = [name for name in model.graph.initializers if ".experts." in name]

    assert matrices.count("mlp.experts.7.down.weight") == 1
    assert len(matrices) == 3 * EXPERTS
    assert all(len(list(model.graph.initializers[name].uses())) == 1 for name in matrices)


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_has_standard_operators_alone(form: Form) -> None:
    model = graph_of(mixture(), form)

    assert {node.domain for node in model.graph} == {""}
    assert set(model.graph.opset_imports) == {""}


def test_dense_takes_three_matrices_and_no_shape_from_the_data() -> None:
    model = graph_of(mixture(), "dense")
    shapes = {
        name: value.shape for name, value in model.graph.initializers.items() if ".experts." in name
    }

    assert shapes == {
        "mlp.experts.gate.weight": [EXPERTS * SIZE, HIDDEN],
        "mlp.experts.up.weight": [EXPERTS * SIZE, HIDDEN],
        "mlp.experts.down.weight": [HIDDEN, EXPERTS * SIZE],
    }
    assert not {"Split", "NonZero", "Loop", "If"} & {node.op_type for node in model.graph}


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_experts_may_be_stored_in_fewer_bits(precision: str, tmp_path: Path) -> None:
    experts, x = mixture(), rows(1, 5)

    found = Graph(experts, "dispatch", 23, tmp_path, precision)(x)

    expected = experts(x).numpy()
    share = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < share < {"bf16": 0.02, "int8": 0.05, "int4": 0.5}[precision]


def test_the_experts_are_back_after_a_failed_trace() -> None:
    experts = mixture()
    expected = experts(rows(1, 3))

    with pytest.raises(RuntimeError, match="broken"), experts_apart(nn.Sequential(experts)):
        raise RuntimeError("broken")

    torch.testing.assert_close(experts(rows(1, 3)), expected)


@pytest.mark.parametrize("family", ["llada-moe", "llada2-moe", "llada2.1-moe"])
def test_packages_agree_with_the_reference_model(family: str, package_of: PackageOf) -> None:
    session = open_graph(package_of(family) / "model.onnx")
    cache = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    for probe in load_golden(family)["logits"]:
        ids = np.array([probe["input_ids"]])
        position = np.arange(ids.shape[1])
        block = position // (32 if family.startswith("llada2") else ids.shape[1])
        feed = {
            "input_ids": ids,
            "position_ids": position[None],
            "attention_mask": (block[:, None] >= block)[None, None],
            "logit_indices": np.array([probe["logits_at"]]),
            "present_length": np.array([0]),
        }
        (logits,) = session.run(["logits"], feed | cache)

        np.testing.assert_allclose(logits[0], probe["values"], rtol=0, atol=2e-4)
