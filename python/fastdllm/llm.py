"""Text in, text out."""

from __future__ import annotations

import operator
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdllm._core import (
    CommitEvent,
    GenerationConfig,
    GenerationResult,
    GenerationStats,
    PackageError,
)
from fastdllm.check import read_metadata
from fastdllm.engine import Engine
from fastdllm.text import Message, TextCodec, TextStream

Prompt = str | Sequence[Message] | Sequence[int] | NDArray[np.int32]
CommitCallback = Callable[[CommitEvent], bool | None]


def default_config() -> GenerationConfig:
    """Return what is used when no config is given: dual cache, threshold 0.9 (the paper's)."""
    return GenerationConfig(threshold=0.9, cache="dual")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer: its text without special tokens, and what the engine says of it."""

    text: str
    token_ids: NDArray[np.int32]
    finish_reason: str
    num_passes: int
    prompt_tokens: int
    stats: GenerationStats


class LLM:
    """A package with its tokenizer and chat template.

    threads and onnxruntime_library: as for Engine. Errors: BackendError; PackageError, also for a
    package that was exported without a tokenizer (use Engine then).
    """

    def __init__(
        self,
        package_dir: str | os.PathLike[str],
        *,
        threads: int = 0,
        onnxruntime_library: str | None = None,
    ) -> None:
        folder = Path(package_dir)
        self.engine = Engine(folder, threads=threads, onnxruntime_library=onnxruntime_library)
        entry = read_metadata(folder).get("tokenizer")
        if entry is None:
            raise PackageError(f"{folder}: has no tokenizer; use fastdllm.Engine with token ids")
        self.codec = TextCodec(folder, entry)

    def encode(self, prompt: Prompt, *, raw: bool = False) -> list[int]:
        """Return the prompt's token ids.

        A string is one user message through the chat template if the package has one (raw: as it
        stands); a list of messages goes through the template; ids are taken as they are.
        Errors: fastdllm.Error when messages meet a package without template.
        """
        if isinstance(prompt, str):
            if raw or self.codec.chat_template is None:
                return self.codec.encode(prompt)
            return self.codec.encode_chat([{"role": "user", "content": prompt}])
        messages: list[Message] = []
        ids: list[int] = []
        for item in prompt:
            if isinstance(item, Mapping):
                messages.append(item)
            else:
                ids.append(operator.index(item))
        if messages and ids:
            raise TypeError("a prompt is text, messages or token ids; this list mixes them")
        return self.codec.encode_chat(messages) if messages else ids

    def generate(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        on_commit: CommitCallback | None = None,
        raw: bool = False,
    ) -> Completion:
        """Answer a prompt; config None = default_config(). on_commit: see Engine.generate."""
        ids = self.encode(prompt, raw=raw)
        return self._completion(
            ids, self.engine.generate(ids, config or default_config(), on_commit)
        )

    def stream(
        self, prompt: Prompt, config: GenerationConfig | None = None, *, raw: bool = False
    ) -> Iterator[str]:
        """Yield the answer's text as it becomes final, from left to right, in whole characters.

        Leaving the iterator early aborts the generation. Errors come out of the iterator.
        """
        ids = self.encode(prompt, raw=raw)
        return self._stream(ids, config or default_config())

    def _stream(self, ids: list[int], config: GenerationConfig) -> Iterator[str]:
        text = TextStream(self.codec, self._stop_ids(config))
        pending: dict[int, int] = {}  # tokens that can still be edited
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def on_commit(event: CommitEvent) -> bool:
            pending.update(zip(event.positions.tolist(), event.token_ids.tolist(), strict=True))
            if config.editing_threshold is None or event.block_finished:
                if piece := text.push(pending.keys(), pending.values()):
                    pieces.put(piece)
                pending.clear()
            return not left.is_set()

        def work() -> None:
            try:
                self.engine.generate(ids, config, on_commit)
                text.push(pending.keys(), pending.values())
                pieces.put(text.finish())
                pieces.put(None)
            except BaseException as problem:  # handed to the reader
                pieces.put(problem)

        worker = threading.Thread(target=work, name="fastdllm-stream", daemon=True)
        worker.start()
        try:
            while (item := pieces.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if item:
                    yield item
        finally:
            left.set()
            worker.join()

    def _stop_ids(self, config: GenerationConfig) -> Iterable[int]:
        """Return the tokens that end the text; none where the answer goes on behind them."""
        if config.ignore_eos or config.stop_at == "block":
            return ()
        named = config.stop_token_ids
        return self.engine.package.eos_token_ids if named is None else named

    def _completion(self, ids: list[int], result: GenerationResult) -> Completion:
        return Completion(
            text=self.codec.decode(result.token_ids),
            token_ids=result.token_ids,
            finish_reason=result.finish_reason,
            num_passes=result.num_passes,
            prompt_tokens=len(ids),
            stats=result.stats,
        )
