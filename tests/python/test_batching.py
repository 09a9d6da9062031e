"""A request gets the answer it gets alone, whatever is decoded beside it (f32: exactly)."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import CommitEvent, Engine, GenerationConfig, GenerationResult

from conftest import PackageOf, checkpoint_folder

BIDIRECTIONAL = ["llada-mha", "dream-gqa"]
BLOCK_CAUSAL = ["sdar", "fast-dllm-v2", "llada2-moe"]
CACHES = ["none", "prefix", "dual", "auto"]
LENGTHS = (3, 5, 17, 31, 32, 64, 113, 200)
POLICIES: dict[str, dict[str, Any]] = {
    "quota": {"steps": 8},
    "threshold": {"threshold": 0.9},
    "factor": {"factor": 1.0},
    "frechet": {"frechet": 0.25},
    "entropy bound": {"entropy_bound": 0.1},
    "margin": {"remasking": "margin", "steps": 8},
    "random": {"remasking": "random", "steps": 8},
    "sampling": {"temperature": 1.0, "steps": 8},  # each request has a seed of its own
    "guidance": {"cfg_scale": 1.0, "steps": 6},
}
VOCABULARY = 249  # ids that no family keeps for its eos or mask token


def prompt_of(length: int, seed: int = 0) -> list[int]:
    numbers = random.Random(1000 * seed + length)
    return [numbers.randrange(VOCABULARY) for _ in range(length)]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request; an infill's ids hold mask tokens."""

    ids: list[int]
    fields: dict[str, Any]
    infill: bool = False

    @property
    def config(self) -> GenerationConfig:
        return GenerationConfig(**self.fields)

    def submit(
        self, engine: Engine, on_commit: Callable[[CommitEvent], bool | None] | None = None
    ) -> fastdllm.Request:
        submit = engine.submit_infill if self.infill else engine.submit
        return submit(self.ids, self.config, on_commit)

    def answer(self, engine: Engine) -> GenerationResult:
        call = engine.infill if self.infill else engine.generate
        return call(self.ids, self.config)

    def __str__(self) -> str:
        kind = "infill of" if self.infill else "prompt of"
        return f"{kind} {len(self.ids)} ids, {self.fields}"


def told(result: GenerationResult) -> tuple[list[int], str]:
    """Return what must not depend on the batch."""
    return result.token_ids.tolist(), result.finish_reason


@pytest.fixture(scope="module")
def alone_of(package_of: PackageOf) -> Callable[[str], Engine]:
    """Make engines that decode one request at a time."""
    made: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in made:
            made[name] = Engine(package_of(name), threads=1, max_batch=1)
        return made[name]

    return engine


@pytest.fixture(scope="module")
def batching_of(package_of: PackageOf) -> Callable[[str], Engine]:
    made: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in made:
            made[name] = Engine(package_of(name), threads=1, max_batch=8)
        return made[name]

    return engine


# --- alone and in one batch -------------------------------------------------------------------


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", BIDIRECTIONAL + BLOCK_CAUSAL)
def test_eight_prompts_in_one_batch_get_what_each_gets_alone(
    family: str,
    cache: str,
    alone_of: Callable[[str], Engine],
    batching_of: Callable[[str], Engine],
) -> None:
    for name, policy in POLICIES.items():
        fields = {"max_new_tokens": 16, "block_length": 8, "cache": cache} | policy
        asked = [Asked(prompt_of(length), {"seed": length, **fields}) for length in LENGTHS]
        expected = [request.answer(alone_of(family)) for request in asked]

        requests = [request.submit(batching_of(family)) for request in asked]
        found = [request.result() for request in requests]

        assert [told(result) for result in found] == [told(result) for result in expected], name
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-3, atol=1e-4)
            if family in BIDIRECTIONAL:  # no cut, no shared prefix
                assert one.num_passes == other.num_passes, name


def test_requests_are_decoded_side_by_side(batching_of: Callable[[str], Engine]) -> None:
    engine, order, barrier = batching_of("llada-mha"), [], threading.Event()
    config = GenerationConfig(max_new_tokens=16, steps=16, ignore_eos=True)

    def listen(number: int) -> Callable[[CommitEvent], None]:
        def note(event: CommitEvent) -> None:
            barrier.wait(20)  # until all are submitted
            order.append(number)

        return note

    requests = [engine.submit(prompt_of(9, n), config, listen(n)) for n in range(8)]
    barrier.set()
    for request in requests:
        request.result()

    assert len(order) == 8 * 16
    # Every request is at its second half before any has finished.
    first_end = min(max(i for i, n in enumerate(order) if n == number) for number in range(8))
    assert all(order[:first_end].count(number) >= 8 for number in range(8))


@pytest.mark.parametrize("family", BIDIRECTIONAL + BLOCK_CAUSAL)
def test_no_length_leaves_a_mask_token_or_gives_more_than_asked(
    family: str, alone_of: Callable[[str], Engine], batching_of: Callable[[str], Engine]
) -> None:
    engine = batching_of(family)
    least = engine.package.min_prompt_length
    asked = [
        Asked(
            prompt_of(length),
            {"max_new_tokens": new, "threshold": 0.5, "ignore_eos": ignore_eos},
        )
        for new in (1, 7, 31, 33, 100)
        for length in (0, 1, 31, 32, 33)
        for ignore_eos in (True, False)
        if length >= least
    ]
    requests = [request.submit(engine) for request in asked]

    for request, running in zip(asked, requests, strict=True):
        alone, beside = request.answer(alone_of(family)), running.result()

        for result in (alone, beside):
            ids, most = result.token_ids.tolist(), request.fields["max_new_tokens"]
            assert engine.package.mask_token_id not in ids
            assert len(ids) <= most
            if request.fields["ignore_eos"]:
                assert len(ids) == most
            assert len(result.logprobs) == len(ids)
        if request.ids:  # without a prompt all rows are alike, and rounding decides their order
            assert told(beside) == told(alone), request


# --- seeds ------------------------------------------------------------------------------------

SAMPLED = [
    Asked(
        prompt_of(length),
        {"max_new_tokens": 24, "temperature": 1.0, "seed": seed, "threshold": 0.4, "cache": cache},
    )
    for length in (4, 30, 77)
    for seed in (0, 1, 2**63 + 11)
    for cache in ("prefix", "auto")
]
ANOTHER_PROCESS = """
import json, sys
from fastdllm import Engine, GenerationConfig
engine = Engine(sys.argv[1], threads=1, max_batch=5)
asked = json.load(sys.stdin)
requests = [engine.submit(ids, GenerationConfig(**fields)) for ids, fields in reversed(asked)]
print(json.dumps([request.result().token_ids.tolist() for request in reversed(requests)]))
"""


@pytest.mark.parametrize("family", ["llada-mha", "sdar"])
def test_a_seed_gives_the_same_text_in_every_batch_and_process(
    family: str, package_of: PackageOf, alone_of: Callable[[str], Engine]
) -> None:
    expected = [request.answer(alone_of(family)).token_ids.tolist() for request in SAMPLED]
    assert len({tuple(ids) for ids in expected}) >= 9  # a seed matters, an exact cache does not

    for max_batch in (2, 3, 8, 16):
        engine = Engine(package_of(family), threads=1, max_batch=max_batch)
        requests = [request.submit(engine) for request in SAMPLED]
        assert [request.result().token_ids.tolist() for request in requests] == expected

    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, package_of(family)],
        input=json.dumps([(request.ids, request.fields) for request in SAMPLED]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


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
        "top_p": st.just(0.8),
        "cfg_scale": st.just(0.7),
    },
)
rules = st.sampled_from(
    [
        *({"threshold": 0.3}, {"threshold": 0.9}, {"factor": 1.0}, {"frechet": 0.25}),
        *({"entropy_bound": 1.0}, {"steps": 9}, {"remasking": "random"}, {"remasking": "entropy"}),
    ]
)


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


# --- other precisions -------------------------------------------------------------------------


@pytest.mark.usefixtures("one_trace_per_structure")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_in_other_precisions_nearly_all_answers_are_those_alone(
    precision: Any, tmp_path: Path
) -> None:
    from fastdllm.export import export_package

    package = export_package(
        checkpoint_folder("llada-mha"), tmp_path / precision, precision=precision
    )
    alone = Engine(package, threads=1, max_batch=1)
    engine = Engine(package, threads=1, max_batch=8)
    asked = [
        Asked(prompt_of(length, seed), {"max_new_tokens": 16, "cache": cache, **policy})
        for length in LENGTHS
        for seed in range(2)
        for cache in CACHES
        for policy in ({"threshold": 0.9}, {"steps": 8})
    ]

    requests = [request.submit(engine) for request in asked]

    same = sum(
        told(running.result()) == told(request.answer(alone))
        for request, running in zip(asked, requests, strict=True)
    )
    print(f"{precision}: {same} of {len(asked)} the same")
    assert same >= 0.9 * len(asked)
