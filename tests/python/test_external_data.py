"""A model that names tensor data outside of its package folder is refused before it is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import fastdllm
from fastdllm._core import read_package

from conftest import PackageOf

onnx = pytest.importorskip("onnx")

Way = tuple[str, ...]


def ways_to(target: str, descriptor: Any, seen: tuple[str, ...] = ()) -> Iterator[Way]:
    """Field names from a message to each place where a `target` may stand; loops are gone once."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or seen.count(inner.full_name) > 1:
            continue
        if inner.name == target:
            yield (field.name,)
        for way in ways_to(target, inner, (*seen, inner.full_name)):
            yield (field.name, *way)


WAYS = sorted(set(ways_to("TensorProto", onnx.ModelProto.DESCRIPTOR)))


@pytest.fixture
def package(package_of: PackageOf, tmp_path: Path) -> Path:
    shutil.copytree(package_of("tiny_math"), tmp_path / "package")
    return tmp_path / "package"


def rewrite(package: Path, model: Any) -> None:
    content = model.SerializeToString()
    (package / "model.onnx").write_bytes(content)
    facts = json.loads((package / "fastdllm.json").read_text("utf-8"))
    facts["files"]["model.onnx"] = {
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
    }
    (package / "fastdllm.json").write_text(json.dumps(facts), "utf-8")


def put(model: Any, way: Way, location: str) -> None:
    """Set a tensor with external data at a place."""
    message = model
    for name in way:
        inner = getattr(message, name)
        message = inner.add() if hasattr(inner, "add") else inner
    entry = message.external_data.add()
    entry.key, entry.value = "location", location


def test_the_schema_has_the_places_that_are_known() -> None:
    assert ("graph", "initializer") in WAYS
    assert ("graph", "node", "attribute", "g", "sparse_initializer", "values") in WAYS
    assert ("functions", "node", "attribute", "t") in WAYS


def test_every_place_of_the_schema_is_looked_at(package: Path) -> None:
    for way in WAYS:
        model = onnx.ModelProto()
        put(model, way, "../secret.bin")
        rewrite(package, model)
        with pytest.raises(fastdllm.PackageError, match=r"'\.\./secret\.bin'; expected a file"):
            read_package(str(package))


@pytest.mark.parametrize(
    "location",
    [
        *["../secret.bin", "/etc/passwd", "sub/weights", "unlisted", "./model.onnx.data", ""],
        "a\nb",
        "*/_ORT_MEM_ADDR_/*",  # an address in this process, to ONNX Runtime
    ],
)
def test_only_listed_files_hold_tensors(package: Path, location: str) -> None:
    model = onnx.load(package / "model.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    rewrite(package, model)
    (package / "unlisted").write_bytes(b"data")
    with pytest.raises(fastdllm.PackageError, match="a tensor's data lies in"):
        fastdllm.Engine(package)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(package: Path) -> None:
    weights = package / "model.onnx.data"
    weights.rename(package.parent / "elsewhere")
    weights.symlink_to(package.parent / "elsewhere")
    with pytest.raises(fastdllm.PackageError, match="link out of the package folder"):
        fastdllm.Engine(package)
    (package.parent / "elsewhere").rename(package / "inside")
    weights.unlink()
    weights.symlink_to("inside")
    read_package(str(package))


def test_a_package_behind_a_link_is_itself(package: Path) -> None:
    (package.parent / "link").symlink_to(package)
    read_package(str(package.parent / "link"))


def test_a_graph_of_another_format_is_refused(package: Path) -> None:
    facts = json.loads((package / "fastdllm.json").read_text("utf-8"))
    facts["graph"]["file"] = "model.ort"
    (package / "fastdllm.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(fastdllm.PackageError, match=r"ends in \.onnx"):
        read_package(str(package))


def test_opset_20_is_checked_too(checkpoint_of: PackageOf, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="exporting needs torch")
    from fastdllm.export import export_package

    package = tmp_path / "package"
    export_package(checkpoint_of("tiny_math"), package, precision="fp32", opset=20)
    read_package(str(package))
    model = onnx.load(package / "model.onnx", load_external_data=False)
    put(model, ("graph", "initializer"), "../secret.bin")
    rewrite(package, model)
    with pytest.raises(fastdllm.PackageError, match="a tensor's data lies in"):
        fastdllm.Engine(package)
