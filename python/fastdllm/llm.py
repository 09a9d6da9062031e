"""Text in, text out."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import queue
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast, overload

import numpy as np
from numpy.typing import NDArray

from fastdllm import _core
from fastdllm._core import CommitEvent, ConfigError, GenerationConfig, PackageError
from fastdllm.answer import (
    Answer,
    CommitCallback,
    Completion,
    StreamEvent,
    start_all,
    stop_strings,
)
from fastdllm.check import read_metadata
from fastdllm.decoding import recommended_config
from fastdllm.engine import Engine
from fastdllm.infill import InfillCanvas
from fastdllm.options import takes_engine_options
from fastdllm.text import Message, TextCodec, Variables

Prompt = str | Sequence[Message] | Sequence[int] | NDArray[np.int32]
Configs = GenerationConfig | Sequence[GenerationConfig] | None
Stop = str | Sequence[str] | None


def default_config() -> GenerationConfig:
    """Return the config used if neither caller nor package has one: threshold 0.9, as the paper."""
    return GenerationConfig(threshold=0.9)


def config_with(**options: Any) -> GenerationConfig:
    """Return the config of named options: threshold 0.9 unless they name a rule or a schedule.

    An option that is None counts as not named. Errors: ConfigError, TypeError.
    """
    return _core.config_with(
        **{name: value for name, value in options.items() if value is not None}
    )


class LLM:
    """A loaded package that answers prompts and chats. Thread-safe.

    >>> llm = LLM("packages/tiny_math", threads=2)
    >>> answer = llm.generate("Sam had 27 balls, bought 9 and lost 7. How many are left?")
    >>> answer.text.endswith("#### 29")
    True

    The keywords are those of Engine. Errors: BackendError; PackageError, also for a package that
    was exported without a tokenizer (use Engine then).

    All methods that answer take `config` (None = `default_config`, what the package recommends),
    `raw` and `chat_template_kwargs` (see encode()) and `stop`: a string or strings before which
    the text ends. Stop strings are searched in the text without special tokens and are not part of
    the answer. The request ends with the pass that completes one. Errors of a request:
    ConfigError, OverloadedError, NumericError, BackendError.
    """

    @takes_engine_options
    def __init__(self, package_dir: str | os.PathLike[str], **options: Any) -> None:
        folder = Path(package_dir)
        self.engine = Engine(folder, **options)
        metadata = read_metadata(folder)
        self.default_config = recommended_config(metadata)
        entry = metadata.get("tokenizer")
        if entry is None:
            raise PackageError(f"{folder}: has no tokenizer; use fastdllm.Engine with token ids")
        package = self.engine.package
        named = (package.mask_token_id, package.bos_token_id, package.pad_token_id)
        ids = [*package.eos_token_ids, *(number for number in named if number is not None)]
        self.codec = TextCodec(folder, entry, ids)

    def encode(
        self,
        prompt: Prompt,
        *,
        raw: bool = False,
        most: int | None = None,
        chat_template_kwargs: Variables = None,
    ) -> list[int]:
        """Return the prompt's token ids. most: see TextCodec.encode().

        A string is one user message through the chat template if the package has one (raw: as it
        stands, with the special tokens that are written in it); a list of messages goes through the
        template, as text; ids are taken as they are. chat_template_kwargs: variables of the
        template, as {"enable_thinking": False}; for other prompts they say nothing.
        Errors: fastdllm.Error when messages meet a package without template.
        """
        limit = {} if most is None else {"most": most}
        if isinstance(prompt, str):
            if raw or self.codec.chat_template is None:
                return self.codec.encode(prompt, **limit)
            prompt = [{"role": "user", "content": prompt}]
        messages: list[Message] = []
        ids: list[int] = []
        for item in prompt:
            if isinstance(item, Mapping):
                messages.append(item)
            else:
                ids.append(operator.index(item))
        if messages and ids:
            raise TypeError("a prompt is text, messages or token ids; this list mixes them")
        if not messages:
            return ids
        return self.codec.encode_chat(
            messages, most=most, chat_template_kwargs=chat_template_kwargs
        )

    @overload  # a str is a prompt, although it is a sequence of str
    def generate(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        config: Configs = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs = None,
        *,
        stop: Stop = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion | list[Completion]:
        """Answer a prompt, or a list of prompts together.

        A list (also an empty one) gives a list of the same order, and may come with a config per
        prompt; when one fails, the others are cancelled. on_commit: of one prompt; called after
        every pass on the engine's thread, False ends the answer ('abort') that this pass has not
        ended.
        """
        answers = self._answers(prompt, config, stop, on_commit, raw, chat_template_kwargs)
        try:
            for number in start_all(answers, [None] * len(answers)):
                answers[number].wait()
            completions = [answer.completion() for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()
        return completions if _is_list(prompt) else completions[0]

    @overload
    async def agenerate(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion: ...

    @overload
    async def agenerate(
        self,
        prompt: Sequence[Prompt],
        config: Configs = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> list[Completion]: ...

    async def agenerate(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs = None,
        *,
        stop: Stop = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion | list[Completion]:
        """Answer as generate() does, without blocking the event loop or using a thread.

        Cancelling the task cancels the requests.
        """
        answers = self._answers(prompt, config, stop, on_commit, raw, chat_template_kwargs)
        finished = [asyncio.Event() for _ in answers]
        try:
            for number in start_all(answers, [_on_loop(event.set) for event in finished]):
                await finished[number].wait()
            for event in finished:
                await event.wait()
            completions = [answer.completion() for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()
        return completions if _is_list(prompt) else completions[0]

    def stream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Generator[str, None, None]:
        """Yield the answer's text as it becomes final, from left to right, in whole characters.

        The request starts when the first piece is asked for; leaving the iterator cancels it.
        Errors come out of the iterator.
        """
        return _pieces(
            self.stream_events(
                prompt, config, stop=stop, raw=raw, chat_template_kwargs=chat_template_kwargs
            )
        )

    def stream_events(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Generator[StreamEvent, None, None]:
        """Yield what every pass commits, and the completion last; otherwise as stream()."""
        (answer,) = self._answers(prompt, config, stop, None, raw, chat_template_kwargs)
        return _events(answer)

    def astream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> AsyncGenerator[str, None]:
        """Yield text as stream() does, in an event loop.

        Cancelling the task or leaving the iterator cancels the request.
        """
        return _apieces(
            self.astream_events(
                prompt, config, stop=stop, raw=raw, chat_template_kwargs=chat_template_kwargs
            )
        )

    def astream_events(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        stop: Stop = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield events as stream_events() does, in an event loop."""
        (answer,) = self._answers(prompt, config, stop, None, raw, chat_template_kwargs)
        return _aevents(answer)

    def infill(
        self,
        parts: Sequence[str | int],
        config: GenerationConfig | None = None,
        *,
        prompt: Prompt | None = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion:
        """Fill the gaps of a text: a part is text, which stays as it is, or a gap of n tokens.

        Each text is encoded on its own; special tokens written in it are recognized. prompt: stands
        before the text and is no part of the completion. The completion has the whole text, the
        gaps' in `filled`, and tokens, given ones included, from the first part on. All gaps are
        filled to their end, whatever is written in them. Event positions count from the prompt's.
        Errors: TypeError; ConfigError, also for a text that holds the mask token, or where there is
        no gap.
        """
        canvas = self._canvas(parts, prompt, raw, chat_template_kwargs)
        return canvas.filled(
            self.engine.infill(canvas.ids, config or self.default_config, on_commit)
        )

    async def ainfill(
        self,
        parts: Sequence[str | int],
        config: GenerationConfig | None = None,
        *,
        prompt: Prompt | None = None,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
        chat_template_kwargs: Variables = None,
    ) -> Completion:
        """Fill gaps as infill() does, in an event loop. Cancelling the task cancels the request."""
        canvas = self._canvas(parts, prompt, raw, chat_template_kwargs)
        done = asyncio.Event()
        request = self.engine.submit_infill(
            canvas.ids, config or self.default_config, on_commit, _on_loop(done.set)
        )
        try:
            await done.wait()
            return canvas.filled(request.result())
        finally:
            request.cancel()

    def _canvas(
        self,
        parts: Sequence[str | int],
        prompt: Prompt | None,
        raw: bool,
        variables: Variables,
    ) -> InfillCanvas:
        ids: list[int] = []
        if prompt is not None:
            ids = self.encode(prompt, raw=raw, chat_template_kwargs=variables)
        return InfillCanvas(self.codec, ids, parts, self.engine.package)

    def _answers(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs,
        stop: Stop,
        on_commit: CommitCallback | None,
        raw: bool,
        variables: Variables,
    ) -> list[Answer]:
        prompts: list[Prompt]
        if not _is_list(prompt):
            prompts = [cast(Prompt, prompt)]
        elif on_commit is None:
            prompts = list(prompt)
        else:
            raise TypeError("on_commit is for one prompt; expected none with a list of prompts")
        if config is None or isinstance(config, GenerationConfig):
            configs = [config or self.default_config] * len(prompts)
        else:
            configs = list(config)
        if len(configs) != len(prompts):
            raise ConfigError(
                f"there are {len(configs)} configs for {len(prompts)} prompts; expected one for"
                " each, or one for all"
            )
        strings = stop_strings(stop)
        return [
            Answer(
                self.engine,
                self.codec,
                self.encode(one, raw=raw, chat_template_kwargs=variables),
                its_config,
                stop=strings,
                on_commit=on_commit,
            )
            for one, its_config in zip(prompts, configs, strict=True)
        ]


def _is_list(prompt: Prompt | Sequence[Prompt]) -> TypeGuard[Sequence[Prompt]]:
    """Tell prompts from one prompt: a list of texts, or of lists of messages or of ids."""
    if isinstance(prompt, np.ndarray):
        return prompt.ndim == 2
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return False
    return len(prompt) == 0 or isinstance(prompt[0], Sequence | np.ndarray)


def _pieces(events: Generator[StreamEvent, None, None]) -> Generator[str, None, None]:
    with contextlib.closing(events):
        for event in events:
            if event.piece:
                yield event.piece


async def _apieces(events: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(events):
        async for event in events:
            if event.piece:
                yield event.piece


def _events(answer: Answer) -> Generator[StreamEvent, None, None]:
    arrived: queue.SimpleQueue[StreamEvent | CommitEvent | None] = queue.SimpleQueue()
    try:
        answer.start(on_event=arrived.put, on_done=lambda: arrived.put(None))
        while (told := arrived.get()) is not None:
            yield answer.event(told)
        yield answer.last_event()
    finally:
        answer.cancel()


async def _aevents(answer: Answer) -> AsyncGenerator[StreamEvent, None]:
    arrived: asyncio.Queue[StreamEvent | CommitEvent | None] = asyncio.Queue()
    put = _on_loop(arrived.put_nowait)
    try:
        answer.start(on_event=put, on_done=lambda: put(None))
        while (told := await arrived.get()) is not None:
            yield answer.event(told)
        yield answer.last_event()
    finally:
        answer.cancel()


def _on_loop(call: Callable[..., object]) -> Callable[..., None]:
    """Return a function that has `call` called in the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def hand_over(*arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(call, *arguments)

    return hand_over
