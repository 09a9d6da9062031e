"""`fastdllm bench`: compares decoding modes."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from fastdllm._core import Error
from fastdllm.cli.common import is_terminal, package_command, print_json
from fastdllm.cli.config import engine_options_of, integer
from fastdllm.output import check_writable, write_whole


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that compares decoding modes."""
    bench = package_command(commands, "bench", "compare naive, prefix, dual, dual + threshold")
    bench.add_argument("--prompt", help="the question; default: 16 token ids")
    bench.add_argument("--max-new-tokens", type=integer, default=64)
    bench.add_argument("--block-length", type=integer, help="default: the package's, or 32")
    bench.add_argument("--threshold", type=float, default=0.9)
    bench.add_argument("--repeat", type=integer, default=3)
    bench.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw bars, .png or .svg; needs fastdllm[plot]"
    )
    bench.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    from fastdllm.bench import measure, standard_modes, table
    from fastdllm.engine import Engine
    from fastdllm.llm import LLM

    if options.repeat < 1:
        raise Error(f"repeat is {options.repeat}; expected at least 1")
    if options.plot is not None:
        from fastdllm.bench.plot import SUFFIXES, draw_bench  # says so where matplotlib is missing

        check_writable({"--plot": options.plot})
        if options.plot.suffix.lower() not in SUFFIXES:
            raise Error(f"--plot {options.plot}: expected a name that ends in .png or .svg")
    if options.prompt is not None:
        llm = LLM(options.package, **engine_options_of(options))
        engine, prompts = llm.engine, [llm.encode(options.prompt)]
    else:
        engine = Engine(options.package, **engine_options_of(options))
        allowed = [i for i in range(engine.package.vocab_size) if i != engine.package.mask_token_id]
        prompts = [allowed[:16]]
    modes = standard_modes(
        max_new_tokens=options.max_new_tokens,
        block_length=options.block_length,
        threshold=options.threshold,
    )
    results = []
    for mode in modes:
        if is_terminal(sys.stderr):
            print(f"\rmeasuring {mode.name:30}", end="", file=sys.stderr, flush=True)
        measure(engine, prompts[:1], mode)  # warm up
        results.append(measure(engine, prompts, mode, repeat=options.repeat))
    if is_terminal(sys.stderr):
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    naive = results[0].tokens_per_second
    block_length = options.block_length or engine.package.block_length or 32
    told = f"{engine.backend}, {options.max_new_tokens} new tokens in blocks of {block_length}"
    if options.plot is not None:
        name = options.package.absolute().name
        write_whole(
            options.plot,
            lambda path: draw_bench(
                results, path, title=name, subtitle=told, repeat=options.repeat
            ),
        )
    if options.json:
        rows = [
            dataclasses.asdict(result)
            | {
                "tokens_per_pass": result.tokens_per_pass,
                "tokens_per_second": result.tokens_per_second,
                "outside_microseconds": result.outside_microseconds,
            }
            for result in results
        ]
        print_json({"backend": engine.backend, "repeat": options.repeat, "modes": rows})
        return 0
    header = ["mode", "passes", "tokens/pass", "tokens/s", "speed-up", "ms/pass", "outside us/pass"]
    rows_of_text = [header]
    for result in results:
        rows_of_text.append(
            [
                result.name,
                str(result.num_passes // options.repeat),
                f"{result.tokens_per_pass:.1f}",
                f"{result.tokens_per_second:.0f}",
                f"{result.tokens_per_second / naive:.1f}x",
                f"{1e3 * result.seconds / result.num_passes:.2f}",
                f"{result.outside_microseconds:.0f}",
            ]
        )
    print(told)
    print(table(rows_of_text))
    return 0
