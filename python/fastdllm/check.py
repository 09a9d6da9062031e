"""Checks a package on the machine where it will run."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastdllm._core import Error, GenerationConfig, PackageError, read_package
from fastdllm.engine import Engine
from fastdllm.package_files import read_package_file

CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file; progress is called with the bytes read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read fastdllm.json. Errors: PackageError when it is no JSON object."""
    path = folder / "fastdllm.json"
    try:
        content = json.loads(read_package_file(path).decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise PackageError(f"{path}: not readable as JSON: {problem}") from None
    if not isinstance(content, dict):
        raise PackageError(f"{path}: expected a JSON object")
    return content


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check: what was checked, whether it passed, and what was found."""

    name: str
    passed: bool
    detail: str


def check_package(
    package_dir: str | Path,
    *,
    progress: Callable[[int], None] | None = None,
    **engine_options: Any,
) -> Iterator[CheckResult]:
    """Check schema, checksums, the graph against stored probes, tokenizer and chat template.

    Yields a result per check, in that order; a bad schema ends the list, since nothing after it
    would mean anything. progress gets the bytes hashed. engine_options: Engine's keywords.
    """
    folder = Path(package_dir)
    try:
        info = read_package(str(folder))
        metadata = read_metadata(folder)
        files = metadata["files"]
        if "probes.json" not in files:
            raise PackageError("fastdllm.json.files does not list 'probes.json'")
        probes = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    except (Error, OSError, ValueError) as problem:
        yield CheckResult(name="schema", passed=False, detail=str(problem))
        return
    yield CheckResult(
        name="schema",
        passed=True,
        detail=f"format {info.format_version}, {info.family}, {info.precision}, opset {info.opset}",
    )
    unlisted = sorted({f.name for f in folder.iterdir()} - set(files) - {"fastdllm.json"})
    sound = not unlisted
    if unlisted:
        yield CheckResult(
            name="files", passed=False, detail=f"not listed in fastdllm.json: {', '.join(unlisted)}"
        )
    for name, entry in files.items():
        result = _check_digest(folder / name, str(entry["sha256"]), progress)
        sound = sound and result.passed
        yield result
    if sound:

        @functools.cache  # the model is loaded once, within the first check that needs it
        def engine() -> Engine:
            return Engine(folder, **engine_options)

        yield _guarded("graph", lambda: _check_graph(engine(), probes))
        yield _guarded("decode", lambda: _check_decode(engine(), probes))
        yield _guarded("text", lambda: _check_text(folder, metadata, probes))


def _guarded(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name=name, passed=True, detail=check())
    except Exception as problem:  # whatever goes wrong in a check is its result
        return CheckResult(name=name, passed=False, detail=str(problem) or repr(problem))


def _check_digest(path: Path, expected: str, progress: Callable[[int], None] | None) -> CheckResult:
    try:
        found = sha256_of_file(path, progress)
    except OSError as problem:
        return CheckResult(name=path.name, passed=False, detail=str(problem))
    if found != expected:
        return CheckResult(
            name=path.name, passed=False, detail=f"sha256 is {found}; expected {expected}"
        )
    return CheckResult(name=path.name, passed=True, detail=f"{path.stat().st_size} bytes")


def _check_graph(engine: Engine, probes: dict[str, Any]) -> str:
    if not probes["graph"]:
        mask = engine.package.mask_token_id
        if not np.isfinite(engine.logits([mask], [0])).all():
            raise PackageError("the logits of a mask token hold NaN or infinity")
        return (
            f"{engine.backend}: loads and runs; NOTHING COMPARED, the package was exported without "
            "loading its model"
        )
    worst = 0.0
    for probe in probes["graph"]:
        logits = engine.logits(probe["input_ids"], [probe["position"]])[0]
        expected = np.asarray(probe["logits"], dtype=np.float64)
        found = logits[np.asarray(probe["vocab_ids"])]
        scale = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(found - expected).max()) / scale)
    if not worst <= probes["tolerance"]:
        raise PackageError(
            f"logits differ from the stored probes by {worst:.3g}; allowed {probes['tolerance']:g}"
        )
    return f"{engine.backend}: logits within {worst:.1e} of {len(probes['graph'])} probes"


def _check_decode(engine: Engine, probes: dict[str, Any]) -> str:
    probe = probes.get("decode")
    if probe is None:
        return "NOTHING COMPARED: no stored decode in this package"
    found = engine.generate(probe["prompt"], GenerationConfig(**probe["config"])).token_ids.tolist()
    expected = probe["token_ids"]
    same = sum(a == b for a, b in zip(found, expected, strict=False))
    # Other kernels round differently: that decides nothing in float32, but may where less is kept.
    exact = engine.package.precision in ("fp32", "bf16")
    if len(found) != len(expected) or same < (1.0 if exact else 0.5) * len(expected):
        raise PackageError(
            f"{same} of {len(expected)} decoded tokens are the stored ones; found {found}, "
            f"expected {expected}"
        )
    return f"{same} of {len(expected)} tokens of a short decode are the stored ones"


def _check_text(folder: Path, metadata: dict[str, Any], probes: dict[str, Any]) -> str:
    entry = metadata.get("tokenizer")
    if entry is None:
        return "no tokenizer in this package"
    from fastdllm.text import TextCodec

    codec = TextCodec(folder, entry)
    for probe in probes["tokenizer"]:
        found = codec.encode(probe["text"])
        if found != probe["token_ids"]:
            raise PackageError(
                f"{probe['text']!r} encodes to {found}; expected {probe['token_ids']}"
            )
    for probe in probes.get("chat", []):
        if (
            codec.chat_template is None
            or codec.chat_template.render(probe["messages"]) != probe["text"]
        ):
            raise PackageError("the chat template renders its probe differently")
    return (
        f"{len(probes['tokenizer'])} tokenizer probes, {len(probes.get('chat', []))} chat probes; "
        f"chat format for C++: {describe_chat_format(entry)}"
    )


def describe_chat_format(entry: dict[str, Any]) -> str:
    """Say whether programs without Jinja can chat with the package, and if not, why."""
    if entry.get("chat_template") is None:
        return "no: there is no chat template"
    if entry.get("chat_format") is not None:
        return "yes"
    if "chat_format" not in entry:
        return "no: exported before there was one, export the package again"
    return f"no: {entry.get('chat_format_reason', 'the chat template is more than a format')}"
