"""The options of GenerationConfig on a command line."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastdllm._core import Error, GenerationConfig


def integer(text: str) -> int:
    """Parse an integer that C++ can take, for argparse."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is out of range")
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


CHOICES = {
    "cache": ("auto", "none", "prefix", "dual"),
    "remasking": ("low_confidence", "random", "margin", "entropy", "sequential", "origin"),
    "stop_at": ("token", "block"),
}
FLOATS = {"eps", "threshold", "factor", "frechet", "entropy_bound", "editing_threshold"}
LISTS = {"logit_bias": _bias, "banned_token_ids": integer, "stop_token_ids": integer}


def expected_value(name: str) -> str:
    """Return what a field of GenerationConfig takes, in words."""
    default = GenerationConfig().to_dict()[name]
    if name in CHOICES:
        return f"one of {', '.join(CHOICES[name])}"
    if name in LISTS:
        such = '{"12": -1.5}' if name == "logit_bias" else "[1, 2]"
        return f"token ids, such as {such}, or none"
    if isinstance(default, bool):
        return "true or false"
    kind = "a number" if isinstance(default, float) or name in FLOATS else "an integer"
    return f"{kind} or none" if default is None else kind


def add_config(command: argparse.ArgumentParser) -> None:
    """Add an option per field of GenerationConfig, with its name and default."""
    defaults = GenerationConfig().to_dict()
    notes = {
        "block_length": "default: the package's, or 32",
        "sub_block_length": "default: the package's, or the block",
        "steps": "passes over the whole generation",
        "threshold": "default 0.9 unless a schedule or another rule is given",
        "logit_bias": "such as 12=-1.5,7=2; may come again",
        "banned_token_ids": "such as 1,2; may come again",
        "stop_token_ids": "default: the package's end-of-text ids; may come again",
    }
    for name, default in defaults.items():
        options: dict[str, Any] = {"default": default, "help": notes.get(name)}
        if name in CHOICES:
            options["choices"] = CHOICES[name]
        elif isinstance(default, bool):
            options["action"] = "store_true"
        elif name in LISTS:
            options |= {"action": _Items, "nargs": "*", "const": LISTS[name], "metavar": "ITEM"}
        elif isinstance(default, float) or name in FLOATS:
            options["type"] = float
        else:
            options["type"] = int if name == "seed" else integer
        command.add_argument(f"--{name.replace('_', '-')}", **options)


def config_of(options: argparse.Namespace) -> GenerationConfig:
    """Return the config of parsed options: threshold 0.9 unless they name a rule or a schedule."""
    from fastdllm.llm import config_with

    return config_with(**{name: getattr(options, name) for name in GenerationConfig().to_dict()})


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
