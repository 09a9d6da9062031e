"""Streams and asyncio: what comes when, in the order of calls and not by the clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

import fastdllm
from fastdllm import LLM, ConfigError, GenerationConfig, StreamEvent

from scripted import (
    PATIENCE,
    ByteCodec,
    ScriptedEngine,
    ScriptedRequest,
    left_to_right,
    scripted_llm,
)

T = TypeVar("T")
QUESTION = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"


class Gate:
    """Holds a scripted engine's second pass until the reader has seen the first one's event."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def __call__(self, request: ScriptedRequest, step: int) -> None:
        if step == 1 and not self.seen.wait(PATIENCE):
            raise AssertionError("the first event waited for the second pass")


def never_past_the_first_pass(request: ScriptedRequest, step: int) -> None:
    """Hold the second pass until the request is cancelled."""
    if step == 1 and not request.was_cancelled.wait(PATIENCE):
        raise AssertionError("nothing cancelled the request")


def fail_in_the_second_pass(request: ScriptedRequest, step: int) -> None:
    if step == 1:
        raise fastdllm.NumericError("scripted")


def scripted(
    before_pass: Callable[[ScriptedRequest, int], None] | None = None, **options: Any
) -> tuple[LLM, ScriptedEngine]:
    engine = ScriptedEngine(left_to_right(b"abcd"), before_pass, **options)
    return scripted_llm(engine, ByteCodec()), engine


def run_soon(work: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop; a wait that does not end is a failure."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def test_events_are_the_commits_and_then_the_completion(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=32, block_length=16, remasking="random", seed=4)
    canvas: dict[int, int] = {}

    *events, last = llm.stream_events(QUESTION, config)

    joined = ""
    for step, event in enumerate(events):
        assert event.commit is not None
        assert (event.commit.step, event.commit.block) == (step, step // 16)
        assert len(event.commit.confidences) == len(event.commit.positions)
        for position, token in zip(event.commit.positions, event.commit.token_ids, strict=True):
            canvas[int(position)] = int(token)
        prefix = next((i for i in range(33) if i not in canvas), 32)
        committed = llm.codec.decode([canvas[i] for i in range(prefix)])
        joined += event.piece
        assert event.text == joined == committed.rstrip("\ufffd")
        assert event.completion is None
    assert last.commit is None
    assert last.completion is not None
    expected = llm.generate(QUESTION, config)
    assert last.completion.text == last.text == joined + last.piece == expected.text
    assert last.completion.token_ids.tolist() == expected.token_ids.tolist()


def test_an_event_does_not_wait_for_the_next_pass() -> None:
    gate = Gate()
    llm, engine = scripted(gate)

    events = llm.stream_events([9])
    first = next(events)
    passes = engine.passes_run
    gate.seen.set()

    assert (first.piece, passes) == ("a", 1)
    assert [event.piece for event in events] == ["b", "c", "d", ""]


def test_an_event_does_not_wait_in_an_event_loop_either() -> None:
    gate = Gate()
    llm, engine = scripted(gate)

    async def read() -> list[tuple[str, int]]:
        seen = []
        async for piece in llm.astream([9]):
            seen.append((piece, engine.passes_run))
            gate.seen.set()
        return seen

    first, *rest = run_soon(read())

    assert first == ("a", 1)
    assert [piece for piece, _ in rest] == ["b", "c", "d"]


def test_the_models_first_event_comes_before_its_second_pass(llm: LLM) -> None:
    """The engine's thread is held in its second pass's callback until the first event is read."""
    seen = threading.Event()
    engine = llm.engine

    class Held:
        package = engine.package

        def submit(self, ids: Any, config: Any, on_commit: Any, on_done: Any) -> Any:
            def held(event: fastdllm.CommitEvent) -> Any:
                assert event.step == 0 or seen.wait(PATIENCE)
                return on_commit(event)

            return engine.submit(ids, config, held, on_done)

    events = scripted_llm(Held(), llm.codec).stream_events(
        QUESTION, GenerationConfig(max_new_tokens=8, ignore_eos=True)
    )
    first = next(events)
    seen.set()

    assert first.commit is not None
    assert first.commit.step == 0
    assert len(list(events)) == 8


def test_a_stream_that_is_not_read_asks_nothing() -> None:
    llm, engine = scripted()

    streams = [llm.stream([9]), llm.stream_events([9]), llm.astream([9]), llm.astream_events([9])]

    assert len(streams) == 4
    assert engine.requests == []


def test_leaving_a_stream_cancels_its_request() -> None:
    llm, engine = scripted(never_past_the_first_pass)

    for _ in llm.stream([9]):
        break
    for _ in llm.stream_events([9]):
        break

    assert [request.result().finish_reason for request in engine.requests] == ["abort", "abort"]
    assert engine.passes_run == 4


def test_leaving_an_async_stream_cancels_its_request() -> None:
    llm, engine = scripted(never_past_the_first_pass)

    async def leave() -> None:
        async for _ in llm.astream([9]):
            break
        await asyncio.to_thread(engine.requests[0].result)

    run_soon(leave())

    assert engine.requests[0].result().finish_reason == "abort"


@pytest.mark.parametrize("how", ["agenerate", "agenerate many", "astream", "astream_events"])
def test_cancelling_a_task_cancels_its_requests(how: str) -> None:
    llm, engine = scripted(never_past_the_first_pass)

    async def cancel() -> None:
        work: Any = {
            "agenerate": lambda: llm.agenerate([9]),
            "agenerate many": lambda: llm.agenerate([[9], [8]]),
            "astream": lambda: collect(llm.astream([9])),
            "astream_events": lambda: collect(llm.astream_events([9])),
        }[how]
        task = asyncio.create_task(work())
        while engine.passes_run == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_soon(cancel())

    assert len(engine.requests) == (2 if how == "agenerate many" else 1)
    assert all(request.result().finish_reason == "abort" for request in engine.requests)


def test_the_event_loop_goes_on_while_an_answer_is_awaited() -> None:
    gate = Gate()
    llm, _ = scripted(gate)

    async def both() -> str:
        task = asyncio.create_task(llm.agenerate([9]))
        await asyncio.sleep(0)
        gate.seen.set()  # a loop that is held up never comes here
        return (await task).text

    assert run_soon(both()) == "abcd"


def test_asyncio_takes_no_thread_per_request(llm: LLM) -> None:
    async def ask() -> tuple[list[str], set[str]]:
        tasks = [asyncio.create_task(llm.agenerate(QUESTION)) for _ in range(8)]
        await asyncio.sleep(0)
        names = {thread.name for thread in threading.enumerate()}
        return [answer.text for answer in await asyncio.gather(*tasks)], names

    before = {thread.name for thread in threading.enumerate()}
    texts, during = run_soon(ask())

    assert set(texts) == {llm.generate(QUESTION).text}
    assert during - before == set()


def test_a_models_async_answers_are_its_answers(llm: LLM) -> None:
    expected = llm.generate(QUESTION)

    async def ask() -> tuple[str, list[str], list[StreamEvent], list[fastdllm.Completion]]:
        one = llm.agenerate(QUESTION)
        return (
            (await one).text,
            await collect(llm.astream(QUESTION)),
            await collect(llm.astream_events(QUESTION)),
            await llm.agenerate([QUESTION, QUESTION], stop="####"),
        )

    text, pieces, events, stopped = run_soon(ask())

    assert text == "".join(pieces) == events[-1].text == expected.text
    assert [answer.text for answer in stopped] == [expected.text.split("####")[0]] * 2


def test_a_requests_error_comes_out_where_it_is_awaited() -> None:
    llm, _ = scripted(fail_in_the_second_pass)
    ways: list[Callable[[], Any]] = [
        lambda: llm.generate([9]),
        lambda: list(llm.stream([9])),
        lambda: run_soon(llm.agenerate([[9], [8]])),
        lambda: run_soon(collect(llm.astream([9]))),
    ]

    for ask in ways:
        with pytest.raises(fastdllm.NumericError, match="scripted"):
            ask()


@pytest.mark.parametrize("stop", [None, "zz"])
def test_an_error_in_a_callback_comes_out(stop: str | None, llm: LLM) -> None:
    def fail(event: fastdllm.CommitEvent) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        llm.generate(QUESTION, stop=stop, on_commit=fail)
    with pytest.raises(KeyError, match="mine"):
        run_soon(llm.agenerate(QUESTION, stop=stop, on_commit=fail))
    assert llm.generate(QUESTION).text


def test_a_callback_must_not_wait_for_the_engine(llm: LLM) -> None:
    def nest(event: fastdllm.CommitEvent) -> None:
        llm.generate(QUESTION)

    with pytest.raises(ConfigError, match="callback"):
        llm.generate(QUESTION, on_commit=nest)
    assert llm.generate(QUESTION).text


def test_when_one_of_a_list_fails_the_others_are_cancelled() -> None:
    both_run = threading.Barrier(2)

    def fail_first(request: ScriptedRequest, step: int) -> None:
        if step == 0:
            both_run.wait(PATIENCE)
        elif request is engine.requests[0]:
            raise fastdllm.NumericError("scripted")
        never_past_the_first_pass(request, step)

    llm, engine = scripted(fail_first)

    with pytest.raises(fastdllm.NumericError):
        llm.generate([[1], [2]])
    assert engine.requests[1].result().finish_reason == "abort"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_list_may_be_longer_than_the_queue(asynchronous: bool) -> None:
    llm, engine = scripted(max_waiting=2)
    prompts = [[number] for number in range(7)]

    answers = run_soon(llm.agenerate(prompts)) if asynchronous else llm.generate(prompts)

    assert [answer.text for answer in answers] == ["abcd"] * 7
    assert engine.prompts == prompts


def test_a_queue_that_is_full_of_others_is_an_error() -> None:
    llm, _ = scripted(max_waiting=0)

    with pytest.raises(fastdllm.OverloadedError):
        llm.generate([[1], [2]])
    with pytest.raises(fastdllm.OverloadedError):
        next(llm.stream([1]))


def test_errors_of_a_prompt_come_at_once(llm: LLM) -> None:
    with pytest.raises(TypeError):
        llm.stream([1.5])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="longer than the model's context"):
        run_soon(llm.agenerate([1], GenerationConfig(max_new_tokens=100_000)))


def test_a_closed_stream_leaves_the_engine_usable(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=256, block_length=8, cache="none", ignore_eos=True)
    stream: Iterator[str] = llm.stream(QUESTION, config)

    assert next(stream)
    del stream

    assert llm.generate(QUESTION, GenerationConfig(max_new_tokens=4)).num_passes > 0
