"""`fastdllm trace`: an answer's passes as JSON, as an HTML file, as a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fastdllm._core import Error
from fastdllm.cli.config import add_config, config_of, engine_options_of, read_prompt
from fastdllm.output import check_writable, write_whole


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
    if str(options.html) == "-":
        raise Error("--html -: expected the name of a file; only --json has - for standard output")
    if options.png is not None:
        if options.png.suffix.lower() != ".png":
            raise Error(f"--png {options.png}: expected a name that ends in .png")
        from fastdllm.trace.png import draw_png  # says so where matplotlib is missing
    config = config_of(options)
    prompt = read_prompt(options.prompt)

    from fastdllm.llm import LLM
    from fastdllm.trace import make_trace
    from fastdllm.trace.html import draw_html

    llm = LLM(options.package, **engine_options_of(options))
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
