"""Tokenizer and chat template of a checkpoint, checked, with probes for the target machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastdllm.export.bpe_files import (
    add_tokens,
    describe_form,
    has_bpe_files,
    tokenizer_from_bpe_files,
)
from fastdllm.export.chat_format import derive_chat_format, derive_variants
from fastdllm.export.errors import CheckpointError
from fastdllm.export.published import Published, read_published, read_text
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
    """Files to write by name, the package's `tokenizer` entry, and probes.

    sources: the file that says a fact. end_of_turn: the token that ends an answer in the chat
    template. missing: why there is no tokenizer. warnings: where files say different things.
    """

    files: dict[str, str] = field(default_factory=dict)
    entry: dict[str, Any] | None = None
    probes: dict[str, Any] = field(default_factory=dict)
    mask_token: str | None = None
    tokenizer: Tokenizer | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    end_of_turn: str | None = None
    missing: str | None = None
    warnings: list[str] = field(default_factory=list)


def read_text_assets(
    folder: Path,
    vocab_size: int,
    *,
    text: bool = True,
    chat: bool = True,
    bpe_kind: str | None = None,
) -> TextAssets:
    """Read the tokenizer and the chat template, from whatever files the checkpoint has them in.

    text, chat: False leaves them out. bpe_kind: see tokenizer_from_bpe_files(). Errors:
    CheckpointError for a tokenizer that does not load, has ids outside the vocabulary, or a
    template that does not render.
    """
    published = read_published(folder)
    facts: dict[str, Any] = {
        "generation": published.generation,
        "special_tokens": published.special_tokens,
        "sources": dict(published.sources),
        "warnings": list(published.warnings),
        "mask_token": published.special_tokens.get("mask_token"),
    }
    if not text:
        return TextAssets(**facts)
    tokenizer, content = _tokenizer(published, facts, bpe_kind)
    if tokenizer is None:
        return TextAssets(**facts)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocab_size:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: holds id {largest}; the model's vocabulary is "
            f"[0, {vocab_size})"
        )
    files = {"tokenizer.json": content}
    probes: dict[str, Any] = {
        "tokenizer": [
            {"text": probe, "token_ids": tokenizer.encode(probe, add_special_tokens=False).ids}
            for probe in PROBE_TEXTS
        ]
    }
    entry: dict[str, Any] = {
        "file": "tokenizer.json",
        "chat_template": None,
        "special_tokens": published.special_tokens,
        "chat_format": None,
    }
    source = published.template if chat else None
    if source is not None:
        files["chat_template.jinja"] = source
        entry["chat_template"] = "chat_template.jinja"
        try:
            template = ChatTemplate(source, published.special_tokens)
            facts["end_of_turn"] = _end_of_turn(template, tokenizer)
            probes["chat"] = [
                {"messages": messages, "text": template.render(messages)}
                for number, messages in enumerate(PROBE_CHATS)
                if _renders(template, messages, needed=number == 0)
            ]
            form, reason = derive_chat_format(source, published.special_tokens)
            variants = derive_variants(source, published.special_tokens) if form else []
        except TextError as problem:
            raise CheckpointError(f"{folder}: chat template: {problem}") from None
        entry["chat_format"] = form
        entry["chat_format_variants"] = variants
        if reason is not None:
            entry["chat_format_reason"] = reason
    return TextAssets(files=files, entry=entry, probes=probes, tokenizer=tokenizer, **facts)


def _tokenizer(
    published: Published, facts: dict[str, Any], bpe_kind: str | None
) -> tuple[Tokenizer | None, str]:
    """Return the tokenizer and its file's text; what is said of it goes into `facts`."""
    folder = published.folder
    path = folder / "tokenizer.json"
    if path.exists():
        content = read_text(path)
        try:
            tokenizer = Tokenizer.from_str(content)
        except Exception as problem:
            raise CheckpointError(f"{path}: not a usable tokenizer: {problem}") from None
        facts["sources"]["tokenizer"] = path.name
        lacking = [t for t in published.declared if tokenizer.token_to_id(t.content) is None]
        refused = add_tokens(tokenizer, lacking)
        for token in published.declared:
            found = tokenizer.token_to_id(token.content)
            if token in refused or found != token.id:
                facts["warnings"].append(
                    f"{token.source} gives {token.content!r} the id {token.id}; tokenizer.json "
                    f"{'cannot' if found is None else f'gives it {found}'} and is followed"
                )
        if len(refused) < len(lacking):
            content = tokenizer.to_str(pretty=False)
            facts["sources"]["tokenizer"] += " and the tokens that others add to it"
        return tokenizer, content
    if has_bpe_files(folder):
        tokenizer = tokenizer_from_bpe_files(published, bpe_kind)
        facts["sources"]["tokenizer"] = "vocab.json and merges.txt"
        return tokenizer, tokenizer.to_str(pretty=False)
    facts["missing"] = "there is no tokenizer.json, and no vocab.json with merges.txt"
    if (other := describe_form(folder)) is not None:
        facts["missing"] += f"; {other} is of a form that is not read"
    return None, ""


def _end_of_turn(template: ChatTemplate, tokenizer: Tokenizer) -> str | None:
    """Return the special token that stands right behind an answer, if one does."""
    messages = [
        {"role": role, "content": f"\u2983{role}\u2984"} for role in ("user", "assistant", "user")
    ]
    try:
        text = template.render(messages)
    except TemplateLimitError:
        raise
    except TextError:
        return None
    behind = text.partition("\u2983assistant\u2984")[2].lstrip()
    special = [
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    ]
    return max((token for token in special if behind.startswith(token)), key=len, default=None)


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


def mask_id_from_tokenizer(assets: TextAssets, usual: str | Sequence[str] | None) -> int | None:
    """Look the mask token up in the tokenizer, for a config.json that does not name it.

    usual: the family's texts of it, where the tokenizer's config does not say.
    """
    if assets.tokenizer is None:
        return None
    names = [usual] if isinstance(usual, str) else [*(usual or ())]
    for token in (assets.mask_token, *names):
        found: int | None = None if token is None else assets.tokenizer.token_to_id(token)
        if found is not None:
            return found
    return None


def to_json(content: object) -> str:
    """Dump JSON the way the package's files are written."""
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"
