"""Text around the engine: tokenizer.json and the chat template. Needs `tokenizers` and `jinja2`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from fastdllm._core import Error, PackageError

Message = Mapping[str, str]


class TextError(Error):
    """A chat template that does not render, or messages it does not take."""


class ChatTemplate:
    """A chat template in Jinja, run in a sandbox: it comes with a model from anywhere."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as problem:
            raise TextError(f"the chat template does not parse: {problem}") from None

    def render(self, messages: Sequence[Message]) -> str:
        """Render messages ({"role": ..., "content": ...}) with the assistant's header at the end.

        Errors: TextError.
        """
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=True, **self._special_tokens
            )
        except Exception as problem:  # templates raise what they like
            raise TextError(f"the chat template does not take these messages: {problem}") from None


def _raise(message: str) -> None:
    raise TemplateError(message)


class TextCodec:
    """Text to token ids and back, as a package's tokenizer does it."""

    def __init__(self, folder: Path, entry: Any) -> None:
        """Read the files that fastdllm.json's `tokenizer` entry names. Errors: PackageError."""
        if not isinstance(entry, dict):
            raise PackageError(f"fastdllm.json.tokenizer is {entry!r}; expected an object or null")
        path, text = _read_named(folder, entry, "file")
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as problem:
            raise PackageError(f"{path}: not a usable tokenizer: {problem}") from None
        self.chat_template: ChatTemplate | None = None
        if entry.get("chat_template") is not None:
            _, source = _read_named(folder, entry, "chat_template")
            self.chat_template = ChatTemplate(source, _special_tokens(entry))

    def encode(self, text: str) -> list[int]:
        """Encode text as it stands; special tokens written in it are recognized."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode messages through the chat template. Errors: TextError when there is none."""
        if self.chat_template is None:
            raise TextError("the package has no chat template; give text or token ids instead")
        return self.encode(self.chat_template.render(messages))

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; special tokens are dropped."""
        text: str = self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text


def _read_named(folder: Path, entry: dict[str, Any], key: str) -> tuple[Path, str]:
    """Read the file that a key names; it lies in the package folder."""
    name = entry.get(key)
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise PackageError(f"fastdllm.json.tokenizer.{key} is {name!r}; expected a file name")
    try:
        return folder / name, (folder / name).read_bytes().decode("utf-8")
    except (OSError, ValueError) as problem:
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
    """Turns commits at any positions into text pieces from left to right.

    A piece ends on a whole character: bytes of an unfinished one wait for the rest.
    """

    def __init__(self, codec: TextCodec, stop_ids: Iterable[int]) -> None:
        self._codec = codec
        self._stop_ids = frozenset(stop_ids)
        self._waiting: dict[int, int] = {}
        self._ids: list[int] = []
        self._text = ""
        self._stopped = False

    def push(self, positions: Iterable[int], token_ids: Iterable[int]) -> str:
        """Take one pass's commits; return the text that is now final."""
        self._waiting.update(zip(map(int, positions), map(int, token_ids), strict=True))
        while not self._stopped and len(self._ids) in self._waiting:
            token = self._waiting.pop(len(self._ids))
            self._stopped = token in self._stop_ids
            self._ids.append(token)
        return self._advance(final=False)

    def finish(self) -> str:
        """Return what is left, an unfinished character as a replacement mark."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        text = self._codec.decode(self._ids)
        if not final:
            text = text.rstrip("\ufffd")
        if not text.startswith(self._text):  # a decoder that rewrites its end
            if not final:
                return ""
            pairs = zip(text, self._text, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(self._text))
            self._text = text[:same]  # what was shown cannot be taken back; the rest is not lost
        piece = text[len(self._text) :]
        self._text = text
        return piece
