"""A conversation: its messages, how it is answered, and the file that stores it."""

from __future__ import annotations

import contextlib
import difflib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastdllm._core import CommitEvent, ConfigError, Error, GenerationConfig
from fastdllm.answer import Completion, StreamEvent
from fastdllm.cli.config import LISTS, expected_value
from fastdllm.llm import LLM, Prompt
from fastdllm.output import check_writable, write_whole
from fastdllm.text import TextError, Variables
from fastdllm.trace import AnswerCost

ROLES = ("system", "user", "assistant")


class TurnStats(AnswerCost):
    """Passes and times of a turn. reused_rows: None if Ctrl-C ended the answer before its end."""

    reused_rows: int | None


class Conversation:
    """Messages and the LLM that answers them, under a config that may change between turns.

    system: what the conversation begins with. stop: strings before which every answer ends.
    Without a chat template every turn is a prompt of its own; messages are kept all the same.
    Errors: fastdllm.Error where the template does not take a system message.
    """

    def __init__(
        self,
        llm: LLM,
        config: GenerationConfig,
        *,
        package: str,
        system: str | None = None,
        stop: Sequence[str] | None = None,
        chat_template_kwargs: Variables = None,
    ) -> None:
        self.llm = llm
        self.config = config
        self.has_template = llm.codec.chat_template is not None
        self.messages: list[dict[str, str]] = []
        self.stats: list[TurnStats] = []
        self._package = package
        self._stop = stop
        self._variables = chat_template_kwargs
        if system is not None:
            self.messages.append({"role": "system", "content": system})
            llm.codec.encode_chat(self.messages, chat_template_kwargs=chat_template_kwargs)

    def ask(self, text: str, show: Callable[[StreamEvent], None]) -> tuple[str, Completion | None]:
        """Answer a message; return the answer's text, and the completion.

        show: called with every event, the last one too. Ctrl-C ends the answer: what was final of
        it is kept, and there is no completion; where nothing was, the message is not kept either.
        Where an error is raised, nothing was said.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt: Prompt = asked if self.has_template else text
        ids = self.llm.encode(prompt, chat_template_kwargs=self._variables)
        seen = _Seen()
        start = time.perf_counter()
        try:
            events = self.llm.stream_events(ids, self.config, stop=self._stop)
            with contextlib.closing(events):
                for event in events:
                    seen.take(event)
                    show(event)
        except KeyboardInterrupt:
            pass  # ends the answer
        self.stats.append(seen.stats(len(ids), time.perf_counter() - start))
        if seen.text or seen.completion is not None:
            self.messages = [*asked, {"role": "assistant", "content": seen.text}]
        return seen.text, seen.completion

    def reset(self) -> None:
        """Delete all messages but the system message."""
        self.messages = [m for m in self.messages[:1] if m["role"] == "system"]
        self.stats = []

    def set(self, name: str, text: str) -> None:
        """Set a field of the config: JSON, "none", or a word such as dual. Errors: ConfigError.

        none empties what is a list or a table.
        """
        fields: dict[str, Any] = self.config.to_dict()
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            meant = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}"
            raise ConfigError(f"there is no option {name}; {meant}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None if text == "none" and name != "cache" else text
        if value is None and name in LISTS:
            value = GenerationConfig().to_dict()[name]
        try:
            self.config = GenerationConfig(**(fields | {name: value}))
        except TypeError:
            raise ConfigError(f"{name} is {text}; expected {expected_value(name)}") from None

    def to_json(self) -> dict[str, Any]:
        """Return what load() reads."""
        return {
            "package": self._package,
            "messages": self.messages,
            "config": self.config.to_dict(),
            "stats": self.stats,
        }

    def save(self, path: Path) -> None:
        """Write the conversation as JSON. An existing file is replaced when all is written.

        Errors: OSError; fastdllm.Error for a name that no file can have.
        """
        check_writable({"/save": path})
        text = json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
        write_whole(path, lambda beside: beside.write_text(text + "\n", "utf-8"))

    def load(self, path: Path) -> None:
        """Continue a saved conversation with its config.

        Errors: OSError; fastdllm.Error that says what is wrong: this one then stays as it was.
        """
        try:
            found = json.loads(path.read_bytes())
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Error(
                f"{path}: a text in it is not Unicode: it has half a surrogate pair"
            ) from None
        except (ValueError, RecursionError) as problem:
            raise Error(f"{path}: not JSON: {problem}") from None
        if not isinstance(found, dict):
            raise Error(f"{path}: expected an object with messages, config and stats")
        messages = _messages(path, found.get("messages"))
        fields = found.get("config", {})
        if not isinstance(fields, dict):
            raise Error(f"{path}: config: expected an object")
        try:
            config = GenerationConfig(**fields)
        except (TypeError, ConfigError) as problem:
            raise Error(f"{path}: config: {problem}") from None
        stats = found.get("stats", [])
        if not isinstance(stats, list) or not all(_is_stats(turn) for turn in stats):
            raise Error(
                f"{path}: stats: expected a list of objects with {', '.join(_STATS)};"
                " numbers of at least 0, and null only for reused_rows"
            )
        if messages and self.has_template:
            try:
                self.llm.codec.encode_chat(messages, chat_template_kwargs=self._variables)
            except TextError as problem:
                raise Error(f"{path}: {problem}") from None
        self.messages, self.config, self.stats = messages, config, stats


def tokens_per_forward(tokens: int, passes: int) -> float:
    """Return tokens per pass; 0 where there was none."""
    return tokens / passes if passes else 0.0


_STATS = tuple(TurnStats.__annotations__)


def _is_stats(turn: object) -> bool:
    if not isinstance(turn, dict) or set(turn) != set(_STATS):
        return False
    return isinstance(turn["finish_reason"], str) and all(
        _is_amount(turn[name]) or (name == "reused_rows" and turn[name] is None)
        for name in _STATS
        if name != "finish_reason"
    )


def _is_amount(number: object) -> bool:
    return type(number) in (int, float) and 0 <= number < 2**63  # type: ignore[operator]


def _messages(path: Path, found: object) -> list[dict[str, str]]:
    if not isinstance(found, list):
        raise Error(f"{path}: messages: expected a list")
    for number, message in enumerate(found):
        if (
            not isinstance(message, dict)
            or set(message) != {"role", "content"}
            or message["role"] not in ROLES
            or not isinstance(message["content"], str)
        ):
            raise Error(
                f"{path}: messages[{number}]: expected an object with a role"
                f" ({', '.join(ROLES)}) and a text as content"
            )
    return found


class _Seen:
    """The content of the events of an answer so far."""

    def __init__(self) -> None:
        self.text = ""
        self.completion: Completion | None = None
        self._commits: list[CommitEvent] = []

    def take(self, event: StreamEvent) -> None:
        self.text, self.completion = event.text, event.completion
        if event.commit is not None:
            self._commits.append(event.commit)

    def stats(self, prompt_tokens: int, seconds: float) -> TurnStats:
        done = self.completion
        passes = len(self._commits) if done is None else done.num_passes
        tokens = self._final_tokens() if done is None else done.completion_tokens
        refreshes = sum(commit.refreshed for commit in self._commits)
        steps = len(self._commits) - refreshes
        if done is not None:
            refreshes, steps = done.stats.refresh_passes, done.stats.step_passes
        return {
            "finish_reason": "abort" if done is None else done.finish_reason,
            "num_passes": passes,
            "refresh_passes": refreshes,
            "step_passes": steps,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "tokens_per_forward": tokens_per_forward(tokens, passes),
            "reused_rows": None if done is None else done.stats.reused_rows,
            "seconds": seconds,
        }

    def _final_tokens(self) -> int:
        """Return how many tokens before the first mask there are."""
        filled = {int(p) for commit in self._commits for p in commit.positions}
        count = 0
        while count in filled:
            count += 1
        return count
