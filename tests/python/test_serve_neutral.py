"""Values that ask for nothing, as clients of OpenAI and vLLM send them, and why others fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import fastdllm

from served import chat, complete, refused, serving

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
NEUTRAL: dict[str, Any] = {
    "repetition_penalty": 1,
    "length_penalty": 1.0,
    "min_tokens": 0,
    "top_k": -1,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
    "use_beam_search": False,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "best_of": 1,
}


@pytest.fixture(scope="module")
def http(llm: fastdllm.LLM) -> Iterator[Any]:
    with serving(llm) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def test_neutral_values_change_nothing(http: Any) -> None:
    for ask in (chat, complete):
        plain = ask(http, max_tokens=8).json()["choices"]
        asked = ask(http, max_tokens=8, **NEUTRAL)
        assert asked.status_code == 200, asked.text
        kept = [{k: v for k, v in one.items() if k != "stats"} for one in asked.json()["choices"]]
        assert kept == [{k: v for k, v in one.items() if k != "stats"} for one in plain]


@pytest.mark.parametrize("name", NEUTRAL)
def test_any_other_value_is_refused(http: Any, name: str) -> None:
    other = {"top_k": -2, "skip_special_tokens": False, "spaces_between_special_tokens": False}
    value = other.get(name, True if NEUTRAL[name] is False else 2)
    assert refused(complete(http, **{name: value}))["param"] == name


def test_many_stop_strings_are_taken(http: Any) -> None:
    stops = [f"nothing {number}" for number in range(16)]
    assert complete(http, max_tokens=8, stop=stops).status_code == 200
    assert refused(complete(http, stop=["a"] * 65))["param"] == "stop"


def test_refusals_of_probabilities_say_why(http: Any) -> None:
    for error in (
        refused(complete(http, logprobs=5)),
        refused(chat(http, logprobs=True, top_logprobs=5)),
    ):
        assert error["param"] in ("logprobs", "top_logprobs")
        assert "those of others are not" in error["message"]
