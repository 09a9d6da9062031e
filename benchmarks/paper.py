"""Measures the paper's tables and figures on the shipped model; draws and writes them.

    python benchmarks/paper.py [--count 200 --tables 1-2 3] [--output benchmarks/results/paper.json]
    python benchmarks/paper.py --render benchmarks/results/paper.json

Tables 1 and 2: cache and parallel decoding, alone and together, at two generation lengths. Tables 3
and 4: prefix against dual cache over growing prompts and generations. Figure 4: block length.
Figure 5: confidence against a fixed number of tokens per pass, and the factor and Frechet rules.
Requests come one after the other, with every block decoded as in the paper. --render makes
paper.md and paper_*.svg beside the JSON, and is also the end of a measurement.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, head
from paper_cells import BLOCK_LENGTH, TABLES, THRESHOLD, Counts, measure
from paper_text import COMMAND, markdown

from fastdllm import Error
from fastdllm.output import check_writable, write_whole

PACKAGE = ROOT / "packages" / "tiny_math"
PROBLEMS = ROOT / "benchmarks" / "tiny_math" / "checkpoint" / "problems.jsonl"


class Progress:
    """A line on standard error: rewritten on a terminal, else one at a table's end."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._start = time.perf_counter()

    def __call__(self, done: int, wanted: int) -> None:
        """Show how many answers of the table are there."""
        live = sys.stderr.isatty()
        if live or done == wanted:
            seconds = time.perf_counter() - self._start
            line = f"table {self._table}: {done}/{wanted} answers, {seconds:.0f} s"
            end = "\n" if done == wanted else ""
            print(f"{chr(13) if live else ''}{line}", end=end, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the tables that were asked for."""
    from fastdllm import LLM
    from fastdllm.problems import read_problems

    counts = Counts(usual=options.count, naive=options.naive_count, long=options.long_count)
    problems = read_problems(options.problems)
    llm = LLM(options.package, threads=options.threads)
    start = time.perf_counter()
    tables = {
        table: measure(llm, problems, table, counts, Progress(table)) for table in options.tables
    }
    config = {
        "package": options.package.name,
        "block_length": BLOCK_LENGTH,
        "threshold": THRESHOLD,
        "threads": options.threads,
        "count": counts.usual,
        "naive_count": counts.naive,
        "long_count": counts.long,
        "seconds": round(time.perf_counter() - start, 1),
    }
    return head(command=shlex.join([*COMMAND.split(), *sys.argv[1:]]), config=config, tables=tables)


def render(report: dict[str, Any], path: Path) -> list[Path]:
    """Write the tables as Markdown and the figures as SVG beside the report's JSON."""
    from paper_plots import figures

    made: list[Path] = []
    for name, draw in figures(report).items():
        picture = path.with_name(f"{path.stem}_{name}.svg")
        write_whole(picture, draw)
        made.append(picture)
    text = markdown(report, {picture.stem.partition("_")[2]: picture.name for picture in made})
    tables = path.with_suffix(".md")
    write_whole(tables, lambda beside: beside.write_text(text, "utf-8"))
    return [tables, *made]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, default=PACKAGE)
    parser.add_argument("--problems", type=Path, default=PROBLEMS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--count", type=int, default=200, help="problems per usual cell")
    parser.add_argument("--naive-count", type=int, default=20, help="of one token per pass")
    parser.add_argument("--long-count", type=int, default=50, help="in tables 3 and 4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "paper.json")
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing")
    options = parser.parse_args()
    output: Path = options.render or options.output
    try:
        if min(options.count, options.naive_count, options.long_count) < 1:
            raise Error("a count is below 1; expected at least 1")
        if options.render is None:
            check_writable({"--output": output})
            text = json.dumps(run(options), indent=1) + "\n"
            write_whole(output, lambda beside: beside.write_text(text, "utf-8"))
        for made in render(json.loads(output.read_text("utf-8")), output):
            print(made)
    except (Error, OSError, ImportError) as problem:
        print(f"paper: error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
