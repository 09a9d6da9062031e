"""`fastdllm models`: the released checkpoints of the known families."""

from __future__ import annotations

import argparse
from typing import Any

from fastdllm.cli.common import print_json

PRECISIONS = ("fp16", "int8", "int4")
CONTEXT = 4096


def add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that lists released checkpoints."""
    command = commands.add_parser("models", help="list the released checkpoints, and their sizes")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_models)


def models_table() -> list[dict[str, Any]]:
    """Return a row of facts for each released checkpoint.

    adapter: None where no adapter reads its config.json; nothing is computed then. memory_bytes:
    of the weights, and the keys and values of a context of 4096 tokens (or the model's own).
    """
    from fastdllm.export.adapters import adapter_for
    from fastdllm.export.errors import ExportError
    from fastdllm.hub.released import RELEASED
    from fastdllm.hub.sizes import cache_bytes, count_weights, weight_bytes

    table = []
    for model in RELEASED:
        row: dict[str, Any] = {
            "name": model.repository,
            "family": model.family,
            "adapter": None,
            "weights": None,
            "context": None,
            "block_length": model.block_length,
            "stop_ids": list(model.stop_ids),
            "tokenizer": model.tokenizer,
            "memory_bytes": None,
            "source": model.source,
            "is_certain": model.is_certain,
        }
        try:
            adapter = adapter_for(model.full_config)
            spec = adapter.spec(model.full_config)
        except ExportError:
            table.append(row)
            continue
        context = min(CONTEXT, spec.max_context_length)
        row["adapter"] = adapter.family
        row["weights"] = count_weights(spec)
        row["context"] = spec.max_context_length
        row["memory_bytes"] = {
            precision: weight_bytes(spec, precision) + cache_bytes(spec, precision, context)
            for precision in PRECISIONS
        }
        table.append(row)
    return table


def table_lines() -> list[str]:
    """Return the table as Markdown, which is also what a terminal shows."""
    heads = ["name", "adapter", "weights", "context", "block", "stop ids", "tokenizer"]
    heads += [f"{precision}, GB" for precision in PRECISIONS]
    rows = [heads, ["---"] * len(heads)]
    for row in models_table():
        memory = row["memory_bytes"]
        rows.append(
            [
                row["name"] + ("" if row["is_certain"] else " *"),
                row["adapter"] or "none yet",
                f"{row['weights'] / 1e9:.1f} B" if row["weights"] else "?",
                str(row["context"] or "?"),
                str(row["block_length"] or "-"),
                ", ".join(map(str, row["stop_ids"])),
                row["tokenizer"],
                *(f"{memory[name] / 1e9:.1f}" if memory else "?" for name in PRECISIONS),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]


def _models(options: argparse.Namespace) -> int:
    if options.json:
        print_json({"models": models_table()})
        return 0
    print("\n".join(table_lines()))
    print("GB: weights, keys and values of 4096 tokens. * its own config.json was not read here.")
    return 0
