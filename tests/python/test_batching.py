"""A request gets the answer it gets alone, whatever is decoded beside it (f32: exactly)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdllm import CommitEvent, Engine, GenerationConfig

from asked import BIDIRECTIONAL, BLOCK_CAUSAL, CACHES, Asked, prompt_of, told
from conftest import PackageOf, checkpoint_folder

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


# --- other precisions -------------------------------------------------------------------------


@pytest.mark.usefixtures("one_trace_per_structure")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_in_other_precisions_nearly_all_answers_are_those_alone(
    precision: Any, tmp_path: Path
) -> None:
    from fastdllm.export import export_package

    package = export_package(
        checkpoint_folder("llada-mha"), tmp_path / precision, precision=precision, text=False
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
