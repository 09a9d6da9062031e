"""Who runs when: limits, waiting, cancelling. By the order of events, never by time."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastdllm
from fastdllm import (
    LLM,
    CommitEvent,
    ConfigError,
    Engine,
    GenerationConfig,
    OverloadedError,
    Request,
)

from conftest import PackageOf, run_python
from held import LONG, SECONDS, SHORT, Held, ids_of
from programs import program, run_program

# --- limits -----------------------------------------------------------------------------------


def test_one_request_more_than_may_wait_is_refused(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with(max_batch=1, max_waiting=2)
    running = hold(engine)
    waiting = [engine.submit([n], SHORT) for n in range(2)]

    with pytest.raises(OverloadedError, match=r"3 requests run or wait.*, 1 \+ 2") as caught:
        engine.submit([7], SHORT)
    with pytest.raises(OverloadedError):
        engine.generate([7], SHORT)

    assert isinstance(caught.value, fastdllm.Error)
    running.release()
    assert [len(ids_of(request)) for request in waiting] == [4, 4]
    assert len(engine.generate([7], SHORT).token_ids) == 4  # there is room again


def test_a_cancelled_request_makes_room_for_another(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with(max_batch=1, max_waiting=1)
    running = hold(engine)
    engine.submit([1], SHORT).cancel()

    running.release()
    running.request.result(SECONDS)

    assert len(ids_of(engine.submit([2], SHORT))) == 4


def test_a_request_that_can_never_have_its_memory_is_refused_before_any_pass(
    engine_with: Callable[..., Engine],
) -> None:
    engine = engine_with(cache_bytes=1000)

    with pytest.raises(ConfigError, match=r"bytes of cache .* cache_bytes, 1000"):
        engine.submit([1, 2], SHORT, lambda event: pytest.fail("a pass ran"))

    assert (
        len(engine.generate([1, 2], GenerationConfig(max_new_tokens=4, cache="none")).token_ids) > 0
    )  # needs none


def test_requests_wait_for_memory_in_order(engine_with: Callable[..., Engine]) -> None:
    config = GenerationConfig(max_new_tokens=32, block_length=16, cache="dual", ignore_eos=True)
    needed = refused_bytes(engine_with(cache_bytes=1), config)
    engine = engine_with(cache_bytes=2 * needed - 1)
    order: list[int] = []

    requests = [engine.submit([n], config, lambda event, n=n: order.append(n)) for n in range(3)]
    found = [ids_of(request) for request in requests]

    assert order == sorted(order)  # one after another
    assert found == [ids_of(engine_with().submit([n], config)) for n in range(3)]


def refused_bytes(engine: Engine, config: GenerationConfig) -> int:
    """Return what the engine says that a request needs."""
    with pytest.raises(ConfigError, match="bytes of cache") as caught:
        engine.submit([1], config)
    return int(str(caught.value).split("may need ")[1].split()[0])


def with_endless_context(source: Path, target: Path) -> Path:
    """Copy a package and let it state the longest context that the format allows."""
    shutil.copytree(source, target)
    file = target / "fastdllm.json"
    metadata = json.loads(file.read_text("utf-8"))
    metadata["model"]["max_context_length"] = 2**31 - 1
    file.write_text(json.dumps(metadata), "utf-8")
    return target


NEARLY_ENDLESS = 2**31 - 1000
IN_LITTLE_MEMORY = """
import resource, sys, fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1, cache_bytes=2**62)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for cache in ("none", "dual"):
    config = fastdllm.GenerationConfig(max_new_tokens=int(sys.argv[2]), cache=cache)
    try:
        engine.submit([1], config)
    except fastdllm.ConfigError as error:
        print(error)
print(len(engine.generate([1], fastdllm.GenerationConfig(max_new_tokens=4)).token_ids) > 0)
"""


def test_an_answer_that_memory_cannot_hold_is_refused_by_name(
    package_of: PackageOf, tmp_path: Path
) -> None:
    package = with_endless_context(package_of("llada-mha"), tmp_path / "package")
    config = GenerationConfig(max_new_tokens=NEARLY_ENDLESS)
    engine = Engine(package, threads=1, cache_bytes=2**30)
    named = f"max_new_tokens is {NEARLY_ENDLESS} behind a prompt of 1 tokens: the request "

    with pytest.raises(ConfigError, match=named + "may need .* of cache .* cache_bytes, "):
        engine.submit([1], config)
    with pytest.raises(ConfigError, match=named):
        engine.generate([1], config)
    done = run_python(IN_LITTLE_MEMORY, package, NEARLY_ENDLESS)

    *refusals, works = done.stdout.splitlines()
    assert len(refusals) == 2, done.stderr
    for refusal in refusals:
        assert re.match(named + r"needs \d+ bytes of memory for its canvas; ", refusal)
    assert (works, done.stderr) == ("True", "")


GAPS_IN_LITTLE_MEMORY = """
import asyncio, resource, sys, fastdllm
from fastdllm.serve import answering
from fastdllm.serve.plan import Question
llm = fastdllm.LLM(sys.argv[1], threads=1, cache_bytes=2**62)
gap = int(sys.argv[2])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
async def serve():
    config = fastdllm.GenerationConfig(max_new_tokens=gap)
    question = Question(ids=[1], suffix_ids=[2], configs=(config,))
    answering.Answers(llm, [question], (), watched=False)
class Ids:
    def __len__(self):
        return gap
    def __getitem__(self, index):
        raise MemoryError
for name, ask in {
    "python": lambda: llm.infill([gap, "a"]),
    "server": lambda: asyncio.run(serve()),
    "too long": lambda: llm.infill([2**31, "a"]),
    "ids": lambda: llm.engine.infill(Ids()),
}.items():
    try:
        ask()
    except fastdllm.ConfigError as error:
        print(error)
"""


def test_a_gap_that_memory_cannot_hold_is_refused_by_name(
    package_of: PackageOf, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi", reason="the server is not installed")
    package = with_endless_context(package_of("tiny_math"), tmp_path / "package")

    done = run_python(GAPS_IN_LITTLE_MEMORY, package, NEARLY_ENDLESS)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"parts[0] is a gap of {NEARLY_ENDLESS} tokens: there is no memory for it",
        f"max_new_tokens is a gap of {NEARLY_ENDLESS} tokens: there is no memory for it",
        f"parts[0] is a gap of {2**31} tokens beside 0; the model's context of {2**31 - 1} has"
        f" room for {2**31 - 1}",
        "canvas_ids: there is no memory for a copy of the ids",
    ]


def test_the_cpp_command_line_says_the_same(package_of: PackageOf, tmp_path: Path) -> None:
    package = with_endless_context(package_of("tiny_math"), tmp_path / "package")
    options = ("--prompt", "1 + 1", "--raw", "--max-new-tokens", NEARLY_ENDLESS)

    done = run_program(program("apps/fastdllm-cli"), "generate", package, *options)

    assert done.returncode == 1
    assert f"error: max_new_tokens is {NEARLY_ENDLESS} behind a prompt of" in done.stderr
    assert "expected at most" in done.stderr


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_batch": 0}, "max_batch is 0; expected at least 1"),
        ({"max_waiting": -1}, "max_waiting is -1; expected at least 0"),
        ({"cache_bytes": 0}, "cache_bytes is 0"),
        ({"cache_bytes": -5}, "cache_bytes is -5"),
    ],
)
def test_a_limit_out_of_range_is_named(
    limits: dict[str, int], words: str, engine_with: Callable[..., Engine]
) -> None:
    with pytest.raises(ConfigError, match=words):
        engine_with(**limits)


# --- cancelling -------------------------------------------------------------------------------


def test_a_waiting_request_is_cancelled_without_a_pass(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with(max_batch=1)
    running = hold(engine)
    waiting = engine.submit([1], SHORT, lambda event: pytest.fail("a pass ran"))

    waiting.cancel()
    running.release()
    result = waiting.result(SECONDS)

    assert (result.finish_reason, result.num_passes) == ("abort", 0)
    assert result.token_ids.tolist() == []
    assert len(ids_of(running.request)) == 64


def test_a_running_request_is_cancelled_before_its_next_pass(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with()
    whole = engine.generate([1, 2, 3], LONG).token_ids.tolist()
    running = hold(engine)

    running.request.cancel()
    running.release()
    result = running.request.result(SECONDS)

    ids = result.token_ids.tolist()
    assert (result.finish_reason, result.num_passes, running.events) == ("abort", 1, 1)
    assert ids == whole[: len(ids)]
    assert engine.generate([1, 2, 3], LONG).token_ids.tolist() == whole


ENDS: list[tuple[dict[str, Any], str]] = [
    ({"ignore_eos": True}, "length"),
    ({"ignore_eos": True, "threshold": 0.01}, "length"),
    ({"stop_token_ids": None}, "stop"),
    ({"stop_token_ids": None, "stop_at": "block"}, "stop"),
]


@pytest.mark.parametrize("how", ["cancel", "false"])
@pytest.mark.parametrize(("fields", "reason"), ENDS)
def test_an_end_in_the_completing_pass_stays(
    fields: dict[str, Any], reason: str, how: str, engine_with: Callable[..., Engine]
) -> None:
    engine = engine_with()
    fields = {"max_new_tokens": 8, "block_length": 4} | fields
    if "stop_token_ids" in fields:  # the last token that comes ends the answer
        plain = GenerationConfig(max_new_tokens=8, block_length=4, ignore_eos=True)
        fields["stop_token_ids"] = engine.generate([1, 2, 3], plain).token_ids.tolist()[2:3]
    config = GenerationConfig(**fields)
    whole = engine.generate([1, 2, 3], config)
    assert whole.finish_reason == reason
    requests: list[Request] = []
    submitted = threading.Event()

    def at_the_last(event: CommitEvent) -> bool:
        if event.step + 1 < whole.num_passes:
            return True
        assert submitted.wait(SECONDS)
        if how == "cancel":
            requests[0].cancel()
        return how == "cancel"

    requests.append(engine.submit([1, 2, 3], config, at_the_last))
    submitted.set()
    result = requests[0].result(SECONDS)

    assert (result.finish_reason, result.num_passes) == (reason, whole.num_passes)
    assert result.token_ids.tolist() == whole.token_ids.tolist()


def test_the_text_of_an_answer_that_ends_with_the_pass_keeps_its_end(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=8, threshold=0.01, ignore_eos=True)

    answer = llm.generate("2 + 2", config, on_commit=lambda event: event.step < 0)
    stream = llm.stream_events("2 + 2", config)
    events = [next(stream)]
    while events[-1].completion is None:
        events.append(next(stream))
    stream.close()  # cancels, behind the end

    assert events[-1].completion is not None
    assert events[-1].completion.finish_reason == answer.finish_reason == "length"
    assert answer.num_passes == 1


def test_cancelling_what_is_done_changes_nothing(engine_with: Callable[..., Engine]) -> None:
    request = engine_with().submit([1], SHORT)
    before = request.result(SECONDS)

    request.cancel()
    request.cancel()

    assert request.done
    assert request.result().finish_reason == before.finish_reason == "length"
    assert ids_of(request) == before.token_ids.tolist()


def test_waiting_has_a_limit_of_time(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    running = hold(engine_with())

    assert not running.request.done
    with pytest.raises(TimeoutError):
        running.request.result(timeout=0.0)
    with pytest.raises(ConfigError, match="timeout is -1"):
        running.request.result(timeout=-1.0)
    running.release()
    assert len(ids_of(running.request)) == 64


# --- errors and callbacks ---------------------------------------------------------------------
