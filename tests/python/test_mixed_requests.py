"""Requests of all kinds come and go on one engine, and each gets what it gets alone."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import CommitEvent, Engine, GenerationResult

from asked import BIDIRECTIONAL, BLOCK_CAUSAL, CACHES, VOCABULARY, Asked, prompt_of, told
from conftest import PackageOf

# --- random schedules -------------------------------------------------------------------------

options = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 40),
        "block_length": st.sampled_from([4, 8, 16, 32]),
        "cache": st.sampled_from(CACHES),
        "seed": st.integers(0, 9),
        "temperature": st.sampled_from([0.0, 0.0, 1.0]),
        "ignore_eos": st.booleans(),
    },
    optional={
        "stop_token_ids": st.lists(st.integers(0, VOCABULARY - 1), max_size=30, unique=True),
        "banned_token_ids": st.lists(st.integers(0, 40), max_size=9, unique=True),
        "logit_bias": st.dictionaries(st.integers(0, 40), st.floats(-4, 4), max_size=3),
        "top_p": st.just(0.8),
        "min_p": st.just(0.1),
        "cfg_scale": st.just(0.7),
        "refresh_interval": st.integers(1, 5),
        "suffix_window": st.integers(0, 20),
    },
)
rules = st.sampled_from(
    [
        *({"threshold": 0.3}, {"threshold": 0.9}, {"factor": 1.0}, {"frechet": 0.25}),
        *({"entropy_bound": 1.0}, {"steps": 9}, {"remasking": "random"}, {"remasking": "entropy"}),
        {"threshold": 0.3, "deferred_window": 24},
    ]
)
OF_BIDIRECTIONAL_MODELS = ("suffix_window", "deferred_window")


def for_family(family: str, asked: Asked) -> Asked:
    """Drop what the family's kind of attention has no use for."""
    kept = {
        name: value
        for name, value in asked.fields.items()
        if family in BIDIRECTIONAL or name not in OF_BIDIRECTIONAL_MODELS
    }
    return dataclasses.replace(asked, fields=kept)


@dataclasses.dataclass(frozen=True)
class Planned:
    """A request that joins after so many events of all, and is cancelled after so many more."""

    asked: Asked
    joins_at: int
    cancelled_after: int | None


planned = st.builds(
    lambda length, seed, fields, rule, joins_at, cancelled_after: Planned(
        Asked(prompt_of(length, seed), fields | rule), joins_at, cancelled_after
    ),
    st.integers(1, 90),
    st.integers(0, 3),
    options,
    rules,
    st.integers(0, 60),
    st.one_of(st.none(), st.none(), st.integers(0, 30)),
)


class Schedule:
    """Submits and cancels from the engine's own callbacks, so between chosen passes."""

    def __init__(self, engine: Engine, plans: list[Planned]) -> None:
        self.engine = engine
        self.events = 0
        self.waiting = sorted(plans, key=lambda plan: plan.joins_at)
        self.running: list[tuple[Planned, fastdllm.Request, int]] = []
        self.changed = threading.Condition()

    def look(self) -> None:
        while self.waiting and self.waiting[0].joins_at <= self.events:
            plan = self.waiting.pop(0)
            self.running.append((plan, plan.asked.submit(self.engine, self.on_commit), self.events))
        for plan, request, joined in self.running:
            if plan.cancelled_after is not None and self.events - joined >= plan.cancelled_after:
                request.cancel()

    def on_commit(self, event: CommitEvent) -> None:
        with self.changed:
            self.events += 1
            self.look()

    def run(self) -> Iterator[tuple[Planned, GenerationResult]]:
        """Let all requests come and go."""
        done = 0
        while done < len(self.running) or self.waiting:
            if done == len(self.running):  # nobody runs who could call back
                with self.changed:
                    self.events = max(self.events, self.waiting[0].joins_at)
                    self.look()
            plan, request, _ = self.running[done]
            yield plan, request.result()
            done += 1


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    family=st.sampled_from(BIDIRECTIONAL + BLOCK_CAUSAL[:2]),
    plans=st.lists(planned, min_size=2, max_size=9),
    max_batch=st.sampled_from([2, 3, 8]),
)
def test_random_joins_and_cancels_change_no_answer(
    family: str,
    plans: list[Planned],
    max_batch: int,
    package_of: PackageOf,
) -> None:
    engine = Engine(package_of(family), threads=1, max_batch=max_batch)
    alone = Engine(package_of(family), threads=1, max_batch=1)

    plans = [dataclasses.replace(plan, asked=for_family(family, plan.asked)) for plan in plans]

    for plan, found in Schedule(engine, plans).run():
        expected = plan.asked.answer(alone)

        if found.finish_reason == "abort":
            assert plan.cancelled_after is not None
            ids = found.token_ids.tolist()
            assert ids == expected.token_ids.tolist()[: len(ids)], plan
        else:
            assert told(found) == told(expected), plan


# --- a thousand requests ----------------------------------------------------------------------


def random_request(numbers: random.Random, mask_token_id: int) -> Asked:
    fields: dict[str, Any] = {
        "max_new_tokens": numbers.choice([1, 4, 12, 24]),
        "block_length": numbers.choice([4, 8, 16]),
        "cache": numbers.choice(CACHES),
        "seed": numbers.randrange(3),
        "temperature": numbers.choice([0.0, 0.0, 0.7]),
        "ignore_eos": numbers.random() < 0.5,
    }
    fields |= numbers.choice([{"threshold": 0.4}, {"factor": 1.0}, {"steps": 6}, {"frechet": 0.2}])
    ids = prompt_of(numbers.choice([1, 2, 8, 31, 60]), numbers.randrange(3))
    if numbers.random() < 0.2:
        gaps = [i for i in range(1, len(ids)) if numbers.random() < 0.3]
        for i in [*gaps, len(ids)]:
            ids[i : i + 1] = [mask_token_id]
        return Asked(ids, fields, infill=True)
    return Asked(ids, fields)


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no VmRSS")


@pytest.mark.parametrize("family", ["llada-mha", "sdar"])
def test_a_thousand_mixed_requests_equal_a_fresh_engines_in_flat_memory(
    family: str, package_of: PackageOf
) -> None:
    package = package_of(family)
    engine = Engine(package, threads=1, max_batch=8)
    numbers = random.Random(4)
    kinds = [random_request(numbers, engine.package.mask_token_id) for _ in range(120)]
    fresh = [told(kind.answer(Engine(package, threads=1))) for kind in kinds]
    wrong: list[str] = []
    answered = []

    def client(number: int, count: int) -> None:
        numbers = random.Random(number)
        window: list[tuple[int, fastdllm.Request, bool]] = []
        for _ in range(count):
            index = numbers.randrange(len(kinds))
            request = kinds[index].submit(engine)
            cancelled = numbers.random() < 0.1
            if cancelled:
                request.cancel()
            window.append((index, request, cancelled))
            if len(window) == 4:
                look(*window.pop(0))
        for waiting in window:
            look(*waiting)

    def look(index: int, request: fastdllm.Request, cancelled: bool) -> None:
        found = told(request.result(timeout=60))
        answered.append(index)
        if cancelled and found[1] == "abort":
            if not kinds[index].infill and found[0] != fresh[index][0][: len(found[0])]:
                wrong.append(f"{kinds[index]}: cancelled, {found}; expected {fresh[index]}")
        elif found != fresh[index]:
            wrong.append(f"{kinds[index]}: {found}; expected {fresh[index]}")

    def serve(counts: list[int]) -> int:
        clients = [
            threading.Thread(target=client, args=(len(answered) + n, count))
            for n, count in enumerate(counts)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        return resident_bytes()

    early = serve([100, 100, 100])
    late = serve([175, 175, 175, 175])

    assert wrong == []
    assert len(answered) == 1000
    assert late - early < 4e6
