"""Errors, callbacks and ends of requests. By the order of events, never by time."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from fastdllm import (
    CommitEvent,
    ConfigError,
    Engine,
    GenerationConfig,
    Request,
)

from conftest import PackageOf, run_python
from held import LONG, SECONDS, SHORT, Held, ids_of


def test_an_error_in_a_callback_ends_its_own_request_only(
    engine_with: Callable[..., Engine],
) -> None:
    engine = engine_with()
    expected = [engine.generate([n], LONG).token_ids.tolist() for n in range(3)]

    def fail(event: CommitEvent) -> None:
        if event.step == 5:
            raise KeyError("mine")

    requests = [engine.submit([n], LONG, fail if n == 1 else None) for n in range(3)]

    for _ in range(2):  # however often it is asked for
        with pytest.raises(KeyError, match="mine"):
            requests[1].result(SECONDS)
    assert ids_of(requests[0]) == expected[0]
    assert ids_of(requests[2]) == expected[2]
    assert ids_of(engine.submit([1], LONG)) == expected[1]


class Witness:
    """Something in a frame, to see whether the frame is still there."""


def test_a_failed_request_leaves_nothing_behind(engine_with: Callable[..., Engine]) -> None:
    """Its error knows the frame that asked, and that frame the request: a circle to be found."""

    def ask() -> weakref.ref[Witness]:
        witness = Witness()
        request = engine_with().submit([1], SHORT, fail)
        with contextlib.suppress(KeyError):
            request.result(SECONDS)
        return weakref.ref(witness)

    def fail(event: CommitEvent) -> None:
        raise KeyError("mine")

    witness = ask()

    for _ in range(100 * SECONDS):  # the engine's thread lets go of its part a little later
        gc.collect()
        if witness() is None:
            break
        time.sleep(0.01)
    assert witness() is None


def test_a_refused_request_leaves_the_others_alone(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with()
    running = hold(engine)

    with pytest.raises(ConfigError, match="outside the vocabulary"):
        engine.submit([10**6], SHORT)
    with pytest.raises(ConfigError, match=r"mask token.*infill"):
        engine.submit([engine.package.mask_token_id], SHORT)
    with pytest.raises(ConfigError, match="expected at least one gap"):
        engine.submit_infill([1, 2], SHORT)
    with pytest.raises(TypeError, match="on_commit is not callable"):
        engine.submit([1], SHORT, 3)  # type: ignore[arg-type]

    running.release()
    assert len(ids_of(running.request)) == 64


def test_a_callback_may_submit_and_cancel_but_not_wait(
    engine_with: Callable[..., Engine],
) -> None:
    engine = engine_with()
    other = engine_with()
    expected = other.generate([9], SHORT).token_ids.tolist()
    inner: list[Request] = []
    refused: list[str] = []

    def nest(event: CommitEvent) -> None:
        if event.step > 0:
            return
        inner.append(engine.submit([9], SHORT))
        inner.append(engine.submit([8], LONG))
        inner[1].cancel()
        for wait in (lambda: engine.generate([9], SHORT), lambda: inner[0].result()):
            with pytest.raises(ConfigError, match="callback"):
                wait()
            refused.append("yes")
        refused.extend(map(str, other.generate([9], SHORT).token_ids))  # another engine may be used

    engine.generate([1], SHORT, nest)

    assert ids_of(inner[0]) == expected
    assert inner[1].result(SECONDS).finish_reason == "abort"
    assert refused == ["yes", "yes", *map(str, expected)]


def test_on_done_is_called_once_for_every_end(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with()
    running = hold(engine)
    told: list[tuple[str, bool]] = []
    requests: dict[str, Request] = {}
    all_told = threading.Event()

    def on_done(name: str) -> Callable[[], None]:
        def call() -> None:
            told.append((name, requests[name].done))
            if len(told) == 3:
                all_told.set()

        return call

    def fail(event: CommitEvent) -> None:
        raise KeyError("mine")

    requests["answered"] = engine.submit([1], SHORT, None, on_done("answered"))
    requests["cancelled"] = engine.submit([2], SHORT, None, on_done("cancelled"))
    requests["failed"] = engine.submit([3], SHORT, fail, on_done("failed"))
    requests["cancelled"].cancel()
    running.release()
    assert all_told.wait(SECONDS)
    running.request.result(SECONDS)

    assert sorted(told) == [("answered", True), ("cancelled", True), ("failed", True)]


def test_on_done_has_run_when_another_thread_has_the_result(
    engine_with: Callable[..., Engine],
) -> None:
    engine = engine_with()
    own: list[Request] = []
    told: list[object] = []
    given, begun = threading.Event(), threading.Event()

    def on_done() -> None:
        assert given.wait(SECONDS)
        begun.set()
        told.append(ids_of(own[0]))  # does not wait for itself
        time.sleep(0.05)
        told.append("returned")

    for timeout in (None, SECONDS, 0):
        own, told = [engine.submit([1], SHORT, None, on_done)], []
        given.set()
        begun.wait(SECONDS)
        assert own[0].done  # but a result without the call would be early
        result = own[0].result(timeout)
        assert told == [result.token_ids.tolist(), "returned"]
        given.clear()
        begun.clear()


def test_a_request_keeps_its_engine(engine_with: Callable[..., Engine]) -> None:
    expected = ids_of(engine_with().submit([1], LONG))

    request = engine_with().submit([1], LONG)

    assert ids_of(request) == expected


def test_letting_go_of_engine_and_requests_ends_them(engine_with: Callable[..., Engine]) -> None:
    engine = engine_with(max_batch=2)
    started = threading.Event()
    events, done = [], []

    def note(event: CommitEvent) -> None:
        events.append(event.step)
        started.set()

    config = GenerationConfig(max_new_tokens=400, ignore_eos=True)
    requests = [engine.submit([n], config, note, lambda n=n: done.append(n)) for n in range(5)]
    assert started.wait(SECONDS)

    del engine, requests  # waits for the pass that runs

    assert sorted(done) == list(range(5))
    assert len(events) < 5 * 400


LEAVING = """
import sys, threading, fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1)
config = fastdllm.GenerationConfig(max_new_tokens=400, ignore_eos=True)
started = threading.Event()
requests = [engine.submit([n], config, lambda event: started.set()) for n in range(12)]
started.wait()
if sys.argv[2] == "last":  # the engine's own thread lets go of it
    def keep(event, engine=engine):
        return False
    engine.submit([1], config, keep)
    del engine
print("leaving")
"""


@pytest.mark.parametrize("how", ["open", "last"])
def test_a_process_may_leave_with_requests_under_way(how: str, package_of: PackageOf) -> None:
    done = run_python(LEAVING, str(package_of("llada-mha")), how)

    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


FORKED = """
import os, sys, fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1)
config = fastdllm.GenerationConfig(max_new_tokens=4)
engine.generate([1, 2, 3], config)
child = os.fork()
if child == 0:
    try:
        engine.generate([1, 2, 3], config)
    except fastdllm.ConfigError as error:
        print(error, flush=True)
    del engine
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(len(engine.generate([1, 2, 3], config).token_ids))
"""


def test_a_forked_process_is_told_that_nobody_serves_there(package_of: PackageOf) -> None:
    done = run_python(FORKED, package_of("llada-mha"))

    told, answered = done.stdout.splitlines()
    assert told.startswith("the engine has served requests before this process was forked")
    assert (answered, done.stderr) == ("4", "")
