"""The application: routes, the gate around them, and errors in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fastdllm._core import Error
from fastdllm.llm import LLM
from fastdllm.serve import requests
from fastdllm.serve.errors import ApiError, api_error
from fastdllm.serve.gate import Gate
from fastdllm.serve.routes import PAGE, PageFiles, router
from fastdllm.serve.serving import Serving, call_of
from fastdllm.serve.settings import Settings
from fastdllm.version import __version__

_BODIES = [kind for kind in vars(requests).values() if hasattr(kind, "model_fields")]
_FIELDS = frozenset(name for body in _BODIES for name in body.model_fields)


def create_app(models: Mapping[str, LLM], settings: Settings | None = None) -> FastAPI:
    """Return the application that serves packages by name.

    Its app.state.serving.draining makes it refuse new requests. Errors: ValueError for no package.
    """
    app = FastAPI(
        title="fastdllm",
        version=__version__,
        description="Diffusion language models behind OpenAI's routes.",
        docs_url=None,  # these pages would load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,  # a redirection would not be an error in OpenAI's words
    )
    app.state.serving = serving = Serving(models, settings or Settings())
    app.include_router(router)
    app.mount("/page", PageFiles(directory=PAGE, check_dir=False))
    for kind in (ApiError, Error):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    methods = {path: set(of_path) for path, of_path in app.openapi()["paths"].items()}
    app.add_middleware(
        Gate,
        serving=serving,
        routes=["/", *(path for path in methods if "{" not in path)],
        posts=[path for path in methods if "post" in methods[path]],
    )
    return app


async def _failed(request: Request, problem: Exception) -> Response:
    told = api_error(problem)
    assert told is not None
    call_of(request).error = told.name
    return told.response()


async def _http_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    status = problem.status_code
    code = {404: "not_found", 405: "method_not_allowed"}.get(status)
    told = ApiError(status, str(problem.detail), code=code, headers=problem.headers)
    return await _failed(request, told)


async def _invalid(request: Request, problem: Exception) -> Response:
    """Answer a body that is not what the schema says, by its first wrong field."""
    assert isinstance(problem, RequestValidationError)
    first, text = _first_error(problem.errors())
    name = first.get("ctx", {}).get("name")
    path = _known(first["loc"]) if name is None else [*_known(first["loc"]), name]
    where = ".".join(map(str, path)) or None
    message = text if name is not None or where is None else f"{where}: {text}"
    code = None if name is None else "unsupported_parameter"
    return await _failed(request, ApiError(400, message, param=where, code=code))


def _known(loc: Sequence[int | str]) -> list[int | str]:
    """Return the path that an error's place names, without the types that a union tried."""
    return [part for part in loc[1:] if isinstance(part, int) or part in _FIELDS]


def _first_error(errors: Sequence[Any]) -> tuple[Any, str]:
    """Return the error of the first wrong field, and what it says.

    Of a union, each type tried has errors. The type that is meant is the one that goes on furthest,
    then one that is right but breaks a rule; where none is, all that are expected are said.
    """
    field = [
        *takewhile(lambda part: part in _FIELDS or isinstance(part, int), errors[0]["loc"][1:])
    ]
    if len(field) + 1 == len(errors[0]["loc"]):  # no union
        return errors[0], errors[0]["msg"]
    tried: dict[Any, Any] = {}
    for error in errors:
        if [*error["loc"][1 : len(field) + 1]] == field:
            tried.setdefault(error["loc"][: len(field) + 2], error)

    def rank(error: Any) -> tuple[list[int], bool]:
        at = [part for part in _known(error["loc"]) if isinstance(part, int)]
        return at, not error["type"].endswith("_type")

    best = max(tried.values(), key=rank)
    said = dict.fromkeys(one["msg"] for one in tried.values() if rank(one) == rank(best))
    text, *others = said if not rank(best)[1] else [best["msg"]]
    return best, " or ".join([text, *(other.removeprefix("Input should be ") for other in others)])
