"""Bodies of responses, as OpenAI names them, and what is added: `stats` and `diffusing`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length"]


class Stats(BaseModel):
    """What an answer cost. tokens_per_forward: completion tokens per pass."""

    num_passes: int
    refresh_passes: int
    step_passes: int
    tokens_per_forward: float
    seconds: float


class Usage(BaseModel):
    """Tokens of the whole request; a prompt with several answers counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(BaseModel):
    """A token and the natural logarithm of its probability when it was committed."""

    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[None]


class ChatLogprobs(BaseModel):
    """Of a chat's answer."""

    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(BaseModel):
    """Of a completion, in parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None = None
    text_offset: list[int]


class ChatAnswer(BaseModel):
    """An answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """An answer of a chat."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stats: Stats


class ChatCompletion(BaseModel):
    """Response of /v1/chat/completions without stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    """An answer of a completion."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    stats: Stats


class TextCompletion(BaseModel):
    """Response of /v1/completions without stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class ModelFacts(BaseModel):
    """Facts of a package that a client may need; chat: it has a chat template."""

    family: str
    precision: str
    attention: str
    block_length: int | None
    max_context_length: int
    vocab_size: int
    mask_token_id: int
    eos_token_ids: list[int]
    chat: bool
    backend: str


class Model(BaseModel):
    """A package that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "fastdllm"
    fastdllm: ModelFacts


class ModelList(BaseModel):
    """Response of /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Tokens(BaseModel):
    """Response of /v1/tokenize. tokens: each token's own text."""

    model: str
    token_ids: list[int]
    tokens: list[str]
    count: int
    max_context_length: int


class PlainText(BaseModel):
    """Response of /v1/detokenize; special tokens are left out."""

    model: str
    text: str


class Health(BaseModel):
    """Response of /health and /ready."""

    status: Literal["ok", "ready", "draining"]
