"""Bodies of requests: OpenAI's fields that diffusion supports, and GenerationConfig's.

Any other field is refused by name before anything runs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from fastdllm._core import Option
from fastdllm.options import GENERATION_OPTIONS

# OpenAI's unsupported fields, with the values that have no effect; null never has one.
Refused = Mapping[str, tuple[Any, ...]]
_OF_REQUESTS: Refused = {
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),  # has no meaning without tools
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "top_logprobs": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "best_of": (1,),
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
_OF_MESSAGES: Refused = {
    "tool_calls": ([],),
    "function_call": (),
    "audio": (),
    "refusal": (),
    "annotations": ([],),
}

_WHY = {
    "top_logprobs": "; a token's own probability is kept, those of others are not",
}
_NEUTRAL = {"top_k": -1}  # values of other servers' options that have no effect
_MAX_MESSAGES = 4096  # of a conversation, and parts of a message
_MAX_PROMPTS = 1024


def _biases(given: Any) -> Any:
    """Refuse a map at its first wrong entry: a body may hold very many."""
    for key, value in given.items() if isinstance(given, dict) else ():
        if type(value) not in (int, float) or not abs(value) < 1e300:
            raise PydanticCustomError(
                "logit_bias", "the bias of {key} is no number", {"key": ascii(key)[:20]}
            )
        if re.fullmatch("[0-9]{1,9}", key) is None:
            raise PydanticCustomError(
                "logit_bias", "{key} is no token id", {"key": ascii(key)[:20]}
            )
    return given


def _own_alone(given: Any) -> Any:
    """Refuse to tell of tokens that were not chosen."""
    if type(given) is int and given > 0:
        raise PydanticCustomError(
            "logprobs",
            "logprobs is {given}; expected 0: a token's own probability is kept, those of others"
            " are not",
            {"given": given if given < 10**9 else "too large"},
        )
    return given


# Lists fail at their first wrong item: an error for each would hold the event loop for seconds.
Text = Annotated[str, Field(max_length=2**24)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[Token], Field(fail_fast=True)]


class Body(BaseModel):
    """An object whose unknown fields are errors. refused: known ones that are not supported."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    refused: ClassVar[Refused] = {}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        taken: dict[str, Any] = {}
        for name, value in given.items():
            if name in cls.model_fields:
                if not (name in _NEUTRAL and _same(value, _NEUTRAL[name])):
                    taken[name] = value
            elif name in cls.refused:
                if value is not None and not any(_same(value, one) for one in cls.refused[name]):
                    why = _WHY.get(name, "")
                    raise _refusal(name, "this server cannot honour {name}; leave it out" + why)
            else:
                near = difflib.get_close_matches(name, cls.model_fields, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise _refusal(name[:80], "unknown field {name}" + hint)
        return taken


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _refusal(name: str, template: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", template, {"name": name})


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, given: Any) -> Any:
        kind = given.get("type") if isinstance(given, dict) else "text"
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(
                "unsupported",
                "this server cannot honour a part of type {kind}; expected text",
                {"name": "type", "kind": kind[:80]},
            )
        return given


class ChatMessage(Body):
    """A turn of a conversation. Roles are what the package's chat template takes."""

    refused = _OF_MESSAGES
    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text | Annotated[list[TextPart], Field(fail_fast=True, max_length=_MAX_MESSAGES)]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as a chat template takes it."""
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": content, **named}


Messages = Annotated[
    list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=_MAX_MESSAGES)
]


class StreamOptions(Body):
    """Of a stream. include_usage: a last chunk with the usage of the whole request."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


def _field_of(row: Option) -> tuple[Any, Any]:
    """Return the type and the rest of an option's field. GenerationConfig checks ranges.

    None is the same as absent.
    """
    kinds: dict[str, Any] = {
        "integer": int,
        "number": float,
        "flag": bool,
        "ids": Annotated[TokenIds, Field(max_length=2**16)],
        "biases": dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], float],
    }
    kind = Literal[row.choices] if row.type == "choice" else kinds[row.type]
    given: Any = kind | None
    if row.type == "biases":
        given = Annotated[given, BeforeValidator(_biases)]
    return given, Field(None, description=row.help)


if TYPE_CHECKING:
    OptionFields = Body
else:
    OptionFields = create_model(
        "OptionFields",
        __base__=Body,
        **{name: _field_of(row) for name, row in GENERATION_OPTIONS.items()},
    )


class GenerationBody(OptionFields):
    """What a chat and a completion have in common: OpenAI's fields, then GenerationConfig's."""

    refused = _OF_REQUESTS
    model: str | None = Field(None, description="absent: the only package that is served")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    diffusing: bool = Field(False, description="with stream: a chunk per pass, with what it did")
    n: Annotated[int, Field(ge=1, le=1024)] | None = 1
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, max_length=64)]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    # These change no answer. They are accepted and ignored.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    max_new_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    def options(self) -> dict[str, Any]:
        """Return the options of GenerationConfig that the request names."""
        named = {name: getattr(self, name) for name in GENERATION_OPTIONS}
        return {name: value for name, value in named.items() if value is not None}

    def limits(self) -> dict[str, int]:
        """Return what the request says of the number of new tokens, by the field's name."""
        names = ("max_tokens", "max_completion_tokens", "max_new_tokens")
        given = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def stop_strings(self) -> tuple[str, ...]:
        """Return the strings before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(GenerationBody):
    """Body of /v1/chat/completions."""

    messages: Messages
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="variables of the package's chat template, as enable_thinking"
    )
    logprobs: bool | None = False
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class CompletionRequest(GenerationBody):
    """Body of /v1/completions. A prompt is used unchanged, without chat template."""

    prompt: (
        Text
        | Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=_MAX_PROMPTS)]
        | Annotated[TokenIds, Field(min_length=1)]
        | Annotated[
            list[Annotated[TokenIds, Field(min_length=1)]],
            Field(fail_fast=True, min_length=1, max_length=_MAX_PROMPTS),
        ]
    )
    suffix: Text | None = Field(None, description="text behind the answer; not with stream")
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=0), BeforeValidator(_own_alone)] | None = Field(
        None, description="0: of the answer's tokens; there are no others to tell"
    )


class TokenizeRequest(Body):
    """Body of /v1/tokenize: a prompt without chat template, or messages with it."""

    model: str | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(Body):
    """Body of /v1/detokenize."""

    model: str | None = None
    token_ids: TokenIds
