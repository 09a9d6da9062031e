"""The runtime's options on a command line."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fastdllm._core import Error, GenerationConfig, Option
from fastdllm.options import ENGINE_OPTIONS, GENERATION_OPTIONS, OPTIONS


def integer(text: str) -> int:
    """Parse an integer that C++ can take, for argparse."""
    try:
        return _int64(text)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} is out of range") from None


def _int64(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise OverflowError(text)
    return value


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    return integer(token), float(bias)


class _Items(argparse.Action):
    """Items in one word or several, with commas or without; `const` parses one.

    The option may come again: its items are added to those before.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add them: a dict where the option's default is one, else a list."""
        try:
            items = [self.const(item) for word in values for item in word.split(",") if item]
        except (ValueError, argparse.ArgumentTypeError) as problem:
            raise argparse.ArgumentError(self, str(problem)) from None
        before = getattr(namespace, self.dest)
        both = {**before, **dict(items)} if isinstance(before, dict) else [*(before or ()), *items]
        setattr(namespace, self.dest, both)


LISTS = frozenset(name for name, row in OPTIONS.items() if row.type in ("ids", "biases"))


def expected_value(name: str) -> str:
    """Return what an option takes, in words: "a number in (0, 1], or none"."""
    row = OPTIONS[name]
    words = {
        "integer": "an integer",
        "number": "a number",
        "flag": "true or false",
        "choice": f"one of {', '.join(row.choices)}",
        "ids": "token ids, such as [1, 2]",
        "biases": 'token ids and numbers, such as {"12": -1.5}',
    }.get(row.type, f"a {row.type}")
    in_range = f" {row.range}" if row.range and row.type in ("integer", "number") else ""
    return f"{words}{in_range}, or none" if row.optional or name in LISTS else words + in_range


def add_config(command: argparse.ArgumentParser) -> None:
    """Add an option per field of GenerationConfig, with its name and default."""
    for row in GENERATION_OPTIONS.values():
        _add_option(command, row, row.default)


def add_engine_options(command: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add an option per keyword of Engine. defaults: of this command, where they are its own."""
    for name, row in ENGINE_OPTIONS.items():
        _add_option(command, row, defaults.get(name, row.default))


def engine_options_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return Engine's keywords of parsed options."""
    return {name: getattr(options, name) for name in ENGINE_OPTIONS}


def _add_option(command: argparse.ArgumentParser, row: Option, default: Any) -> None:
    given: dict[str, Any] = {"default": default}
    note = row.help
    if row.type in ("ids", "biases"):
        item = _bias if row.type == "biases" else integer
        given |= {"action": _Items, "nargs": "*", "const": item, "metavar": "ITEM"}
        note += f", such as {'12=-1.5,7=2' if row.type == 'biases' else '1,2'}; may come again"
    elif row.type == "flag" and default is False:
        given["action"] = "store_true"
    elif row.type == "choice":
        given["choices"] = row.choices
    else:
        given |= {"type": _reader(row), "metavar": _METAVARS[row.type]}
    if default not in (None, False, [], {}):
        shown = str(default).lower() if isinstance(default, bool) else default
        note += f"; default {shown}"
    given["help"] = note.replace("%", "%%")
    command.add_argument(f"--{row.name.replace('_', '-')}", **given)


_METAVARS = {
    "integer": "N",
    "number": "X",
    "flag": "{true,false}",
    "text": "NAME",
    "path": "PATH",
}
_FLAGS = {"true": True, "false": False}


def _reader(row: Option) -> Callable[[str], Any]:
    """Return what reads an option's word. Ranges of a generation are for GenerationConfig."""

    def read(text: str) -> Any:
        if row.optional and text == "none":
            return None
        try:
            value = _value(row, text)
        except (ValueError, KeyError, OverflowError):
            value = None
        checked = row.group != "generation" and row.type == "integer"
        if value is None or (checked and not _is_within(row, value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected_value(row.name)}")
        return value

    return read


def _value(row: Option, text: str) -> Any:
    if row.type == "integer":
        return int(text) if row.maximum is not None and row.maximum >= 2**63 else _int64(text)
    if row.type == "number":
        return float(text)
    return _FLAGS[text] if row.type == "flag" else text


def _is_within(row: Option, value: int) -> bool:
    low, high = row.minimum, row.maximum
    return (low is None or value >= low) and (high is None or value <= high)


def config_of(options: argparse.Namespace) -> GenerationConfig:
    """Return the config of parsed options: threshold 0.9 unless they name a rule or a schedule."""
    from fastdllm.llm import config_with

    return config_with(**{name: getattr(options, name) for name in GENERATION_OPTIONS})


def add_text_options(command: argparse.ArgumentParser, *, variables: bool = True) -> None:
    """Add what the chat template and the messages' control tokens are taken for."""
    if variables:
        command.add_argument(
            "--chat-template-kwargs",
            type=_json_object,
            metavar="JSON",
            help="variables of the chat template: '{\"enable_thinking\": false}'",
        )
    command.add_argument(
        "--control-tokens",
        action="store_true",
        help="control tokens written in a message are control tokens; default: they are text",
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return found


def parse_words(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Parse a command line (None = the process's); of a wrong option, say what was meant."""
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [f"--{name.replace('_', '-')}" for name in vars(options)]
        message = f"unrecognized arguments: {' '.join(unknown)}"
        near = difflib.get_close_matches(unknown[0].split("=", 1)[0], known, 1)
        parser.error(f"{message}; did you mean {near[0]}?" if near else message)
    return options


def read_prompt(text: str) -> str:
    """Return a prompt as an option gives it; - is standard input's. Errors: Error."""
    if text == "-":
        if sys.stdin is None:
            raise Error("the prompt is to be read from standard input, which is closed")
        text = sys.stdin.read().rstrip("\n")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Error("the prompt is not valid UTF-8") from None
    return text
