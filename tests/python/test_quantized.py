"""Checkpoints as they are published: quantized, wrapped, with experts in one tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from quantized_forms import FORMS, GENERATOR  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from test_adapters import EXPERTS, QWEN3  # noqa: E402

from fastdllm.export import CheckpointError  # noqa: E402
from fastdllm.export.adapters import adapter_for  # noqa: E402
from fastdllm.export.checkpoint import Checkpoint  # noqa: E402
from fastdllm.export.graphs import Transformer  # noqa: E402
from fastdllm.export.lazy import LazyMatrix  # noqa: E402

from export_fixtures import SMALL, export_bare, random_tensors, write_checkpoint  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")


def linear_names(tensors: dict[str, Any]) -> list[str]:
    return [name for name in tensors if ".blocks." in name and "norm" not in name]


def quantize(tensors: dict[str, Any], form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors as stored in a form, and the ones that they stand for."""
    stored, plain = dict(tensors), dict(tensors)
    for name in linear_names(tensors):
        parts, plain[name] = FORMS[form][1](*tensors[name].shape)
        del stored[name]
        base = name.removesuffix(".weight")
        stored |= {f"{base}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    plain = {name: tensor.float().contiguous() for name, tensor in plain.items()}
    return stored, plain


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_checkpoint_is_the_one_that_it_stands_for(form: str, tmp_path: Path) -> None:
    stored, plain = quantize(random_tensors(SMALL), form)
    folder = write_checkpoint(
        tmp_path / "quantized", tensors=stored, quantization_config=FORMS[form][0]
    )

    checkpoint = Checkpoint(folder)

    assert set(checkpoint.shapes) == set(plain)
    for name, expected in plain.items():
        torch.testing.assert_close(
            checkpoint.tensor(name).float(), expected, rtol=1e-6, atol=1e-6, msg=name
        )
        weight = checkpoint.weight(name)
        if isinstance(weight, LazyMatrix):  # any part, also where words are cut
            part = weight.T.part(range(3, 30), range(5, 18))
            torch.testing.assert_close(part, expected.T[3:30, 5:18], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["fp8", "gptq4", "awq", "nf4_nested", "pack4"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_its_package_is_that_of_the_plain_checkpoint(
    form: str, precision: Any, tmp_path: Path
) -> None:
    stored, plain = quantize(random_tensors(SMALL), form)
    write_checkpoint(tmp_path / "stored", tensors=stored, quantization_config=FORMS[form][0])
    write_checkpoint(tmp_path / "plain", tensors=plain)

    options = {"precision": precision, "in_memory": False}
    one = export_bare(tmp_path / "stored", tmp_path / "one", **options)
    other = export_bare(tmp_path / "plain", tmp_path / "other", **options)

    for name in ("model.onnx", "model.onnx.data"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_writers_own_configuration_file_is_read(tmp_path: Path) -> None:
    stored, plain = quantize(random_tensors(SMALL), "gptq4")
    folder = write_checkpoint(tmp_path / "checkpoint", tensors=stored)
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 16}))

    checkpoint = Checkpoint(folder)

    name = linear_names(plain)[0]
    torch.testing.assert_close(checkpoint.tensor(name), plain[name])


@pytest.mark.parametrize(
    ("form", "changes", "words"),
    [
        ("gptq4", {"quant_method": "hqq"}, "of method 'hqq'; this exporter reads fp8"),
        ("gptq4", {"quant_method": "mxfp4"}, "of method 'mxfp4'"),
        ("gptq4", {"bits": 3}, "bits is 3; this exporter reads 2 or 4 or 8"),
        ("gptq4", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ("gptq4", {"group_size": 8}, "groups of scales for"),
        ("gptq4", {"quant_method": "fp8"}, "no tensor is stored that way"),
        ("awq", {"version": "gemv"}, "version is 'gemv'"),
        ("fp8", {"weight_block_size": [16]}, "expected two sizes"),
        ("fp8", {"weight_block_size": [32, 32]}, "weight_scale_inv is"),
        ("pack4", {"format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'"),
        ("pack4", {"config_groups": {}}, "holds 0 ways of storing weights"),
    ],
    ids=str,
)
def test_another_way_of_storing_is_refused_by_name(
    form: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    stored, _ = quantize(random_tensors(SMALL), form)
    write_checkpoint(
        tmp_path / "checkpoint", tensors=stored, quantization_config=FORMS[form][0] | changes
    )
    with pytest.raises(CheckpointError, match=words):
        export_bare(tmp_path / "checkpoint", tmp_path / "package")


@pytest.mark.parametrize("form", ["fp8", "gptq4", "int8", "nf4"])
def test_quantized_tensors_without_a_word_in_the_config_are_refused(
    form: str, tmp_path: Path
) -> None:
    stored, _ = quantize(random_tensors(SMALL), form)
    write_checkpoint(tmp_path / "checkpoint", tensors=stored)
    with pytest.raises(CheckpointError):
        export_bare(tmp_path / "checkpoint", tmp_path / "package")


def test_nan_in_a_scale_is_named(tmp_path: Path) -> None:
    stored, _ = quantize(random_tensors(SMALL), "fp8")
    name = next(name for name in stored if name.endswith("weight_scale_inv"))
    stored[name][0, 0] = torch.nan
    write_checkpoint(tmp_path / "checkpoint", tensors=stored, quantization_config=FORMS["fp8"][0])
    with pytest.raises(CheckpointError, match=r"weight holds NaN or infinity"):
        export_bare(tmp_path / "checkpoint", tmp_path / "package")


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_goes(wrapper: str, tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    write_checkpoint(tmp_path / "plain", tensors=tensors)
    write_checkpoint(
        tmp_path / "wrapped", tensors={wrapper + name: t for name, t in tensors.items()}
    )
    one = export_bare(tmp_path / "plain", tmp_path / "one")
    other = export_bare(tmp_path / "wrapped", tmp_path / "other")
    assert (one / "model.onnx.data").read_bytes() == (other / "model.onnx.data").read_bytes()


def test_a_tensor_with_and_without_prefix_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    name = next(iter(tensors))
    tensors[f"module.{name}"] = tensors[name].clone()
    with pytest.raises(CheckpointError, match="are the same tensor's names"):
        Checkpoint(write_checkpoint(tmp_path / "checkpoint", tensors=tensors))


def expert_tensors() -> dict[str, Any]:
    spec = adapter_for(EXPERTS).spec(EXPERTS)
    names = adapter_for(EXPERTS).tensor_names(spec)
    with torch.device("meta"):
        parameters = dict(Transformer(spec, 23).named_parameters())
    return {
        str(names[name]): torch.randn(parameter.shape, generator=GENERATOR) * 0.2
        for name, parameter in parameters.items()
    }


def merged(tensors: dict[str, Any], form: str) -> dict[str, Any]:
    kept = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(2):
        base = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([tensors[f"{base}.{e}.{part}_proj.weight"] for e in range(6)])
            for part in ("gate", "up", "down")
        )
        both = torch.cat([gate, up], dim=1)
        if form == "fused":
            kept |= {f"{base}.gate_up_proj": both, f"{base}.down_proj": down}
        elif form == "turned":
            kept[f"{base}.gate_up_proj"] = both.transpose(1, 2).contiguous()
            kept[f"{base}.down_proj"] = down.transpose(1, 2).contiguous()
        else:
            kept |= {f"{base}.gate_proj.weight": gate, f"{base}.up_proj.weight": up}
            kept[f"{base}.down_proj.weight"] = down
    return kept


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["fused", "turned", "each"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_experts_in_one_tensor_are_those_of_a_tensor_each(
    form: str, precision: Any, tmp_path: Path
) -> None:
    tensors = expert_tensors()
    options = {"precision": precision, "in_memory": False}
    one = export_bare(write(tmp_path / "a", EXPERTS, tensors), tmp_path / "one", **options)
    other = export_bare(
        write(tmp_path / "b", EXPERTS, merged(tensors, form)), tmp_path / "other", **options
    )
    assert (one / "model.onnx.data").read_bytes() == (other / "model.onnx.data").read_bytes()


def test_experts_that_may_lie_either_way_are_refused(tmp_path: Path) -> None:
    config = EXPERTS | {"moe_intermediate_size": QWEN3["hidden_size"]}
    tensors = {"model.layers.0.mlp.experts.down_proj": torch.zeros(6, 24, 24)}
    with pytest.raises(CheckpointError, match="which way round is not to be told"):
        Checkpoint(write(tmp_path / "a", config, tensors))


MEMORY = r"""
import re, sys
from pathlib import Path
from fastdllm.export import export_package
for checkpoint in sys.argv[1:]:
    export_package(checkpoint, checkpoint + ".package", precision="int8", in_memory=False,
                   text=False, chat=False, allow_no_eos=True)
    print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def blank(form: str, out: int, width: int) -> dict[str, Any]:
    """Return a matrix of no numbers, as it is stored: only sizes matter."""
    if form == "fp8":
        values = torch.zeros(out, width, dtype=torch.uint8).view(torch.float8_e4m3fn)
        return {"weight": values, "weight_scale_inv": torch.ones(-(-out // 16), -(-width // 32))}
    if form == "gptq4":
        return {
            "qweight": torch.zeros(width // 8, out, dtype=torch.int32),
            "qzeros": torch.zeros(width // 16, out // 8, dtype=torch.int32),
            "scales": torch.ones(width // 16, out, dtype=torch.float16),
        }
    state = json.dumps({"blocksize": 64, "shape": [out, width]}).encode()
    return {
        "weight": torch.zeros(out * width // 2, 1, dtype=torch.uint8),
        "weight.quant_map": torch.zeros(16),
        "weight.absmax": torch.ones(out * width // 64),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(state), dtype=torch.uint8),
    }


def blank_checkpoint(form: str, folder: Path) -> Path:
    """Write a checkpoint of a layer whose MLP has matrices of 128 MiB as float32."""
    if form == "experts":
        config = EXPERTS | {"hidden_size": 1024, "moe_intermediate_size": 4096}
        spec = adapter_for(config).spec(config)
        names = adapter_for(config).tensor_names(spec)
        with torch.device("meta"):
            parameters = dict(Transformer(spec, 23).named_parameters())
        tensors = {
            str(names[name]): torch.zeros(parameter.shape, dtype=torch.bfloat16)
            for name, parameter in parameters.items()
        }
        return write(folder, config, merged(tensors, "fused"))
    sizes = {"d_model": 1024, "mlp_hidden_size": 32768, "n_layers": 1}
    tensors = {}
    for name, tensor in random_tensors(SMALL | {"n_layers": 1}).items():
        shape = [{32: 1024, 48: 32768, 64: 64}[size] for size in tensor.shape]
        if name not in linear_names({name: tensor}):
            tensors[name] = torch.zeros(shape)
            continue
        base = name.removesuffix(".weight")
        parts = blank(form, *shape)
        tensors |= {f"{base}.{part}": value for part, value in parts.items()}
    return write_checkpoint(folder, tensors=tensors, quantization_config=FORMS[form][0], **sizes)


@pytest.mark.large
@pytest.mark.parametrize("form", ["fp8", "gptq4", "nf4", "experts"])
def test_memory_holds_the_stored_form_and_a_piece(form: str, tmp_path: Path) -> None:
    """No matrix may be there whole as float32, beside what an export takes anyway."""
    small = write_checkpoint(tmp_path / "small")
    folder = blank_checkpoint(form, tmp_path / "big")
    stored = (folder / "model.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, small, folder], stdout=subprocess.PIPE, text=True, check=True
    )
    base, peak = (1024 * int(line) for line in done.stdout.split())
    assert peak - base < 1.3 * stored + (1 << 27)
