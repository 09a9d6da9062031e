"""Which names a server answers to, and which pages may ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastdllm

from conftest import run_python
from served import CHAT, TEXT, Served, Settings, received, serving

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
hosts = pytest.importorskip("fastdllm.serve.hosts")
names = pytest.importorskip("fastdllm.serve.names")
errors = pytest.importorskip("fastdllm.serve.errors")
PATHS = ["/", "/health", "/ready", "/metrics", "/v1/models", "/openapi.json", "/page/page.js"]
FOREIGN = [
    "http://evil.example",
    "null",
    "",
    "http://localhost.evil.example",
    "http://localhost:1",
    "https://127.0.0.1",
    "file://",
    "chrome-extension://localhost",
    "http://[::1",
    "http://localhost:99999",
    "http://user@localhost",
]


@pytest.fixture(scope="module")
def served(llm: fastdllm.LLM) -> Iterator[Served]:
    with serving(llm) as one:
        yield one


def ask(served: Served, head: str, body: bytes = b"") -> tuple[int, Any]:
    """Return the status and the JSON of a request whose head is this."""
    with served.connect() as connection:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        connection.sendall(f"{head}\r\nConnection: close\r\n{length}\r\n".encode() + body)
        start, _, content = received(connection).partition(b"\r\n\r\n")
    kind = b"application/json" in start
    return int(start[9:12]), json.loads(content) if kind and content else content


def post(served: Served, *headers: str, path: str = TEXT) -> tuple[int, Any]:
    body = json.dumps({"prompt": "There are", "max_tokens": 1}).encode()
    kind = "Content-Type: application/json"
    return ask(served, "\r\n".join([f"POST {path} HTTP/1.1", kind, *headers]), body)


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "localhost.", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("port", ["", ":1", ":{port}"])
def test_a_loopback_address_goes_by_the_names_of_this_machine(
    served: Served, name: str, port: str
) -> None:
    host = name + port.format(port=served.port)
    assert post(served, f"Host: {host}")[0] == 200
    assert ask(served, f"GET /v1/models HTTP/1.1\r\nHost: {host}")[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "[::2]",
        "127-0-0-1.nip.example",
    ],
)
def test_another_name_is_refused_whatever_is_asked(served: Served, host: str, method: str) -> None:
    for path in [*PATHS, TEXT, CHAT, "/v1/tokenize", "/nothing"]:
        status, body = ask(served, f"{method} {path} HTTP/1.1\r\nHost: {host}:{served.port}")
        assert status == 403
        if method != "HEAD":
            assert body["error"]["code"] == "host_not_allowed"
            assert "--allowed-host" in body["error"]["message"]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "Host:",
        "Host: localhost\r\nHost: localhost",
        "Host: localhost\r\nHost: evil.example",
        "Host: localhost, evil.example",
        "Host: localhost evil.example",
        "Host: evil.example@localhost",
        "Host: localhost/evil",
        "Host: localhost:x",
        "Host: localhost:",
        "Host: localhost:99999",
        "Host: localhost..",
        "Host: ::1",
        "Host: [::1",
        "Host: [localhost]",
        "Host: loc\xe4lhost",
        "Host: .",
    ],
)
def test_a_host_that_is_no_name_is_refused(served: Served, lines: str) -> None:
    for version in ("1.0", "1.1"):
        head = f"GET /health HTTP/{version}" + (f"\r\n{lines}" if lines else "")
        status, _ = ask(served, head)
        assert status == 400


def test_a_handshake_of_a_web_socket_is_no_way_around(served: Served) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
    for path in ("/", TEXT):
        head = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n{upgrade}"
        assert ask(served, head)[0] == 403
        local = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}"
        assert ask(served, local)[0] in (200, 405)  # as if it had asked for nothing else


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", [TEXT, CHAT, "/v1/tokenize", "/v1/detokenize", "/nothing"])
def test_a_page_of_another_server_gets_nothing_done(served: Served, origin: str, path: str) -> None:
    status, body = post(served, "Host: localhost", f"Origin: {origin}", path=path)
    assert (status, body["error"]["code"]) == (403, "origin_not_allowed")
    load = served.models["tiny_math"].engine.load()
    assert load.running == load.waiting == 0


def test_two_origins_and_a_preflight_are_refused(served: Served) -> None:
    own = f"Origin: http://localhost:{served.port}"
    host = f"Host: localhost:{served.port}"
    assert post(served, host, own, "Origin: http://evil.example")[0] == 403
    assert post(served, host, own, own)[0] == 403
    asked = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST"
    assert ask(served, f"OPTIONS {TEXT} HTTP/1.1\r\n{host}\r\n{asked}")[0] == 403


def test_the_page_itself_and_programs_are_answered(served: Served) -> None:
    for name in ("localhost", "127.0.0.1", "[::1]"):
        host = f"{name}:{served.port}"
        assert post(served, f"Host: {host}", f"Origin: http://{host}")[0] == 200
    assert post(served, "Host: localhost", "Origin: http://localhost:80")[0] == 200
    assert post(served, "Host: localhost", "Origin: https://localhost")[0] == 200  # through TLS
    assert post(served, "Host: localhost")[0] == 200
    read = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example"
    assert ask(served, read)[0] == 200  # the browser shows it to no page


def test_names_may_be_allowed_and_keys_change_nothing(llm: fastdllm.LLM) -> None:
    allowed = ("LLM.example.org.", "10.1.2.3", "fe80::1")
    with serving(llm, allowed_hosts=allowed, api_keys=("k",)) as served:
        key = "Authorization: Bearer k"
        for host in ("llm.example.org", "llm.EXAMPLE.org.:8443", "10.1.2.3", "[fe80:0::1]:80"):
            assert post(served, key, f"Host: {host}")[0] == 200
        page = "Origin: https://llm.example.org:8443"
        assert post(served, key, "Host: localhost", page)[0] == 200
        assert post(served, key, "Host: localhost", "Origin: https://example.org")[0] == 403
        assert post(served, key, "Host: example.org")[0] == 403
        assert post(served, "Host: llm.example.org")[0] == 401


@pytest.mark.parametrize("name", ["", " ", "a b", "http://a", "a:80", "*", "a/b", "[::1", "ü"])
def test_what_is_no_name_cannot_be_allowed(name: str) -> None:
    with pytest.raises(fastdllm.ConfigError, match="allowed_hosts"):
        Settings(allowed_hosts=(name,))


RAY_ARGUMENTS = """
import sys
sys.path.insert(0, sys.argv[1])  # a stand-in for Ray, where it is not installed
import fastdllm
from fastdllm.ray.serving import ServeArgs
for given in (("LLM.example.org.", "10.1.2.3"), ["a.example"], "a.example,fe80::1", "", "a:80"):
    try:
        args = ServeArgs.model_validate({"package": "p", "allowed_hosts": given})
        print(args.settings().allowed_hosts)
    except fastdllm.ConfigError as error:
        print(error)
"""


def test_names_may_be_allowed_on_ray_too(tmp_path: Path) -> None:
    for name in ("ray", "pyarrow"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "ray" / "serve.py").write_text("Application = object")

    done = run_python(RAY_ARGUMENTS, tmp_path)

    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "('llm.example.org', '10.1.2.3')",
            "('a.example',)",
            "('a.example', 'fe80::1')",
            "allowed_hosts holds ''; expected a name or an address, without a port",
            "allowed_hosts holds 'a:80'; expected a name or an address, without a port",
        ],
        "",
    )


def refusal(address: str | None, allowed: tuple[str, ...] = (), **headers: str) -> int:
    """Return the status that a request's names are refused with; 0: they are not."""
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    allowed_hosts = frozenset(Settings(allowed_hosts=allowed).allowed_hosts)
    try:
        names.check_names(given, address=address, method="POST", allowed=allowed_hosts)
    except errors.ApiError as problem:
        return int(problem.status)
    return 0


def test_what_comes_from_elsewhere_may_name_the_server_as_it_likes() -> None:
    for address in ("192.168.1.7", "2001:db8::1", None):
        assert refusal(address, Host="box.lan") == 0
        assert refusal(address, Host="box.lan", Origin="http://box.lan") == 0
        assert refusal(address, Host="box.lan", Origin="http://evil.example") == 403
        assert refusal(address, Origin="http://evil.example") == 403
        assert refusal(address, ("box.lan",), Host="evil.example") == 403
        assert refusal(address, ("box.lan",), Host="box.lan") == 0
    assert refusal("192.168.1.7", ("box.lan",), Host="192.168.1.7:8000") == 0
    for address in ("127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", "localhost"):
        assert refusal(address, Host="evil.example") == 403
        assert refusal(address, Host=f"[{address}]" if ":" in address else address) == 0


def test_an_application_under_another_server_refuses_the_same(llm: fastdllm.LLM) -> None:
    from fastdllm.serve import create_app

    app = create_app({"tiny_math": llm})

    async def status(host: str, **headers: str) -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            body = {"prompt": "x", "max_tokens": 1}
            answer = await client.post(TEXT, json=body, headers={"host": host, **headers})
            return int(answer.status_code)

    assert asyncio.run(status("127.0.0.1")) == 200
    assert asyncio.run(status("evil.example")) == 403
    assert asyncio.run(status("127.0.0.1", origin="null")) == 403


def test_a_web_socket_of_another_server_is_closed(llm: fastdllm.LLM) -> None:
    from fastdllm.serve import create_app

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": TEXT, "headers": [], "query_string": b"", "scheme": "ws"}
    asyncio.run(create_app({"tiny_math": llm})(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
