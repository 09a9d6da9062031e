"""Released checkpoints by their config.json: whole in structure, and small with weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from released_configs import EXPECTED, FACTS, RELEASED, Config

torch = pytest.importorskip("torch", reason="exporting needs torch")

from safetensors.torch import save_file  # noqa: E402

import fastdllm  # noqa: E402
from fastdllm.export import CheckpointError  # noqa: E402
from fastdllm.export.adapters import ModelSpec, adapter_for, read_spec  # noqa: E402
from fastdllm.export.graphs import Transformer  # noqa: E402
from fastdllm.export.pipeline import expected_shapes  # noqa: E402

from export_fixtures import export_bare  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
# Sizes of the twin, by the keys that config.json may have.
SMALLER: Config = {
    "d_model": 64,
    "hidden_size": 64,
    "n_layers": 2,
    "num_hidden_layers": 2,
    "mlp_hidden_size": 96,
    "intermediate_size": 96,
    "dense_intermediate_size": 96,
    "expert_intermediate_size": 32,
    "moe_intermediate_size": 32,
    "vocab_size": 120,
    "embedding_size": 120,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "head_dim": 16,
    "rotary_dim": 8,
    "mask_token_id": 119,
    "eos_token_id": 118,
    "pad_token_id": 118,
    "bos_token_id": 117,
}


def twin(config: Config) -> Config:
    """Return the same keys with small sizes; heads keep their ratio."""
    small = {key: SMALLER.get(key, value) for key, value in config.items()}
    heads, kv = (
        ("n_heads", "n_kv_heads")
        if "n_heads" in config
        else ("num_attention_heads", "num_key_value_heads")
    )
    small[heads], small[kv] = 4, 4 if config[heads] == config[kv] else 2
    for key in ("moe_layer_freq", "layer_types"):
        if key in config:
            small[key] = config[key][:2]
    return small


def names_and_shapes(config: Config) -> tuple[ModelSpec, dict[str, tuple[int, ...]], int]:
    adapter = adapter_for(config)
    spec = read_spec(adapter, config)
    with torch.device("meta"):
        model = Transformer(spec, 23)
    shapes = expected_shapes(model, adapter.tensor_names(spec))
    return spec, shapes, sum(parameter.numel() for parameter in model.parameters())


def structures() -> dict[str, Config]:
    """Return one name for each twin: several checkpoints differ in sizes alone."""
    found: dict[str, str] = {}
    for name, (config, _) in RELEASED.items():
        found.setdefault(json.dumps(twin(config), sort_keys=True), name)
    return {name: json.loads(text) for text, name in found.items()}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_gives_the_whole_network(name: str) -> None:
    config, billions = RELEASED[name]

    spec, shapes, count = names_and_shapes(config)

    assert tuple(getattr(spec, fact) for fact in FACTS) == EXPECTED[config["architectures"][0]]
    assert count / 1e9 == pytest.approx(billions, rel=0.03)
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    assert sum(".0." in shape or "weight" in shape for shape in shapes) > 9 * layers
    assert all(size > 0 for shape in shapes.values() for size in shape)


@pytest.mark.parametrize("name", structures())
def test_its_twin_is_exported_and_answers(name: str, tmp_path: Path) -> None:
    config = structures()[name]
    _, shapes, _ = names_and_shapes(config)
    generator = torch.Generator().manual_seed(1)
    tensors = {
        key: torch.randn(shape, generator=generator) * 0.2 + (1.0 if "norm" in key else 0.0)
        for key, shape in shapes.items()
    }
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, folder / "model.safetensors")

    engine = fastdllm.Engine(export_bare(folder, tmp_path / "package"), threads=1)

    options = fastdllm.GenerationConfig(max_new_tokens=8, threshold=0.9, ignore_eos=True)
    assert len(engine.generate([3, 1, 4, 1, 5], options).token_ids) == 8


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Dream-v0-Instruct-7B", {"attention_bias": False}, "attention_bias is False"),
        ("Dream-v0-Instruct-7B", {"number_of_twists": 3}, "number_of_twists is 3"),
        ("SDAR-4B-Chat", {"use_extra_norm": True}, "use_extra_norm is True"),
        ("LLaDA-8B-Base", {"layer_norm_with_affine": False}, "layer_norm_with_affine is False"),
        ("LLaDA2.0-mini", {"moe_router_enable_expert_bias": False}, "expert_bias is False"),
        ("Fast_dLLM_v2_7B", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ],
    ids=str,
)
def test_a_key_that_means_another_network_is_refused_by_name(
    name: str, changes: dict[str, Any], words: str
) -> None:
    config = RELEASED[name][0] | changes
    with pytest.raises(CheckpointError, match=words):
        read_spec(adapter_for(config), config)


def test_a_key_that_says_nothing_is_taken() -> None:
    config = RELEASED["SDAR-4B-Chat"][0] | {"later_idea": None, "other_idea": False}
    read_spec(adapter_for(config), config)


def test_an_autoregressive_qwen2_is_refused() -> None:
    config = RELEASED["open-dcoder-0.5B"][0] | {"mask_token_id": None}
    with pytest.raises(CheckpointError, match="mask_token_id is missing"):
        read_spec(adapter_for(config), config)
