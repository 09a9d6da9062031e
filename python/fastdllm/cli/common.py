"""What commands share: the options of a package's command, JSON and tables on stdout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, TextIO

from fastdllm.cli.config import integer


def threads(text: str) -> int:
    """Read a number of threads."""
    value = integer(text)
    if not 0 <= value <= 256:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected 0 to 256")
    return value


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
    command.add_argument("--threads", type=threads, default=0, help="in one pass; 0 = automatic")
    command.add_argument(
        "--backend",
        choices=("auto", "onnxruntime", "tensorrt"),
        default="auto",
        help="auto (the default): TensorRT on a GPU that there is an engine for, else ONNX Runtime",
    )
    command.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    if json:
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def print_json(content: object, indent: int | None = 1) -> None:
    """Print one JSON value; numbers that JSON has no word for are an error."""
    print(json.dumps(content, indent=indent, allow_nan=False))


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a person may be reading."""
    return stream is not None and stream.isatty()


def show(facts: dict[str, Any]) -> None:
    """Print facts in two columns."""
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {value}")
