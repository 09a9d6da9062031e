"""What the HTTP service of the examples answers, and which requests it refuses."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fastdllm
from fastdllm import GenerationConfig

from conftest import PackageOf
from example_service import Service, running
from test_cli import OTHER_QUESTION, QUESTION

POST, HEALTH = "POST /generate", "GET /health"


@pytest.fixture(scope="module")
def service(package_of: PackageOf) -> Iterator[Service]:
    with running(package_of("tiny_math")) as one:
        yield one
        assert one.stop() == 0


def test_health_says_what_runs(service: Service) -> None:
    status, health = service.ask("GET", "/health")

    assert status == 200
    assert health["status"] == "ok"
    assert "onnxruntime" in health["backend"]


def test_an_answer_is_pythons(service: Service, llm: fastdllm.LLM) -> None:
    expected = llm.generate(OTHER_QUESTION, stop="####")

    status, answer = service.generate(prompt=OTHER_QUESTION, stop="####")

    assert status == 200
    assert answer == {
        "text": expected.text,
        "token_ids": expected.token_ids.tolist(),
        "finish_reason": "stop",
        "stop": "####",
        "num_passes": expected.num_passes,
        "prompt_tokens": expected.prompt_tokens,
        "completion_tokens": expected.completion_tokens,
    }


def test_options_have_their_names(service: Service, llm: fastdllm.LLM) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 24,
        "block_length": 8,
        "steps": 12,
        "cache": "prefix",
        "temperature": 0.8,
        "seed": 3,
        "top_p": 0.95,
        "banned_token_ids": [5, 6],
        "stop_token_ids": None,
        "ignore_eos": True,
    }
    bias = {12: -1.5, 7: 2}
    expected = llm.generate(
        QUESTION, GenerationConfig(logit_bias=bias, **options), stop=["zz", "yy"], raw=True
    )

    status, answer = service.generate(
        prompt=QUESTION, raw=True, stop=["zz", "yy"], logit_bias=bias, **options
    )

    assert status == 200, answer
    assert answer["token_ids"] == expected.token_ids.tolist()
    assert answer["num_passes"] == expected.num_passes


def test_messages_are_a_conversation(service: Service, llm: fastdllm.LLM) -> None:
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "12"},
        {"role": "user", "content": "And with 4 boxes?"},
    ]

    _, answer = service.generate(messages=messages)

    assert answer["text"] == llm.generate(messages).text


def test_a_stream_has_an_event_per_pass_and_the_completion_last(
    service: Service, llm: fastdllm.LLM
) -> None:
    *expected, last = llm.stream_events(OTHER_QUESTION, stop="####")
    assert last.completion is not None

    *events, end = service.stream(prompt=OTHER_QUESTION, stop="####")

    assert set(events[0]) == {"step", "block", "positions", "token_ids", "confidences", "piece"}
    commits = [event for event in events if event["positions"]]
    assert [event["token_ids"] for event in commits] == [
        event.commit.token_ids.tolist()
        for event in expected
        if event.commit is not None and len(event.commit.positions)
    ]
    assert "".join(event["piece"] for event in events) == end["completion"]["text"]
    assert end["completion"]["text"] == last.completion.text
    assert end["completion"]["token_ids"] == last.completion.token_ids.tolist()


def test_clients_at_once_get_what_each_gets_alone(service: Service) -> None:
    asks = [
        {"prompt": f"{QUESTION} {i}", "seed": i, "temperature": 0.5 * (i % 3), "max_new_tokens": 32}
        for i in range(12)
    ]
    alone = [service.generate(**ask)[1]["token_ids"] for ask in asks]

    def at_once(number: int) -> list[int]:
        if number % 2:
            return list(service.stream(**asks[number])[-1]["completion"]["token_ids"])
        return list(service.generate(**asks[number])[1]["token_ids"])

    with ThreadPoolExecutor(len(asks)) as pool:
        together = list(pool.map(at_once, range(len(asks))))

    assert together == alone


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"prompt": "x"', "no JSON object"),
        ("{}", "prompt and messages"),
        ('{"prompt": "x", "messages": []}', "prompt and messages"),
        ('{"prompt": 5}', "prompt is number; expected a string"),
        ('{"messages": []}', "messages is empty"),
        ('{"messages": [{"role": "user"}]}', "role and content"),
        ('{"messages": [{"role": "user", "content": 1}]}', "messages.content is number"),
        ('{"messages": [{"role": "pirate", "content": "x"}]}', "pirate"),
        ('{"prompt": "x", "stream": 1}', "stream is number; expected true or false"),
        ('{"prompt": "x", "stop": [1]}', "stop is number; expected a string"),
        ('{"prompt": "x", "stop": ""}', "stop"),
        ('{"prompt": "x", "threshold": 2}', "threshold is 2"),
        ('{"prompt": "x", "threshold": "high"}', "threshold is 'high'; expected a number"),
        ('{"prompt": "x", "max_new_tokens": 1.5}', "max_new_tokens is '1.5'"),
        ('{"prompt": "x", "max_new_tokens": 1e400}', "no JSON object"),
        ('{"prompt": "x", "max_new_tokens": 9999}', "context"),
        ('{"prompt": "x", "stop_token_ids": [[1]]}', "stop_token_ids holds array"),
        ('{"prompt": "x", "logit_bias": {"1=2,3": 4}}', "logit_bias has the key"),
        ('{"prompt": "x", "cache": "triple"}', "cache is 'triple'"),
        ('{"prompt": "x", "max_tokens": 5}', "'max_tokens' is no option"),
        ('{"prompt": "' + "long " * 600 + '"}', "context"),
        (b'{"prompt": "caf\xe9"}', "no JSON object"),
        ("[" * 100000, "no JSON object"),
    ],
)
def test_bad_input_is_400_and_says_which_field(
    body: str | bytes, words: str, service: Service
) -> None:
    status, answer = service.ask("POST", "/generate", body)

    assert status == 400, answer
    assert list(answer) == ["error"]
    assert words in answer["error"]


def test_what_is_not_there_or_too_large_is_json_too(service: Service) -> None:
    assert service.ask("GET", "/nowhere")[0] == 404
    assert "error" in service.ask("GET", "/generate")[1]
    status, answer = service.ask("POST", "/generate", b" " * (2 << 20))
    assert (status, answer["error"]) == (413, "the body is larger than 1048576 bytes")


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonx",
    ],
)
def test_a_body_that_is_not_declared_as_json_is_refused(kind: str | None, service: Service) -> None:
    with contextlib.closing(service.connect()) as connection:
        body = json.dumps({"prompt": "x", "max_new_tokens": 1})
        connection.request("POST", "/generate", body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()

        assert answer.status == 415
        assert "application/json" in json.loads(answer.read())["error"]


def test_json_may_be_declared_in_every_way(service: Service) -> None:
    for kind in (
        "application/json",
        "Application/JSON; charset=utf-8",
        'application/json;charset="UTF-8"',
    ):
        with contextlib.closing(service.connect()) as connection:
            body = json.dumps({"prompt": "x", "max_new_tokens": 1})
            connection.request("POST", "/generate", body, {"Content-Type": kind})
            assert connection.getresponse().status == 200


def status_of(service: Service, start: str, *headers: str) -> int:
    """Return the status of a request with these headers and no others."""
    body = json.dumps({"prompt": "x", "max_new_tokens": 1}) if start.startswith("POST") else ""
    lines = [f"{start} HTTP/1.1", *headers, f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", "Connection: close", "", body]
    with socket.create_connection(("127.0.0.1", service.port), 30) as client:
        client.sendall("\r\n".join(lines).encode())
        return int(client.recv(4096)[9:12])


def test_a_loopback_address_goes_by_the_names_of_this_machine(service: Service) -> None:
    for name in ("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]"):
        for port in ("", ":1", f":{service.port}"):
            assert status_of(service, POST, f"Host: {name}{port}") == 200
    for name in ("evil.example", "localhost.evil.example", "127.0.0.2", "0.0.0.0", "[::2]:80"):
        for start in (POST, HEALTH, "HEAD /health", "OPTIONS /generate", "GET /nowhere"):
            assert status_of(service, start, f"Host: {name}") == 403


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Host:",),
        ("Host: localhost", "Host: localhost"),
        ("Host: localhost", "Host: evil.example"),
        ("Host: localhost, evil.example",),
        ("Host: evil.example@localhost",),
        ("Host: localhost:x",),
        ("Host: localhost:",),
        ("Host: localhost:99999",),
        ("Host: localhost..",),
        ("Host: [localhost]",),
        ("Host: [::1",),
        ("Host: ::1",),
    ],
)
def test_a_host_that_is_no_name_is_refused(lines: tuple[str, ...], service: Service) -> None:
    assert status_of(service, POST, *lines) == 400
    assert status_of(service, HEALTH, *lines) == 400


def test_a_page_of_another_server_gets_nothing_done(service: Service) -> None:
    host = f"Host: localhost:{service.port}"
    own = f"Origin: http://localhost:{service.port}"
    assert status_of(service, POST, host, own) == 200
    for origin in ("http://evil.example", "null", "http://localhost:1", "file://", "https://"):
        assert status_of(service, POST, host, f"Origin: {origin}") == 403
        assert status_of(service, "OPTIONS /generate", host, f"Origin: {origin}") == 403
    assert status_of(service, POST, host, own, own) == 403
    assert status_of(service, HEALTH, host, "Origin: http://evil.example") == 200


def test_names_may_be_allowed(package_of: PackageOf) -> None:
    allowed = ("--allowed-host", "LLM.example.org.", "--allowed-host", "10.1.2.3")
    with running(package_of("tiny_math"), *allowed) as service:
        assert status_of(service, POST, "Host: llm.example.org:8443") == 200
        assert status_of(service, POST, "Host: 10.1.2.3") == 200
        assert status_of(service, POST, "Host: localhost") == 200
        assert status_of(service, POST, "Host: example.org") == 403
        page = "Origin: https://llm.example.org"
        assert status_of(service, POST, "Host: localhost", page) == 200


def test_a_body_of_very_many_fields_is_answered_at_once(service: Service) -> None:
    began = time.monotonic()

    status, answer = service.generate(prompt="x", **{f"f{i}": 0 for i in range(70_000)})

    assert status == 400
    assert "f0" in answer["error"]
    assert time.monotonic() - began < 5


def test_a_path_that_is_no_utf8_is_an_error_like_any_other(service: Service) -> None:
    status, answer = service.ask("GET", "/%ff")

    assert status == 404
    assert "\ufffd" in answer["error"]
    assert service.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Content-Encoding: gzip", gzip.compress(b" " * (8 << 20)), 415),
        ("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n", 411),
        ("Accept: */*", b"{}", 411),
    ],
)
def test_a_body_whose_length_is_not_known_is_refused(
    head: str, body: bytes, status: int, service: Service
) -> None:
    length = f"Content-Length: {len(body)}\r\n" if status == 415 else ""
    with socket.create_connection(("127.0.0.1", service.port), 10) as client:
        client.sendall(
            f"POST /generate HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{length}\r\n".encode() + body
        )
        assert client.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_range_is_ignored(service: Service) -> None:
    with contextlib.closing(service.connect()) as connection:
        connection.request("GET", "/health", headers={"Range": "bytes=0-3"})
        answer = connection.getresponse()

        assert answer.status == 200
        assert json.loads(answer.read())["status"] == "ok"
