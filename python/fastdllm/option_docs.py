"""The options in Markdown, from the runtime's table: python -m fastdllm.option_docs."""

from __future__ import annotations

import json

from fastdllm._core import Option
from fastdllm.options import OPTIONS

_GROUPS = {
    "generation": "Options of a generation",
    "session": "Options of a session: how a package is opened",
    "engine": "Options of an engine: what it may hold",
}


def option_tables() -> str:
    """Return a heading and a table for each group of options."""
    return "\n".join(
        f"## {title}\n\n{_table([row for row in OPTIONS.values() if row.group == group])}"
        for group, title in _GROUPS.items()
    )


def _table(rows: list[Option]) -> str:
    lines = ["| option | type | default | since | meaning |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row.name}`", _type(row), f"`{_default(row)}`", row.since, row.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(row: Option) -> str:
    words = ", ".join(f"`{name}`" for name in row.choices) or row.type
    if row.range:
        words += f" {row.range}"
    return f"{words}, or none" if row.optional else words


def _default(row: Option) -> str:
    if row.default is None:
        return "none"
    return row.default if isinstance(row.default, str) else json.dumps(row.default)


if __name__ == "__main__":
    print(option_tables(), end="")
