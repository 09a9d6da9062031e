"""The command line: its parser, with all commands, and its entry point.

Exit codes: 0 success; 1 failure, one line on stderr; 2 wrong usage; 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastdllm._core import Error
from fastdllm.cli.batch import add_batch
from fastdllm.cli.bench import add_bench
from fastdllm.cli.chat import add_chat
from fastdllm.cli.common import package_command
from fastdllm.cli.completion import add_completion
from fastdllm.cli.config import parse_words
from fastdllm.cli.eval import add_eval
from fastdllm.cli.export import add_build_engine, add_export
from fastdllm.cli.generate import add_generate
from fastdllm.cli.info import add_info
from fastdllm.cli.models import add_models
from fastdllm.cli.serve import add_serve
from fastdllm.cli.trace import add_trace
from fastdllm.cli.tune import add_tune
from fastdllm.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None = the process's) and return its exit code."""
    parser = build_parser()
    options = parse_words(parser, arguments)
    try:
        if options.cmake_dir:
            print(_cmake_dir())
            return 0
        if options.command is None:
            parser.error("a command is needed; --help lists them")
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Error, ImportError, OSError) as problem:
        return _fail(str(problem))
    except Exception as problem:  # a fault of fastdllm, but still one line and not a traceback
        return _fail(f"{type(problem).__name__}: {problem}")


def _cmake_dir() -> Path:
    folder = Path(__file__).parents[1] / "lib" / "cmake" / "fastdllm"
    if not (folder / "fastdllmConfig.cmake").is_file():
        raise FileNotFoundError(f"{folder} has no fastdllmConfig.cmake: not installed from a wheel")
    return folder


def _fail(message: str) -> int:
    if sys.stderr is not None:
        print(f"fastdllm: error: {message}", file=sys.stderr)
    return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="fastdllm", description="Fast, exact decoding of masked diffusion language models."
    )
    parser.add_argument("--version", action="version", version=f"fastdllm {__version__}")
    parser.add_argument(
        "--cmake-dir",
        action="store_true",
        help="print the folder for CMake's fastdllm_DIR: the C++ library that came in the wheel",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_export(commands)
    add_build_engine(commands)
    add_generate(commands)
    add_info(commands)
    add_models(commands)
    add_bench(commands)
    add_tune(package_command(commands, "tune", "find the best rule and cache for prompts"))
    add_serve(commands)
    trace = package_command(commands, "trace", "show what each pass of an answer did", json=False)
    add_trace(trace)
    add_chat(package_command(commands, "chat", "talk: with commands and live, or a line a turn"))
    add_completion(commands.add_parser("completion", help="print a shell's completion"), parser)
    add_eval(commands)
    add_batch(commands)
    return parser
