"""What `fastdllm serve` does with bodies and connections that mean harm: a 4xx or a closed one.

A well-behaved client beside them is answered all the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import PackageOf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

PATIENCE = 60  # seconds for what must come
LIMITS = ("--head-seconds", "1", "--body-seconds", "1", "--keep-alive-seconds", "2")
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
WHOLE = json.dumps(CHAT).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n"
UNREAD = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}


class Neighbour(threading.Thread):
    """A client that asks the same again and again, and gets the same answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.begun = 0
        self.answered = 0
        self.problem: str | None = None
        self.changed = threading.Condition()

    def run(self) -> None:
        expected = None
        while self.problem is None:
            with self.changed:
                self.begun += 1
                number = self.begun
            try:
                status, body = post(self.port, WHOLE)
                found = (status, json.loads(body)["choices"])
            except Exception as problem:
                found = (0, repr(problem))
            for choice in found[1] if found[0] == 200 else ():
                del choice["stats"]["seconds"]
            expected = expected or found
            with self.changed:
                self.answered = number
                if found != expected or found[0] != 200:
                    self.problem = repr(found)
                self.changed.notify_all()

    def require_answer(self) -> None:
        """Wait for the answer to a request that begins from now on."""
        with self.changed:
            awaited = self.begun + 1
            found = self.changed.wait_for(
                lambda: self.problem is not None or self.answered >= awaited, PATIENCE
            )
        assert self.problem is None
        assert found, "the well-behaved client got no answer"


def post(port: int, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        # A refusal may come, and the connection close, while the body is still being sent.
        with contextlib.suppress(BrokenPipeError):
            connection.request(
                "POST",
                "/v1/chat/completions",
                body,
                {"Content-Type": "application/json", **headers},
            )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(package_of: PackageOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    log = tmp_path_factory.mktemp("hostile") / "log"
    words = [sys.executable, "-m", "fastdllm", "serve", package_of("tiny_math"), "--port", "0"]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*words, *LIMITS, "--threads", "1"], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)$", process.stdout.readline().strip())
            assert found is not None, log.read_text("utf-8")
            process.port, process.log = int(found[1]), log  # type: ignore[attr-defined]
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def neighbour(server: Any) -> Neighbour:
    client = Neighbour(server.port)
    client.start()
    return client


@pytest.fixture
def port(server: Any, neighbour: Neighbour) -> Iterator[int]:
    """Give the server's port; afterwards the neighbour still has to be answered, and no error
    of the server's own be in its log.
    """
    neighbour.require_answer()
    yield server.port
    neighbour.require_answer()
    assert server.poll() is None
    log = Path(server.log).read_text("utf-8")
    assert '"level": "error"' not in log, log[log.index('"level": "error"') - 100 :][:3000]


def exchange(port: int, *parts: bytes, ends: bool = False) -> bytes:
    """Send bytes; return what comes back until the server closes the connection.

    ends: the client ends its side behind them.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


def require_refused(received: bytes) -> None:
    """Require a 4xx, or a connection that was closed without a word."""
    found = statuses(received)
    assert received == b"" or (found and all(400 <= status < 500 for status in found)), received


def require_error(status: int, body: bytes, expected: int = 400) -> None:
    assert status == expected, body
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}
    assert len(body) < 4096


# --- bodies -----------------------------------------------------------------------------------


def test_a_body_that_is_cut_anywhere_is_refused(port: int) -> None:
    for length in range(len(WHOLE)):
        require_error(*post(port, WHOLE[:length]))


DEEP = 10**5
BODIES = {
    "nothing": b"",
    "spaces": b" " * 1000,
    "no object": b"[]",
    "null": b"null",
    "a number": b"1",
    "two objects": WHOLE + WHOLE,
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "UTF-32": WHOLE.decode().encode("utf-32"),
    "bytes that are no UTF-8": WHOLE.replace(b"Hi", b"\xff\xfe\xed\xa0\x80"),
    "an overlong NUL": WHOLE.replace(b"Hi", b"\xc0\x80"),
    "half a surrogate pair": WHOLE.replace(b"Hi", b"\\ud800"),
    "half a surrogate pair as a key": WHOLE.replace(b"max_tokens", b"\\udfff"),
    "a control character in a string": WHOLE.replace(b"Hi", b"\x00\x1f"),
    "an escape that does not exist": WHOLE.replace(b"Hi", b"\\x41"),
    "nested arrays": b"[" * DEEP,
    "nested arrays, closed": b"[" * DEEP + b"]" * DEEP,
    "nested objects": b'{"a":' * DEEP,
    "a nested prompt": WHOLE.replace(b'"Hi"', b"[" * DEEP + b"]" * DEEP),
    "a million digits": WHOLE.replace(b": 4", b": " + b"9" * 10**6),
    "a million digits behind the point": WHOLE.replace(b": 4", b": 4." + b"9" * 10**6),
    "a huge exponent": WHOLE.replace(b": 4", b": 1e999999999"),
    "NaN": WHOLE.replace(b": 4", b": NaN"),
    "Infinity": WHOLE.replace(b": 4", b": -Infinity"),
    "a hexadecimal number": WHOLE.replace(b": 4", b": 0x4"),
    "a leading zero": WHOLE.replace(b": 4", b": 04"),
    "a key twice": WHOLE.replace(b"{", b'{"max_tokens": 1, ', 1),
    "a comment": b"/* */" + WHOLE,
    "a trailing comma": WHOLE[:-1] + b",}",
    "single quotes": WHOLE.replace(b'"', b"'"),
    "many keys": b"{%s}" % b",".join(b'"k%d":0' % i for i in range(50_000)),
    "a long key": b'{"%s": 1}' % (b"k" * 10**6),
    "many messages": json.dumps({"messages": CHAT["messages"] * 10_000}).encode(),
    "a prompt beyond the context": WHOLE.replace(b"Hi", b"Hi " * 300_000),
    "a prompt of one word": WHOLE.replace(b"Hi", b"a" * 10**6),
    "a prompt of special tokens": WHOLE.replace(b"Hi", b"<|mdm_mask|>" * 80_000),
    "many stop strings": json.dumps({**CHAT, "stop": ["a"] * 10_000}).encode(),
    "a role that is a program": json.dumps(
        {"messages": [{"role": "{{ 7 * 7 }}" * 10, "content": "x"}]}
    ).encode(),
    "no message": b'{"messages": []}',
    "a message that is a text": b'{"messages": ["Hi"]}',
    "a picture": b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_or_monstrous_body_is_refused(name: str, port: int) -> None:
    require_error(*post(port, BODIES[name]))


def test_a_field_of_the_wrong_type_is_refused_whichever_it_is(port: int) -> None:
    from fastdllm.serve.requests import ChatRequest

    for field in ChatRequest.model_fields.keys() - UNREAD:
        for value in ({"a": [{}]}, [[None]], [[[]]], "\x00\x00", -(2**70), 10**400):
            if field in ("stop", "model") and value == "\x00\x00":
                continue  # a text
            if field == "chat_template_kwargs" and isinstance(value, dict):
                continue  # an object
            status, body = post(port, json.dumps({**CHAT, field: value}).encode())
            require_error(status, body)
            error = json.loads(body)["error"]
            assert field in f"{error['param']} {error['message']}", (value, body)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "", "application/json; charset=x"]
)
def test_a_body_of_another_type_is_refused(kind: str, port: int) -> None:
    status, body = post(port, WHOLE, **{"Content-Type": kind})

    require_error(status, body, 415)


def test_a_body_beyond_the_limit_is_refused_before_it_has_come(port: int) -> None:
    require_error(*post(port, b" " * (2**20 + 1)), expected=413)

    received = exchange(port, HEAD + b"Content-Length: 1000000000000\r\n\r\n" + b"{" * 1000)

    assert statuses(received) == [413]


def test_chunks_without_end_are_refused_at_the_limit(port: int) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    received = exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 200)

    require_refused(received)


def test_chunks_that_never_are_a_body_are_cut(port: int) -> None:
    endless = {
        "an extension": b"1;" + b"a" * 2**20,
        "headers behind the body": b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 100_000,
    }
    for start in endless.values():
        more = [start[-(2**19) :]] * 40
        require_refused(exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", start, *more))


def test_headers_behind_a_body_are_not_kept(server: Any, port: int) -> None:
    def resident() -> int:
        status = Path(f"/proc/{server.pid}/status").read_text("utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    before = resident()
    trailers = b"0\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n"

    require_refused(exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", trailers))

    assert resident() - before < 50_000  # kB; kept, they would be 150 MB


def test_a_body_in_chunks_of_a_byte_is_taken(port: int) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in WHOLE)
    head = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    received = exchange(port, head + chunks + b"0\r\nX: y\r\n\r\n")

    assert statuses(received) == [200]


# --- connections ------------------------------------------------------------------------------

HEADS = {
    "garbage": b"\x00\xff" * 500 + b"\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 512,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "a method that does not exist": b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\n\r\n",
    "a version that does not exist": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a header of a megabyte": b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
    "a hundred thousand headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
    "a path of a megabyte": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: x\r\n\r\n",
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length of many digits": HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "a chunk of a huge size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n",
    "up the folders": b"GET /page/../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "up the folders, encoded": b"GET /page/%2e%2e/%2e%2e/app.py HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "a path that is no UTF-8": b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: close\r\n\r\n",
    "nothing": b"",
    "half a head": HEAD,
    "a head that waits for its body": HEAD + b"Content-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("ends", [False, True], ids=["open", "half-open"])
@pytest.mark.parametrize("name", HEADS)
def test_a_hostile_connection_is_refused_or_closed(name: str, ends: bool, port: int) -> None:
    require_refused(exchange(port, HEADS[name], ends=ends))


@pytest.mark.parametrize("given", [WHOLE[:-1], HEAD], ids=["a body", "a head"])
def test_one_byte_at_a_time_ends_with_the_time_for_it(given: bytes, port: int) -> None:
    """The bytes do not prolong it: the client never gets as far as its last one."""
    is_body = given is not HEAD
    first = HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE) if is_body else b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(first)
        connection.settimeout(0.2)
        received = b""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while True:
                if sent < len(given):
                    connection.sendall(given[sent : sent + 1])
                    sent += 1
                with contextlib.suppress(TimeoutError):
                    if not (part := connection.recv(4096)):
                        break
                    received += part
    assert sent < len(given)
    require_refused(received)
    if is_body:
        assert statuses(received) == [408]


def test_garbage_behind_a_request_costs_its_own_connection_only(port: int) -> None:
    asked = HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE

    for garbage in (b"\x00garbage\r\n\r\n", b"\x00" * 2**20):
        received = exchange(port, asked + garbage)

        assert statuses(received) == [200]
        assert json.loads(received.split(b"\r\n\r\n", 1)[1])["choices"]


def test_a_request_behind_one_that_is_not_answered_is_left_to_a_new_connection(port: int) -> None:
    asked = HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE

    for together in ([asked * 9], [asked, asked]):
        received = exchange(port, *together)

        assert statuses(received) == [200]
        head, body = received.split(b"\r\n\r\n", 1)
        assert b"connection: close" in head
        assert json.loads(body)["choices"]


def test_requests_one_after_the_other_share_a_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        used = set()
        for _ in range(3):
            connection.request(
                "POST", "/v1/chat/completions", WHOLE, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            used.add(connection.sock)
    assert len(used) == 1


def test_an_old_client_is_answered_and_its_connection_closed(port: int) -> None:
    old = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: %d\r\n\r\n" % len(WHOLE)

    received = exchange(port, old + WHOLE)

    assert b" 200 " in received.split(b"\r\n")[0]
    assert json.loads(received.split(b"\r\n\r\n", 1)[1])["choices"]


def test_hundreds_of_silent_connections_hold_up_nobody(port: int, neighbour: Neighbour) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(300):
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            opened.enter_context(connection)
            with contextlib.suppress(ConnectionError):
                connection.sendall((b"", HEAD, HEADS["a head that waits for its body"])[number % 3])
        neighbour.require_answer()


def test_readers_that_do_not_read_hold_up_nobody(port: int, neighbour: Neighbour) -> None:
    wants = {**CHAT, "stream": True, "diffusing": True, "max_tokens": 256, "steps": 256}
    body = json.dumps(wants | {"ignore_eos": True, "temperature": 1.0, "n": 2}).encode()
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", port))
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(3):
            neighbour.require_answer()
