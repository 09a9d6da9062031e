"""`fastdllm batch`: answers to every row of a data set, on a Ray cluster."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastdllm.cli.config import (
    add_config,
    add_engine_options,
    config_of,
    engine_options_of,
    integer,
)

if TYPE_CHECKING:
    from fastdllm.ray.batch import Progress

# As in fastdllm.ray, which needs Ray: help and completion do not.
_FORMATS = ("parquet", "jsonl")
_ON_ERROR = ("record", "fail")


def run_batch(options: argparse.Namespace) -> int:
    """Run a job; its summary is one JSON object on stdout."""
    import ray

    from fastdllm.ray.batch import answer_dataset

    progress = _Progress()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is shown here
    try:
        config = config_of(options)
        if options.address is not None:
            ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR)
        summary = answer_dataset(
            options.package,
            options.input,
            options.output,
            config=config,
            stop=options.stop,
            raw=options.raw,
            prompt_column=options.prompt_column,
            id_column=options.id_column,
            formats=options.format or ("parquet",),
            shard_rows=options.shard_rows,
            on_error=options.on_error,
            fresh=options.fresh,
            replicas=options.replicas,
            **engine_options_of(options),
            on_progress=progress.show,
        )
    except KeyboardInterrupt:
        progress.end()
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception:
        progress.end()  # the error gets its own line
        raise
    progress.end()
    print(json.dumps(asdict(summary)))
    return 0


def add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "batch",
        help="answer every row of a data set on a Ray cluster",
        description="Answer every row of a data set on a Ray cluster. Started again, it goes on.",
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("input", type=Path, help="a .jsonl or .parquet file, or a folder of such")
    parser.add_argument("output", type=Path, help="a folder that every worker sees")
    parser.add_argument("--prompt-column", default="prompt", help="default: prompt")
    parser.add_argument("--id-column", help="copied to the answers; default: none")
    parser.add_argument("--format", action="append", choices=_FORMATS, help="default: parquet")
    parser.add_argument(
        "--shard-rows", type=integer, default=256, help="rows of an output file; default 256"
    )
    parser.add_argument(
        "--on-error",
        choices=_ON_ERROR,
        default="record",
        help="write a bad row's error in its place (the default), or end the job at it",
    )
    parser.add_argument("--fresh", action="store_true", help="throw away what the output holds")
    parser.add_argument("--replicas", type=integer, default=1, help="engines; default 1")
    # A replica has so many cores, and a GPU where the device is one.
    add_engine_options(parser, threads=1, max_waiting=None)
    parser.add_argument("--address", help="of the cluster, or auto; default: RAY_ADDRESS, or here")
    parser.add_argument(
        "--raw", action="store_true", help="take prompts as they stand, without chat template"
    )
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end answers before it")
    add_config(parser)
    parser.set_defaults(run=run_batch)


class _Progress:
    """On stderr: one line in place on a terminal, else a line per shard."""

    def __init__(self) -> None:
        self._live = sys.stderr is not None and sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Show the job's progress."""
        line = f"{progress.rows}/{progress.num_rows} rows"
        if progress.new_rows:
            line += f", {progress.new_rows / progress.seconds:.1f} rows/s"
            line += f", {progress.completion_tokens / progress.seconds:.0f} tokens/s"
        elif progress.rows:
            line += " were there already"
        if progress.failed:
            line += f", {progress.failed} failed"
        if self._live:
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        elif sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line."""
        if self._live:
            print(file=sys.stderr)
