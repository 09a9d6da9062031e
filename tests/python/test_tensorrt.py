"""Packages compile into TensorRT engines: ahead of time with TensorRT-RTX, so without a GPU."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastdllm.check import check_package, sha256_of_file
from fastdllm.export import CheckpointError, ExportError, tensorrt
from fastdllm.export.tensorrt import BuiltEngine, build_engine, profiles_for
from fastdllm.export.tensorrt_compiler import RTX_WHEELS, Compiler, Range

from conftest import GOLDEN, ROOT, PackageOf

HalfPackageOf = Callable[[str, int], Path]
SMALL = {"max_context": 96, "max_rows": 64}
FAMILIES = sorted(folder.parent.name for folder in GOLDEN.glob("*/config.json"))


@pytest.fixture(scope="module")
def rtx() -> None:
    for module in ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_bindings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"TensorRT-RTX is not installed: pip install {RTX_WHEELS}")


@pytest.fixture(scope="module")
def half_package_of(
    checkpoint_of: PackageOf, tmp_path_factory: pytest.TempPathFactory
) -> HalfPackageOf:
    """Export a checkpoint by name and opset the first time it is asked for (fp16)."""
    pytest.importorskip("torch", reason="exporting needs torch")
    from fastdllm.export import export_package

    made: dict[tuple[str, int], Path] = {}

    def package(name: str, opset: int) -> Path:
        if (name, opset) not in made:
            folder = tmp_path_factory.mktemp("half") / name
            export_package(
                checkpoint_of(name),
                folder,
                precision="fp16",
                opset=opset,
                text=False,
                allow_no_eos=True,
            )
            made[name, opset] = folder
        return made[name, opset]

    return package


def report(built: BuiltEngine, name: str, record: Callable[[str, object], None]) -> None:
    """Print size and time (pytest -s), and keep them in a JUnit report."""
    text = f"{built.compiler}, {built.target}: {built.bytes / 1e6:.1f} MB in {built.seconds:.1f} s"
    record(name, text)
    print(f"\n{name}: {text}")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_compiles_without_a_gpu(
    name: str, half_package_of: HalfPackageOf, record_property: Callable[[str, object], None]
) -> None:
    try:
        package = half_package_of(name, 23)
    except CheckpointError as problem:
        pytest.skip(f"no adapter takes it: {problem}")

    built = build_engine(package, target="sm86", **SMALL)

    report(built, name, record_property)
    assert built.path == package.with_name(f"{name}.engines") / "tensorrt_rtx-sm86.engine"
    assert built.path.stat().st_size == built.bytes > 0
    assert not built.cached


@pytest.mark.usefixtures("rtx")
def test_opset_20_compiles_too(
    half_package_of: HalfPackageOf, record_property: Callable[[str, object], None]
) -> None:
    built = build_engine(half_package_of("llada-gqa-bias-tied", 20), target="sm80", **SMALL)

    report(built, "opset 20", record_property)
    assert built.target == "sm80"
    assert built.bytes > 0


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the compiler by one that writes what it was asked for; the list has its calls."""
    calls: list[str] = []

    def compile_package(
        compiler: Compiler, folder: Path, metadata: object, profiles: object, progress: object
    ) -> memoryview:
        calls.append(f"{folder.name} for {compiler.target}")
        return memoryview(f"{compiler.title} {profiles}".encode())

    monkeypatch.setattr(
        tensorrt,
        "compiler_ahead_of_time",
        lambda target: Compiler(trt=None, name="rtx", title="RTX 1.0", target=target),
    )
    monkeypatch.setattr(tensorrt, "compile_package", compile_package)
    return calls


def test_an_engine_is_compiled_once(
    compiled: list[str], package_of: PackageOf, tmp_path: Path
) -> None:
    package = package_of("llada-mha")

    def build(target: str, max_rows: int) -> BuiltEngine:
        return build_engine(package, target=target, output_dir=tmp_path, max_rows=max_rows)

    first, again, smaller, other = (
        build(*wanted) for wanted in (("sm86", 64), ("sm86", 64), ("sm86", 32), ("sm80", 32))
    )

    record = json.loads((tmp_path / "rtx-sm86.json").read_text("utf-8"))
    assert [built.cached for built in (first, again, smaller, other)] == [False, True, False, False]
    assert compiled == ["llada-mha for sm86"] * 2 + ["llada-mha for sm80"]
    assert again.seconds == first.seconds
    assert record["package_sha256"] == sha256_of_file(package / "fastdllm.json")
    assert record["sha256"] == sha256_of_file(smaller.path)
    assert record["profiles"][0]["rows"] == [1, 32, 32]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("rtx-sm80.engine", "rtx-sm80.json", "rtx-sm86.engine", "rtx-sm86.json"),
    ]


def test_another_package_is_compiled_again(
    compiled: list[str], package_of: PackageOf, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("llada-mha"), package)
    build_engine(package, target="sm86")
    (package / "fastdllm.json").write_text(
        (package / "fastdllm.json").read_text("utf-8") + "\n", "utf-8"
    )

    assert not build_engine(package, target="sm86").cached
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"seconds": null}', None])
def test_a_damaged_record_is_no_record(
    damage: str | None, compiled: list[str], package_of: PackageOf, tmp_path: Path
) -> None:
    package = package_of("llada-mha")
    first = build_engine(package, target="sm86", output_dir=tmp_path)
    if damage is None:  # the engine is cut short instead
        first.path.write_bytes(first.path.read_bytes()[:10])
    else:
        first.path.with_suffix(".json").write_text(damage, "utf-8")

    again = build_engine(package, target="sm86", output_dir=tmp_path)

    assert not again.cached
    assert again.path.stat().st_size == first.bytes
    assert len(compiled) == 2


def test_a_folder_that_cannot_be_is_named_before_compiling(
    compiled: list[str], package_of: PackageOf, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")

    with pytest.raises(ExportError, match="file: cannot be written"):
        build_engine(package_of("llada-mha"), target="sm86", output_dir=tmp_path / "file")

    assert compiled == []


@pytest.mark.usefixtures("rtx")
def test_a_package_stays_sound(half_package_of: HalfPackageOf) -> None:
    package = half_package_of("llada-mha", 23)

    build_engine(package, target="sm86", **SMALL)

    assert all(result.passed for result in check_package(package))


@pytest.mark.usefixtures("rtx")
def test_the_command_line_prints_path_size_and_seconds(
    half_package_of: HalfPackageOf, tmp_path: Path
) -> None:
    package = half_package_of("llada-mha", 23)
    command = [sys.executable, "-m", "fastdllm", "build-engine", str(package), "--target", "sm89"]
    options = ["--output", str(tmp_path), "--max-context", "96", "--rows-per-step", "8"]

    text = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    found = subprocess.run([*command, *options, "--json"], capture_output=True, timeout=120)

    assert text.returncode == 0, text.stderr
    assert "Building" not in text.stderr  # no progress: it is no terminal
    for part in ("tensorrt_rtx-sm89.engine", " MB", "compiled in ", " s"):
        assert part in text.stdout
    facts = json.loads(found.stdout)
    assert facts["cached"]
    assert Path(facts["path"]).stat().st_size == facts["bytes"]


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("checkpoint", "operator"),
    [("llada-gqa-bias-tied", r"Attention \(layer "), ("llada-mha", "MultiHeadAttention of node ")],
)
def test_float32_attention_is_refused_with_what_to_change(
    checkpoint: str, operator: str, package_of: PackageOf, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=f"{operator}.*--precision fp16.*--opset 20"):
        build_engine(package_of(checkpoint), target="sm86", output_dir=tmp_path / "engines")

    assert not (tmp_path / "engines").exists()


@pytest.mark.usefixtures("rtx")
def test_an_operator_that_the_compiler_does_not_take_is_named(
    package_of: PackageOf, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    package = tmp_path / "package"
    shutil.copytree(package_of("llada-mha"), package)
    graph = onnx.load(package / "model.onnx", load_external_data=False)
    multiply = next(node for node in graph.graph.node if node.op_type == "MatMul")
    multiply.op_type, multiply.name = "MatMulInteger", "a_quantized_product"
    onnx.save(graph, package / "model.onnx")
    facts = json.loads((package / "fastdllm.json").read_text("utf-8"))
    facts["files"]["model.onnx"] = {
        "bytes": (package / "model.onnx").stat().st_size,
        "sha256": sha256_of_file(package / "model.onnx"),
    }
    (package / "fastdllm.json").write_text(json.dumps(facts), "utf-8")

    with pytest.raises(
        ExportError, match=r"MatMulInteger of node a_quantized_product.*--precision fp16"
    ):
        build_engine(package, target="sm86", **SMALL)


@pytest.mark.usefixtures("rtx")
def test_a_target_without_ahead_of_time_compiler_is_refused(package_of: PackageOf) -> None:
    with pytest.raises(ExportError, match=r"'sm87'.*for sm75, sm80.*--target gpu"):
        build_engine(package_of("llada-mha"), target="sm87")


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_ends_a_build_and_leaves_nothing(
    half_package_of: HalfPackageOf, tmp_path: Path
) -> None:
    package = half_package_of("llada-mha", 23)
    program = (
        "from fastdllm.export.tensorrt import build_engine;"
        f"build_engine({str(package)!r}, target='sm86', output_dir={str(tmp_path / 'engines')!r},"
        " progress=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        seen = b""
        while b"Optimizing graph" not in seen:
            piece = child.stderr.read1(100)  # type: ignore[attr-defined]
            assert piece, seen
            seen += piece
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)

    assert child.returncode == -signal.SIGINT
    assert time.monotonic() - start < 2.0
    assert not (tmp_path / "engines").exists()


def test_a_missing_compiler_says_what_to_install(
    package_of: PackageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    package = package_of("llada-mha")
    monkeypatch.setattr(importlib, "import_module", missing)

    with pytest.raises(ExportError, match=f"pip install {RTX_WHEELS}"):
        build_engine(package, target="sm86")


def test_no_gpu_here_says_what_to_do(
    package_of: PackageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    package = package_of("llada-mha")
    monkeypatch.setattr(ctypes, "CDLL", missing)

    with pytest.raises(ExportError, match=r"no GPU driver here.*--target sm86"):
        build_engine(package, target="gpu")


def test_compiling_needs_no_torch() -> None:
    program = (
        "import sys, fastdllm.export.tensorrt;"
        "print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert found.stdout.strip() == "set()", found.stderr


def test_the_profiles_take_every_pass() -> None:
    model = {"max_context_length": 131072, "block_length": 4}

    refresh, step = profiles_for(model)

    assert refresh.rows == Range(1, 2048, 4096)
    assert refresh.cached == step.cached._replace(opt=0) == Range(0, 0, 4096)
    assert step.rows == step.wanted == Range(1, 4, 4)
    assert step.attended == Range(1, 2052, 4100)
    assert refresh.kept == Range(0, 2044, 8192)
    assert step.kept == Range(0, 0, 4100)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_context": 129}, "max_context is 129; expected 1 to 128"),
        ({"max_context": 0}, "max_context is 0"),
        ({"max_context": 64, "max_rows": 65}, "max_rows is 65; expected 1 to 64"),
        ({"rows_per_step": 0}, "rows_per_step is 0"),
        ({"max_rows": 16, "rows_per_step": 17}, "rows_per_step is 17; expected 1 to 16"),
        ({"max_batch": 65}, "max_batch is 65"),
    ],
)
def test_a_limit_out_of_range_is_named(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        profiles_for({"max_context_length": 128}, **limits)


def test_the_extra_names_the_wheels_that_the_error_names() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")

    assert all(f'"{wheel}' in project for wheel in RTX_WHEELS.split())
