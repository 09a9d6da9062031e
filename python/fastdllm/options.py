"""The options of generations, sessions and engines, by name: the runtime's table of them.

>>> OPTIONS["threshold"].range
'in (0, 1]'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec

from fastdllm import _core

OPTIONS: Mapping[str, _core.Option] = MappingProxyType(
    {row.name: row for row in _core.option_table()}
)
GENERATION_OPTIONS = MappingProxyType(
    {name: row for name, row in OPTIONS.items() if row.group == "generation"}
)
# What an engine is opened with.
ENGINE_OPTIONS = MappingProxyType(
    {name: row for name, row in OPTIONS.items() if row.group != "generation"}
)

_P = ParamSpec("_P")


def _engine_signature() -> inspect.Signature:
    kinds = inspect.Parameter
    return inspect.Signature(
        [
            kinds("self", kinds.POSITIONAL_OR_KEYWORD),
            kinds("package_dir", kinds.POSITIONAL_OR_KEYWORD, annotation="str | os.PathLike[str]"),
            *(
                kinds(name, kinds.KEYWORD_ONLY, default=row.default, annotation=row.annotation)
                for name, row in ENGINE_OPTIONS.items()
            ),
        ],
        return_annotation=None,
    )


def _with_parameters_of(
    init: Callable[Concatenate[Any, _P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, _P], None]]:
    def keep(method: Callable[..., None]) -> Callable[Concatenate[Any, _P], None]:
        method.__signature__ = _engine_signature()  # type: ignore[attr-defined]
        return method

    return keep


# Of a constructor that takes a package and **options for an engine: editors, type checkers and
# help() see every option with its type.
takes_engine_options = _with_parameters_of(_core.Engine.__init__)
