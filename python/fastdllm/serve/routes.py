"""The routes. They are plain functions: FastAPI never releases them or what they hold."""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from fastdllm._core import ConfigError
from fastdllm.serve.connection import EventStream, while_connected
from fastdllm.serve.errors import ApiError, ErrorBody, named_as_asked
from fastdllm.serve.generation import Generation
from fastdllm.serve.plan import encode, questions_of, size_of, too_long
from fastdllm.serve.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from fastdllm.serve.responses import (
    ChatCompletion,
    Health,
    Model,
    ModelList,
    PlainText,
    TextCompletion,
    Tokens,
)
from fastdllm.serve.serving import call_of, serving_of

PAGE = Path(__file__).parent / "page"
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_ERRORS = {
    400: "what was asked cannot be honoured; param names the field",
    401: "no valid API key",
    403: "the server is not called that, or asked from the page of another",
    404: "no such model, or no such route",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    429: "the queue is full; Retry-After says when to come again",
    500: "the engine failed",
    503: "the server is shutting down, or has too many connections",
    504: "the request took too long",
}
T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]


def _errors(*statuses: int) -> Responses:
    found: Responses = {
        status: {"model": ErrorBody, "description": _ERRORS[status]} for status in statuses
    }
    return found | {"4XX": {"model": ErrorBody, "description": "any other refusal"}}


def _done(model: type[BaseModel] | None, content: dict[str, Any]) -> Responses:
    return {200: {"model": model, "content": content}}


_READS = _errors(400, 401, 403, 404, 503)
_TAKES = _errors(400, 401, 403, 404, 408, 413, 415, 500, 503)
_GENERATES = _TAKES | _errors(429, 504)
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_STREAM = {"text/event-stream": {"schema": _EVENT}}  # of each event; its data is JSON or [DONE]
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}
router = APIRouter()


@router.post(
    "/v1/chat/completions",
    responses=_done(ChatCompletion, _STREAM) | _GENERATES,
)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    return await _generate(body, request)


@router.post("/v1/completions", responses=_done(TextCompletion, _STREAM) | _GENERATES)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue texts, without chat template."""
    return await _generate(body, request)


async def _while_there(request: Request, work: Awaitable[T]) -> T:
    """Await the work before an answer, unless the client leaves or its time is over."""
    call = call_of(request)
    left = serving_of(request).settings.request_seconds - call.seconds()
    return await while_connected(call, request.receive, work, left)


async def _generate(body: ChatRequest | CompletionRequest, request: Request) -> Response:
    serving, call = serving_of(request), call_of(request)
    name, llm = serving.model(body.model, call)
    try:
        questions = await _while_there(request, questions_of(body, llm, serving))
        generation = Generation(
            body, questions, llm=llm, model=name, call=call, metrics=serving.metrics
        )
    except ConfigError as problem:
        prompt = "messages" if isinstance(body, ChatRequest) else "prompt"
        limit = next(iter(body.limits()), "max_tokens")
        raise named_as_asked(problem, prompt=prompt, limit=limit) from None
    left = serving.settings.request_seconds - call.seconds()
    if body.stream:
        return EventStream(call, generation.stream(), generation.cancel, left)
    try:
        return _json(await while_connected(call, request.receive, generation.result(), left))
    finally:
        generation.cancel()


@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models", response_model=ModelList, responses=_READS)
async def list_models(request: Request) -> Response:
    """List the packages that are served."""
    serving = serving_of(request)
    return _json(ModelList(data=[serving.facts(name) for name in serving.models]))


@router.head("/v1/models/{model:path}", include_in_schema=False)
@router.get("/v1/models/{model:path}", response_model=Model, responses=_READS)
async def one_model(model: str, request: Request) -> Response:
    """Describe one of them."""
    serving = serving_of(request)
    return _json(serving.facts(serving.model(model, call_of(request))[0]))


@router.post("/v1/tokenize", response_model=Tokens, responses=_TAKES)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Return the token ids of a text or of messages."""
    serving = serving_of(request)
    name, llm = serving.model(body.model, call_of(request))
    most = serving.settings.max_prompt_tokens
    if body.messages is not None and body.prompt is None:
        messages = [message.plain() for message in body.messages]
        size = size_of(messages)
        variables = body.chat_template_kwargs
        asked = encode(
            llm, messages, serving, raw=False, size=size, most=most, chat_template_kwargs=variables
        )
    elif body.prompt is not None and body.messages is None:
        size = len(body.prompt)
        asked = encode(llm, body.prompt, serving, raw=True, size=size, most=most)
    else:
        raise ApiError(400, "expected either prompt or messages", param="prompt")
    ids = await _while_there(request, asked)

    def told() -> Response:
        return _json(
            Tokens(
                model=name,
                token_ids=ids,
                tokens=[llm.codec.decode_token(token) for token in ids],
                count=len(ids),
                max_context_length=llm.engine.package.max_context_length,
            )
        )

    return await _while_there(request, serving.lanes.run(told, size=len(ids)))


@router.post("/v1/detokenize", response_model=PlainText, responses=_TAKES)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """Return the text of token ids."""
    serving = serving_of(request)
    name, llm = serving.model(body.model, call_of(request))
    if len(body.token_ids) > serving.settings.max_prompt_tokens:
        raise too_long(str(len(body.token_ids)), serving.settings, "token_ids")
    size = llm.engine.package.vocab_size
    for index, token in enumerate(body.token_ids):
        if token >= size:
            message = f"token_ids[{index}] is {token}; expected ids in [0, {size})"
            raise ApiError(400, message, param="token_ids")
    decoding = functools.partial(llm.codec.decode, body.token_ids)
    lane = serving.lanes.run(decoding, size=len(body.token_ids))
    text = await _while_there(request, lane)
    return _json(PlainText(model=name, text=text))


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health)
async def health() -> Response:
    """Say that the process is alive."""
    return _json(Health(status="ok"))


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    response_model=Health,
    responses={503: {"model": Health, "description": _ERRORS[503]}},
)
async def ready(request: Request) -> Response:
    """Say whether requests are taken."""
    draining = serving_of(request).draining
    return _json(Health(status="draining" if draining else "ready"), 503 if draining else 200)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    responses=_done(None, _PLAIN) | _errors(401),
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """Return Prometheus's text format."""
    text = serving_of(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.head("/", include_in_schema=False)
@router.get("/", include_in_schema=False)
async def page() -> Response:
    """Return the page."""
    if not (PAGE / "index.html").is_file():
        raise ApiError(404, "this installation has no page")
    return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)


class PageFiles(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file with headers that let it load from this server alone."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _json(content: BaseModel, status: int = 200) -> Response:
    return Response(content.model_dump_json(), status, media_type="application/json")
