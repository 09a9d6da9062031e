"""The state that the routes of one application share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from fastapi import Request

from fastdllm.llm import LLM
from fastdllm.serve.connection import Call
from fastdllm.serve.errors import ApiError
from fastdllm.serve.lanes import Lanes
from fastdllm.serve.metrics import Metrics
from fastdllm.serve.responses import Model, ModelFacts
from fastdllm.serve.settings import Settings


class Serving:
    """Packages by name, limits, metrics, and whether requests are still taken.

    calls: running requests to /v1.
    """

    def __init__(self, models: Mapping[str, LLM], settings: Settings) -> None:
        """Errors: ValueError where there is no package."""
        if not models:
            raise ValueError("models is empty; expected a package at least")
        self.models = MappingProxyType(dict(models))
        self.settings = settings
        self.metrics = Metrics(self.models)
        self.lanes = Lanes()
        self.draining = False
        self.calls: set[Call] = set()
        self._created = int(time.time())

    def model(self, name: str | None, call: Call) -> tuple[str, LLM]:
        """Return the package that a request names, or the only one. Errors: ApiError."""
        if name is None and len(self.models) == 1:
            name = next(iter(self.models))
        if name is None:
            raise ApiError(
                400, f"model is absent; expected one of {', '.join(self.models)}", param="model"
            )
        if name not in self.models:
            raise ApiError(
                404,
                f"there is no model {name[:80]!a}; expected one of {', '.join(self.models)}",
                param="model",
                code="model_not_found",
            )
        call.model = name
        return name, self.models[name]

    def facts(self, name: str) -> Model:
        """Describe a package."""
        llm = self.models[name]
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


def serving_of(request: Request) -> Serving:
    """Return what the request's application shares."""
    found = request.app.state.serving
    assert isinstance(found, Serving)
    return found


def call_of(request: Request) -> Call:
    """Return what the log will say of the request."""
    found = request.scope["fastdllm.call"]
    assert isinstance(found, Call)
    return found
