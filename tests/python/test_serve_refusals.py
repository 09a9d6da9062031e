"""What the server refuses, and how it says so; and what comes close to it and is taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import fastdllm

from served import CHAT, MESSAGES, QUESTION, chat, complete, refused, serving

httpx = pytest.importorskip("httpx", reason="these tests need httpx")


@pytest.fixture(scope="module")
def http(llm: fastdllm.LLM) -> Iterator[Any]:
    with serving(llm) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("top_logprobs", 2),
        ("best_of", 2),
        ("modalities", ["audio"]),
        ("prediction", {}),
        ("treshold", 0.9),
        ("threshold", 2.0),
        ("max_tokens", 0),
        ("max_tokens", 5000),
        ("max_tokens", "5"),
        ("temperature", -1),
        ("stop", ["a"] * 65),
        ("stop", ""),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"600": 1}),
        ("seed", -1),
        ("n", 17),
        ("cache", "big"),
        ("steps", 2**70),
        ("diffusing", True),
        ("stream_options", {}),
        ("messages", []),
        ("messages.0.content", None),
        ("messages.0.content", [{"type": "image_url", "image_url": {}}]),
        ("messages.0.tool_calls", [{"id": "a"}]),
        ("messages.0.tools", []),
        ("messages.0.user", None),
        ("stream_options.user", None),
        ("refusal", None),
        ("treshold", None),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(http: Any, field: str, value: Any) -> None:
    fields: dict[str, Any] = {"messages": [dict(MESSAGES[0])]}
    if field.startswith("messages."):
        fields["messages"][0][field.split(".")[-1]] = value
    elif field.startswith("stream_options."):
        fields |= {"stream": True, "stream_options": {field.split(".")[-1]: value}}
    else:
        fields[field] = value
    error = refused(http.post(CHAT, json=fields))
    assert str(error["param"]).startswith(field)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value", "param", "says"),
    [
        ("prompt", [], "prompt", "at least 1 item"),
        ("prompt", [[]], "prompt.0", "at least 1 item"),
        ("prompt", [1, 2, "a"], "prompt.2", "a valid integer"),
        ("prompt", [[1], [2, "a"]], "prompt.1.1", "a valid integer"),
        ("prompt", [-1], "prompt.0", "greater than or equal to 0"),
        ("prompt", 3, "prompt", "a valid string or a valid list"),
        ("stop", ["a"] * 65, "stop", "at most 64 items"),
        ("stop", [""], "stop.0", "at least 1 character"),
    ],
)
def test_a_field_of_many_forms_is_refused_by_the_rule_it_breaks(
    http: Any, field: str, value: Any, param: str, says: str
) -> None:
    error = refused(complete(http, **{field: value}))
    assert error["param"] == param
    assert says in error["message"]


def test_a_part_that_is_no_text_is_refused_by_its_type(http: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    error = refused(http.post(CHAT, json={"messages": [{"role": "user", "content": [part]}]}))
    assert error["param"] == "messages.0.content.0.type"
    assert "a part of type image_url" in error["message"]


def test_neutral_values_of_such_fields_are_taken(http: Any) -> None:
    neutral = {
        "tools": None,
        "response_format": {"type": "text"},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "user": "somebody",
        "metadata": {"a": "b"},
        "top_p": None,
        "temperature": 0,
        "logit_bias": {"12": -1.5},
        "max_completion_tokens": 32,
    }
    assert chat(http, **neutral).status_code == 200
    parts = [{"type": "text", "text": QUESTION[:20]}, {"type": "text", "text": QUESTION[20:]}]
    as_parts = http.post(CHAT, json={"messages": [{"role": "user", "content": parts}]}).json()
    assert as_parts["choices"][0]["message"] == chat(http).json()["choices"][0]["message"]


def test_a_typing_error_is_met_with_the_likely_name(http: Any) -> None:
    assert "did you mean threshold?" in refused(chat(http, treshold=0.5))["message"]


def test_lengths_that_do_not_go_together_are_refused(http: Any) -> None:
    assert refused(chat(http, max_tokens=8, max_new_tokens=9))["param"] == "max_new_tokens"
    assert chat(http, max_tokens=8, max_new_tokens=8).status_code == 200
    error = refused(complete(http, prompt=[1] * 500, max_tokens=100))
    assert error["code"] == "context_length_exceeded"
    for name in ("max_tokens", "max_completion_tokens", "max_new_tokens"):
        error = refused(chat(http, **{name: 500}))
        assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
        assert f"+ {name} (500)" in error["message"]
        assert refused(chat(http, **{name: 8, "block_length": 0}))["param"] == "block_length"
    # A length that nobody asked for gives way to the context.
    assert complete(http, prompt=[1] * 500).status_code == 200


def test_the_prompts_mask_token_is_refused(http: Any) -> None:
    assert "mask token" in refused(complete(http, prompt=[511]))["message"]
    assert refused(complete(http, prompt=[512]))["param"] == "prompt"
