"""check_package on a sound package and on every kind of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastdllm
from fastdllm.check import CheckResult, check_package, describe_chat_format

from conftest import PackageOf

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def package(package_of: PackageOf, tmp_path: Path) -> Path:
    target = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), target)
    return target


def edit_metadata(package: Path, edit: Edit) -> None:
    path = package / "fastdllm.json"
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def failures(package: Path) -> list[CheckResult]:
    return [result for result in check_package(package, threads=1) if not result.passed]


def test_a_sound_package_passes_every_check(package: Path) -> None:
    results = list(check_package(package, threads=1))

    assert all(result.passed for result in results)
    names = {result.name for result in results}
    assert {"schema", "model.onnx", "model.onnx.data", "tokenizer.json", "graph", "text"} <= names


def test_progress_tells_every_byte(package: Path) -> None:
    seen: list[int] = []

    list(check_package(package, threads=1, progress=seen.append))

    files = [path for path in package.iterdir() if path.name != "fastdllm.json"]
    assert sum(seen) == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "probes.json", "tokenizer.json"])
def test_a_truncated_file_is_named(name: str, package: Path) -> None:
    path = package / name
    path.write_bytes(path.read_bytes()[:-10])

    (failure,) = failures(package)

    assert name in failure.detail


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "chat_template.jinja"])
def test_a_flipped_byte_is_named(name: str, package: Path) -> None:
    flip_byte(package / name)

    found = failures(package)

    assert any(name in failure.name + failure.detail for failure in found)
    assert any("sha256" in failure.detail for failure in found)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_missing_file_is_named(name: str, package: Path) -> None:
    (package / name).unlink()

    (failure,) = failures(package)

    assert name in failure.detail
    assert "missing" in failure.detail


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.update(format_version=2), ["format_version", "2", "up to 1"]),
        (lambda m: m.pop("format_version"), ["format_version"]),
        (lambda m: m.update(precision="fp8"), ["precision", "int8", "fp32"]),
        (lambda m: m["model"].pop("num_layers"), ["num_layers"]),
        (lambda m: m["model"].update(num_layers=0), ["num_layers", "0"]),
        (lambda m: m["model"].update(num_layers="6"), ["num_layers"]),
        (lambda m: m["model"].update(mask_token_id=512), ["mask_token_id", "512"]),
        (lambda m: m["model"].update(eos_token_ids=[9999]), ["eos_token_ids", "9999"]),
        (lambda m: m["model"].update(attention="causal"), ["attention", "causal"]),
        (lambda m: m["model"].update(logits_shift=2), ["logits_shift", "2"]),
        (lambda m: m["graph"].update(cache_type="float8"), ["cache_type", "float8"]),
        (lambda m: m["files"].pop("model.onnx"), ["files", "model.onnx"]),
        (lambda m: m["files"].pop("probes.json"), ["probes.json"]),
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": "0"}}), ["../x"]),
        (lambda m: m.pop("files"), ["files"]),
    ],
)
def test_a_wrong_key_is_named(edit: Edit, words: list[str], package: Path) -> None:
    edit_metadata(package, edit)

    (failure,) = failures(package)

    assert failure.name == "schema"
    for word in words:
        assert word in failure.detail


def test_the_engine_refuses_what_the_check_refuses(package: Path) -> None:
    edit_metadata(package, lambda m: m.update(format_version=7))

    with pytest.raises(fastdllm.PackageError, match="format_version is 7"):
        fastdllm.Engine(package)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"'])
def test_metadata_that_is_no_object_is_refused(content: str, package: Path) -> None:
    (package / "fastdllm.json").write_text(content, "utf-8")

    (failure,) = failures(package)

    assert failure.name == "schema"


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    assert "missing" in failures(tmp_path)[0].detail
    assert "no such package folder" in failures(tmp_path / "nothing")[0].detail


def test_logits_that_moved_fail_the_graph_check(package: Path) -> None:
    rewrite_probes(package, lambda probes: probes["graph"][0]["logits"].__setitem__(0, 99.0))

    (failure,) = failures(package)

    assert failure.name == "graph"
    assert "differ" in failure.detail


def test_a_tokenizer_that_answers_differently_fails_the_text_check(package: Path) -> None:
    rewrite_probes(package, lambda probes: probes["tokenizer"][2]["token_ids"].append(7))

    (failure,) = failures(package)

    assert failure.name == "text"
    assert "expected" in failure.detail


def rewrite_probes(package: Path, edit: Edit) -> None:
    """Change the probes and their checksum, as if the rest of the package had changed."""
    from fastdllm.check import sha256_of_file

    path = package / "probes.json"
    probes = json.loads(path.read_text("utf-8"))
    edit(probes)
    path.write_text(json.dumps(probes), "utf-8")
    entry = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    edit_metadata(package, lambda m: m["files"].update({"probes.json": entry}))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"chat_template": None}, "no: there is no chat template"),
        ({"chat_template": "c.jinja"}, "no: exported before there was one"),
        ({"chat_template": "c.jinja", "chat_format": {}}, "yes"),
        ({"chat_template": "c.jinja", "chat_format": None, "chat_format_reason": "x"}, "no: x"),
    ],
)
def test_a_check_says_whether_programs_without_jinja_can_chat(
    entry: dict[str, Any], said: str
) -> None:
    assert describe_chat_format(entry).startswith(said)
