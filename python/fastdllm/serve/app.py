"""The routes of a server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from fastdllm._core import Error
from fastdllm.llm import LLM
from fastdllm.serve.connection import Call, EventStream, while_connected
from fastdllm.serve.errors import ApiError, ErrorBody, api_error
from fastdllm.serve.gate import Gate, State
from fastdllm.serve.generation import Generation
from fastdllm.serve.metrics import Metrics
from fastdllm.serve.plan import encode, questions_of
from fastdllm.serve.requests import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    StreamOptions,
    TextPart,
    TokenizeRequest,
)
from fastdllm.serve.responses import (
    ChatCompletion,
    Health,
    Model,
    ModelFacts,
    ModelList,
    PlainText,
    TextCompletion,
    Tokens,
)
from fastdllm.serve.settings import Settings
from fastdllm.version import __version__

_NAMES = frozenset(
    name
    for kind in (ChatRequest, ChatMessage, TextPart, StreamOptions, CompletionRequest)
    + (TokenizeRequest, DetokenizeRequest)
    for name in kind.model_fields
)
PAGE = Path(__file__).parent / "page"
_ERRORS = {
    400: "what was asked cannot be honoured; param names the field",
    401: "no valid API key",
    404: "no such model, or no such route",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    429: "the queue is full; Retry-After says when to come again",
    500: "the engine failed",
    503: "the server is shutting down",
    504: "the request took too long",
}
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def create_app(models: Mapping[str, LLM], settings: Settings | None = None) -> FastAPI:
    """Return the application that serves packages by name. app.state.serving is its State."""
    return _Routes(models, settings or Settings()).app


class _Routes:
    def __init__(self, models: Mapping[str, LLM], settings: Settings) -> None:
        if not models:
            raise ValueError("models is empty; expected a package at least")
        self._models = MappingProxyType(dict(models))
        self._settings = settings
        self._created = int(time.time())
        self._state = State()
        self._metrics = Metrics(self._models)
        self.app = app = FastAPI(
            title="fastdllm",
            version=__version__,
            description="Diffusion language models behind OpenAI's routes.",
            docs_url=None,  # these pages would load scripts from elsewhere
            redoc_url=None,
        )
        app.state.serving = self._state
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(HTTPException, _http_error)
        for kind in (ApiError, Error):
            app.add_exception_handler(kind, _failed)
        self._add_routes()
        routes = [route for route in app.routes if isinstance(route, Route)]
        app.add_middleware(
            Gate,
            settings=settings,
            state=self._state,
            metrics=self._metrics,
            routes=[route.path for route in routes if "{" not in route.path],
            posts=[route.path for route in routes if "POST" in (route.methods or ())],
        )
        app.mount("/page", _Page(directory=PAGE, check_dir=False))

    def _add_routes(self) -> None:
        add = self.app.add_api_route
        stream = {"text/event-stream": {"schema": {"type": "string"}}}
        works = _responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504)
        for path, route, model in (
            ("/v1/chat/completions", self.chat, ChatCompletion),
            ("/v1/completions", self.completions, TextCompletion),
        ):
            done: dict[int | str, Any] = {200: {"model": model, "content": stream}}
            add(path, route, methods=["POST"], responses=done | works, response_class=JSONResponse)
        looks = _responses(400, 401, 404, 503)
        texts = _responses(400, 401, 404, 408, 413, 415, 503)
        add("/v1/models", self.list_models, response_model=ModelList, responses=looks)
        add("/v1/models/{model:path}", self.one_model, response_model=Model, responses=looks)
        add("/v1/tokenize", self.tokenize, methods=["POST"], response_model=Tokens, responses=texts)
        add(
            "/v1/detokenize",
            self.detokenize,
            methods=["POST"],
            response_model=PlainText,
            responses=texts,
        )
        add("/health", self.health, response_model=Health)
        draining: dict[int | str, Any] = {503: {"model": Health, "description": "draining"}}
        add("/ready", self.ready, response_model=Health, responses=draining)
        text: dict[int | str, Any] = {200: {"content": {"text/plain": {"schema": {}}}}}
        add(
            "/metrics",
            self.metrics,
            responses=text | _responses(401),
            response_class=Response,
        )
        add("/", self.page, include_in_schema=False)

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await self._generate(body, request)

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        """Go on with a text or texts, taken as they stand."""
        return await self._generate(body, request)

    async def _generate(self, body: ChatRequest | CompletionRequest, request: Request) -> Response:
        call: Call = request.scope["fastdllm.call"]
        name, llm = self._model(body.model)
        call.model = name
        left = self._settings.request_seconds
        questions = await questions_of(body, llm, self._settings)
        generation = Generation(
            body, questions, llm=llm, model=name, call=call, metrics=self._metrics
        )
        if body.stream:
            return EventStream(generation.stream(), generation.cancel, left - call.seconds())
        try:
            result = await while_connected(
                request.receive, generation.result(), left - call.seconds()
            )
        finally:
            generation.cancel()
        return _json(result)

    def _model(self, name: str | None) -> tuple[str, LLM]:
        if name is None and len(self._models) == 1:
            name = next(iter(self._models))
        if name is None:
            raise ApiError(
                400, f"model is absent; expected one of {', '.join(self._models)}", param="model"
            )
        if name not in self._models:
            raise ApiError(
                404,
                f"there is no model {name[:80]!a}; expected one of {', '.join(self._models)}",
                param="model",
                code="model_not_found",
            )
        return name, self._models[name]

    async def list_models(self) -> Response:
        """List the packages that are served."""
        return _json(ModelList(data=[self._facts(name) for name in self._models]))

    async def one_model(self, model: str) -> Response:
        """Describe one of them."""
        return _json(self._facts(self._model(model)[0]))

    def _facts(self, name: str) -> Model:
        llm = self._models[name]
        package = llm.engine.package
        return Model(
            id=name,
            created=self._created,
            fastdllm=ModelFacts(
                family=package.family,
                precision=package.precision,
                attention=package.attention,
                block_length=package.block_length,
                max_context_length=package.max_context_length,
                vocab_size=package.vocab_size,
                mask_token_id=package.mask_token_id,
                eos_token_ids=package.eos_token_ids,
                chat=llm.codec.chat_template is not None,
                backend=llm.engine.backend,
            ),
        )

    async def tokenize(self, body: TokenizeRequest, request: Request) -> Response:
        """Return the token ids of a text or of messages."""
        name, llm = self._model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "expected either prompt or messages", param="prompt")
        if body.messages is not None:
            messages = [message.plain() for message in body.messages]
            size = sum(len(message["content"]) for message in messages)
            ids = await encode(llm, messages, raw=False, size=size)
        else:
            ids = await encode(llm, body.prompt or "", raw=True, size=len(body.prompt or ""))
        return _json(
            Tokens(
                model=name,
                token_ids=ids,
                tokens=[llm.codec.decode_token(token) for token in ids],
                count=len(ids),
                max_context_length=llm.engine.package.max_context_length,
            )
        )

    async def detokenize(self, body: DetokenizeRequest, request: Request) -> Response:
        """Return the text of token ids."""
        name, llm = self._model(body.model)
        size = llm.engine.package.vocab_size
        for index, token in enumerate(body.token_ids):
            if token >= size:
                raise ApiError(
                    400,
                    f"token_ids[{index}] is {token}; expected ids in [0, {size})",
                    param="token_ids",
                )
        return _json(PlainText(model=name, text=llm.codec.decode(body.token_ids)))

    async def health(self) -> Response:
        """Say that the process is alive."""
        return _json(Health(status="ok"))

    async def ready(self) -> Response:
        """Say whether requests are taken."""
        draining = self._state.draining
        return _json(Health(status="draining" if draining else "ready"), 503 if draining else 200)

    async def metrics(self) -> Response:
        """Return Prometheus's text format."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> Response:
        """Return the page."""
        if not (PAGE / "index.html").is_file():
            raise ApiError(404, "this installation has no page")
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)


class _Page(StaticFiles):
    """The page's files."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        return response


def _responses(*statuses: int) -> dict[int | str, Any]:
    found: dict[int | str, Any] = {
        status: {"model": ErrorBody, "description": _ERRORS[status]} for status in statuses
    }
    return found | {"4XX": {"model": ErrorBody, "description": "any other refusal"}}


def _json(content: BaseModel, status: int = 200) -> Response:
    return Response(content.model_dump_json(), status, media_type="application/json")


async def _failed(request: Request, problem: Exception) -> Response:
    told = api_error(problem)
    assert told is not None
    call: Call = request.scope["fastdllm.call"]
    call.error = told.name
    return told.response()


async def _http_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(problem.status_code)
    told = ApiError(problem.status_code, str(problem.detail), code=code, headers=problem.headers)
    return await _failed(request, told)


async def _invalid(request: Request, problem: Exception) -> Response:
    """Answer a body that is not what the schema says: its first error."""
    assert isinstance(problem, RequestValidationError)
    first = problem.errors()[0]
    name = first.get("ctx", {}).get("name")
    known = takewhile(lambda part: isinstance(part, int) or part in _NAMES, first["loc"][1:])
    path = [*known] if name is None else [*known, name]
    where = ".".join(map(str, path)) or None
    message = first["msg"] if name is not None or where is None else f"{where}: {first['msg']}"
    code = "unsupported_parameter" if name is not None else None
    return await _failed(request, ApiError(400, message, param=where, code=code))
