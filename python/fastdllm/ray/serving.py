"""The server of fastdllm.serve as an application of Ray Serve: replicas with an engine each.

    serve run fastdllm.ray:build_app package=PACKAGE num_replicas=2 threads=4

Every replica runs the whole application, so its routes, bodies and errors are those of
`fastdllm serve`; Ray Serve's proxy decides which replica gets a request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    field_validator,
)
from ray import serve

from fastdllm._core import ConfigError, GenerationConfig, Option, OverloadedError, read_package
from fastdllm.cli.serve import KEY_VARIABLE
from fastdllm.llm import LLM
from fastdllm.options import ENGINE_OPTIONS
from fastdllm.serve import Settings, create_app

_PROXY = ("max_connections", "head_seconds", "keep_alive_seconds")  # Ray Serve's own


def _field_of(row: Option) -> tuple[Any, Any]:
    """Return an engine option's type and default; words of a command line are read as values."""
    kinds: dict[str, Any] = {"integer": int, "number": float, "flag": bool}
    kind = Literal[row.choices] if row.choices else kinds.get(row.type, str)
    return (kind | None if row.optional else kind), Field(
        row.default, ge=row.minimum, le=row.maximum, description=row.help
    )


if TYPE_CHECKING:

    class EngineArgs(BaseModel):
        """Keywords of Engine."""

        device: str
        max_batch: int

else:
    EngineArgs = create_model(
        "EngineArgs", **{name: _field_of(row) for name, row in ENGINE_OPTIONS.items()}
    )


class ServeArgs(EngineArgs):
    """What build_app takes: these names, and those of fastdllm.serve.Settings.

    package: a folder that every replica sees. name: of the model, None = the folder's. All keywords
    of fastdllm.Engine; a replica takes `threads` cores (default 1), and a GPU where the device is
    one. num_replicas: or min_replicas, max_replicas and
    target_ongoing_requests (a replica's, on average; None = max_batch) for autoscaling.
    max_ongoing_requests: a replica's at once, None = twice max_batch; more wait at the proxy, up to
    max_queued_requests. allowed_hosts: a list, or names with commas between. API keys come from the
    replicas' variable FASTDLLM_API_KEY.
    """

    model_config = ConfigDict(extra="allow")

    package: str
    name: str | None = None
    threads: int = Field(default=1, ge=1)
    num_replicas: int = Field(default=1, ge=1)
    min_replicas: int | None = Field(default=None, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)
    target_ongoing_requests: float | None = Field(default=None, gt=0)
    max_ongoing_requests: int | None = Field(default=None, ge=1)
    max_queued_requests: int = Field(default=256, ge=1)
    allowed_hosts: tuple[str, ...] = ()

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """Take what a command line can say."""
        return given.split(",") if isinstance(given, str) else given

    def settings(self) -> Settings:
        """Return the server's settings. Errors: ConfigError, also for an unknown name."""
        given = dict(self.model_extra or {})
        known = {field.name for field in dataclasses.fields(Settings)}
        known -= {"api_keys", "allowed_hosts", *_PROXY}
        for name in given:
            if name not in known:
                names = ", ".join(sorted(known | set(type(self).model_fields)))
                raise ConfigError(f"there is no argument {name!r}; expected of {names}")
        try:
            given["allowed_hosts"] = self.allowed_hosts
            return TypeAdapter(Settings).validate_python(given)
        except ValidationError as problem:
            raise _config_error(problem) from None


def build_app(args: ServeArgs | Mapping[str, Any]) -> serve.Application:
    """Return the application: `serve run fastdllm.ray:build_app package=...`, or serve.run().

    Errors: ConfigError, PackageError, before a replica starts.
    """
    try:  # Ray gives a dict
        args = ServeArgs.model_validate(args)
    except ValidationError as problem:
        raise _config_error(problem) from None
    settings = args.settings()
    folder = Path(args.package).absolute()
    read_package(str(folder))
    name = args.name or folder.name
    _check_scale(args)

    engine_options = {name: getattr(args, name) for name in ENGINE_OPTIONS}

    def make() -> FastAPI:
        """Load the package in a replica."""
        llm = LLM(folder, **engine_options)
        key = os.environ.get(KEY_VARIABLE)
        keys = () if key is None else (key,)
        return create_app({name: llm}, dataclasses.replace(settings, api_keys=keys))

    class Replica:
        """The application, and whether its engine works."""

        app: FastAPI  # the ingress gives it

        async def check_health(self) -> None:
            """Ray Serve replaces the replica where this raises."""
            for llm in self.app.state.serving.models.values():
                await check_engine(llm)

    deployment = serve.deployment(name="fastdllm", **_scale(args, settings))
    return deployment(serve.ingress(make)(Replica)).bind()


async def check_engine(llm: LLM, seconds: float = 20) -> None:
    """Have an idle engine make one pass; one with requests shows by them that it works.

    Errors: what the engine raises; TimeoutError.
    """
    load = llm.engine.load()
    if load.running or load.waiting:
        return
    token = 0 if llm.engine.package.mask_token_id != 0 else 1
    try:
        await asyncio.wait_for(llm.agenerate([token], GenerationConfig(max_new_tokens=1)), seconds)
    except OverloadedError:
        return  # requests came in between


def _config_error(problem: ValidationError) -> ConfigError:
    first = problem.errors(include_url=False)[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return own
    return ConfigError(": ".join([*map(str, first["loc"]), first["msg"]]))


def _check_scale(args: ServeArgs) -> None:
    """Refuse numbers of replicas that contradict each other. Errors: ConfigError."""
    if args.max_replicas is None:
        for name in ("min_replicas", "target_ongoing_requests"):
            if getattr(args, name) is not None:
                raise ConfigError(f"{name} needs max_replicas")
    elif "num_replicas" in args.model_fields_set:
        raise ConfigError("num_replicas and max_replicas exclude each other; expected one of them")
    elif (args.min_replicas or 0) > args.max_replicas:
        raise ConfigError(
            f"min_replicas is {args.min_replicas}; expected at most max_replicas, "
            f"{args.max_replicas}"
        )


def _scale(args: ServeArgs, settings: Settings) -> dict[str, Any]:
    """Return the deployment's options."""
    resources: dict[str, float] = {"num_cpus": args.threads}
    if args.device != "cpu":
        resources["num_gpus"] = 1
    options: dict[str, Any] = {
        "ray_actor_options": resources,
        "max_ongoing_requests": args.max_ongoing_requests or 2 * args.max_batch,
        "max_queued_requests": args.max_queued_requests,
        "graceful_shutdown_timeout_s": settings.grace_seconds,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_timeout_s": 30,
    }
    if args.max_replicas is None:
        return options | {"num_replicas": args.num_replicas}
    autoscaling = {
        "min_replicas": 1 if args.min_replicas is None else args.min_replicas,
        "max_replicas": args.max_replicas,
        "target_ongoing_requests": args.target_ongoing_requests or args.max_batch,
    }
    return options | {"autoscaling_config": autoscaling}
