"""The cells of the paper's tables and figures on the shipped model, and how they are measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastdllm import LLM, GenerationConfig
from fastdllm.problems import Problem, is_right

TABLES = ("1-2", "3", "4", "figure-4", "figure-5")
BLOCK_LENGTH, THRESHOLD = 32, 0.9  # the paper's
LENGTHS = (64, 128)  # Tables 1 and 2: where the paper has 256 and 512
SHOTS = (0, 2, 4, 7)  # Table 3: eight do not fit the model's context
LONGER = (64, 128, 256, 384)  # Table 4
BLOCKS = (4, 8, 16, 32, 64)  # Figure 4
POLICY_BLOCK = 16  # Figure 5: in larger blocks this model errs too seldom for rules to differ
POLICIES: Mapping[str, tuple[float, ...]] = {  # Figure 5
    "threshold": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
    "steps_per_block": (16, 8, 4, 2, 1),
    "factor": (0.25, 0.5, 0.75, 1.0, 1.5),
    "frechet": (0.05, 0.1, 0.25, 0.5, 0.75),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A way to decode, at one prompt and generation length. rule: options of GenerationConfig."""

    mode: str
    cache: str
    rule: Mapping[str, float] = field(default_factory=dict)
    new_tokens: int = 64
    shots: int = 0
    block_length: int = BLOCK_LENGTH
    ignore_eos: bool = True

    @property
    def one_by_one(self) -> bool:
        """Whether every pass decodes one token, or nearly: no confidence exceeds 1."""
        one = {"threshold": 1.0, "steps_per_block": float(self.block_length)}
        return all(value == one.get(name) for name, value in self.rule.items())

    @property
    def baseline(self) -> bool:
        """Whether others are compared with it."""
        return not self.rule and self.cache == "none"

    @property
    def config(self) -> GenerationConfig:
        """What the engine is asked for."""
        rule: dict[str, Any] = dict(self.rule)
        return GenerationConfig(
            max_new_tokens=self.new_tokens,
            block_length=self.block_length,
            cache=self.cache,
            ignore_eos=self.ignore_eos,
            **rule,
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Problems per cell. usual: of cells that unmask in parallel, twice as many in Figure 5.

    long: of those in Tables 3 and 4, and of one token per pass in the figures. naive: of one token
    per pass in the tables, a quarter of it where more than 256 tokens are generated.
    """

    usual: int = 200
    naive: int = 20
    long: int = 50

    def of(self, table: str, cell: Cell) -> int:
        """Return how many problems a cell answers."""
        figure = table.startswith("figure")
        if cell.one_by_one and not figure:
            return max(1, self.naive // (4 if cell.new_tokens > 256 else 1))
        if cell.one_by_one or not (figure or table == "1-2"):
            return self.long
        return 2 * self.usual if table == "figure-5" else self.usual


def parallel(**more: Any) -> dict[str, Any]:
    return {"rule": {"threshold": THRESHOLD}} | more


def cells_of(table: str) -> list[Cell]:
    """Return a table's cells; of each prompt and generation length the baseline comes first."""
    if table == "1-2":
        return [cell for new_tokens in LENGTHS for cell in _main_cells(new_tokens)]
    if table == "3":
        return [cell for shots in SHOTS for cell in _long_cells(shots=shots)]
    if table == "4":
        return [cell for new_tokens in LONGER for cell in _long_cells(new_tokens=new_tokens)]
    first = Cell(mode="baseline", cache="none")
    if table == "figure-4":
        return [first] + [
            Cell(mode=f"{name}{cache}", cache=cache, block_length=block, rule=rule)
            for name, rule in (("", {}), ("parallel, ", {"threshold": THRESHOLD}))
            for cache in ("prefix", "dual")
            for block in BLOCKS
        ]
    return [first] + [
        Cell(mode=policy, cache="dual", rule={policy: value}, block_length=POLICY_BLOCK)
        for policy, values in POLICIES.items()
        for value in values
    ]


def _main_cells(new_tokens: int) -> list[Cell]:
    def cell(mode: str, cache: str, **more: Any) -> Cell:
        return Cell(mode=mode, cache=cache, new_tokens=new_tokens, **more)

    return [
        cell("baseline", "none"),
        cell("+cache, prefix", "prefix"),
        cell("+cache, dual", "dual"),
        cell("+parallel", "none", **parallel()),
        cell("+both, prefix", "prefix", **parallel()),
        cell("+both, dual", "dual", **parallel()),
        cell("+both, dual, stops", "dual", **parallel(ignore_eos=False)),
    ]


def _long_cells(*, new_tokens: int = 64, shots: int = 0) -> list[Cell]:
    def cell(mode: str, cache: str, **more: Any) -> Cell:
        return Cell(mode=mode, cache=cache, new_tokens=new_tokens, shots=shots, **more)

    return [
        cell("baseline", "none"),
        cell("parallel", "none", **parallel()),
        cell("parallel, prefix", "prefix", **parallel()),
        cell("parallel, dual", "dual", **parallel()),
    ]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What one problem took. tokens: positions decoded; answer_tokens: up to end-of-text."""

    right: bool
    prompt_tokens: int
    passes: int
    refreshes: int
    tokens: int
    answer_tokens: int
    seconds: float


def prompt_of(problem: Problem, examples: Sequence[Problem]) -> str:
    """Return a question behind solved ones, as the paper's evaluations put them: in one prompt."""
    solved = "".join(f"{one.prompt}\n{one.answer}\n\n" for one in examples)
    return f"{solved}{problem.prompt}"


def answer(llm: LLM, cell: Cell, problem: Problem, examples: Sequence[Problem]) -> Answered:
    """Answer one problem as a cell asks; right is decided as in fastdllm.demo."""
    done = llm.generate(prompt_of(problem, examples), cell.config)
    ids = done.token_ids.tolist()
    ends = [ids.index(one) for one in llm.engine.package.eos_token_ids if one in ids]
    end = min(ends, default=len(ids))
    return Answered(
        right=is_right(llm.codec.decode(ids[:end]), problem.answer or ""),
        prompt_tokens=done.prompt_tokens,
        passes=done.num_passes,
        refreshes=done.stats.refresh_passes,
        tokens=len(ids),
        answer_tokens=min(end + 1, len(ids)),
        seconds=done.stats.total_seconds,
    )


def measure(
    llm: LLM,
    problems: Sequence[Problem],
    table: str,
    counts: Counts,
    on_progress: Callable[[int, int], None] = lambda done, all_: None,
) -> list[dict[str, Any]]:
    """Answer the problems in all cells of a table; return a row per cell.

    The cells take turns at every problem, forwards and backwards, so that what else the machine
    does falls on all alike. Examples come from the end of the problems: none of them is asked.
    """
    cells = cells_of(table)
    asked = problems[: len(problems) - max(cell.shots for cell in cells)]
    wanted = [min(counts.of(table, cell), len(asked)) for cell in cells]
    found: list[list[Answered]] = [[] for _ in cells]
    for cell in cells:  # every shape once; the first pass is the longest
        shown = problems[len(problems) - cell.shots :]
        llm.generate(prompt_of(asked[0], shown), cell.config, on_commit=lambda event: False)
    done = 0
    for number in range(max(wanted)):
        turn = range(len(cells)) if number % 2 == 0 else reversed(range(len(cells)))
        for index in turn:
            if number < wanted[index]:
                shown = problems[len(problems) - cells[index].shots :]
                found[index].append(answer(llm, cells[index], asked[number], shown))
                done += 1
                on_progress(done, sum(wanted))
    baselines = {
        (cell.new_tokens, cell.shots): answers
        for cell, answers in zip(cells, found, strict=True)
        if cell.baseline
    }
    return [
        summarize(cell, answers, baselines[cell.new_tokens, cell.shots])
        for cell, answers in zip(cells, found, strict=True)
    ]


def summarize(
    cell: Cell, answers: Sequence[Answered], baseline: Sequence[Answered]
) -> dict[str, Any]:
    """Return a cell's row: means per answer. speed_up: on the problems that both answered."""
    seconds = sum(one.seconds for one in answers)
    common = min(len(answers), len(baseline))
    ratio = sum(one.seconds for one in baseline[:common]) / sum(
        one.seconds for one in answers[:common]
    )
    passes = sum(one.passes for one in answers)
    tokens = sum(one.tokens for one in answers)
    return {
        "mode": cell.mode,
        "cache": cell.cache,
        "rule": dict(cell.rule),
        "new_tokens": cell.new_tokens,
        "block_length": cell.block_length,
        "shots": cell.shots,
        "ignore_eos": cell.ignore_eos,
        "answers": len(answers),
        "right": sum(one.right for one in answers),
        "accuracy": sum(one.right for one in answers) / len(answers),
        "prompt_tokens": statistics.fmean(one.prompt_tokens for one in answers),
        "passes": passes / len(answers),
        "refresh_passes": sum(one.refreshes for one in answers) / len(answers),
        "answer_tokens": statistics.fmean(one.answer_tokens for one in answers),
        "tokens_per_pass": tokens / passes,
        "tokens_per_second": tokens / seconds,
        "answer_tokens_per_second": sum(one.answer_tokens for one in answers) / seconds,
        "pass_ms": 1e3 * seconds / passes,
        "seconds_per_answer": seconds / len(answers),
        "speed_up": ratio,
    }
