"""`fastdllm info` and `fastdllm check`: describe a package, and check it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from fastdllm.cli.common import package_command, print_json, show
from fastdllm.cli.config import engine_options_of
from fastdllm.cli.summary import summary


def add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that describe and check a package."""
    info = commands.add_parser("info", help="show what a package is, or what this build can do")
    info.add_argument("package", type=Path, nargs="?", help="default: this installation")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=_info)
    check = package_command(commands, "check", "check schema, checksums, graph and tokenizer")
    check.set_defaults(run=_check)


def _info(options: argparse.Namespace) -> int:
    if options.package is None:
        return _info_of_build(options)
    from fastdllm._core import read_package
    from fastdllm.check import read_metadata

    read_package(str(options.package))  # refuses what cannot be read
    metadata = read_metadata(options.package)
    metadata["bytes"] = sum(entry["bytes"] for entry in metadata["files"].values())
    if options.json:
        print_json(metadata)
        return 0
    facts: dict[str, Any] = {
        "family": metadata["family"],
        "precision": f"{metadata['precision']} (cache {metadata['graph']['cache_type']})",
        "format": f"version {metadata['format_version']}, opset {metadata['opset']}",
        "exported by": f"fastdllm {metadata.get('fastdllm_version', 'unknown')}",
        "size": f"{metadata['bytes'] / 1e6:.1f} MB",
        **{k: metadata["graph"][k] for k in ("score_bytes",) if k in metadata["graph"]},
        **metadata["model"],
        **recommended_lines(metadata),
        **summary(metadata),
    }
    show(facts)
    return 0


def recommended_lines(metadata: dict[str, Any]) -> dict[str, str]:
    """Return a line for each option that the package recommends, with its source."""
    return {
        f"recommended {name}": f"{entry['value']} ({entry['source']})"
        for name, entry in metadata.get("decoding", {}).items()
    }


def _info_of_build(options: argparse.Namespace) -> int:
    from fastdllm.capabilities import capabilities

    found = capabilities()
    if options.json:
        print_json(found.to_dict())
        return 0
    parts = {
        f"{kind} {part.name}": f"{'yes' if part.available else 'no'}: {part.detail}"
        for kind, listed in (("backend", found.backends), ("compiler", found.compilers))
        for part in listed
    }
    show(
        {
            "fastdllm": found.version,
            "package format": f"up to version {found.package_format}",
            "families": ", ".join(found.families),
            "precisions": ", ".join(found.precisions),
            **parts,
            "exporter": found.exporter.detail,
        }
    )
    return 0


def _check(options: argparse.Namespace) -> int:
    from fastdllm.check import check_package

    results = []
    for result in check_package(options.package, **engine_options_of(options)):
        results.append(result)
        if not options.json:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.detail}")
    if options.json:
        print_json([dataclasses.asdict(result) for result in results])
    failed = [result.name for result in results if not result.passed]
    if failed:
        print(f"fastdllm: error: {options.package}: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
