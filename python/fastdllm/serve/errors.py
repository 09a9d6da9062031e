"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import JSONResponse

from fastdllm._core import ConfigError, Error, GenerationConfig, OverloadedError
from fastdllm.text import TextError

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_FIELDS = frozenset(GenerationConfig().to_dict())


class ErrorFacts(BaseModel):
    """What an error says; param names the field that it is about."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every error response."""

    error: ErrorFacts


class ApiError(Exception):
    """A request that ends with an HTTP status and a message."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("retry-after", "1")
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.body = ErrorBody(error=ErrorFacts(message=message, type=kind, param=param, code=code))

    @property
    def name(self) -> str:
        """What the log calls it; a message may hold what a client wrote."""
        return self.body.error.code or self.body.error.type

    def response(self) -> JSONResponse:
        """Return it as a response."""
        return JSONResponse(self.body.model_dump(), self.status, headers=self.headers)


class ClientGone(Exception):
    """The client closed its connection."""


def unexpected() -> ApiError:
    """Return the client's error for a fault of the server; the log has the details."""
    return ApiError(500, "the server met an unexpected error; its log says more", code="internal")


def stopped() -> ApiError:
    """Return the client's error for a request that ends because the server stops."""
    return ApiError(503, "the server stopped before the end", code="stopped")


def api_error(problem: Exception) -> ApiError | None:
    """Return the client's error for an error of fastdllm; None for any other error."""
    message = str(problem)
    match problem:
        case ApiError():
            return problem
        case OverloadedError():
            return ApiError(429, message, code="overloaded")
        case ConfigError():
            return ApiError(400, message, param=_param(message), code=_code(message))
        case TextError():
            return ApiError(400, message, param="messages")
        case Error():
            return ApiError(500, message, code="engine_error")
    return None


def named_as_asked(problem: ConfigError, *, prompt: str, limit: str) -> ApiError:
    """Return the client's error, with the names of the request's fields.

    prompt: the field that holds the prompt. limit: the one that says max_new_tokens.
    """
    message = re.sub(r"\bmax_new_tokens\b", limit, str(problem))
    param = _param(str(problem))
    param = {"prompt": prompt, "max_new_tokens": limit}.get(str(param), param)
    return ApiError(400, message, param=param, code=_code(message))


def _param(message: str) -> str | None:
    """Return the option that GenerationConfig's message begins with, or "prompt"."""
    found = re.match(r"(?:the )?(\w+)", message)
    return found[1] if found is not None and found[1] in _FIELDS | {"prompt"} else None


def _code(message: str) -> str | None:
    return "context_length_exceeded" if "longer than the model's context" in message else None
