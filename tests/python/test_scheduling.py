"""Who runs when: limits, cancelling, errors, fairness. By the order of events, never by time."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import fastdllm
from fastdllm import CommitEvent, ConfigError, Engine, GenerationConfig, OverloadedError, Request

from conftest import PackageOf

SHORT = GenerationConfig(max_new_tokens=4, ignore_eos=True)
LONG = GenerationConfig(max_new_tokens=64, block_length=32, ignore_eos=True)  # 64 passes
SECONDS = 60  # for what must not hang


@pytest.fixture
def engine_with(package_of: PackageOf) -> Callable[..., Engine]:
    def engine(**limits: int) -> Engine:
        return Engine(package_of("llada-mha"), threads=1, **limits)

    return engine


class Held:
    """A request that holds the engine after its first pass, until it is let go."""

    def __init__(self, engine: Engine, config: GenerationConfig = LONG) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.events = 0
        self.request = engine.submit([1, 2, 3], config, self.on_commit)
        assert self.reached.wait(SECONDS)

    def on_commit(self, event: CommitEvent) -> None:
        self.events += 1
        self.reached.set()
        assert self.released.wait(SECONDS)

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def hold() -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def held(engine: Engine, config: GenerationConfig = LONG) -> Held:
        made.append(Held(engine, config))
        return made[-1]

    yield held
    for one in made:
        one.release()


def ids_of(request: Request) -> list[int]:
    ids: list[int] = request.result(SECONDS).token_ids.tolist()
    return ids


# --- limits -----------------------------------------------------------------------------------


def test_one_request_more_than_may_wait_is_refused(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    engine = engine_with(max_batch=1, max_waiting=2)
    running = hold(engine)
    waiting = [engine.submit([n], SHORT) for n in range(2)]

    with pytest.raises(OverloadedError, match=r"2 requests are waiting.*max_waiting, 2") as caught:
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
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(package_of("llada-mha")), how],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


# --- fairness ---------------------------------------------------------------------------------


class Script:
    """Notes whose pass it was, and submits requests after chosen ones."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.order: list[str] = []
        self.requests: dict[str, Request] = {}
        self.after: dict[int, list[tuple[str, list[int], GenerationConfig]]] = {}

    def submit(self, name: str, ids: list[int], config: GenerationConfig) -> None:
        def note(event: CommitEvent) -> None:
            self.order.append(name)
            for later in self.after.pop(len(self.order), []):
                self.submit(*later)

        self.requests[name] = self.engine.submit(ids, config, note)

    def finish(self) -> None:
        while pending := [r for r in list(self.requests.values()) if not r.done]:
            pending[0].result(SECONDS)

    def last(self, name: str) -> int:
        return max(i for i, who in enumerate(self.order) if who == name)


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_a_short_request_is_not_held_up_by_a_long_one(
    cache: str, engine_with: Callable[..., Engine]
) -> None:
    short = GenerationConfig(max_new_tokens=10, cache=cache, ignore_eos=True)
    long = GenerationConfig(max_new_tokens=200, cache=cache, block_length=32, ignore_eos=True)
    script = Script(engine_with())
    script.after[20] = [("short", [1, 2, 3], short)]

    script.submit("long", list(range(60)), long)
    script.finish()

    beside = script.order[20 : script.last("short") + 1]
    assert beside.count("short") == 10
    assert beside.count("long") <= 3
    assert script.order.count("long") == 200


def test_a_stream_of_short_requests_does_not_starve_a_long_one(
    engine_with: Callable[..., Engine],
) -> None:
    short = GenerationConfig(max_new_tokens=4, block_length=4, ignore_eos=True)
    long = GenerationConfig(max_new_tokens=48, block_length=16, ignore_eos=True)
    script = Script(engine_with(max_batch=3))
    for event in range(5, 2000, 3):  # there is always a new one
        script.after[event] = [(f"short {event}", [event % 200], short)]

    script.submit("long", list(range(40)), long)
    script.finish()

    # It gets its turns while the others come and go, after eight times its own rows at the latest.
    turns = [i for i, who in enumerate(script.order) if who == "long"]
    assert len(turns) == 48
    assert turns[-1] < 2000
    assert max(b - a for a, b in itertools.pairwise(turns)) <= 8 * 88 / 4 + 8


@pytest.mark.parametrize(("cache", "most"), [("none", 1), ("dual", 8)])
def test_equals_advance_together(
    cache: str, most: int, engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    config = GenerationConfig(max_new_tokens=32, block_length=16, cache=cache, ignore_eos=True)
    script = Script(engine_with())
    running = hold(script.engine, config)
    for number in range(6):
        script.submit(f"{number}", [number, 3 * number], config)

    running.release()
    script.finish()

    seen = dict.fromkeys(script.requests, 0)
    for who in script.order:
        seen[who] += 1
        assert max(seen.values()) - min(seen.values()) <= most
    assert set(seen.values()) == {32}


def test_first_come_is_first_served(
    engine_with: Callable[..., Engine], hold: Callable[..., Held]
) -> None:
    script = Script(engine_with(max_batch=1))
    running = hold(script.engine)
    for number in range(5):
        script.submit(f"{number}", [number], SHORT)

    running.release()
    script.finish()

    assert script.order == sorted(script.order)
