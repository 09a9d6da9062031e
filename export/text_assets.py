"""Tokenizer and chat template of a checkpoint, checked, with probes for the target machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastdllm.export.chat_format import derive_chat_format
from fastdllm.export.checkpoint import read_json
from fastdllm.export.errors import CheckpointError
from fastdllm.text import ChatTemplate, TemplateLimitError, TextError

PROBE_TEXTS = (
    "",
    " ",
    "Hello, world!",
    "Tom has 12 boxes of 345 apples.\n#### 4140",
    "def f(x):\n    return x**2  # tab:\t!",
    "naïve café Ångström — “quotes”…",
    "Привет, мир. Γειά σου κόσμε.",  # noqa: RUF001 - Greek on purpose
    "你好,世界。こんにちは。안녕하세요.",
    "مرحبا بالعالم שלום",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 e\u0301",
    "<|endoftext|> <|mdm_mask|><|nothing|>",
    "line\r\nend\u0000\u200b",
)
PROBE_CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": " Hello! "}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3 more?"},
    ],
    [{"role": "user", "content": "\n\u00a0Grüße\u3000\t<|endoftext|> \r\n"}],
    [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "<think>\nGreet.\n</think>\n\nHello."},
        {"role": "user", "content": "你好 🙂"},
    ],
    [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}],
)


@dataclass(frozen=True, kw_only=True)
class TextAssets:
    """Files to write by name, the package's `tokenizer` entry, and probes."""

    files: dict[str, str] = field(default_factory=dict)
    entry: dict[str, Any] | None = None
    probes: dict[str, Any] = field(default_factory=dict)
    mask_token: str | None = None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # bytes: line ends stay as they are
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path}: not readable as text: {problem}") from None


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens that tokenizer_config.json names, by role."""
    found = {}
    for role in ("bos_token", "eos_token", "pad_token", "mask_token"):
        value = config.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[role] = text
    return found


def chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the chat template: chat_template.jinja, else tokenizer_config.json's."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return _read(file)
    value = config.get("chat_template")
    if isinstance(value, list):  # named templates
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise CheckpointError("tokenizer_config.json: chat_template is neither text nor a list")
    return value


def read_text_assets(folder: Path, vocab_size: int) -> TextAssets:
    """Read tokenizer.json and the chat template; a checkpoint without a tokenizer has no text.

    Errors: CheckpointError for a tokenizer that does not load, has ids outside the vocabulary, or a
    template that does not render.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return TextAssets()
    text = _read(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as problem:
        raise CheckpointError(f"{path}: not a usable tokenizer: {problem}") from None
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocab_size:
        raise CheckpointError(
            f"{path}: holds id {largest}; the model's vocabulary is [0, {vocab_size})"
        )
    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    specials = special_tokens(config)
    files = {"tokenizer.json": text}
    probes: dict[str, Any] = {
        "tokenizer": [
            {"text": probe, "token_ids": tokenizer.encode(probe, add_special_tokens=False).ids}
            for probe in PROBE_TEXTS
        ]
    }
    source = chat_template(folder, config)
    if source is not None:
        try:
            template = ChatTemplate(source, specials)
            probes["chat"] = [
                {"messages": messages, "text": template.render(messages)}
                for number, messages in enumerate(PROBE_CHATS)
                if _renders(template, messages, needed=number == 0)
            ]
        except TextError as problem:
            raise CheckpointError(f"{folder}: chat template: {problem}") from None
        files["chat_template.jinja"] = source
    entry: dict[str, Any] = {
        "file": "tokenizer.json",
        "chat_template": "chat_template.jinja" if source is not None else None,
        "special_tokens": specials,
        "chat_format": None,
    }
    if source is not None:
        try:
            entry["chat_format"], reason = derive_chat_format(source, specials)
        except TextError as problem:
            raise CheckpointError(f"{folder}: chat template: {problem}") from None
        if reason is not None:
            entry["chat_format_reason"] = reason
    return TextAssets(
        files=files, entry=entry, probes=probes, mask_token=specials.get("mask_token")
    )


def _renders(template: ChatTemplate, messages: list[dict[str, str]], *, needed: bool) -> bool:
    """Tell whether the template takes the messages: some refuse a system role on purpose."""
    try:
        template.render(messages)
    except TemplateLimitError:
        raise
    except TextError:
        if needed:
            raise
        return False
    return True


def mask_id_from_tokenizer(assets: TextAssets, usual: str | None) -> int | None:
    """Look the mask token up in the tokenizer, for a config.json that does not name it.

    usual: the family's text of it, where the tokenizer's config does not say.
    """
    token = assets.mask_token or usual
    if token is None or "tokenizer.json" not in assets.files:
        return None
    found: int | None = Tokenizer.from_str(assets.files["tokenizer.json"]).token_to_id(token)
    return found


def to_json(content: object) -> str:
    """Dump JSON the way the package's files are written."""
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"
