"""A lower bound of a text's tokens from its bytes: too long a text need not be encoded."""

from __future__ import annotations

import json
import threading
from typing import Any

# How many times fewer bytes a normalizer may leave: a letter of four bytes may become one of one,
# and three letters of three bytes a syllable of three.
_SHRINKS = {"NFC": 3, "NFD": 3, "NFKC": 12, "NFKD": 12, "Prepend": 1, "ByteLevel": 1}
_KEEPS = ("ByteLevel", "Digits", "Metaspace", "Punctuation", "Split")


class TokenBound:
    """Of a tokenizer.json; what it says is worked out when it is first asked for."""

    def __init__(self, source: str, tokenizer: Any) -> None:
        """source: the file's text. tokenizer: what the file makes."""
        self._source = source
        self._tokenizer = tokenizer
        self._known: tuple[int | None, bool] | None = None
        self._lock = threading.Lock()

    def min_tokens(self, text: str) -> int:
        """Return a number that the text's tokens are not fewer than; 0 where none is known."""
        with self._lock:
            if self._known is None:
                self._known = self._most_bytes()
                self._source = ""
        most, swallows = self._known
        if most is None:
            return 0
        if swallows:
            text = "".join(text.split())
        return -(-len(text.encode("utf-8", "replace")) // most)

    def _most_bytes(self) -> tuple[int | None, bool]:
        """Return the bytes of text that a token stands for at most, and if spaces may vanish."""
        facts = json.loads(self._source)
        shrinks = _shrinks(facts.get("normalizer"))
        vocab = self._tokenizer.get_vocab(with_added_tokens=False)
        added = facts.get("added_tokens") or []
        letters = _letters(facts, vocab)
        if shrinks is None or letters is None or facts.get("truncation") is not None:
            return None, False
        if not _keeps_all(facts.get("pre_tokenizer")):
            return None, False
        longest = max((letters(token) for token in vocab), default=0)
        for token in added:
            longest = max(longest, len(token["content"].encode("utf-8", "replace")))
        swallows = any(token.get("lstrip") or token.get("rstrip") for token in added)
        return (longest * shrinks or None), swallows


def _parts(entry: Any, name: str) -> list[dict[str, Any]]:
    """Return an entry, or what a sequence of them holds."""
    if entry is None:
        return []
    if entry.get("type") == "Sequence":
        return [part for one in entry.get(name, []) for part in _parts(one, name)]
    return [entry]


def _shrinks(normalizer: Any) -> int | None:
    """Return how many times fewer bytes the normalizer may leave; None: any number."""
    product = 1
    for part in _parts(normalizer, "normalizers"):
        kind = part.get("type")
        if kind == "Replace":
            pattern = part.get("pattern", {}).get("String")
            if pattern is None or len(part["content"].encode()) < len(pattern.encode()):
                return None
        elif kind not in _SHRINKS:
            return None
        else:
            product *= _SHRINKS[kind]
    return product


def _keeps_all(pre_tokenizer: Any) -> bool:
    """Tell whether no part of a text is dropped."""
    return all(
        part.get("type") in _KEEPS and part.get("behavior", "Isolated").lower() != "removed"
        for part in _parts(pre_tokenizer, "pretokenizers")
    )


def _letters(facts: dict[str, Any], vocab: dict[str, int]) -> Any:
    """Return what counts a token's bytes; None where the model may leave out what it lacks."""
    model = facts.get("model", {})
    if model.get("type") != "BPE":
        return None
    parts = _parts(facts.get("pre_tokenizer"), "pretokenizers")
    parts += _parts(facts.get("normalizer"), "normalizers")
    if any(part.get("type") == "ByteLevel" for part in parts):
        return len if all(letter in vocab for letter in _byte_letters()) else None
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocab for byte in range(256)):
        return lambda token: len(token.encode("utf-8", "replace"))
    return None


def _byte_letters() -> list[str]:
    """Return the letters that stand for the 256 bytes in byte-level tokenizers."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, shown), *(chr(0x100 + number) for number in range(256 - len(shown)))]
