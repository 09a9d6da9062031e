"""uvicorn around the application: slow and too many connections, signals, the log's form."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from fastdllm.llm import LLM
from fastdllm.serve.app import create_app
from fastdllm.serve.connection import MAX_HEAD_BYTES
from fastdllm.serve.errors import ApiError
from fastdllm.serve.serving import Serving
from fastdllm.serve.settings import Settings

_LAST_SECONDS = 1.0  # for cancelled requests to send their clients the error
_MAX_FRAMING = 8  # times the largest body: a chunk of one byte takes six


class Server(uvicorn.Server):
    """A server that finishes its requests before it ends.

    After the first signal it refuses new requests with 503. It ends when all requests are answered,
    or after settings.grace_seconds. A second signal ends it at once.
    """

    def __init__(
        self, config: uvicorn.Config, serving: Serving, on_started: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self.serving = serving
        self._on_started = on_started
        self._deadline = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; tell when requests are taken, and signals too."""
        await super().startup(sockets)
        if self._on_started is not None:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self.drain()

    def drain(self) -> None:
        """Stop: gently when called first, at once when called again."""
        if self.serving.draining:
            self.force_exit = True
        grace = 0.0 if self.force_exit else self.serving.settings.grace_seconds
        self._deadline = time.monotonic() + grace
        self.serving.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Say whether to end; asked ten times a second."""
        if self.serving.draining:
            calls = self.serving.calls
            if time.monotonic() >= self._deadline:
                for call in calls:
                    call.cut()
            if not calls or time.monotonic() >= self._deadline + _LAST_SECONDS:
                self.should_exit = True
        return await super().on_tick(counter)


def server_of(
    models: Mapping[str, LLM], settings: Settings, on_started: Callable[[], None] | None = None
) -> Server:
    """Return a server; run(sockets=[open_socket(...)]) runs it, and then calls on_started."""
    app = create_app(models, settings)
    config = uvicorn.Config(
        app,
        http=_protocol(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=1,  # the time for running requests was over before
    )
    return Server(config, app.state.serving, on_started)


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is a free one. Errors: OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve(
    models: Mapping[str, LLM],
    settings: Settings,
    listening: socket.socket,
    on_started: Callable[[], None] | None = None,
) -> bool:
    """Serve until a signal ends it. Returns False when a second one cut off what was running.

    on_started: called when requests are taken. The log goes to stderr, a line of JSON each.
    """
    with _logging():
        server = server_of(models, settings, on_started)
        server.run(sockets=[listening])
        return not server.force_exit


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    levels = {"fastdllm.serve": logging.INFO, "uvicorn.error": logging.WARNING}
    for name, level in levels.items():
        log = logging.getLogger(name)
        log.setLevel(level)
        log.addHandler(handler)
        log.propagate = False
    try:
        yield
    finally:
        for name in levels:
            logging.getLogger(name).removeHandler(handler)


class _Json(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created, UTC)
        facts: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json.dumps(facts)


class _LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol with limits that uvicorn does not have.

    Closes a connection when there are too many, when the head of a request is late or too large,
    when a chunked body has too many bytes of framing, and when a client does not read its response.
    Trailers (headers after a body) are ignored. Bytes that arrive before the current request is
    answered are dropped, and the connection is closed after the answer: keeping them would pause
    reading, and then a client that disconnects would not be noticed.
    """

    settings: ClassVar[Settings]
    too_many: ClassVar[bytes]  # the whole response to a connection that is one too many

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _body_bytes = 0  # as they come, with what frames them
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # hear of all that is not taken at once
        if len(self.connections) > self.settings.max_connections:
            transport.write(self.too_many)
            transport.close()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._is_answering():
            self.cycle.keep_alive = False
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()  # the head is there
            self.cycle.scope.setdefault("fastdllm.abort", self.transport.abort)
            self._body_bytes = self._body_bytes + len(data) if self.cycle.more_body else 0
            if self._body_bytes > MAX_HEAD_BYTES + _MAX_FRAMING * self.settings.max_body_bytes:
                self.transport.abort()
        elif not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
            elif self._late is None:
                self._wait_for_head()

    def on_message_begin(self) -> None:
        if self._is_answering():
            raise ValueError("a request behind another")
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(None, self.loop.time() + self.settings.request_seconds)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(problem)

    def _is_answering(self) -> bool:
        """Say whether a whole request is there and its answer not."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _watch_reader(self, before: int | None, end: float) -> None:
        """Cut a client that takes nothing of a whole response for a while, or takes too long.

        before: bytes that it had not taken a while ago.
        """
        left = self.transport.get_write_buffer_size()
        whole = self.cycle is None or self.cycle.response_complete
        stuck = whole and before is not None and left >= before
        if stuck or self.loop.time() >= end:
            self.transport.abort()
            return
        self._unread = self.loop.call_later(
            self.settings.keep_alive_seconds, self._watch_reader, left if whole else None, end
        )

    def _wait_for_head(self) -> None:
        self._late = self.loop.call_later(self.settings.head_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._head_bytes = 0


def _protocol(settings: Settings) -> type[asyncio.Protocol]:
    """Return the protocol class with these settings, which uvicorn makes an instance of."""
    refusal = ApiError(503, "too many connections", code="too_many_connections").body
    body = refusal.model_dump_json().encode()
    too_many = (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    )
    return type("Protocol", (_LimitedProtocol,), {"settings": settings, "too_many": too_many})
