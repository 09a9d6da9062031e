"""The server against bad, slow and hostile clients: each gets an error, none harms another."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fastdllm

from held import Held
from served import ENDLESS, MESSAGES, Served, events_of, received, serving, wait_until

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
Hold = Callable[..., Held]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def served(llm: fastdllm.LLM) -> Iterator[Served]:
    with serving(llm, max_body_bytes=20000) as one:
        yield one


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[Any]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.fixture
def small(package_of: Callable[[str], Any]) -> fastdllm.LLM:
    """Make an engine that takes one request and lets one wait."""
    return fastdllm.LLM(package_of("tiny_math"), threads=1, max_batch=1, max_waiting=1)


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"[" * 10000,
        b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"prompt":"x","temperature":NaN}',
        b'{"prompt":"x","temperature":Infinity}',
        b'{"prompt":"x","temperature":1e999}',
        b'{"prompt":"x","seed":' + b"9" * 5000 + b"}",
        b'{"prompt":"x","seed":' + b"9" * 4000 + b"}",
        b'{"prompt":"x","max_tokens":1e3000}',
        b'{"prompt":"x","prompt":"y"}',
        b'{"prompt":"\xff\xfe"}',
        b"\xff\xfe{\x00}\x00",
        b'{"prompt":"\\ud800"}',
        b'{"prompt":"x","user":"\\udfff"}',
        b'{"prompt":"x"}{"prompt":"y"}',
        b'{"prompt":"x","\\u0000":1}',
        b'{"prompt":{"a":1}}',
        b'{"prompt":[]}',
        b'{"prompt":[[]]}',
        b'{"prompt":[1,"x"]}',
        b'{"prompt":[-1]}',
        b'{"prompt":[1.5]}',
        b'{"prompt":[99999999999999999999]}',
        b'{"prompt":"x","logit_bias":{"1":1e400}}',
        b'{"prompt":"x","n":99999999999999999999999}',
        b'{"prompt":"x","stop":[["a"]]}',
        b'{"prompt":"x","n":true}',
    ],
)
def test_a_malformed_body_is_refused_and_nothing_runs(http: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    error = error_of(http.post(TEXT, content=body, headers=headers), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"]
)
def test_a_body_that_is_not_declared_as_json_is_refused(http: Any, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    error_of(http.post(TEXT, content=b'{"prompt":"x"}', headers=headers), 415)


def test_a_body_too_large_is_refused_with_and_without_a_length(served: Served, http: Any) -> None:
    content = json.dumps({"prompt": "x" * 20000}).encode()
    headers = {"content-type": "application/json"}
    error_of(http.post(TEXT, content=content, headers=headers), 413)
    error_of(http.post(TEXT, content=iter([content]), headers=headers), 413)
    with served.connect() as connection:  # refused by its length, before it is sent
        connection.sendall(served.post_head(TEXT, 10**15))
        assert received(connection).startswith(b"HTTP/1.1 413 ")
    with served.connect() as connection:
        connection.sendall(served.post_head(TEXT, None, "Content-Length: " + "9" * 5000))
        assert received(connection)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"POST /v1/completions HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000,
    ],
)
def test_what_is_no_http_ends_its_connection(served: Served, sent: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(sent)
        assert received(connection)[:12] in (b"HTTP/1.1 400", b"")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_that_does_not_come_in_time_ends_its_connection(
    llm: fastdllm.LLM, sent: bytes
) -> None:
    with serving(llm, head_seconds=0.05) as served, served.connect() as connection:
        connection.sendall(sent)
        assert received(connection) == b""


def test_a_body_that_drips_is_refused(llm: fastdllm.LLM) -> None:
    with serving(llm, body_seconds=0.05) as served, served.connect() as connection:
        connection.sendall(served.post_head(TEXT, 100) + b'{"prompt"')
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer


def test_one_connection_too_many_is_told_so(llm: fastdllm.LLM) -> None:
    with serving(llm, max_connections=1) as served, served.connect() as first:
        first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 200"
        with served.connect() as second:
            assert received(second).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(served: Served, http: Any, stream: bool) -> None:
    engine = served.models["tiny_math"].engine
    connection = served.send_post(TEXT, {**ENDLESS, "n": 2, "stream": stream})
    wait_until(lambda: engine.load().running == 2)
    connection.close()
    wait_until(lambda: engine.load().running == 0)
    wait_until(lambda: 'status="499"' in http.get("/metrics").text)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_noticed_whatever_it_sent_behind_its_request(
    served: Served, stream: bool, apart: bool
) -> None:
    engine = served.models["tiny_math"].engine
    content = json.dumps({**ENDLESS, "stream": stream}).encode()
    asked = served.post_head(TEXT, len(content)) + content
    with served.connect() as connection:
        connection.sendall(asked if apart else asked * 2)
        wait_until(lambda: engine.load().running == 1)
        connection.sendall(asked)
    wait_until(lambda: engine.load().running == 0)
    wait_until(lambda: not served.server.serving.calls)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_it_waits_is_not_answered(
    small: fastdllm.LLM, hold: Hold, stream: bool
) -> None:
    with serving(small) as served:
        held = hold(small.engine)
        connection = served.send_post(TEXT, {**ENDLESS, "stream": stream})
        wait_until(lambda: small.engine.load().waiting == 1)
        connection.close()
        wait_until(lambda: served.server.serving.calls == set())
        held.release()
        held.request.result(60)
        wait_until(lambda: small.engine.load().waiting == small.engine.load().running == 0)


def test_a_client_that_does_not_read_its_stream_is_cut(llm: fastdllm.LLM) -> None:
    with serving(llm, request_seconds=0.5) as served:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", served.port))
        content = json.dumps({**ENDLESS, "stream": True, "diffusing": True, "n": 8}).encode()
        connection.sendall(served.post_head(TEXT, len(content)) + content)
        wait_until(lambda: served.server.serving.calls)
        wait_until(lambda: not served.server.serving.calls)
        wait_until(lambda: not served.server.server_state.connections)
        connection.close()


@pytest.mark.parametrize("kept", [False, True])
def test_a_client_that_does_not_read_its_response_is_cut(llm: fastdllm.LLM, kept: bool) -> None:
    content = json.dumps({"prompt": "1" * 20_000}).encode()
    more = () if kept else ("Connection: close",)
    with serving(llm, keep_alive_seconds=1) as served:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", served.port))
        wait_until(lambda: served.server.server_state.connections)
        for accepted in served.server.server_state.connections:
            end = accepted.transport.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        connection.sendall(served.post_head("/v1/tokenize", len(content), *more) + content)
        wait_until(lambda: served.server.serving.calls)
        wait_until(lambda: not served.server.serving.calls)
        wait_until(lambda: not served.server.server_state.connections)
        assert len(received(connection)) < 100_000  # it was cut: the response is larger
        connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_refuses_with_a_time_to_come_again(
    small: fastdllm.LLM, hold: Hold, stream: bool
) -> None:
    with serving(small) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        held = hold(small.engine)
        waiting = served.send_post(CHAT, {"messages": MESSAGES})
        wait_until(lambda: small.engine.load().waiting == 1)
        response = http.post(CHAT, json={"messages": MESSAGES, "stream": stream})
        assert error_of(response, 429)["type"] == "rate_limit_error"
        assert int(response.headers["retry-after"]) >= 1
        rejected = 'fastdllm_requests_rejected_total{model="tiny_math"} 1.0'
        assert rejected in http.get("/metrics").text
        held.release()
        assert waiting.recv(12) == b"HTTP/1.1 200"
        waiting.close()


@pytest.mark.parametrize("fields", [{"n": 2}, {"prompt": ["a", "b"], "suffix": "c"}])
def test_all_answers_of_a_request_are_taken_or_none(
    package_of: Callable[[str], Any], hold: Hold, fields: dict[str, Any]
) -> None:
    llm = fastdllm.LLM(package_of("tiny_math"), threads=1, max_batch=1, max_waiting=1)
    with serving(llm) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        held = hold(llm.engine)
        error = error_of(http.post(TEXT, json={"prompt": "a", "max_tokens": 4, **fields}), 429)
        assert error["code"] == "overloaded"
        assert llm.engine.load().waiting == 0  # the place that is free is still free
        asked = 'fastdllm_prompt_tokens_total{model="tiny_math"} 0.0'
        assert asked in http.get("/metrics").text
        # What would not fit into an idle engine either is not worth a second try.
        many = {"n": 3} if "n" in fields else {"prompt": ["a", "b", "c"]}
        response = http.post(TEXT, json={"prompt": "a", **fields, **many})
        assert error_of(response, 400)["param"] == next(iter(many))
        held.release()


def test_a_request_that_takes_too_long_ends_with_an_error(
    llm: fastdllm.LLM, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serving(llm, request_seconds=0.05) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        assert error_of(http.post(TEXT, json=ENDLESS), 504)["code"] == "timeout"
        caplog.clear()
        with caplog.at_level(logging.INFO, "fastdllm.serve"):
            last = events_of(http.post(TEXT, json={**ENDLESS, "stream": True}).text)[-1]
            assert last["error"]["code"] == "timeout"
            wait_until(lambda: caplog.records)
        assert [record.getMessage() for record in caplog.records] == ["request"]
        assert caplog.records[0].__dict__["facts"]["error"] == "timeout"
        wait_until(lambda: llm.engine.load().running == 0)


def test_a_key_is_needed_where_there_are_keys(llm: fastdllm.LLM) -> None:
    with (
        serving(llm, api_keys=("first", "second")) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        for value in (None, "Bearer", "Bearer wrong", "Basic first", "Bearer first second"):
            headers = {} if value is None else {"authorization": value}
            for path in ("/v1/models", "/openapi.json", "/v1/nothing"):
                response = http.get(path, headers=headers)
                assert error_of(response, 401)["type"] == "authentication_error"
        for key in ("first", "second"):
            headers = {"authorization": f"Bearer {key}"}
            assert http.get("/v1/models", headers=headers).status_code == 200
        for path in ("/health", "/ready", "/metrics"):
            assert http.get(path).status_code == 200
    with (
        serving(llm, api_keys=("first",), protect_metrics=True) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        error_of(http.get("/metrics"), 401)


def test_a_request_has_an_id_and_a_line_in_the_log_without_its_text(
    http: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastdllm.serve"):
        secret = {"messages": [{"role": "user", "content": "sesame"}], "max_tokens": 4}
        response = http.post(CHAT, json=secret, headers={"x-request-id": "mine-1"})
        assert response.headers["x-request-id"] == "mine-1"
        odd = http.get("/health", headers={"x-request-id": "a" * 129}).headers["x-request-id"]
        assert odd != "a" * 129
        assert http.post(CHAT, json={"sesame": 1}).status_code == 400
        wait_until(lambda: len(caplog.records) == 3)
    facts = caplog.records[0].__dict__["facts"]
    assert facts["request_id"] == "mine-1"
    assert (facts["route"], facts["model"], facts["status"]) == (CHAT, "tiny_math", 200)
    assert facts["completion_tokens"] <= 4
    assert facts["num_passes"] >= 1
    assert "sesame" not in repr([record.__dict__ for record in caplog.records])


def test_metrics_are_what_prometheus_reads_and_the_answers_say(llm: fastdllm.LLM) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with serving(llm) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        one = http.post(CHAT, json={"messages": MESSAGES, "n": 2}).json()
        options = {"stream": True, "diffusing": True, "stream_options": {"include_usage": True}}
        response = http.post(CHAT, json={"messages": MESSAGES, "cache": "none", **options})
        *chunks, last = events_of(response.text)[:-1]
        wait_until(lambda: not served.server.serving.calls)
        families = {
            f.name: f for f in parser.text_string_to_metric_families(http.get("/metrics").text)
        }
    assert {
        "fastdllm_requests",
        "fastdllm_request_seconds",
        "fastdllm_time_to_first_commit_seconds",
        "fastdllm_tokens_per_forward",
        "fastdllm_prompt_tokens",
        "fastdllm_new_tokens",
        "fastdllm_passes",
        "fastdllm_clients_gone",
        "fastdllm_requests_rejected",
        "fastdllm_requests_running",
        "fastdllm_requests_waiting",
        "fastdllm_batch_limit",
        "fastdllm_waiting_limit",
        "fastdllm_cache_used_bytes",
        "fastdllm_cache_limit_bytes",
    } <= set(families)
    stats = [*(choice["stats"] for choice in one["choices"]), chunks[-1]["stats"]]

    def total(name: str, **labels: str) -> float:
        found = [s for s in families[f"fastdllm_{name}"].samples if s.name.endswith("_total")]
        wanted = {"model": "tiny_math", **labels}.items()
        return sum(
            s.value for s in found if s.name[-8:] != "_created" and wanted <= s.labels.items()
        )

    for kind in ("refresh", "step"):
        assert total("passes", kind=kind) == sum(each[f"{kind}_passes"] for each in stats)
    assert total("passes") == sum(each["num_passes"] for each in stats)
    for name, field in (("new_tokens", "completion_tokens"), ("prompt_tokens", "prompt_tokens")):
        assert total(name) == one["usage"][field] + last["usage"][field]
    of_chats = {"route": CHAT, "status": "200"}
    assert total("requests", **of_chats) == 2
    sums = {
        s.name: s.value
        for name in ("tokens_per_forward", "time_to_first_commit_seconds")
        for s in families[f"fastdllm_{name}"].samples
    }
    assert sums["fastdllm_tokens_per_forward_count"] == 3
    assert sums["fastdllm_tokens_per_forward_sum"] == pytest.approx(
        sum(each["tokens_per_forward"] for each in stats)
    )
    assert sums["fastdllm_time_to_first_commit_seconds_count"] == 1


def test_draining_finishes_what_runs_and_refuses_what_comes(llm: fastdllm.LLM, hold: Hold) -> None:
    with (
        serving(llm, grace_seconds=600) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        assert http.get("/ready").json() == {"status": "ready"}
        held = hold(llm.engine)
        running = served.send_post(TEXT, {**ENDLESS, "max_tokens": 8, "stream": True})
        wait_until(lambda: llm.engine.load().waiting == 1)
        served.server.drain()
        assert http.get("/ready").status_code == 503
        response = http.post(CHAT, json={"messages": MESSAGES})
        assert error_of(response, 503)["code"] == "draining"
        assert response.headers["connection"] == "close"
        assert int(response.headers["retry-after"]) >= 1
        assert http.get("/health").status_code == 200
        held.release()
        answer = received(running)
        assert b'"finish_reason": "length"' in answer
        assert b"[DONE]" in answer
        served.wait_for_end()


def test_what_still_runs_after_the_grace_is_cut(llm: fastdllm.LLM) -> None:
    with serving(llm, grace_seconds=0) as served:
        running = [served.send_post(TEXT, {**ENDLESS, "stream": s}) for s in (False, True)]
        wait_until(lambda: llm.engine.load().running == 2)
        served.server.drain()
        plain, stream = map(received, running)
        assert plain.startswith(b"HTTP/1.1 503 ")
        assert stream.startswith(b"HTTP/1.1 200 ")
        assert b'"code":"stopped"' in stream
        served.wait_for_end()
        wait_until(lambda: llm.engine.load().running == 0)
