"""Limits for chat templates: the cost of each operation is checked before it is done."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinMethodType
from typing import Any

from jinja2 import Undefined
from jinja2.utils import Namespace

MAX_VALUE = 2**24  # bytes of one value, with all that it holds
MAX_BYTES = 2**28  # of all values that a rendering makes
MAX_SECONDS = 2.0  # of the processor, of a rendering
_MAX_BITS = 2**12  # of a number
_MAX_WIDTH = 2**16
_DEEPEST = 64
_STEPS = 64  # between two looks at the time, which are not cheap
_NODE = 64  # bytes that count for what is no text

# fmt: off
_STR = frozenset({
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle",
    "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "zfill",
})
# fmt: on
_METHODS = {
    bool: frozenset[str](),
    int: frozenset({"bit_length"}),
    float: frozenset({"is_integer"}),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    range: frozenset({"count", "index"}),
}
# fmt: off
_OF_TEXT = frozenset({
    "capitalize", "center", "e", "escape", "indent", "lower", "replace", "safe", "string", "title",
    "trim", "truncate", "upper", "urlencode", "wordcount",
})
# fmt: on


class LimitError(Exception):
    """A template went beyond a limit."""


class Budget:
    """The time and bytes that a rendering has left."""

    def __init__(self, given: int) -> None:
        self.most = MAX_VALUE + 4 * given
        self._left = MAX_BYTES + 16 * given
        self._steps = 0
        self._end = time.thread_time() + MAX_SECONDS
        self._measured: dict[int, tuple[Any, int, int]] = {}  # values are held: ids stay theirs

    def spend(self, size: int = 0) -> None:
        """Count what was made, and look at the time."""
        self._left -= size
        if self._left < 0:
            raise LimitError(f"it makes more than {MAX_BYTES >> 20} MiB of values")
        self._steps += 1 + (size >> 16)
        if self._steps < _STEPS:
            return
        self._steps = 0
        if time.thread_time() > self._end:
            raise LimitError(f"it takes more than {MAX_SECONDS:g} seconds")

    def require(self, size: int) -> None:
        """Refuse a value of that many bytes before it is made."""
        if size > self.most:
            raise LimitError(f"it makes a value of more than {self.most >> 20} MiB")

    def measure(self, value: Any) -> int:
        """Return the bytes of a value with all that it holds, as often as it holds it."""
        return self._weigh(value, 0)[0]

    def _weigh(self, value: Any, depth: int) -> tuple[int, int]:
        if isinstance(value, str):
            return sys.getsizeof(value), 0
        if isinstance(value, int):
            require_small(value)
            return _NODE, 0
        if isinstance(value, Namespace):
            raise LimitError("it holds a namespace in a value, or writes it")
        if not isinstance(value, (list, tuple, dict, *_VIEWS)):
            return _NODE, 0
        known = self._measured.get(id(value))
        if known is not None:
            return known[1], known[2]
        if depth > _DEEPEST:
            raise LimitError(f"it nests values more than {_DEEPEST} deep")
        total, deepest = _NODE, 0
        for item in _items(value):
            size, below = self._weigh(item, depth + 1)
            total += size + 8
            deepest = max(deepest, below)
            self.require(total)
        if deepest >= _DEEPEST:
            raise LimitError(f"it nests values more than {_DEEPEST} deep")
        self.spend()
        self._measured[id(value)] = (value, total, deepest + 1)
        return total, deepest + 1

    def text(self, value: Any) -> str:
        """Return a value as text."""
        if isinstance(value, (str, Undefined)):
            return str(value)
        self.require(4 * self.measure(value))  # "\\x00" is written with four
        return str(value)


_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    else:
        yield from value


def require_small(value: int) -> None:
    """Refuse a number of very many digits."""
    if value.bit_length() > _MAX_BITS:
        raise LimitError(f"it makes a number of more than {_MAX_BITS} bits")


def made(result: Any) -> int:
    """Return the bytes of what was made, without what it holds, which was there before."""
    if isinstance(result, (str, list, tuple, dict, bytes)):
        return sys.getsizeof(result)
    if isinstance(result, int):
        require_small(result)
    return 0


def plain(text: str) -> int:
    """Return the bytes of a text's characters."""
    return len(text) * (1 if text.isascii() else 4)


def escapes(value: Any) -> bool:
    """Tell whether what is added to a text gets written as HTML has it."""
    return hasattr(value, "__html__")


def widening(texts: Sequence[str]) -> int:
    """Return how many times more bytes texts may take together: one wide character widens all."""
    return 1 if all(text.isascii() for text in texts) else 4


def check_power(base: Any, exponent: Any) -> None:
    """Refuse a power of very many digits."""
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent > 0
    if whole and base.bit_length() * exponent > _MAX_BITS:
        raise LimitError(f"it makes a number of more than {_MAX_BITS} bits")


def check_format(budget: Budget, form: str, values: Sequence[Any]) -> None:
    """Refuse a format that makes a few characters many."""
    if any(int(digits[:12]) > 999 for digits in re.findall(r"[0-9]{1,12}", form)):
        raise LimitError("it formats with a number of more than 999")
    if "*" in form or re.search(r"\{[^{}]*[:!][^{}]*\{", form):
        raise LimitError("it formats with a width that is a value")
    largest = max((budget.measure(value) for value in values), default=0)
    fields = form.count("%") + form.count("{")
    budget.require(4 * len(form) + fields * (6 * largest + 4000))


def check_replace(budget: Budget, text: str, args: Sequence[Any]) -> None:
    """Refuse a replacement that makes a text very long."""
    old, new = (budget.text(value) for value in (*args[:2], "", "")[:2])
    found = text.count(old) if old else len(text) + 1
    size = len(text) + found * len(new)
    budget.require(size * (1 if (text + new).isascii() else 4) * (6 if escapes(text) else 1))


def _joined(budget: Budget, values: Any, between: str) -> list[Any]:
    """Return what is to be joined, if it may be."""
    found = []
    size = 0
    wide = 1 if between.isascii() else 4
    for value in values:
        found.append(value)
        if isinstance(value, str):
            size += len(value) * (1 if value.isascii() else 4)
        else:
            size += 4 * budget.measure(value)
        size += wide * len(between)
        budget.require(6 * size if escapes(between) else size)
    return found


def check_numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse widths and counts beyond any use."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > _MAX_WIDTH:
            raise LimitError(f"it asks for a width or count of more than {_MAX_WIDTH}")


def check_method(
    budget: Budget, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return a method's arguments. Errors: LimitError."""
    owner, name = method.__self__, method.__name__
    if isinstance(owner, str):
        if name not in _STR:
            raise LimitError(f"it uses the method {name} of texts, which no chat template needs")
        if name == "format":
            check_format(budget, owner, (*args, *kwargs.values()))
        elif name == "replace":
            check_replace(budget, owner, (*args, *kwargs.values()))
        elif name == "join" and args:
            args = (_joined(budget, args[0], owner), *args[1:])
        elif name in ("center", "ljust", "rjust", "zfill"):
            check_numbers(args, kwargs)
    elif isinstance(method, BuiltinMethodType):
        names = _METHODS.get(type(owner), frozenset())
        if name not in names:
            raise LimitError(f"it uses the method {name}, which no chat template needs")
    return args


def check_filter(
    budget: Budget, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return a filter's arguments. Errors: LimitError."""
    if not args:
        return args
    check_numbers(args[1:], kwargs)
    value, more = args[0], (*args[1:], *kwargs.values())
    if name in _OF_TEXT and not isinstance(value, str):
        budget.require(4 * budget.measure(value))
    if name == "tojson":
        indent = next((one for one in more if isinstance(one, int)), 0)
        budget.require(6 * (1 + max(indent, 0)) * budget.measure(value))
    elif name == "format":
        check_format(budget, budget.text(value), more)
    elif name == "replace":
        check_replace(budget, budget.text(value), more)
    elif name == "indent":
        width = max((len(one) if isinstance(one, str) else int(one) for one in more), default=4)
        text = budget.text(value)
        budget.require(4 * (len(text) + (1 + len(text.splitlines())) * width))
    elif name == "join":
        args = (_joined(budget, value, budget.text(next(iter(more), ""))), *args[1:])
    elif name == "sum" and any(isinstance(one, (list, tuple, str)) and one == [] for one in more):
        raise LimitError("it sums up lists, which no chat template needs")
    elif name in ("int", "float") and isinstance(value, str) and len(value) > 4096:
        raise LimitError("it reads a number of more than 4096 digits")
    elif isinstance(value, str) and name in ("list", "sort", "unique", "groupby"):
        budget.require(_NODE * len(value))
    return args
