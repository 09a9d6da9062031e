"""What commands share: the options of a package's command, JSON and tables on stdout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, TextIO

from fastdllm.cli.config import add_engine_options


def package_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Add a command that loads a package, with the options that go with it."""
    command = commands.add_parser(name, help=text)
    command.add_argument("package", type=Path)
    add_engine_options(command)
    if json:
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def print_json(content: object, indent: int | None = 1) -> None:
    """Print one JSON value; numbers that JSON cannot hold are an error."""
    print(json.dumps(content, indent=indent, allow_nan=False))


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether the output is a terminal."""
    return stream is not None and stream.isatty()


def show(facts: dict[str, Any]) -> None:
    """Print facts in two columns."""
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")
