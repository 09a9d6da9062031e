"""A server of the shipped model in this process, on a free port, and raw sockets to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fastdllm

pytest.importorskip("fastapi", reason="the server needs fastapi and uvicorn")

from fastdllm.serve import Settings
from fastdllm.serve.server import Server, open_socket, server_of

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SECONDS = 60  # for what must not hang
QUESTION = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"
MESSAGES = [{"role": "user", "content": QUESTION}]
ENDLESS = {"prompt": "a", "max_tokens": 500, "ignore_eos": True, "steps": 500, "cache": "none"}


class Served:
    """A running server."""

    def __init__(self, models: dict[str, fastdllm.LLM], settings: Settings) -> None:
        self.models = models
        listening = open_socket("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        started = threading.Event()
        self.server: Server = server_of(models, settings, started.set)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [listening]}, daemon=True
        )
        self.thread.start()
        assert started.wait(SECONDS)

    def stop(self) -> None:
        self.server.drain()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    def wait_for_end(self) -> None:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def post_head(self, path: str, length: int | None, *more: str) -> bytes:
        lines = [f"POST {path} HTTP/1.1", "Host: [::1]", "Content-Type: application/json", *more]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()

    def send_post(self, path: str, body: dict[str, Any]) -> socket.socket:
        """Send a request and return its connection, to be read or cut."""
        content = json.dumps(body).encode()
        connection = self.connect()
        connection.sendall(self.post_head(path, len(content)) + content)
        return connection


def received(connection: socket.socket) -> bytes:
    """Read a connection to its end."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextlib.contextmanager
def serving(llm: fastdllm.LLM, **settings: Any) -> Iterator[Served]:
    served = Served({"tiny_math": llm}, Settings(**settings))
    try:
        yield served
    finally:
        if not served.server.should_exit:
            served.stop()


def events_of(text: str) -> list[Any]:
    """Return the content of a stream's events; [DONE] as it stands."""
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


def chat(http: Any, **fields: Any) -> Any:
    return http.post(CHAT, json={"messages": MESSAGES, **fields})


def complete(http: Any, **fields: Any) -> Any:
    return http.post(TEXT, json={"prompt": "There are", **fields})


def refused(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
