"""`fastdllm completion`: a script that completes the command line in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastdllm._core import Error


def add_completion(command: argparse.ArgumentParser, parser: argparse.ArgumentParser) -> None:
    """Add what the command needs; parser: the whole command line's."""
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    command.epilog = 'bash: eval "$(fastdllm completion bash)" in ~/.bashrc'
    command.set_defaults(run=lambda options: _print_script(options, parser))


def _print_script(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        import shtab
    except ImportError:
        raise Error("completion needs shtab: pip install 'fastdllm[chat]'") from None
    _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, options.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Mark every argument that is a path; packages and checkpoints are folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, file, folder)
        elif action.type is Path:
            is_folder = action.dest in ("package", "packages", "checkpoint")
            action.complete = folder if is_folder else file  # type: ignore[attr-defined]
