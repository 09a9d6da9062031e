"""What a checkpoint folder says beside its weights, each fact with the file that says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdllm.export.errors import CheckpointError

ROLES = (
    "bos_token",
    "eos_token",
    "pad_token",
    "mask_token",
    "unk_token",
    "sep_token",
    "cls_token",
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Errors: CheckpointError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(f"{path}: not readable as JSON: {problem}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content


def read_text(path: Path) -> str:
    """Read a file as UTF-8, line ends as they are. Errors: CheckpointError naming the file."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path}: not readable as text: {problem}") from None


@dataclass(frozen=True, kw_only=True)
class DeclaredToken:
    """A token that tokenizer_config.json or added_tokens.json adds to the vocabulary."""

    content: str
    id: int
    source: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True, kw_only=True)
class Published:
    """The files beside config.json and the weights; an absent file says nothing.

    special_tokens: text by role, sources: the file that says it, by the same names. template: of
    the chat. warnings: where two files say different things.
    """

    folder: Path
    generation: dict[str, Any]
    tokenizer_config: dict[str, Any]
    special_tokens: dict[str, str]
    sources: dict[str, str]
    declared: list[DeclaredToken]
    template: str | None
    warnings: list[str] = field(default_factory=list)


def read_published(folder: Path) -> Published:
    """Read generation_config.json, the tokenizer's small files and the chat template.

    Errors: CheckpointError naming the file.
    """
    warnings: list[str] = []
    config = _optional(folder / "tokenizer_config.json")
    special_map = _optional(folder / "special_tokens_map.json")
    specials, sources = _special_tokens(config, special_map, warnings)
    special_texts = set(specials.values()) | _listed(config) | _listed(special_map)
    template, source = _template(folder, config, warnings)
    if source is not None:
        sources["chat_template"] = source
    return Published(
        folder=folder,
        generation=_optional(folder / "generation_config.json"),
        tokenizer_config=config,
        special_tokens=specials,
        sources=sources,
        declared=_declared(folder, config, special_texts, warnings),
        template=template,
        warnings=warnings,
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _text_of(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


def _listed(config: Mapping[str, Any]) -> set[str]:
    """Return the special tokens that have no role of their own."""
    listed = config.get("additional_special_tokens") or []
    extra = config.get("extra_special_tokens") or {}
    values = [*(listed if isinstance(listed, list) else [])]
    values += extra.values() if isinstance(extra, dict) else extra
    return {text for value in values if (text := _text_of(value)) is not None}


def _special_tokens(
    config: Mapping[str, Any], special_map: Mapping[str, Any], warnings: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return texts by role, and the file of each; tokenizer_config.json comes first."""
    extra = config.get("extra_special_tokens")
    extra = extra if isinstance(extra, dict) else {}
    found: dict[str, str] = {}
    sources: dict[str, str] = {}
    for role in (*ROLES, *extra):
        said = {
            "tokenizer_config.json": _text_of(config.get(role, extra.get(role))),
            "special_tokens_map.json": _text_of(special_map.get(role)),
        }
        for source, text in said.items():
            if text is None:
                continue
            if role not in found:
                found[role], sources[role] = text, source
            elif found[role] != text:
                warnings.append(
                    f"{role} is {found[role]!r} in {sources[role]} and {text!r} in {source}; "
                    f"{sources[role]} is followed"
                )
    return found, sources


def _declared(
    folder: Path, config: Mapping[str, Any], special: set[str], warnings: list[str]
) -> list[DeclaredToken]:
    """Return the declared tokens by id; tokenizer_config.json's flags come first."""
    tokens: dict[str, DeclaredToken] = {}
    decoder = config.get("added_tokens_decoder") or {}
    where = "tokenizer_config.json"
    if not isinstance(decoder, dict):
        raise CheckpointError(f"{folder / where}: added_tokens_decoder is no object")
    for key, value in decoder.items():
        content = _text_of(value)
        if not content or not str(key).isdecimal():
            raise CheckpointError(
                f"{folder / where}: added_tokens_decoder has {key!r}: {value!r}; expected an id "
                "and a token"
            )
        flags = value if isinstance(value, dict) else {}
        names = ("special", "single_word", "lstrip", "rstrip", "normalized")
        tokens[content] = DeclaredToken(
            content=content,
            id=int(key),
            source=where,
            **{name: bool(flags.get(name, False)) for name in names},
        )
    where = "added_tokens.json"
    for content, token_id in _optional(folder / where).items():
        if not content or isinstance(token_id, bool) or not isinstance(token_id, int):
            raise CheckpointError(
                f"{folder / where}: {content!r} is {token_id!r}; expected a token and its id"
            )
        known = tokens.get(content)
        if known is None:
            is_special = content in special
            tokens[content] = DeclaredToken(
                content=content,
                id=token_id,
                source=where,
                special=is_special,
                normalized=not is_special,
            )
        elif known.id != token_id:
            warnings.append(
                f"{content!r} is {known.id} in {known.source} and {token_id} in {where}; "
                f"{known.source} is followed"
            )
    return sorted(tokens.values(), key=lambda token: token.id)


def _template(
    folder: Path, config: Mapping[str, Any], warnings: list[str]
) -> tuple[str | None, str | None]:
    """Return the chat template and its file: the .jinja, then the config's, then the .json's."""
    found: dict[str, str] = {}
    if (folder / "chat_template.jinja").exists():
        found["chat_template.jinja"] = read_text(folder / "chat_template.jinja")
    for name, content in (
        ("tokenizer_config.json", config),
        ("chat_template.json", _optional(folder / "chat_template.json")),
    ):
        text = _named_template(name, content.get("chat_template"))
        if text is not None:
            found[name] = text
    if not found:
        return None, None
    source, text = next(iter(found.items()))
    for other, its in found.items():
        if its != text:
            warnings.append(
                f"the chat template in {source} differs from {other}'s; {source} is followed"
            )
    return text, source


def _named_template(name: str, value: Any) -> str | None:
    if isinstance(value, list):  # named templates
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default", next(iter(named.values())) if len(named) == 1 else None)
        if value is None and named:
            raise CheckpointError(
                f"{name}: chat_template has {', '.join(map(repr, named))} and no 'default'; put "
                "the one to use into chat_template.jinja"
            )
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{name}: chat_template is neither text nor a list")
    return value
