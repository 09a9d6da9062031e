"""The checks around every route: host names, limits, keys, request id, log line."""

from __future__ import annotations

import asyncio
import hmac
import logging
import uuid
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastdllm.serve.bodies import read_json
from fastdllm.serve.connection import MAX_HEAD_BYTES, Call
from fastdllm.serve.errors import ApiError, ClientGone, api_error, stopped, unexpected
from fastdllm.serve.names import check_names
from fastdllm.serve.serving import Serving

logger = logging.getLogger("fastdllm.serve")
_OPEN = ("/health", "/ready", "/metrics", "/", "/page/", "/favicon.ico")
_CLOSE = {"connection": "close"}


class Gate:
    """ASGI middleware around all routes.

    It reads a request's whole body, within its limits, before the route sees the request, so that
    a slow or huge body costs a route nothing. Every refusal is an error as OpenAI words it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        serving: Serving,
        routes: Iterable[str],
        posts: Iterable[str],
    ) -> None:
        """routes: paths that metrics tell apart. posts: those that take a body, JSON."""
        self._app = app
        self._serving = serving
        self._settings = serving.settings
        self._routes = frozenset(routes)
        self._posts = frozenset(posts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        call = Call(request_id=_request_id(headers), route=self._route(scope["path"]))
        scope["fastdllm.call"] = call
        works = scope["path"].startswith("/v1/")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                added = [(b"x-request-id", call.request_id.encode())]
                if self._serving.draining and not _closes(message):
                    added.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        if works:
            self._serving.calls.add(call)
        try:
            await self._serve(scope, receive, answer, headers, works)
        except ClientGone:
            call.client_gone = True
        except Exception as problem:
            told = api_error(problem)
            if told is None:
                logger.exception("request %s", call.request_id)
                told = unexpected()
            call.error = told.name
            if not call.status:
                await told.response()(scope, receive, answer)
        except asyncio.CancelledError:  # the server ends, and so does this task: nobody awaits it
            call.error = "stopped"
            if call.status:
                scope.get("fastdllm.abort", lambda: None)()
                await asyncio.sleep(0)  # until uvicorn has heard of it
            else:
                await stopped().response()(scope, receive, answer)
        finally:
            self._serving.calls.discard(call)
            self._ended(call)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        works: bool,
    ) -> None:
        if works and self._serving.draining:
            raise ApiError(503, "the server is shutting down", code="draining", headers=_CLOSE)
        head = [*scope["headers"], (scope.get("raw_path", b""), scope["query_string"])]
        if sum(len(name) + len(value) + 4 for name, value in head) > MAX_HEAD_BYTES:
            raise ApiError(431, "the request's head is too large", headers=_CLOSE)
        check_names(
            scope["headers"],
            address=(scope.get("server") or (None,))[0],
            method=scope["method"],
            allowed=frozenset(self._settings.allowed_hosts),
        )
        self._check_key(scope["path"], headers)
        body = b""
        if scope["method"] == "POST" and scope["path"] in self._posts:
            body = await self._body(receive, headers)
            _check_type(headers)
            read_json(body)
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        keys = self._settings.api_keys
        open_path = path in _OPEN or path.startswith("/page/")
        if path == "/metrics":
            open_path = not self._settings.protect_metrics
        if not keys or open_path:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        matches = [hmac.compare_digest(given.strip(), key.encode()) for key in keys]
        if kind.lower() != b"bearer" or not any(matches):
            raise ApiError(
                401,
                "no valid API key; expected the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    async def _body(self, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        limit = self._settings.max_body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        try:
            return await asyncio.wait_for(_read(receive, limit), self._settings.body_seconds)
        except TimeoutError:
            raise ApiError(
                408,
                f"the body did not come within {self._settings.body_seconds:g} seconds",
                code="timeout",
                headers=_CLOSE,
            ) from None

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        for prefix in ("/v1/models/", "/page/"):
            if path.startswith(prefix):
                return prefix + "*"
        return "other"

    def _ended(self, call: Call) -> None:
        status = 499 if call.client_gone else call.status
        seconds = call.seconds()
        self._serving.metrics.ended(
            call.model or "",
            call.route,
            status,
            seconds,
            gone=call.client_gone,
            prompt_tokens=call.prompt_tokens,
        )
        logger.info(
            "request",
            extra={
                "facts": {
                    "request_id": call.request_id,
                    "route": call.route,
                    "model": call.model,
                    "status": status,
                    "seconds": round(seconds, 6),
                    "streamed": call.streamed,
                    "answers": call.answers,
                    "prompt_tokens": call.prompt_tokens,
                    "completion_tokens": call.completion_tokens,
                    "num_passes": call.num_passes,
                    "finish_reason": ",".join(sorted(set(call.finish_reasons))) or None,
                    "client_gone": call.client_gone,
                    "error": call.error,
                }
            },
        )


def _closes(message: Message) -> bool:
    return any(name == b"connection" for name, _ in message.get("headers", ()))


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {limit} bytes, this server's limit",
        code="body_too_large",
        headers=_CLOSE,
    )


def _check_type(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise ApiError(415, "the body is encoded; expected no Content-Encoding")
    kind, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.replace(b'"', b"").strip()
    if kind.strip() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        raise ApiError(
            415, "the body's type is not JSON; expected Content-Type: application/json in UTF-8"
        )


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return f"req-{uuid.uuid4().hex}"
