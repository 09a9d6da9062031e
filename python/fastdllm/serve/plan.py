"""Turns a request's body into engine requests; all refusals happen here."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdllm._core import GenerationConfig
from fastdllm.llm import LLM, Prompt, config_with
from fastdllm.serve.errors import ApiError
from fastdllm.serve.requests import ChatRequest, CompletionRequest, GenerationBody
from fastdllm.serve.serving import Serving
from fastdllm.serve.settings import Settings
from fastdllm.text import TooManyTokens, Variables

_AROUND = 16  # characters that a template may put around a message
_INT64 = 2**63


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt's ids, and the config of each answer to it.

    suffix_ids: what stands behind each answer; None: an answer ends where it ends.
    """

    ids: list[int]
    suffix_ids: list[int] | None
    configs: tuple[GenerationConfig, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are given: the prompt's and the suffix's."""
        return len(self.ids) + len(self.suffix_ids or ())


async def encode(
    llm: LLM,
    prompt: Prompt,
    serving: Serving,
    *,
    raw: bool,
    size: int,
    most: int,
    field: str | None = None,
    chat_template_kwargs: Variables = None,
) -> list[int]:
    """Return a prompt's ids, made beside the event loop. size: its characters or ids.

    most: tokens beyond which a text is not encoded. Errors: ApiError 400 beyond max_prompt_tokens;
    TextError of the chat template.
    """
    settings = serving.settings
    named = field or _field(raw)
    call = functools.partial(
        llm.encode, prompt, raw=raw, most=most, chat_template_kwargs=chat_template_kwargs
    )
    try:
        ids = await serving.lanes.run(call, size=size)
    except TooManyTokens as problem:
        found = f"{problem.least} or more"
        if problem.least <= settings.max_prompt_tokens:
            raise ApiError(
                400,
                f"the {_what(named)} has {found} tokens and is longer than the model's context,"
                f" {most}",
                param=named,
                code="context_length_exceeded",
            ) from None
        raise too_long(found, settings, named) from None
    if len(ids) > settings.max_prompt_tokens:
        raise too_long(str(len(ids)), settings, named)
    return ids


async def questions_of(
    body: ChatRequest | CompletionRequest, llm: LLM, serving: Serving
) -> list[Question]:
    """Encode the prompts and check what they ask for.

    Errors: ApiError; ConfigError of an option; TextError of the chat template.
    """
    settings = serving.settings
    prompts = _prompts(body)
    answers = body.n or 1
    load = llm.engine.load()
    most = min(settings.max_choices, load.max_batch + load.max_waiting)
    if len(prompts) * answers > most:
        raise ApiError(
            400,
            f"{len(prompts)} prompts times n = {answers} are more than {most} answers, this"
            " server's limit",
            param="n" if answers > 1 else "prompt",
        )
    _check(body)
    raw = isinstance(body, CompletionRequest)
    most = min(settings.max_prompt_tokens, llm.engine.package.max_context_length)
    suffix_ids = await _suffix_ids(body, llm, serving, most)
    draws_seeds = "seed" not in body.options()  # else all that name none would get the same answer
    variables = None if isinstance(body, CompletionRequest) else body.chat_template_kwargs
    found = []
    for prompt, size in prompts:
        ids = await encode(
            llm,
            prompt,
            serving,
            raw=raw,
            size=size,
            most=most,
            chat_template_kwargs=variables,
        )
        if suffix_ids is not None and llm.engine.package.mask_token_id in ids:
            raise ApiError(400, "the prompt holds the mask token", param="prompt")
        tokens = len(ids) + len(suffix_ids or ())
        if tokens > settings.max_prompt_tokens:
            raise too_long(str(tokens), settings, _field(raw))
        room = llm.engine.package.max_context_length - tokens
        first = _config(body, settings, room)
        if draws_seeds:
            first = _with_seed(first, secrets.randbits(63))
        configs = (first, *(_with_seed(first, first.seed + i) for i in range(1, answers)))
        found.append(Question(ids=ids, suffix_ids=suffix_ids, configs=configs))
    return found


def _field(raw: bool) -> str:
    return "prompt" if raw else "messages"


async def _suffix_ids(
    body: ChatRequest | CompletionRequest, llm: LLM, serving: Serving, most: int
) -> list[int] | None:
    """Return the ids behind the answers; an empty suffix counts as none."""
    suffix = body.suffix if isinstance(body, CompletionRequest) else None
    if not suffix:
        return None
    size = len(suffix)
    ids = await encode(llm, suffix, serving, raw=True, size=size, most=most, field="suffix")
    if llm.engine.package.mask_token_id in ids:
        raise ApiError(400, "suffix holds the mask token", param="suffix")
    return ids


def _what(field: str) -> str:
    return "suffix" if field == "suffix" else "prompt"


def too_long(count: str, settings: Settings, field: str) -> ApiError:
    """Return the refusal of a text of that many tokens, which came in the field."""
    return ApiError(
        400,
        f"the {_what(field)} has {count} tokens; this server's limit is"
        f" {settings.max_prompt_tokens}",
        param=field,
        code="context_length_exceeded",
    )


def size_of(messages: Sequence[Mapping[str, str]]) -> int:
    """Return the characters of messages, with some that a template may put around each."""
    return sum(_AROUND + sum(map(len, message.values())) for message in messages)


def _prompts(body: ChatRequest | CompletionRequest) -> list[tuple[Prompt, int]]:
    """Return each prompt and its size in characters or ids."""
    if isinstance(body, ChatRequest):
        messages = [message.plain() for message in body.messages]
        return [(messages, size_of(messages))]
    prompt = body.prompt
    if isinstance(prompt, str):
        return [(prompt, len(prompt))]
    if isinstance(prompt[0], int):
        return [(_ids(prompt), len(prompt))]
    return [(one if isinstance(one, str) else _ids(one), len(one)) for one in prompt]


def _ids(prompt: Sequence[object]) -> list[int]:
    return [token for token in prompt if isinstance(token, int)]


def _check(body: ChatRequest | CompletionRequest) -> None:
    """Refuse fields that do not go together."""
    if body.diffusing and not body.stream:
        raise ApiError(400, "diffusing needs stream: true", param="diffusing")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options need stream: true", param="stream_options")
    if isinstance(body, CompletionRequest):
        if body.echo and body.logprobs is not None:
            raise ApiError(
                400,
                "logprobs with echo asks for the prompt's, which diffusion does not give",
                param="logprobs",
            )
        together = {"stream": body.stream, "stop": body.stop, "echo": body.echo}
        for name, value in together.items():
            if body.suffix and value:
                raise ApiError(400, f"this server cannot honour {name} with suffix", param=name)


def _config(body: GenerationBody, settings: Settings, room: int) -> GenerationConfig:
    limits = body.limits()
    if len(set(limits.values())) > 1:
        raise ApiError(
            400, f"{' and '.join(limits)} differ; expected one of them", param=[*limits][-1]
        )
    tokens = max(1, min(settings.default_tokens, room))
    for name, value in limits.items():
        if value > settings.max_tokens:
            raise ApiError(
                400, f"{name} is {value}; this server's limit is {settings.max_tokens}", param=name
            )
        tokens = value
    options = body.options()
    for name, value in options.items():
        if isinstance(value, int) and not -_INT64 <= value < _INT64 and name != "seed":
            raise ApiError(400, f"{name} is out of range", param=name)
    return config_with(**options | {"max_new_tokens": tokens})


def _with_seed(config: GenerationConfig, seed: int) -> GenerationConfig:
    options: dict[str, Any] = config.to_dict() | {"seed": seed % 2**64}
    return GenerationConfig(**options)
