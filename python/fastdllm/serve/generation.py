"""Chat completions and completions: one way for both, streaming or not."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic import BaseModel

from fastdllm.answer import Completion, StreamEvent
from fastdllm.llm import LLM
from fastdllm.serve.answering import Answers, stats_of
from fastdllm.serve.connection import Call, error_event, event_of
from fastdllm.serve.errors import api_error, unexpected
from fastdllm.serve.logprobs import chat_logprobs, text_logprobs
from fastdllm.serve.metrics import Metrics
from fastdllm.serve.plan import Question
from fastdllm.serve.requests import ChatRequest, CompletionRequest
from fastdllm.serve.responses import (
    ChatAnswer,
    ChatChoice,
    ChatCompletion,
    Stats,
    TextChoice,
    TextCompletion,
    Usage,
)
from fastdllm.trace import Canvas, PassFacts

logger = logging.getLogger("fastdllm.serve")


class Generation:
    """A request that generates, from its submission to its last byte.

    Errors of the constructor: ConfigError, OverloadedError; nothing runs then.
    """

    def __init__(
        self,
        body: ChatRequest | CompletionRequest,
        questions: Sequence[Question],
        *,
        llm: LLM,
        model: str,
        call: Call,
        metrics: Metrics,
    ) -> None:
        self._body = body
        self._chat = isinstance(body, ChatRequest)
        self._questions = questions
        self._llm = llm
        self._model = model
        self._call = call
        self._metrics = metrics
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._completions: dict[int, Completion] = {}
        self._stats: dict[int, Stats] = {}
        call.streamed = bool(body.stream)
        self._answers = Answers(llm, questions, body.stop_strings(), watched=bool(body.stream))
        call.prompt_tokens = sum(question.tokens for question in questions)
        call.answers = len(self._answers)

    def cancel(self) -> None:
        """End what still runs."""
        self._answers.cancel()

    async def result(self) -> BaseModel:
        """Return the response of a request that does not stream. Errors: the engine's."""
        async for number, event in self._answers.events():
            if event.completion is not None:
                self._ended(number, event.completion)
        done = sorted(self._completions.items())
        facts: dict[str, Any] = {"id": self._id, "created": self._created, "model": self._model}
        if self._chat:
            return ChatCompletion(
                **facts,
                usage=self._usage(),
                choices=[
                    ChatChoice(
                        index=number,
                        message=ChatAnswer(content=completion.text),
                        logprobs=self._chat_logprobs(completion),
                        finish_reason=_reason(completion),
                        stats=self._stats[number],
                    )
                    for number, completion in done
                ],
            )
        return TextCompletion(
            **facts,
            usage=self._usage(),
            choices=[
                TextChoice(
                    index=number,
                    text=self._echo(number) + completion.text,
                    logprobs=self._text_logprobs(completion),
                    finish_reason=_reason(completion),
                    stats=self._stats[number],
                )
                for number, completion in done
            ],
        )

    async def stream(self) -> AsyncGenerator[str, None]:
        """Yield server-sent events to the end. An error of the engine's is the last of them."""
        try:
            async for event in self._chunks():
                yield event
        except Exception as problem:
            known = api_error(problem)
            if known is None:
                logger.exception("request %s", self._call.request_id)
            told = known or unexpected()
            self._call.error = told.name
            yield error_event(told)
        else:
            yield event_of("[DONE]")
        finally:
            self.cancel()

    async def _chunks(self) -> AsyncGenerator[str, None]:
        codec = self._llm.codec
        canvases: dict[int, Canvas] = {}
        for number in range(len(self._answers)):
            canvases[number] = Canvas(codec)
            if self._chat:
                yield self._chunk(number, "", role="assistant")
            elif echo := self._echo(number):
                yield self._chunk(number, echo)
        waiting = set(canvases)
        async for number, event in self._answers.events():
            if event.commit is not None and number in waiting:
                waiting.discard(number)
                self._metrics.first_commit(self._model, self._call.seconds())
            if event.completion is not None:
                self._ended(number, event.completion)
                yield self._last_chunk(number, event, event.completion)
            elif self._body.diffusing and event.commit is not None:
                facts = canvases[number].take(event.commit, self._call.seconds())
                yield self._chunk(number, event.piece, diffusing=facts)
            elif event.piece:
                yield self._chunk(number, event.piece)
        options = self._body.stream_options
        if options is not None and options.include_usage:
            yield self._frame({"choices": [], "usage": self._usage().model_dump()})

    def _chunk(
        self,
        number: int,
        piece: str,
        *,
        role: str | None = None,
        diffusing: PassFacts | None = None,
    ) -> str:
        choice = self._choice(number, piece, role=role)
        more = {} if diffusing is None else {"diffusing": {"index": number, **diffusing}}
        return self._frame({"choices": [choice], **more})

    def _last_chunk(self, number: int, event: StreamEvent, completion: Completion) -> str:
        choice = self._choice(number, event.piece) | {"finish_reason": completion.finish_reason}
        found = self._chat_logprobs(completion) if self._chat else self._text_logprobs(completion)
        if found is not None:
            choice["logprobs"] = found.model_dump()
        stats = {"stats": self._stats[number].model_dump()} if self._body.diffusing else {}
        return self._frame({"choices": [choice], **stats})

    def _choice(self, number: int, piece: str, *, role: str | None = None) -> dict[str, Any]:
        held: dict[str, Any] = {"text": piece}
        if self._chat:
            delta = {"content": piece} if piece or role or self._body.diffusing else {}
            held = {"delta": {"role": role, **delta} if role else delta}
        return {"index": number, **held, "logprobs": None, "finish_reason": None}

    def _frame(self, content: dict[str, Any]) -> str:
        frame = {
            "id": self._id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": self._created,
            "model": self._model,
            **content,
        }
        return event_of(json.dumps(frame, ensure_ascii=False, allow_nan=False))

    def _ended(self, number: int, completion: Completion) -> None:
        stats = stats_of(completion, self._call.seconds())
        self._completions[number] = completion
        self._stats[number] = stats
        self._call.completion_tokens += completion.completion_tokens
        self._call.num_passes += completion.num_passes
        self._call.finish_reasons.append(completion.finish_reason)
        self._metrics.answered(self._model, completion.completion_tokens, stats)

    def _usage(self) -> Usage:
        prompt, new = self._call.prompt_tokens, self._call.completion_tokens
        return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)

    def _echo(self, number: int) -> str:
        if not isinstance(self._body, CompletionRequest) or not self._body.echo:
            return ""
        prompt, each = self._body.prompt, len(self._questions[0].configs)
        if isinstance(prompt, str):
            return prompt
        one = prompt[number // each]
        return (
            one
            if isinstance(one, str)
            else self._llm.codec.decode(self._questions[number // each].ids)
        )

    def _chat_logprobs(self, completion: Completion) -> Any:
        return chat_logprobs(self._llm.codec, completion) if self._body.logprobs else None

    def _text_logprobs(self, completion: Completion) -> Any:
        asked = self._body.logprobs is not None
        return text_logprobs(self._llm.codec, completion) if asked else None


def _reason(completion: Completion) -> Any:
    """Return the finish reason; 'abort' comes only to those who have left."""
    return "stop" if completion.finish_reason == "stop" else "length"
