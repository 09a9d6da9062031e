"""What large bodies cost the event loop that all clients share: a few errors, other threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import fastdllm

from served import serving

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
pydantic = pytest.importorskip("pydantic", reason="the server needs pydantic")
requests = pytest.importorskip("fastdllm.serve.requests")
MANY = 20_000
TURN = {"role": "user", "content": ""}
PART = {"type": "text", "text": ""}
HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "prompts that are empty": ("CompletionRequest", {"prompt": [[]] * MANY}),
    "prompts of truths": ("CompletionRequest", {"prompt": [True] * MANY}),
    "prompts of prompts": ("CompletionRequest", {"prompt": [[[]]] * MANY}),
    "a prompt of truths": ("CompletionRequest", {"prompt": [[True] * MANY]}),
    "too many prompts": ("CompletionRequest", {"prompt": [""] * MANY}),
    "messages with a wrong field": ("ChatRequest", {"messages": [{"a": 1}] * MANY}),
    "messages that are texts": ("TokenizeRequest", {"messages": [""] * MANY}),
    "too many messages": ("ChatRequest", {"messages": [TURN] * MANY}),
    "parts that are numbers": ("ChatRequest", {"messages": [{**TURN, "content": [1] * MANY}]}),
    "too many parts": ("ChatRequest", {"messages": [{**TURN, "content": [PART] * MANY}]}),
    "stops that are numbers": ("CompletionRequest", {"prompt": "a", "stop": [1] * MANY}),
    "bans below zero": ("CompletionRequest", {"prompt": "a", "banned_token_ids": [-1] * MANY}),
    "biases of words": (
        "CompletionRequest",
        {"prompt": "a", "logit_bias": {f"x{i}": 0 for i in range(MANY)}},
    ),
    "biases that are words": (
        "CompletionRequest",
        {"prompt": "a", "logit_bias": {str(i): "x" for i in range(MANY)}},
    ),
    "biases beyond all numbers": (
        "CompletionRequest",
        {"prompt": "a", "logit_bias": {str(i): float("inf") for i in range(MANY)}},
    ),
    "ids below zero": ("DetokenizeRequest", {"token_ids": [-1] * MANY}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_body_of_many_wrongs_is_refused_at_its_first(name: str) -> None:
    kind, body = HOSTILE[name]

    with pytest.raises(pydantic.ValidationError) as refused:
        getattr(requests, kind).model_validate(body)

    assert refused.value.error_count() <= 4  # at most one for each type that a union tries


def test_large_texts_are_turned_to_tokens_and_back_beside_the_loop(
    llm: fastdllm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty messages are large too where they are many: the template writes around each."""
    seen: list[tuple[str, str, bool]] = []

    def told(name: str, whose: Any) -> None:
        call = getattr(whose, name)

        def watched(*given: Any, **more: Any) -> Any:
            large = name == "decode_token" or len(given[0]) > 100
            seen.append((name, threading.current_thread().name, large))
            return call(*given, **more)

        monkeypatch.setattr(whose, name, watched)

    for name in ("encode", "encode_chat", "decode", "decode_token"):
        told(name, llm.codec)
    with serving(llm) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        large = "ab " * 2000
        http.post("/v1/tokenize", json={"prompt": large})
        http.post("/v1/tokenize", json={"messages": [TURN] * 1000})
        http.post("/v1/detokenize", json={"token_ids": [1] * 10_000})
        http.post("/v1/completions", json={"prompt": large, "max_tokens": 1})
        http.post("/v1/chat/completions", json={"messages": [TURN] * 1000})
        assert http.get("/health").status_code == 200
        loop = served.thread.name

    large_ones = {(name, thread == loop) for name, thread, large in seen if large}
    assert large_ones == {
        (name, False) for name in ("encode", "encode_chat", "decode", "decode_token")
    }


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/tokenize", {"prompt": "1 " * 30}, "prompt"),
        ("/v1/tokenize", {"prompt": "1" * 10_000}, "prompt"),
        ("/v1/tokenize", {"messages": [{**TURN, "content": "1 " * 30}]}, "messages"),
        ("/v1/detokenize", {"token_ids": [1] * 30}, "token_ids"),
    ],
)
def test_tokens_are_counted_up_to_the_limit_of_a_prompt(
    llm: fastdllm.LLM, path: str, body: dict[str, Any], field: str
) -> None:
    with serving(llm, max_prompt_tokens=20) as served:
        response = httpx.post(served.url + path, json=body, timeout=60)

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == field
    assert error["code"] == "context_length_exceeded"
    assert "limit is 20" in error["message"]
