"""Compiles packages into TensorRT engines; see PACKAGE.md, "TensorRT engines"."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastdllm._core import read_package
from fastdllm.check import read_metadata, sha256_of_file
from fastdllm.export.errors import ExportError
from fastdllm.export.tensorrt_compiler import (
    Profile,
    Range,
    compile_package,
    compiler_ahead_of_time,
    compiler_of_this_gpu,
)

THIS_GPU = "gpu"
RECORD_VERSION = 1
DEFAULT_CONTEXT = 4096  # the default limit where a model would take far more


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine on disk. cached: it was there already and nothing was compiled.

    seconds: what compiling took (or once took). compiler: name and version.
    """

    path: Path
    compiler: str
    target: str
    bytes: int
    seconds: float
    cached: bool


def build_engine(
    package_dir: str | Path,
    *,
    target: str = THIS_GPU,
    output_dir: str | Path | None = None,
    max_context: int | None = None,
    max_rows: int | None = None,
    rows_per_step: int | None = None,
    max_batch: int = 1,
    progress: bool | None = None,
) -> BuiltEngine:
    """Compile a package's graph and weights into an engine, or find the one compiled before.

    target: "gpu" compiles with TensorRT for this machine's GPU; "sm86" and its like with
    TensorRT-RTX ahead of time. output_dir: default PACKAGE.engines beside the package.
    max_context: most cached rows, default the model's, at most 4096. max_rows: most rows of a
    refresh, default max_context. rows_per_step: rows of a step, default the model's block length
    or 32; also the most rows that logits are asked for. progress: a line on stderr; None = on a
    terminal.

    The engine and its record are put in place when they are whole. Errors: PackageError;
    ExportError when a limit is out of range, the compiler is missing or refuses the graph.
    """
    folder = Path(package_dir)
    read_package(str(folder))  # refuses what cannot be read
    metadata = read_metadata(folder)
    profiles = profiles_for(
        metadata["model"],
        max_context=max_context,
        max_rows=max_rows,
        rows_per_step=rows_per_step,
        max_batch=max_batch,
    )
    compiler = compiler_of_this_gpu() if target == THIS_GPU else compiler_ahead_of_time(target)
    root = folder.resolve()
    engines = Path(output_dir) if output_dir is not None else root.with_name(f"{root.name}.engines")
    path = engines / f"{compiler.name}-{compiler.target}.engine"
    key = {
        "record_version": RECORD_VERSION,
        "compiler": compiler.title,
        "target": compiler.target,
        "device": compiler.device,
        # fastdllm.json holds the digests of all other files, so its own stands for the package.
        "package_sha256": sha256_of_file(folder / "fastdllm.json"),
        "profiles": [asdict(profile) for profile in profiles],
    }
    record = _find(path, key)
    cached = record is not None
    if record is None:
        with _folder_to_write(engines):
            start = time.monotonic()
            engine = compile_package(compiler, folder, metadata, profiles, progress)
            record = {**key, "seconds": round(time.monotonic() - start, 2)}
            _put_in_place(path, engine, record)
    return BuiltEngine(
        path=path,
        compiler=compiler.title,
        target=compiler.target,
        bytes=path.stat().st_size,
        seconds=record["seconds"],
        cached=cached,
    )


def profiles_for(
    model: dict[str, Any],
    *,
    max_context: int | None = None,
    max_rows: int | None = None,
    rows_per_step: int | None = None,
    max_batch: int = 1,
) -> tuple[Profile, Profile]:
    """Return the profiles refresh and step for a model's facts; None = the default.

    A refresh feeds many rows, usually with nothing cached; a step feeds a block's rows with
    everything else cached. Errors: ExportError for a limit out of its range.
    """
    most = model["max_context_length"]
    context = min(most, DEFAULT_CONTEXT) if max_context is None else max_context
    _require("max_context", context, most)
    rows = context if max_rows is None else max_rows
    _require("max_rows", rows, context)
    step = min(model.get("block_length") or 32, rows) if rows_per_step is None else rows_per_step
    _require("rows_per_step", step, rows)
    _require("max_batch", max_batch, 64)
    batch = Range(1, 1, max_batch)
    block = Range(1, step, step)
    refresh_rows = Range(1, max(step, rows // 2), rows)
    return (
        Profile(
            name="refresh",
            batch=batch,
            rows=refresh_rows,
            cached=Range(0, 0, context),
            wanted=block,
        ),
        Profile(
            name="step",
            batch=batch,
            rows=block,
            cached=Range(0, context // 2, context),
            wanted=block,
        ),
    )


def _require(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ExportError(f"{name} is {value}; expected 1 to {most}")


def _find(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of the engine at `path` when it is what `key` asks for."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(key))  # as JSON gives it back
        float(record["seconds"])
        same = record.items() >= wanted.items() and record["bytes"] == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing there, or nothing usable
    return dict(record) if same else None


@contextlib.contextmanager
def _folder_to_write(folder: Path) -> Iterator[None]:
    """Make the folder before compiling, which may take long; gone again if nothing came of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as problem:
        raise ExportError(f"{folder}: cannot be written: {problem}") from None
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty


def _put_in_place(path: Path, engine: memoryview, record: dict[str, Any]) -> None:
    """Write the engine, then its record: a record never stands beside another engine."""
    facts = {"bytes": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
    record_path = path.with_suffix(".json")
    record_path.unlink(missing_ok=True)
    _write_whole(path, engine)
    _write_whole(record_path, (json.dumps(record | facts, indent=1) + "\n").encode())


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write beside `path` and rename, so that it is whole or as it was."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
