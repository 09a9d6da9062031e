"""Grade-school word problems of two steps, made by a seeded generator.

Answers spell the operations and end in a line ``#### N``, as in GSM8K. Numbers are small on
purpose: a model of a few million parameters learns them on a CPU in about an hour.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "Tom", "Mia", "Leo", "Ana", "Sam", "Eva", "Max", "Zoe", "Ben", "Ivy", "Dan", "Amy", "Jack",
    "Rose", "Finn", "Ruby", "Noah", "Lily", "Owen", "Nora",
)  # fmt: skip
OBJECTS = (
    "apples", "pears", "books", "coins", "eggs", "shells", "cards", "stamps", "pens", "cups",
    "balls", "toys", "cakes", "rings", "keys", "hats",
)  # fmt: skip
CONTAINERS = ("boxes", "bags", "jars", "packs")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question, its spelled-out answer, and the template it came from."""

    question: str
    answer: str
    template: str


class _Draw:
    """Names, objects and numbers for one problem."""

    def __init__(self, rng: random.Random) -> None:
        self.name, self.friend = rng.sample(NAMES, 2)
        self.objects = rng.choice(OBJECTS)
        self.containers = rng.choice(CONTAINERS)
        self.a = rng.randint(2, 6)
        self.b = rng.randint(2, 6)
        self.c = rng.randint(10, 30)
        self.d = rng.randint(2, 9)
        self.e = rng.randint(2, 9)
        self.product = self.a * self.b
        self.few = rng.randint(1, min(9, self.product - 1))


def _give_away(x: _Draw) -> tuple[str, str, int]:
    left = x.product - x.few
    return (
        f"{x.name} has {x.a} {x.containers} of {x.b} {x.objects} and gives {x.few} away. "
        f"How many {x.objects} are left?",
        f"There are {x.a} * {x.b} = {x.product} {x.objects}. "
        f"{x.product} - {x.few} = {left} are left.",
        left,
    )


def _find_more(x: _Draw) -> tuple[str, str, int]:
    total = x.product + x.d
    return (
        f"{x.name} has {x.a} {x.containers} of {x.b} {x.objects} and finds {x.d} more. "
        f"How many {x.objects} are there?",
        f"There are {x.a} * {x.b} = {x.product} {x.objects}. {x.product} + {x.d} = {total} in all.",
        total,
    )


def _buy_and_lose(x: _Draw) -> tuple[str, str, int]:
    bought = x.c + x.d
    left = bought - x.e
    return (
        f"{x.name} had {x.c} {x.objects}, bought {x.d} and lost {x.e}. How many are left?",
        f"After buying there are {x.c} + {x.d} = {bought} {x.objects}. "
        f"{bought} - {x.e} = {left} are left.",
        left,
    )


def _times_as_many(x: _Draw) -> tuple[str, str, int]:
    total = x.b + x.product
    return (
        f"{x.name} has {x.b} {x.objects} and {x.friend} has {x.a} times as many. "
        f"How many do they have in all?",
        f"{x.friend} has {x.a} * {x.b} = {x.product} {x.objects}. "
        f"{x.b} + {x.product} = {total} in all.",
        total,
    )


def _share(x: _Draw) -> tuple[str, str, int]:
    each = x.b + x.d
    return (
        f"{x.name} shares {x.product} {x.objects} among {x.a} friends, then gives each {x.d} more. "
        f"How many has each?",
        f"Each friend gets {x.product} / {x.a} = {x.b} {x.objects}. {x.b} + {x.d} = {each} in all.",
        each,
    )


def _change(x: _Draw) -> tuple[str, str, int]:
    paid = x.product + x.d
    return (
        f"{x.name} buys {x.a} {x.objects} at {x.b} dollars each and pays {paid} dollars. "
        f"How much is the change?",
        f"The {x.objects} cost {x.a} * {x.b} = {x.product} dollars. "
        f"{paid} - {x.product} = {x.d} is the change.",
        x.d,
    )


def _three_picks(x: _Draw) -> tuple[str, str, int]:
    first = x.c + x.d
    total = first + x.e
    return (
        f"{x.name} picks {x.c} {x.objects}, then {x.d}, then {x.e}. How many is that?",
        f"First there are {x.c} + {x.d} = {first} {x.objects}. {first} + {x.e} = {total} in all.",
        total,
    )


def _miles(x: _Draw) -> tuple[str, str, int]:
    total = x.product + x.d
    return (
        f"{x.name} runs {x.a} miles a day for {x.b} days. {x.friend} runs {x.d} miles. "
        f"How many miles do they run?",
        f"{x.name} runs {x.a} * {x.b} = {x.product} miles. {x.product} + {x.d} = {total} in all.",
        total,
    )


def _sell_half(x: _Draw) -> tuple[str, str, int]:
    half = x.d + x.few
    return (
        f"{x.name} had {2 * half} {x.objects}, sold half and gave {x.few} to {x.friend}. "
        f"How many are left?",
        f"Half is {2 * half} / 2 = {half} {x.objects}. {half} - {x.few} = {half - x.few} are left.",
        half - x.few,
    )


def _pages(x: _Draw) -> tuple[str, str, int]:
    pages = x.product + x.e
    return (
        f"{x.name} reads {x.a} pages a day for {x.b} days. The book has {pages} pages. "
        f"How many pages are left?",
        f"{x.name} reads {x.a} * {x.b} = {x.product} pages. "
        f"{pages} - {x.product} = {x.e} are left.",
        x.e,
    )


TEMPLATES: dict[str, Callable[[_Draw], tuple[str, str, int]]] = {
    "give_away": _give_away,
    "find_more": _find_more,
    "buy_and_lose": _buy_and_lose,
    "times_as_many": _times_as_many,
    "share": _share,
    "change": _change,
    "three_picks": _three_picks,
    "miles": _miles,
    "sell_half": _sell_half,
    "pages": _pages,
}


def problems(seed: int) -> Iterator[Problem]:
    """Yield problems without end, the templates in turn; the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        for template, make in TEMPLATES.items():
            question, answer, result = make(_Draw(rng))
            yield Problem(question=question, answer=f"{answer}\n#### {result}", template=template)


def held_out(count: int, seed: int) -> list[Problem]:
    """Return `count` different problems that training never sees."""
    chosen: dict[str, Problem] = {}
    for problem in problems(seed):
        chosen.setdefault(problem.question, problem)
        if len(chosen) == count:
            break
    return list(chosen.values())


def is_right(answer: str, reference: str) -> bool:
    """Tell whether what follows the last ``####`` is the reference's number."""
    if "####" not in answer:
        return False
    return answer.rsplit("####", 1)[1].strip() == reference.rsplit("####", 1)[1].strip()


def write_jsonl(path: Path, items: list[Problem]) -> None:
    """Write question, answer and template, a problem a line."""
    lines = [
        json.dumps({"question": p.question, "answer": p.answer, "template": p.template})
        for p in items
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
