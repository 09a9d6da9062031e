"""A client's connection: its request, and whether the client is still connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastdllm.serve.errors import ApiError, ClientGone, stopped

T = TypeVar("T")
MAX_HEAD_BYTES = 2**16
_LAST_WORDS = 1.0  # seconds for a client to take the error that ends its stream


@dataclass(kw_only=True, eq=False)
class Call:
    """A running request and the fields of its log line."""

    request_id: str
    route: str
    started: float = field(default_factory=monotonic)
    model: str | None = None
    status: int = 0
    error: str | None = None
    client_gone: bool = False
    answers: int = 0
    streamed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    num_passes: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    watch: asyncio.Task[None] | None = None

    def seconds(self) -> float:
        """Return the time since the request arrived."""
        return monotonic() - self.started

    def cut(self) -> None:
        """End the request with an error, if it generates, because the server stops."""
        if self.watch is not None:
            self.watch.cancel()


async def while_connected(call: Call, receive: Receive, work: Awaitable[T], seconds: float) -> T:
    """Do the work unless the client leaves first, the time is over, or the server stops.

    receive: gives what follows the request's body. Errors: the work's; ClientGone; ApiError 503,
    504.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    doing = asyncio.ensure_future(work)
    call.watch = leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait(
            (doing, leaving), timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED
        )
        if doing.done():
            return doing.result()
        if leaving.cancelled():
            raise stopped()
        if leaving.done():
            raise ClientGone
        raise ApiError(504, "the request took longer than this server allows", code="timeout")
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


class EventStream(Response):
    """Server-sent events as they come; the generator is closed when the client leaves.

    A stream that is not done in time ends with an error event. A client that does not read that
    either has its connection cut.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        call: Call,
        events: AsyncGenerator[str, None],
        cancel: Callable[[], None],
        seconds: float,
    ) -> None:
        """cancel: called at the end, also of a stream that never began. seconds: it may take."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._call = call
        self._events = events
        self._cancel = cancel
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Errors: ClientGone."""

        async def write(text: str, *, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": text.encode(), "more_body": more}
            await send(message)

        async def write_all() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events) as events:
                async for event in events:
                    await write(event)
            await write("", more=False)

        try:
            await while_connected(self._call, receive, write_all(), self._seconds)
        except ApiError as problem:
            self._call.error = problem.name
            try:
                await asyncio.wait_for(write(error_event(problem), more=False), _LAST_WORDS)
            except TimeoutError:
                scope.get("fastdllm.abort", lambda: None)()
                await asyncio.sleep(0)  # until uvicorn knows it
        finally:
            self._cancel()


def event_of(content: BaseModel | str) -> str:
    """Return a server-sent event."""
    data = content if isinstance(content, str) else content.model_dump_json()
    return f"data: {data}\n\n"


def error_event(problem: ApiError) -> str:
    """Return an error in the middle of a stream."""
    return event_of(problem.body)
