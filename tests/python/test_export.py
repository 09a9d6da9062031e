"""The exporter: what it computes, what it writes, what it refuses."""

from __future__ import annotations

import json
import math
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import fastdllm
from fastdllm.check import check_package
from fastdllm.export import (
    CheckpointError,
    ExportError,
    ValidationError,
    onnx_export,
    pipeline,
    validate,
)
from fastdllm.export.adapters.llada import LLaDA
from fastdllm.export.graphs import Transformer

from conftest import GOLDEN
from export_fixtures import SMALL, export_bare, plain_logits, random_tensors, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gqa_bias_tied": {"n_kv_heads": 2, "weight_tying": True, "include_qkv_bias": True},
    "mqa": {"n_kv_heads": None, "multi_query_attention": True, "rope_theta": 500000.0},
}
IDS = [1, 5, 63, 63, 9, 17, 63, 2, 2]


def logits_of(package: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    return fastdllm.Engine(package, threads=1).logits(ids, range(len(ids)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graph_computes_what_llada_computes(variant: str, tmp_path: Path) -> None:
    changes = VARIANTS[variant]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **changes)
    package = export_bare(checkpoint, tmp_path / "package")
    weights = load_file(checkpoint / "model.safetensors")
    expected = plain_logits(SMALL | changes, weights, IDS).numpy()
    assert np.abs(logits_of(package, IDS) - expected).max() < 1e-4


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def small_package(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bare(small, tmp_path_factory.mktemp("package") / "small")


def test_a_second_trace_gives_the_same_graph(
    small: Path, small_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "trace", onnx_export.trace)  # the tests' others share theirs
    again = export_bare(small, tmp_path / "package")
    assert (again / "model.onnx").read_bytes() == (small_package / "model.onnx").read_bytes()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("token", [5, SMALL["mask_token_id"]])
def test_a_logit_that_is_no_number_leaves_no_confidence(token: int, bad: float) -> None:
    model = Transformer(LLaDA().spec(SMALL), 23)
    logits = torch.zeros(1, 2, SMALL["vocab_size"])
    logits[0, 0, token] = bad

    _, confidence, complement, *_ = model.candidates(logits)

    for answer in (confidence, complement):
        assert answer.isnan().tolist() == [[True, False]]


def test_opset_20_computes_the_same(small: Path, small_package: Path, tmp_path: Path) -> None:
    old = export_bare(small, tmp_path / "package", opset=20)
    assert np.abs(logits_of(old, IDS) - logits_of(small_package, IDS)).max() < 1e-4
    assert fastdllm.Engine(old).package.opset == 20


@pytest.mark.parametrize(("precision", "allowed"), [("fp16", 0.05), ("bf16", 0.3)])
def test_reduced_precision_stays_near_f32_and_decodes(
    precision: Any, allowed: float, small: Path, small_package: Path, tmp_path: Path
) -> None:
    package = export_bare(small, tmp_path / "package", precision=precision)
    assert np.abs(logits_of(package, IDS) - logits_of(small_package, IDS)).max() < allowed
    weights = (package / "model.onnx.data").stat().st_size
    assert weights < 0.6 * (small_package / "model.onnx.data").stat().st_size
    config = fastdllm.GenerationConfig(max_new_tokens=20, block_length=8, threshold=0.5)
    result = fastdllm.Engine(package, threads=1).generate([1, 2, 3], config)
    assert 63 not in result.token_ids


def test_sharded_checkpoints_give_the_same_package(
    small: Path, small_package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    shutil.copy(small / "config.json", folder)
    tensors = load_file(small / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate((names[::2], names[1::2])):
        file = f"model-{shard + 1:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    package = export_bare(folder, tmp_path / "package")
    weights = "model.onnx.data"
    assert (package / weights).read_bytes() == (small_package / weights).read_bytes()


def test_a_package_passes_its_own_check_and_holds_no_local_paths(
    small_package: Path, small: Path
) -> None:
    assert all(result.passed for result in check_package(small_package))
    graph = (small_package / "model.onnx").read_bytes()
    assert str(small).encode() not in graph
    assert b".py" not in graph
    assert b"site-packages" not in graph


def test_the_metadata_states_the_facts(small_package: Path) -> None:
    metadata = json.loads((small_package / "fastdllm.json").read_text())
    assert metadata["format_version"] == 1
    assert metadata["tokenizer"] is None
    assert metadata["model"]["mask_token_id"] == 63
    assert metadata["model"]["eos_token_ids"] == [62]
    assert metadata["model"]["attention"] == "bidirectional"
    assert 0 <= metadata["validation"]["largest_difference"] <= metadata["validation"]["tolerance"]
    listed = set(metadata["files"]) | {"fastdllm.json"}
    assert listed == {file.name for file in small_package.iterdir()}


# --- text -------------------------------------------------------------------------------------


def write_tokenizer(folder: Path, **config: Any) -> None:
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())[:50])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_template_file_wins_over_the_one_in_the_config(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    write_tokenizer(folder, chat_template="A{{ messages[0].content }}", bos_token="<s>")
    package = export_bare(folder, tmp_path / "first", text=True)
    assert fastdllm.LLM(package).codec.chat_template is not None
    assert (package / "chat_template.jinja").read_text() == "A{{ messages[0].content }}"
    (folder / "chat_template.jinja").write_text("{{ bos_token }}B")
    package = export_bare(folder, tmp_path / "second", text=True)
    assert (package / "chat_template.jinja").read_text() == "{{ bos_token }}B"
    assert all(result.passed for result in check_package(package))


def test_a_tensor_that_the_network_does_not_have_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL) | {
        "model.transformer.blocks.0.q_proj.bias": torch.zeros(32),
        "model.transformer.blocks.0.rotary_emb.inv_freq": torch.zeros(4),
    }
    folder = write_checkpoint(tmp_path / "checkpoint", tensors=tensors)
    with pytest.raises(CheckpointError, match=r"1 tensors are not .*\n.*blocks.0.q_proj.bias"):
        export_bare(folder, tmp_path / "package")


def test_a_tied_heads_copy_has_to_be_the_embedding(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL | {"weight_tying": True})
    copy = {"model.transformer.ff_out.weight": tensors["model.transformer.wte.weight"].clone()}
    folder = write_checkpoint(tmp_path / "same", tensors=tensors | copy, weight_tying=True)
    export_bare(folder, tmp_path / "package")
    copy["model.transformer.ff_out.weight"][3, 3] += 1
    folder = write_checkpoint(tmp_path / "other", tensors=tensors | copy, weight_tying=True)
    with pytest.raises(CheckpointError, match=r"ff_out.weight differs from the embedding"):
        export_bare(folder, tmp_path / "second")


def test_a_config_that_leaves_out_its_block_type_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", block_type=None)
    with pytest.raises(CheckpointError, match="block_type is missing"):
        export_bare(folder, tmp_path / "package")


def test_check_says_where_nothing_is_compared(small: Path, tmp_path: Path) -> None:
    package = export_bare(small, tmp_path / "package", in_memory=False)
    results = {result.name: result for result in check_package(package)}
    assert results["graph"].passed
    assert "NOTHING COMPARED" in results["graph"].detail
    assert "NOTHING COMPARED" in results["decode"].detail


def test_a_missing_mask_id_is_looked_up_in_the_tokenizer(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", mask_token_id=None)
    with pytest.raises(CheckpointError, match="mask_token_id is missing"):
        export_bare(folder, tmp_path / "package")
    write_tokenizer(folder, mask_token="<mask>")
    package = export_bare(folder, tmp_path / "package", text=True, chat=False)
    assert fastdllm.Engine(package).package.mask_token_id == 51
    package = export_bare(folder, tmp_path / "given", mask_token_id=63, text=True, chat=False)
    assert fastdllm.Engine(package).package.mask_token_id == 63
    with pytest.raises(CheckpointError, match=r"mask_token_id is 64; expected an id in \[0, 64\)"):
        export_bare(folder, tmp_path / "outside", mask_token_id=64, text=True, chat=False)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", "{", "not a usable tokenizer"),
        ("tokenizer.json", "\udcff", "not readable as text"),
        ("tokenizer.json", '{"model": {"type": "Unheard"}}', "not a usable tokenizer"),
        ("chat_template.jinja", "{% for %}", "does not parse"),
        ("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "does not take"),
    ],
)
def test_hostile_or_broken_text_files_are_refused(
    name: str, content: str, words: str, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    write_tokenizer(folder)
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=words):
        export_bare(folder, tmp_path / "package", text=True)
    assert not (tmp_path / "package").exists()


def test_a_tokenizer_with_ids_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "checkpoint", vocab_size=40, embedding_size=40, mask_token_id=39, eos_token_id=38
    )
    write_tokenizer(folder)
    with pytest.raises(CheckpointError, match=r"holds id 51; the model's vocabulary is \[0, 40\)"):
        export_bare(folder, tmp_path / "package", text=True)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'.*known are: llada.*export/adapters"),
        ({"architectures": ["UnheardLM"]}, r"architectures \['UnheardLM'\] is unknown"),
        ({"alibi": True}, "alibi is True; this exporter implements False"),
        ({"block_type": "sequential"}, "block_type is 'sequential'"),
        ({"rope_scaling": {"type": "other"}}, "rope_scaling is"),
        ({"attention_layer_norm": True}, "attention_layer_norm is True"),
        ({"n_heads": 5}, "do not divide evenly"),
        ({"n_layers": 0}, "n_layers is 0; expected a positive integer"),
        ({"eos_token_id": [62, None]}, r"eos_token_id is \[62, None\]; expected ids"),
        ({"architectures": 5}, "architectures is 5; expected a list"),
        ({"rope_theta": math.inf}, "rope_theta is inf; expected a positive number"),
        ({"clip_qkv": 0.1}, "clip_qkv is 0.1"),
        ({"mask_token_id": 64}, r"mask_token_id is 64; expected an id in \[0, 64\)"),
        ({"eos_token_id": 63}, "mask_token_id is an end-of-text id too"),
        ({"max_sequence_length": None}, "max_sequence_length is None"),
    ],
)
def test_configs_that_the_graph_does_not_implement_are_refused_by_key(
    changes: dict[str, Any], words: str, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(small, folder)
    config = {k: v for k, v in (SMALL | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=words):
        export_bare(folder, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_missing_and_misshapen_tensors_are_listed_together(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    del tensors["model.transformer.ln_f.weight"], tensors["model.transformer.wte.weight"]
    folder = write_checkpoint(tmp_path / "missing", tensors=tensors)
    with pytest.raises(CheckpointError, match="2 tensors are missing") as caught:
        export_bare(folder, tmp_path / "package")
    assert "transformer.ln_f.weight" in str(caught.value)
    assert "transformer.wte.weight" in str(caught.value)

    tensors = random_tensors(SMALL)
    tensors["model.transformer.ln_f.weight"] = torch.ones(33)
    tensors["model.transformer.wte.weight"] = torch.zeros(64, 31)
    folder = write_checkpoint(tmp_path / "misshapen", tensors=tensors)
    with pytest.raises(CheckpointError, match="2 tensors do not fit") as caught:
        export_bare(folder, tmp_path / "package")
    assert "ln_f.weight: is [33], expected [32]" in str(caught.value)
    assert "wte.weight: is [64, 31], expected [64, 32]" in str(caught.value)


def test_absurd_sizes_are_refused_before_anything_is_built(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(small, folder)
    (folder / "config.json").write_text(json.dumps(SMALL | {"n_layers": 100000}))
    with pytest.raises(CheckpointError, match="tensors are missing"):
        export_bare(folder, tmp_path / "package")


def test_truncated_weights_are_refused(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(small, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        export_bare(folder, tmp_path / "package")


def test_weights_with_nan_are_refused_by_name(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors["model.transformer.ln_f.weight"][3] = math.nan
    folder = write_checkpoint(tmp_path / "checkpoint", tensors=tensors)
    with pytest.raises(CheckpointError, match=r"ln_f\.weight holds NaN"):
        export_bare(folder, tmp_path / "package")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_are_named(missing: str, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(small, folder)
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        export_bare(folder, tmp_path / "package")


def test_unknown_precision_and_opset_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="precision is 'fp8'; expected one of fp32, fp16, bf16"):
        export_bare(small, tmp_path / "package", precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="opset is 17; expected one of 23, 20"):
        export_bare(small, tmp_path / "package", opset=17)


def test_a_graph_that_differs_from_torch_is_not_written(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: Path, model: Any, *rest: Any) -> float:
        model.final_norm.weight.data += 0.01
        return validate.validate(graph, model, *rest)

    monkeypatch.setattr(pipeline, "validate", wrong)
    with pytest.raises(ValidationError, match="differs by"):
        export_bare(small, tmp_path / "package")
    assert list(tmp_path.iterdir()) == []


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_export_that_breaks_off_leaves_nothing(
    problem: BaseException, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(placed: Any, read: Any, path: Path, progress: Any) -> None:
        path.write_bytes(b"half")
        raise problem

    monkeypatch.setattr(pipeline, "write_weights", broken)
    expected = ExportError if isinstance(problem, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        export_bare(small, tmp_path / "package")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(small: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))  # a file's writes beyond it fail
    try:
        with pytest.raises(ExportError, match="cannot be written"):
            export_bare(small, tmp_path / "package")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_package_stays_unless_overwritten(small: Path, tmp_path: Path) -> None:
    package = export_bare(small, tmp_path / "package")
    before = (package / "fastdllm.json").read_bytes()
    with pytest.raises(ExportError, match="is not empty"):
        export_bare(small, package)
    assert (package / "fastdllm.json").read_bytes() == before
    export_bare(small, package, overwrite=True, precision="fp16")
    assert fastdllm.Engine(package).package.precision == "fp16"
    assert [file.name for file in tmp_path.iterdir()] == ["package"]


def test_a_folder_that_is_no_package_is_never_overwritten(small: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(ExportError, match="is no package"):
        export_bare(small, tmp_path, overwrite=True)
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_an_empty_folder_may_become_the_package(small: Path, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    export_bare(small, tmp_path / "package")
    assert fastdllm.Engine(tmp_path / "package").package.precision == "fp32"


@pytest.mark.parametrize("name", ["llada-mha", "llada-gqa-bias-tied"])
def test_golden_checkpoints_export_in_every_precision(name: str, tmp_path: Path) -> None:
    for precision in ("fp16", "bf16"):
        export_bare(GOLDEN / name, tmp_path / precision, precision=precision)  # type: ignore[arg-type]
