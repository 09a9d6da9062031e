"""Who is next among requests under way. By the order of their passes, never by time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from fastdllm import CommitEvent, Engine, GenerationConfig, Request

from held import SECONDS, SHORT, Held


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
