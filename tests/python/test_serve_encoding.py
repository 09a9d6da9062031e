"""Large prompts: refused by their bytes where they cannot fit, else encoded beside the loop."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

import fastdllm
from fastdllm.text import TextCodec, TooManyTokens
from fastdllm.token_bound import TokenBound

from conftest import PackageOf
from served import serving, wait_until

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
MEGABYTE = 2**20 - 100
BYTES = [chr(code) for code in range(256)]


def strings(draw: random.Random, count: int) -> list[str]:
    pieces = ["a", "12", "   ", "\n\n", "\t", "hello ", "你好", "🙂", "\x00", "\u212b", "ﷺ"]
    pieces += ["<|endoftext|>", "<x>", " <x>  ", "\uff21", "\U0001d41e\u0301", "e\u0301"]
    pieces += ["\u1100\u1161\u11a8", "\u03b1\u0313\u0300\u0345"]
    return [
        "".join(draw.choices(draw.sample(pieces, draw.randint(1, 4)), k=draw.randint(0, 60)))
        for _ in range(count)
    ]


def variants(base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return tokenizers that add and take away bytes in every way, made of the shipped one."""
    norm = {name: {"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")}
    token = {
        **base["added_tokens"][0],
        "id": 9999,
        "content": "<x>",
        "lstrip": True,
        "rstrip": True,
    }
    split = {"type": "Split", "pattern": {"Regex": "\\s+"}, "invert": False}
    level = base["pre_tokenizer"]

    def before(part: dict[str, Any]) -> dict[str, Any]:
        return {"type": "Sequence", "pretokenizers": [part, level]}

    made: dict[str, dict[str, Any]] = {
        name: {**base, "normalizer": one} for name, one in norm.items()
    }
    made["both"] = {**base, "normalizer": {"type": "Sequence", "normalizers": [norm["NFKC"]]}}
    made["strip"] = {
        **base,
        "normalizer": {"type": "Strip", "strip_left": True, "strip_right": True},
    }
    made["replace"] = {
        **base,
        "normalizer": {"type": "Replace", "pattern": {"String": "hello "}, "content": "h"},
    }
    made["swallow"] = {**base, "added_tokens": [*base["added_tokens"], token]}
    made["removed"] = {**base, "pre_tokenizer": before({**split, "behavior": "Removed"})}
    made["isolated"] = {**base, "pre_tokenizer": before({**split, "behavior": "Isolated"})}
    made["words"] = {**base, "pre_tokenizer": before({"type": "WhitespaceSplit"})}
    vocab = {"<unk>": 0, "a": 1}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    made["word level"] = {**base, "model": words, "added_tokens": []}
    return made


def test_a_text_never_has_fewer_tokens_than_told(package_of: PackageOf) -> None:
    base = json.loads((package_of("tiny_math") / "tokenizer.json").read_text("utf-8"))
    told: dict[str, int] = {}
    for name, content in {"as it is": base, **variants(base)}.items():
        source = json.dumps(content)
        tokenizer = Tokenizer.from_str(source)
        bound = TokenBound(source, tokenizer)
        told[name] = 0
        for text in [*strings(random.Random(7), 400), " " * 5000, "<x>" + " " * 5000]:
            least = bound.min_tokens(text)
            assert least <= len(tokenizer.encode(text, add_special_tokens=False).ids), (name, text)
            told[name] = max(told[name], least)
    for name in ("as it is", "NFC", "NFKC", "swallow", "isolated"):
        assert told[name] > 5, name
    for name in ("strip", "replace", "removed", "words", "word level", "Lowercase"):
        assert told[name] == 0, name


def test_long_texts_have_the_ids_of_the_tokenizer(llm: fastdllm.LLM) -> None:
    for text in strings(random.Random(3), 20):
        long = text * (5000 // max(1, len(text)) + 1)
        expected = llm.codec.tokenizer.encode(long, add_special_tokens=False).ids
        assert llm.codec.encode(long) == expected


def test_what_cannot_fit_is_refused_before_it_is_encoded(
    llm: fastdllm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = TextCodec.encode

    def watched(codec: TextCodec, text: str, *, most: int | None = None) -> list[int]:
        ids = encode(codec, text, most=most)
        encoded.append(text)
        return ids

    monkeypatch.setattr(TextCodec, "encode", watched)
    with pytest.raises(TooManyTokens, match="expected at most 10"):
        llm.encode("word " * 100, most=10)
    message = [{"role": "user", "content": "word " * (MEGABYTE // 5)}]
    bodies = {
        "/v1/completions": ("prompt", {"prompt": "x" * MEGABYTE}),
        "/v1/chat/completions": ("messages", {"messages": message}),
        "/v1/tokenize": ("prompt", {"prompt": "x" * MEGABYTE}),
    }
    with serving(llm, max_prompt_tokens=20_000) as served:
        for path, (field, body) in bodies.items():
            answer = httpx.post(served.url + path, json=body, timeout=60)
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == (field, "context_length_exceeded")
            assert "or more" in error["message"]
        suffix = {"prompt": "a", "suffix": "x" * MEGABYTE}
        error = httpx.post(served.url + "/v1/completions", json=suffix, timeout=60).json()["error"]
        assert error["param"] == "suffix"
    assert not encoded


def test_a_long_text_within_the_limit_is_not_refused_for_its_length(llm: fastdllm.LLM) -> None:
    text = "hello world " * 20
    count = len(llm.encode(text, raw=True))
    with serving(llm, max_prompt_tokens=count) as served:
        answer = httpx.post(served.url + "/v1/tokenize", json={"prompt": text}, timeout=60)
    assert answer.json()["count"] == count


def test_small_requests_do_not_wait_for_large_ones(llm: fastdllm.LLM) -> None:
    """The large ones take seconds together, each small one a small part of a large one's time."""
    large = {"prompt": "word 12 " * (MEGABYTE // 8)}
    seconds: list[float] = []
    small: list[float] = []

    def ask_large(url: str) -> None:
        began = time.monotonic()
        assert httpx.post(url + "/v1/tokenize", json=large, timeout=120).status_code == 400
        seconds.append(time.monotonic() - began)

    # So many tokens that it has to be encoded to be refused.
    with serving(llm, max_prompt_tokens=MEGABYTE // 7) as served:
        clients = [threading.Thread(target=ask_large, args=(served.url,)) for _ in range(3)]
        for client in clients:
            client.start()
        with httpx.Client(base_url=served.url, timeout=60) as http:
            while any(client.is_alive() for client in clients):
                began = time.monotonic()
                assert http.post("/v1/tokenize", json={"prompt": "1 + 1"}).status_code == 200
                small.append(time.monotonic() - began)
    assert len(small) > 10
    assert statistics.median(small) < min(seconds) / 5


@pytest.fixture
def gate(llm: fastdllm.LLM, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hold what encodes long texts; .entered counts them."""

    class Gate:
        def __init__(self) -> None:
            self.open = threading.Event()
            self.entered = 0

    held = Gate()
    encode: Callable[..., list[int]] = llm.encode

    def waiting(prompt: Any, **more: Any) -> list[int]:
        if len(prompt) > 4096:
            held.entered += 1
            assert held.open.wait(60)
        return encode(prompt, **more)

    monkeypatch.setattr(llm, "encode", waiting)
    yield held
    held.open.set()


def test_a_client_that_leaves_is_not_encoded_for(llm: fastdllm.LLM, gate: Any) -> None:
    with serving(llm) as served:
        body = {"prompt": "x" * 5000}
        connections = [served.send_post("/v1/completions", body) for _ in range(6)]
        wait_until(lambda: len(served.server.serving.calls) == 6)
        wait_until(lambda: gate.entered == 2)
        small = httpx.post(served.url + "/v1/tokenize", json={"prompt": "1"}, timeout=60)
        assert small.status_code == 200
        for connection in connections:
            connection.close()
        wait_until(lambda: not served.server.serving.calls)
        gate.open.set()
        after = httpx.post(served.url + "/v1/tokenize", json=body, timeout=60)
        assert after.status_code == 200
        assert gate.entered == 3  # those that waited for a thread did not get one


def test_time_that_encoding_takes_counts(llm: fastdllm.LLM, gate: Any) -> None:
    with serving(llm, request_seconds=0.2) as served:
        body = {"prompt": "x" * 5000}
        for path in ("/v1/completions", "/v1/tokenize"):
            assert httpx.post(served.url + path, json=body, timeout=60).status_code == 504
