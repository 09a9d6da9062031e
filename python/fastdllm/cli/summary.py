"""What a package has and where it is from: the end of an export, and `fastdllm info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdllm.check import describe_chat_format

_SAID = ("mask_token_id", "eos_token_ids", "bos_token_id", "pad_token_id")


def summary(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return a line per part of a package's text and tokens, from its fastdllm.json."""
    entry = metadata.get("tokenizer") or {}
    sources = metadata.get("sources") or {}
    lines = {
        "tokenizer": _from(sources, "tokenizer", "yes") if entry else "no: token ids only",
        "chat template": _from(sources, "chat_template", "yes")
        if entry.get("chat_template")
        else "no: a prompt is text as it stands"
        if entry
        else "no",
        "chat format": describe_chat_format(entry),
    }
    for key in _SAID:
        value = metadata["model"].get(key)
        if key == "eos_token_ids" and not value:
            lines[key] = "none: an answer goes on to its last token"
        elif value is not None:
            lines[key] = _from(sources, key, str(value))
    for number, text in enumerate(metadata.get("warnings") or (), 1):
        lines[f"warning {number}"] = text
    return lines


def _from(sources: Mapping[str, str], key: str, value: str) -> str:
    return f"{value} ({sources[key]})" if key in sources else value
