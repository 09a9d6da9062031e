"""`fastdllm tune`: its options, its progress, its output and files."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from fastdllm import tune
from fastdllm._core import ConfigError, Error
from fastdllm.cli.config import engine_options_of, integer


def add_tune(command: argparse.ArgumentParser) -> None:
    """Add the options of `fastdllm tune` to a command that has PACKAGE and the engine's options."""
    command.add_argument(
        "problems", type=Path, help='JSON lines: {"prompt": text, messages or ids, "answer": text}'
    )
    command.add_argument(
        "--policies",
        nargs="+",
        type=_policy,
        metavar="RULE[=N,N...]",
        help=f"default: {' '.join(tune.POLICIES)}, each with numbers of its own",
    )
    command.add_argument(
        "--caches", nargs="+", choices=("auto", *tune.CACHES), default=list(tune.CACHES)
    )
    command.add_argument("--max-new-tokens", type=integer, default=128)
    command.add_argument("--block-length", type=integer, help="default: the package's, or 32")
    command.add_argument("--count", type=integer, help="problems from the top; default: all")
    command.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="how far below the best quality a recommendation may be; default 1",
    )
    command.add_argument(
        "--raw", action="store_true", help="take prompts as they stand, without chat template"
    )
    command.add_argument("--output", type=Path, metavar="JSON", help="write everything measured")
    command.add_argument("--plot", type=Path, metavar="SVG", help="draw quality against passes")
    command.set_defaults(run=run_tune)


def run_tune(options: argparse.Namespace) -> int:
    """Sweep, print the table and the recommendation, write what was asked for.

    Ctrl-C ends the sweep: what was measured until then is reported, and 130 returned.
    """
    from fastdllm.llm import LLM
    from fastdllm.problems import read_problems
    from fastdllm.tune.plot import draw

    _check(options)
    problems = read_problems(options.problems)[: options.count]
    llm = LLM(options.package, **engine_options_of(options))
    block_length = options.block_length or llm.engine.package.block_length or 32
    settings = tune.grid(
        dict(options.policies or dict.fromkeys(tune.POLICIES, ())),
        list(dict.fromkeys(options.caches)),
        max_new_tokens=options.max_new_tokens,
        block_length=block_length,
    )
    progress = _Progress(settings, len(problems))
    code = 0
    try:
        tune.sweep(
            llm,
            problems,
            settings,
            raw=options.raw,
            on_progress=progress.show,
            on_outcome=progress.tell,
        )
    except KeyboardInterrupt:
        if not progress.outcomes:
            raise
        code = 130
    finally:
        progress.clear()
    outcomes = progress.outcomes
    front = tune.pareto_front(outcomes)
    chosen = tune.recommended(outcomes, options.tolerance)
    fastest = max(
        tune.within(outcomes, options.tolerance), key=lambda outcome: outcome.tokens_per_second
    )
    scored = _scored(sum(problem.answer is not None for problem in problems), len(problems))
    found: dict[str, Any] = {
        "package": str(options.package),
        "backend": llm.engine.backend,
        "problems": len(problems),
        "quality": scored,
        "max_new_tokens": options.max_new_tokens,
        "block_length": block_length,
        "tolerance": options.tolerance,
        "recommended": chosen.setting.name,
        "fastest": fastest.setting.name,
        "settings": [one.to_dict() | {"pareto": one in front} for one in outcomes],
    }
    if options.output is not None:
        report = json.dumps(found, indent=1, allow_nan=False)
        options.output.write_text(report + "\n", encoding="utf-8")
    if options.plot is not None:
        title = f"{options.package.absolute().name}: {len(problems)} problems, {scored}"
        drawing = draw(outcomes, title=title, tolerance=options.tolerance)
        options.plot.write_text(drawing, encoding="utf-8")
    if options.json:
        print(json.dumps(found, indent=1, allow_nan=False))
        return code
    print(
        f"{llm.engine.backend}, {len(problems)} problems, up to {options.max_new_tokens} new tokens"
        f" in blocks of {block_length}"
    )
    print(f"quality: {scored}; * on the Pareto front, > recommended\n")
    print(tune.report(outcomes, options.tolerance))
    print(
        f"\nfewest passes within {options.tolerance:g} points of the best quality:"
        f"\n  fastdllm generate {options.package} {_lengths(options)}{chosen.setting.options}"
    )
    if fastest is not chosen:
        print(f"most tokens/s of those: {fastest.setting.options}")
    return code


def _policy(text: str) -> tuple[str, tuple[float, ...]]:
    name, _, numbers = text.partition("=")
    try:
        values = tuple(float(number) for number in numbers.split(",") if number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}; expected numbers: {name}=N,N") from None
    try:
        tune.grid({name: values}, ["none"], max_new_tokens=1, block_length=32)
    except ConfigError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    return name, values


def _check(options: argparse.Namespace) -> None:
    """Check the output files before the sweep, not after it."""
    for name, least in (("count", 1), ("max_new_tokens", 1), ("block_length", 1), ("tolerance", 0)):
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise Error(f"{name} is {value}; expected at least {least}")
    if not math.isfinite(options.tolerance):
        raise Error(f"tolerance is {options.tolerance}; expected a finite number")
    for path in (options.output, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise Error(f"{path}: there is no folder {path.parent}")
    if options.plot is not None and options.plot.suffix.lower() != ".svg":
        raise Error(f"{options.plot}: expected a name that ends in .svg")


def _scored(known: int, count: int) -> str:
    if known == count:
        return "right answers"
    agreeing = f"tokens as with {tune.CAREFUL}"
    return f"right answers ({known}), {agreeing} ({count - known})" if known else agreeing


def _lengths(options: argparse.Namespace) -> str:
    block = f"--block-length {options.block_length} " if options.block_length is not None else ""
    return f"--max-new-tokens {options.max_new_tokens} {block}"


class _Progress:
    """On stderr: one line in place on a terminal, else a line per setting."""

    def __init__(self, settings: list[tune.Setting], problems: int) -> None:
        self._settings = settings
        self._problems = problems
        self.outcomes: list[tune.Outcome] = []
        self._live = sys.stderr is not None and sys.stderr.isatty()

    def show(self, index: int, answers: int) -> None:
        """Show how far a setting is."""
        if self._live:
            line = f"[{index + 1}/{len(self._settings)}] {self._settings[index].name}"
            print(f"\r\x1b[2K{line}: {answers}/{self._problems}", end="", file=sys.stderr)
            sys.stderr.flush()

    def tell(self, outcome: tune.Outcome) -> None:
        """Store the result of a setting, and print it."""
        self.outcomes.append(outcome)
        if not self._live and sys.stderr is not None:
            print(
                f"[{len(self.outcomes)}/{len(self._settings)}] {outcome.setting.name}:"
                f" {100 * outcome.quality:.1f} %, {outcome.passes_per_answer:.2f} passes",
                file=sys.stderr,
                flush=True,
            )

    def clear(self) -> None:
        """Erase the line."""
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
