"""Prompts with known answers, and the check whether an answer is right."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastdllm._core import Error

if TYPE_CHECKING:
    from fastdllm.text import Message

# A minus after a digit or a letter subtracts.
_NUMBER = re.compile(r"(?:(?<![\w.])-)?(?:\d[\d,]*)?\.?\d+")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A prompt as LLM.encode takes it; its answer, if that is known; its line in the file."""

    prompt: str | list[Message] | list[int]
    answer: str | None = None
    line: int = 0


def read_problems(path: Path) -> list[Problem]:
    """Read JSON lines of "prompt" (or "question") and, optionally, "answer"; skip empty lines.

    A prompt is text, a list of messages (objects with "role" and "content") or a list of token ids.
    Errors: Error with the file, the line, what was expected and found.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise Error(f"{path}: not readable as problems: {problem}") from None
    problems = [
        _problem(line, number, f"{path}:{number}") for number, line in enumerate(lines, 1) if line
    ]
    if not problems:
        raise Error(f"{path}: holds no problem; expected JSON lines")
    return problems


def is_prompt(value: object) -> bool:
    """Tell whether a value is text, a list of messages or a list of token ids."""
    return isinstance(value, str) or _is_messages(value) or _is_ids(value)


def is_right(text: str, answer: str) -> bool:
    """Tell whether a text gives the answer.

    Answers that end in "#### ..." are compared by what follows the last ####; a number is right if
    it is the last number of the text (1,000 = 1000.0); other answers are compared as a whole,
    whatever the white space around words.
    """
    if "####" in answer:
        return "####" in text and _last_part(text) == _last_part(answer)
    if _NUMBER.fullmatch(answer.strip()):
        found = _NUMBER.findall(text)
        return bool(found) and _value(found[-1]) == _value(answer.strip())
    return text.split() == answer.split()


def agreement(ids: Sequence[int], reference: Sequence[int]) -> float:
    """Return the share of positions that hold the same token, of the longer sequence's."""
    same = sum(one == other for one, other in zip(ids, reference, strict=False))
    return same / max(len(ids), len(reference), 1)


def _last_part(text: str) -> str:
    return text.rsplit("####", 1)[1].strip()


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _problem(line: str, number: int, where: str) -> Problem:
    try:
        item = json.loads(line)
    except ValueError as problem:
        raise Error(f"{where}: is not JSON: {problem}") from None
    if not isinstance(item, dict):
        raise Error(f"{where}: is {_shown(item)}; expected an object with 'prompt'")
    key = "prompt" if "prompt" in item else "question"
    if key not in item:
        raise Error(f"{where}: has no 'prompt'; found {', '.join(map(repr, item)) or 'nothing'}")
    prompt, answer = item[key], item.get("answer")
    if not is_prompt(prompt):
        raise Error(
            f"{where}: {key} is {_shown(prompt)}; expected text, messages with 'role' and"
            " 'content', or token ids"
        )
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not isinstance(answer, str):
        raise Error(f"{where}: answer is {_shown(answer)}; expected text")
    return Problem(prompt=cast(Any, prompt), answer=answer, line=number)


def _is_messages(prompt: object) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(one, dict) and all(isinstance(one.get(k), str) for k in ("role", "content"))
            for one in prompt
        )
    )


def _is_ids(prompt: object) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(type(one) is int for one in prompt)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
