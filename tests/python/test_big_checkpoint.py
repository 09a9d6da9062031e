"""Checkpoints that are larger than the machine: streamed, compared by a twin, cleaned up after."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from fastdllm.check import check_package
from fastdllm.export import export_graph, pipeline
from fastdllm.export.adapters import ModelSpec, MoeSpec
from fastdllm.export.rope_spec import RopeSpec
from fastdllm.export.twin import twin_spec

from export_fixtures import SMALL, export_bare, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
LLADA_8B: dict[str, Any] = SMALL | {
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
}
MOE = ModelSpec(
    num_layers=20,
    num_heads=16,
    num_kv_heads=4,
    head_dim=128,
    hidden_size=2048,
    mlp_size=5120,
    vocab_size=157184,
    max_context_length=32768,
    rope=RopeSpec(theta=600000.0),
    norm_eps=1e-6,
    mask_token_id=156895,
    eos_token_ids=(156892,),
    qk_norm=True,
    rotary_dim=64,
    attention="block_causal",
    block_length=32,
    moe=MoeSpec(
        num_experts=256,
        experts_per_token=8,
        expert_size=512,
        first_layer=1,
        score="sigmoid",
        expert_bias=True,
        num_groups=8,
        groups_per_token=4,
        renormalize=True,
        scale=2.5,
        shared_size=512,
    ),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_streamed_export_writes_the_same_weights_and_says_what_was_compared(
    precision: Any, small: Path, tmp_path: Path
) -> None:
    loaded = export_bare(small, tmp_path / "loaded", precision=precision)
    streamed = export_bare(small, tmp_path / "streamed", precision=precision, in_memory=False)
    for name in ("model.onnx", "model.onnx.data"):
        assert (streamed / name).read_bytes() == (loaded / name).read_bytes()
    metadata = json.loads((streamed / "fastdllm.json").read_text("utf-8"))
    assert metadata["validation"]["compared"] == "twin"
    assert metadata["validation"]["largest_difference"] <= metadata["validation"]["tolerance"]
    assert "quality" not in metadata
    assert json.loads((streamed / "probes.json").read_text("utf-8"))["graph"] == []
    assert all(result.passed for result in check_package(streamed))


def test_what_is_too_large_to_load_is_streamed_unasked(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 1000)
    package = export_bare(small, tmp_path / "package")
    metadata = json.loads((package / "fastdllm.json").read_text("utf-8"))
    assert metadata["validation"]["compared"] == "twin"


def test_a_twin_is_small_and_keeps_every_rule() -> None:
    twin = twin_spec(MOE)
    assert twin.moe is not None
    assert (twin.num_layers, twin.moe.first_layer) == (2, 1)
    assert twin.num_heads // twin.num_kv_heads == 4
    assert twin.moe.num_experts % twin.moe.num_groups == 0
    assert twin.moe.experts_per_token <= (
        twin.moe.groups_per_token * twin.moe.num_experts // twin.moe.num_groups
    )
    sizes = ("num_layers", "num_heads", "num_kv_heads", "hidden_size", "mlp_size", "vocab_size")
    tokens = ("mask_token_id", "eos_token_ids")
    kept = {name: getattr(MOE, name) for name in (*sizes, *tokens)}
    assert replace(twin, moe=MOE.moe, **kept) == MOE
    experts = {"num_experts": 256, "expert_size": 512, "shared_size": 512}
    assert replace(twin.moe, **experts) == MOE.moe


EXPORT = """
import re, sys
from pathlib import Path
from fastdllm.export import export_package
for checkpoint in sys.argv[1:]:
    options = {"precision": "int8", "in_memory": False, "text": False}
    export_package(checkpoint, checkpoint + ".package", **options)
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peaks_of_exports(*checkpoints: Path) -> list[int]:
    """Export one after another in a process of their own; its resident peak after each, bytes."""
    command = [sys.executable, "-c", EXPORT, *map(str, checkpoints)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [1024 * int(line) for line in done.stdout.split()]


@pytest.mark.large
def test_memory_does_not_grow_with_the_checkpoint(small: Path, tmp_path: Path) -> None:
    sizes = {"d_model": 1024, "mlp_hidden_size": 3072, "n_layers": 6, "embedding_size": 16000}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **sizes)
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size > 450e6
    shutil.copytree(small, tmp_path / "small")
    base, peak = peaks_of_exports(tmp_path / "small", checkpoint)
    assert peak - base < 0.5 * size


def test_remains_of_a_killed_export_go_away_with_the_next_one(small: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from fastdllm.export import export_package, pipeline\n"
        "pipeline.trace_graph = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export_package(sys.argv[1], sys.argv[2], text=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, small, tmp_path / "package"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    export_bare(small, tmp_path / "package")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_the_folder_of_a_living_export_stays(small: Path, tmp_path: Path) -> None:
    living = tmp_path / ".package.abcdefgh.part"
    living.mkdir()
    lock = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        export_bare(small, tmp_path / "package")
    finally:
        os.close(lock)
    assert living.is_dir()


@pytest.mark.large
def test_the_graph_of_llada_8b_is_written_from_its_config_alone(tmp_path: Path) -> None:
    path = export_graph(LLADA_8B, tmp_path / "model.onnx", precision="bf16")
    assert path.stat().st_size < 1e6
    assert list(tmp_path.iterdir()) == [path]
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    assert shapes["embedding.weight"] == [126464, 4096]
    assert shapes["layers.31.mlp.down.weight.transposed"] == [12288, 4096]
    assert len(shapes) == 5 + 2 * 32 + 9 * 32 + 3
