"""Control tokens written inside a message are encoded as text: they neither end nor mask it.

The template's own ones are what they are. So those inside messages are marked before the template
is rendered, and what stands between the template's control tokens is encoded with the marks undone,
by a tokenizer that takes control tokens for text.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

_MARKS = range(0x10FFFD, 0x100000 - 1, -1)  # characters for private use


class ControlTokens:
    """Those of one tokenizer: its special tokens, and the ids and texts that are named."""

    def __init__(self, tokenizer: Tokenizer, ids: Iterable[int], texts: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._plain: Tokenizer | None = None
        named, written = set(ids), set(texts)
        self._ids = {
            token.content: number
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special or number in named or token.content in written
        }
        self._pattern = re.compile(_any_of(self._ids) if self._ids else "(?!)")

    def marked(self, given: Any) -> tuple[Any, dict[str, str]]:
        """Return messages or variables with marks for control tokens, and what each stands for."""
        texts = list(_texts(given))
        found = {token for text in texts for token in self._pattern.findall(text)}
        if not found:
            return given, {}
        taken = set().union(*texts)
        free = (chr(code) for code in _MARKS if chr(code) not in taken)
        marks = dict(zip(sorted(found), free, strict=False))
        return (
            _changed(given, lambda text: self._pattern.sub(lambda m: marks[m[0]], text)),
            {mark: token for token, mark in marks.items()},
        )

    def encode(self, text: str, tokens: Mapping[str, str]) -> list[int]:
        """Encode a rendered text with marks. tokens: what each mark stands for."""
        control = set(self._ids.values())
        (encoded,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        ids: list[int] = []
        between: list[int] = []
        begin = 0
        ends = [*zip(encoded.ids, encoded.offsets, strict=True), (None, (len(text), len(text)))]
        for number, (start, end) in ends:
            if number is not None and number not in control:
                between.append(number)
                continue
            piece = text[begin:start]
            if any(mark in piece for mark in tokens):
                piece = restored(piece, tokens)
                (inside,) = self._as_text().encode_batch([piece], add_special_tokens=False)
                between = inside.ids
            ids += between
            between, begin = [], end
            if number is not None:
                ids.append(number)
        return ids

    def _as_text(self) -> Tokenizer:
        """Return the tokenizer that knows no control tokens; it is made when first needed."""
        with self._lock:
            if self._plain is None:
                facts = json.loads(self._tokenizer.to_str())
                for token in facts["added_tokens"]:
                    token["special"] = token["content"] in self._ids
                self._plain = Tokenizer.from_str(json.dumps(facts))
                self._plain.encode_special_tokens = True
            return self._plain


def restored(text: str, tokens: Mapping[str, str]) -> str:
    """Return a rendered text with the control tokens in place of their marks."""
    for mark, token in tokens.items():
        text = text.replace(mark, token)
    return text


def _any_of(words: Iterable[str]) -> str:
    """Return a pattern for the longest of the words, which tries no word after another."""
    ends = False
    after: dict[str, list[str]] = {}
    for word in words:
        if word:
            after.setdefault(word[0], []).append(word[1:])
        else:
            ends = True
    branches = [re.escape(first) + _any_of(rest) for first, rest in after.items()]
    if not branches:
        return ""
    return (
        branches[0]
        if len(branches) == 1 and not ends
        else f"(?:{'|'.join(branches)})" + ("?" if ends else "")
    )


def _texts(given: Any) -> Iterable[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, Mapping):
        for value in given.values():
            yield from _texts(value)
    elif isinstance(given, Sequence):
        for value in given:
            yield from _texts(value)


def _changed(given: Any, change: Callable[[str], str]) -> Any:
    if isinstance(given, str):
        return change(given)
    if isinstance(given, Mapping):
        return {key: _changed(value, change) for key, value in given.items()}
    if isinstance(given, Sequence):
        return [_changed(value, change) for value in given]
    return given
