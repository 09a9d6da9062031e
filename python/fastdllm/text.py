"""Text around the engine: tokenizer.json and the chat template. Needs `tokenizers` and `jinja2`."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from fastdllm._core import Error, PackageError
from fastdllm.control_tokens import ControlTokens, restored
from fastdllm.package_files import read_package_file
from fastdllm.template_budget import LimitError
from fastdllm.template_limits import TEMPLATE_EXTENSIONS, LimitedEnvironment
from fastdllm.token_bound import TokenBound

Message = Mapping[str, Any]  # role and content, and what else the template takes
Variables = Mapping[str, Any] | None
_OWN = ("messages", "add_generation_prompt")  # variables that are not the caller's
_LONG = 4096  # characters

# What moves a terminal's cursor, colours it, or turns the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """Return text that is safe on a terminal: control characters as Python's escapes."""
    return _CONTROLS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\u0100" else f"\\u{ord(found[0]):x}",
        text,
    )


class TextError(Error):
    """A chat template that does not render, or messages it does not take."""


class TooManyTokens(Error):
    """A text of more tokens than were allowed: `least` or more."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(f"the text has {least} tokens or more; expected at most {most}")
        self.least = least


class TemplateLimitError(TextError):
    """A chat template that takes too long or makes too much."""


class ChatTemplate:
    """A chat template in Jinja, in a sandbox and within limits: it comes from anywhere."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = LimitedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=TEMPLATE_EXTENSIONS
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        self._environment = environment
        self._special_tokens = dict(special_tokens)
        self.source = source
        try:
            self._template = environment.from_string(source)
        except Exception as problem:  # of Jinja's parser or Python's
            raise TextError(f"the chat template does not parse: {_shown(problem)}") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Variables = None,
    ) -> str:
        """Render messages ({"role": ..., "content": ...}) with the assistant's header at the end.

        variables: what else the template asks for, as enable_thinking or tools. Errors: TextError;
        TemplateLimitError where it takes too long or makes too much.
        """
        variables = dict(variables or {})
        for name in _OWN:
            if name in variables:
                raise TextError(f"chat_template_kwargs holds {name}, which is not the caller's")
        pieces = []
        try:
            with self._environment.limited(_size(messages) + _size(variables)):
                values = self._special_tokens | variables
                for piece in self._template.generate(
                    values, messages=list(messages), add_generation_prompt=add_generation_prompt
                ):
                    pieces.append(piece)
            return "".join(pieces)
        except (LimitError, MemoryError, RecursionError) as problem:
            shown = _shown(problem) or "it needs too much memory"
            raise TemplateLimitError(f"the chat template is stopped: {shown}") from None
        except Exception as problem:  # a template may raise any exception
            shown = _shown(problem)
            raise TextError(f"the chat template does not take these messages: {shown}") from None


def _size(given: Any) -> int:
    """Return the characters of all texts in messages or variables."""
    if isinstance(given, str):
        return len(given)
    if isinstance(given, Mapping):
        return sum(map(_size, given.values()))
    if isinstance(given, Sequence):
        return sum(map(_size, given))
    return 0


def _raise(message: str) -> None:
    raise TemplateError(message if isinstance(message, str) else type(message).__name__)


def _now(form: str) -> str:
    if not isinstance(form, str) or len(form) > 256:
        raise LimitError("it asks for the date in a form of more than 256 characters")
    return datetime.now().strftime(form)


def _shown(problem: BaseException) -> str:
    text = str(problem)
    return text if len(text) <= 1000 else text[:1000] + "..."


class TextCodec:
    """Text to token ids and back, as a package's tokenizer does it.

    control_tokens_in_messages: set it to True to let control tokens that are written inside
    messages be what they are; they are text.
    """

    control_tokens_in_messages = False

    def __init__(self, folder: Path, entry: Any, control_ids: Iterable[int] = ()) -> None:
        """Read the files that fastdllm.json's `tokenizer` entry names.

        control_ids: control tokens beside those that the tokenizer calls special. Errors:
        PackageError.
        """
        if not isinstance(entry, dict):
            raise PackageError(f"fastdllm.json.tokenizer is {entry!r}; expected an object or null")
        path, text = _read_named(folder, entry, "file")
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as problem:
            raise PackageError(f"{path}: not a usable tokenizer: {problem}") from None
        self._bound = TokenBound(text, self.tokenizer)
        named = _special_tokens(entry)
        self._control = ControlTokens(self.tokenizer, control_ids, named.values())
        self.chat_template: ChatTemplate | None = None
        if entry.get("chat_template") is not None:
            _, source = _read_named(folder, entry, "chat_template")
            self.chat_template = ChatTemplate(source, named)

    def encode(self, text: str, *, most: int | None = None) -> list[int]:
        """Encode text unchanged; special tokens written in it are recognized.

        Errors: TooManyTokens of a text that is too long, at sight, to have at most `most`.
        """
        self._require(text, most)
        if len(text) > _LONG:  # this call releases the GIL, and is faster
            (encoded,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        else:
            encoded = self.tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids

    def _require(self, text: str, most: int | None) -> None:
        if most is not None and len(text) > most:
            least = self._bound.min_tokens(text)
            if least > most:
                raise TooManyTokens(least, most)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        most: int | None = None,
        chat_template_kwargs: Variables = None,
    ) -> list[int]:
        """Encode messages through the chat template.

        chat_template_kwargs: variables of the template. Errors: TextError when there is none.
        """
        if self.chat_template is None:
            raise TextError("the package has no chat template; give text or token ids instead")
        marks: dict[str, str] = {}
        given = (messages, dict(chat_template_kwargs or {}))
        if not self.control_tokens_in_messages:
            try:
                given, marks = self._control.marked(given)
            except RecursionError:
                raise TextError("the messages hold lists in lists without end") from None
        text = self.chat_template.render(given[0], variables=given[1])
        if not marks:
            return self.encode(text) if most is None else self.encode(text, most=most)
        self._require(restored(text, marks), most)
        return self._control.encode(text, marks)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; special tokens are dropped."""
        text: str = self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    def decode_token(self, token_id: int) -> str:
        """Decode one token by itself; special tokens are shown as they are written."""
        text: str = self.tokenizer.decode([int(token_id)], skip_special_tokens=False)
        return text


def _read_named(folder: Path, entry: dict[str, Any], key: str) -> tuple[Path, str]:
    """Read the file that a key names; it lies in the package folder."""
    name = entry.get(key)
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise PackageError(f"fastdllm.json.tokenizer.{key} is {name!r}; expected a file name")
    try:
        return folder / name, read_package_file(folder / name).decode("utf-8")
    except ValueError as problem:
        raise PackageError(f"{folder / name}: not readable as text: {problem}") from None


def _special_tokens(entry: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens that a chat template may name."""
    tokens = entry.get("special_tokens") or {}
    if not isinstance(tokens, dict) or not all(isinstance(text, str) for text in tokens.values()):
        raise PackageError(
            f"fastdllm.json.tokenizer.special_tokens is {tokens!r}; expected names and texts"
        )
    return {str(role): text for role, text in tokens.items()}


class TextStream:
    """Turns commits at any positions into text from left to right, up to a stop string.

    A piece ends on a whole character: bytes of an unfinished one wait for the rest. So does what
    could begin a stop string. The text ends before the stop string that is complete first, as if
    it had come a character at a time: how the commits came makes no difference.

    text: what was given out. stop: the stop string that ended it, or None.
    """

    # Pieces are decoded from a window of tokens, so that an answer's length does not slow it down.
    # When it holds more than _WINDOW, it moves so as to hold _CONTEXT, or up to twice as many.
    _WINDOW, _CONTEXT = 64, 8

    def __init__(self, codec: TextCodec, stop_ids: Iterable[int], stop: Iterable[str] = ()) -> None:
        """stop_ids: tokens that end the text. stop: strings before which it ends, not empty."""
        self.text = ""
        self.stop: str | None = None
        self._codec = codec
        self._stop_ids = frozenset(stop_ids)
        self._stop_strings = tuple(stop)
        self._waiting: dict[int, int] = {}
        self._ids: list[int] = []
        self._ended = False  # by a stop token
        self._window = 0  # where in the ids the window of tokens that are decoded begins,
        self._settled = ""  # the text before it,
        self._context = ""  # and how its own text begins

    def push(self, positions: Iterable[int], token_ids: Iterable[int]) -> str:
        """Take one pass's commits; return the text that is now final."""
        self._waiting.update(zip(map(int, positions), map(int, token_ids), strict=True))
        before = len(self._ids)
        while not self._ended and len(self._ids) in self._waiting:
            token = self._waiting.pop(len(self._ids))
            self._ended = token in self._stop_ids
            self._ids.append(token)
        return self._advance(final=False) if len(self._ids) > before else ""

    def finish(self) -> str:
        """Return what is left, an unfinished character as a replacement mark."""
        return self._advance(final=True)

    def tokens_of(self, text: str) -> int:
        """Return the fewest tokens, from the first, that hold `text`, a beginning of the answer."""

        def characters(count: int) -> int:
            return len(self._codec.decode(self._ids[:count]).rstrip("\ufffd"))

        return bisect_left(range(len(self._ids)), len(text), key=characters)

    def _advance(self, *, final: bool) -> str:
        if self.stop is not None:
            return ""
        text = self._decode(final=final)
        if not final:
            text = text.rstrip("\ufffd")
        start = len(self.text)
        if not text.startswith(self.text):  # a decoder that rewrites its end
            if not final:
                return ""
            # Text that was returned cannot be taken back; the rest is not lost.
            pairs = zip(text, self.text, strict=False)
            start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(start, len(text)))
        end = len(text)
        # Text that was returned begins no stop string, so the search continues behind it.
        found = [
            (at + len(s), at, s) for s in self._stop_strings if (at := text.find(s, start)) >= 0
        ]
        if found:
            _, end, self.stop = min(found)
        elif not final:
            end -= self._held_back(text[start:])
        self.text = text[:end]
        return text[start:end]

    def _held_back(self, text: str) -> int:
        """Return the length of the longest end of `text` that could begin a stop string."""
        longest = min(len(text), max(map(len, self._stop_strings), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop_strings):
                return length
        return 0

    def _decode(self, *, final: bool) -> str:
        decoded = self._codec.decode(self._ids[self._window :])
        if not decoded.startswith(self._context):  # a decoder that rewrites what lies further back
            if decoded.endswith("\ufffd") and not final:
                return self.text  # for an unfinished character: the next tokens complete it
            self._settled, self._context, self._window = "", "", 0
            decoded = self._codec.decode(self._ids)
        text = self._settled + decoded
        if len(self._ids) - self._window > self._WINDOW:
            self._move_window(text)
        return text

    def _move_window(self, text: str) -> None:
        """Let the window begin near the end of `text`, at a token that begins a character."""
        latest = len(self._ids) - self._CONTEXT
        for window in range(latest, latest - self._CONTEXT, -1):
            decoded = self._codec.decode(self._ids[window:])
            context = decoded.rstrip("\ufffd")  # what an unfinished character does not change
            if context and text.endswith(decoded):
                self._settled = text[: len(text) - len(decoded)]
                self._context, self._window = context, window
                return
