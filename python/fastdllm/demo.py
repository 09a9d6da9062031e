"""The demonstration behind `make demo`: python -m fastdllm.demo PACKAGE PROBLEMS.

Asks a few of the problems (JSON lines of question and answer), shows the answers as their blocks
are committed, then measures the decoding modes on more of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastdllm._core import CommitEvent, Error, GenerationConfig
from fastdllm.bench import Mode, standard_modes, table
from fastdllm.llm import LLM
from fastdllm.problems import Problem, is_right, read_problems

MASK = "·"


class Canvas:
    """Draws the answer while it is decoded, in place on a terminal, else a line per pass."""

    def __init__(self, llm: LLM, config: GenerationConfig, *, live: bool) -> None:
        self._llm = llm
        self._live = live
        self._mask = llm.engine.package.mask_token_id
        self._stop = set(llm.engine.package.eos_token_ids)
        self._ids = [self._mask] * config.max_new_tokens

    def __call__(self, event: CommitEvent) -> None:
        """Show the canvas after a pass."""
        for position, token in zip(event.positions, event.token_ids, strict=True):
            self._ids[int(position)] = int(token)
        end = next((i for i, token in enumerate(self._ids) if token in self._stop), None)
        text = "".join(
            MASK if token == self._mask else self._llm.codec.decode([token])
            for token in self._ids[:end]
        ).replace("\n", " / ")
        if self._live:
            print(f"\r\x1b[2K  \x1b[2m{text}\x1b[0m", end="", flush=True)
        else:
            print(f"  pass {event.step + 1}: {text}")


def show_answer(llm: LLM, problem: Problem, *, live: bool) -> None:
    """Ask one problem and print the answer as it forms."""
    config = GenerationConfig(max_new_tokens=64, threshold=0.9)
    print(f"\n{problem.prompt}")
    answer = llm.generate(problem.prompt, config, on_commit=Canvas(llm, config, live=live))
    if live:
        print("\r\x1b[2K", end="")
    print("  " + answer.text.replace("\n", "\n  "))
    verdict = "right" if is_right(answer.text, problem.answer or "") else "wrong"
    print(f"  [{len(answer.token_ids)} tokens in {answer.num_passes} passes, {verdict}]")


def compare_modes(llm: LLM, problems: list[Problem], modes: tuple[Mode, ...]) -> str:
    """Decode all problems in every mode and return a table."""
    header = ["mode", "passes", "tokens/forward", "tokens/s", "speed-up", "accuracy"]
    rows = [header]
    naive = 0.0
    for mode in modes:
        tokens = passes = right = 0
        seconds = 0.0
        for number, problem in enumerate(problems, 1):
            answer = llm.generate(problem.prompt, mode.config)
            ids = answer.token_ids.tolist()
            ends = [ids.index(i) for i in llm.engine.package.eos_token_ids if i in ids]
            text = llm.codec.decode(ids[: min(ends, default=len(ids))])
            right += is_right(text, problem.answer or "")
            tokens += len(ids)
            passes += answer.num_passes
            seconds += answer.stats.total_seconds
            if sys.stderr.isatty():
                print(f"\r{mode.name}: {number}/{len(problems)}  ", end="", file=sys.stderr)
        naive = naive or tokens / seconds
        rows.append(
            [
                mode.name,
                f"{passes / len(problems):.1f}",
                f"{tokens / passes:.1f}",
                f"{tokens / seconds:.0f}",
                f"{tokens / seconds / naive:.1f}x",
                f"{100 * right / len(problems):.1f}%",
            ]
        )
    if sys.stderr.isatty():
        print("\r\x1b[2K", end="", file=sys.stderr)
    return table(rows)


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--count", type=int, default=50, help="problems to measure on")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        problems = read_problems(options.problems)
        llm = LLM(options.package, threads=options.threads)
        for problem in problems[:3]:
            show_answer(llm, problem, live=sys.stdout.isatty())
        count = min(options.count, len(problems))
        print(f"\n{count} problems, 64 new tokens each in blocks of 32, {llm.engine.backend}")
        print(compare_modes(llm, problems[:count], standard_modes()))
    except Error as problem:
        print(f"fastdllm.demo: error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
