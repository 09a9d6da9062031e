"""`fastdllm trace`: an answer's passes as JSON, as an HTML file, as a picture."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastdllm._core import Error
from fastdllm.cli_config import add_config, config_of, read_prompt


def add_trace(command: argparse.ArgumentParser) -> None:
    """Add the options of `fastdllm trace` to a command with PACKAGE and the engine's options."""
    command.add_argument("--prompt", required=True, help="the question; - reads standard input")
    command.add_argument(
        "--raw", action="store_true", help="take the prompt as it stands, without chat template"
    )
    command.add_argument(
        "--stop", action="append", metavar="TEXT", help="end the answer before it; may come again"
    )
    command.add_argument(
        "--html", type=Path, metavar="FILE", help="a page that opens from disk, without network"
    )
    command.add_argument("--png", type=Path, metavar="FILE", help="a picture; needs fastdllm[plot]")
    command.add_argument(
        "--json", metavar="FILE", help="everything, for programs; - is standard output"
    )
    add_config(command)
    command.set_defaults(run=run_trace)


def run_trace(options: argparse.Namespace) -> int:
    """Answer the prompt and write what was asked for. Nothing is decoded for wrong file names."""
    json_path = Path(options.json) if options.json not in (None, "-") else None
    paths = {"--html": options.html, "--png": options.png, "--json": json_path}
    if options.json is None and not any(paths.values()):
        raise Error("nothing to write; give --html FILE, --png FILE or --json FILE, or several")
    check_writable(paths)
    if options.png is not None:
        from fastdllm.trace_png import draw_png  # says so where matplotlib is missing
    config = config_of(options)
    prompt = read_prompt(options.prompt)

    from fastdllm.llm import LLM
    from fastdllm.trace import make_trace
    from fastdllm.trace_html import draw_html

    llm = LLM(
        options.package, threads=options.threads, backend=options.backend, device=options.device
    )
    trace = make_trace(
        llm,
        prompt,
        config,
        package=options.package.absolute().name,
        stop=options.stop,
        raw=options.raw,
    )
    if options.html is not None:
        html = draw_html(trace)
        write_whole(options.html, lambda path: path.write_text(html, "utf-8"))
    if options.png is not None:
        write_whole(options.png, lambda path: draw_png(trace, path))
    text = json.dumps(trace, indent=1, allow_nan=False)
    if json_path is not None:
        write_whole(json_path, lambda path: path.write_text(text + "\n", "utf-8"))
    elif options.json == "-":
        print(text)
    return 0


def check_writable(paths: dict[str, Path | None]) -> None:
    """Refuse names of files that could not be written, by their option. Errors: Error."""
    taken: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        if (other := taken.setdefault(path.absolute(), option)) != option:
            raise Error(f"{option} {path}: {other} names the same file")
        if path.is_dir():
            raise Error(f"{option} {path}: is a folder; expected the name of a file")
        if not path.absolute().parent.is_dir():
            raise Error(f"{option} {path}: there is no folder {path.parent}")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, of the same suffix, that then takes its place."""
    made, name = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=path.suffix, dir=path.absolute().parent
    )
    os.close(made)
    beside = Path(name)
    try:
        write(beside)
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
