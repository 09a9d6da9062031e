"""Which tokens mask, begin and end a text, by all that the checkpoint says; and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from fastdllm.export.adapters import Adapter, ModelSpec, read_spec
from fastdllm.export.checkpoint import Checkpoint
from fastdllm.export.errors import CheckpointError
from fastdllm.export.text_assets import TextAssets, mask_id_from_tokenizer, read_text_assets

CONFIG, GENERATION = "config.json", "generation_config.json"
GIVEN = "the export's options"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user says of a checkpoint beside its files; see export_package()."""

    mask_token_id: int | None = None
    eos_token_ids: Sequence[int] | None = None
    text: bool = True
    chat: bool = True
    allow_no_eos: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a package states. sources: where a fact is from, for people. warnings: conflicts."""

    spec: ModelSpec
    text: TextAssets
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_facts(checkpoint: Checkpoint, adapter: Adapter, choices: Choices) -> Facts:
    """Read what the package will state. Errors: CheckpointError, also for what is missing."""
    config: dict[str, Any] = dict(checkpoint.config)
    vocab_size = _spec_without_tokens(adapter, config, choices).vocab_size
    text = read_text_assets(
        checkpoint.folder,
        vocab_size,
        text=choices.text,
        chat=choices.chat,
        bpe_kind=adapter.bpe_files,
    )
    _require_text(checkpoint, text, choices)
    sources = {key: text.sources[key] for key in ("tokenizer",) if key in text.sources}
    if text.entry is not None and text.entry["chat_template"] is not None:
        sources["chat_template"] = text.sources["chat_template"]
    warnings = list(text.warnings)
    _state_mask(config, text, adapter, choices, sources, warnings)
    for key in ("bos_token_id", "pad_token_id"):
        _state_token(config, key, text, sources)
    _state_stops(config, text, adapter, choices, vocab_size, sources, warnings)
    spec = adapter.spec(config)
    return Facts(spec=spec, text=text, sources=sources, warnings=warnings)


def _spec_without_tokens(
    adapter: Adapter, config: Mapping[str, Any], choices: Choices
) -> ModelSpec:
    """Read all else first: what config.json says wrong is said before what other files lack."""
    mask = config.get("mask_token_id") if choices.mask_token_id is None else choices.mask_token_id
    tokens = {"mask_token_id": 0 if mask is None else mask, "eos_token_id": None}
    return read_spec(adapter, {**config, **tokens})


def _require_text(checkpoint: Checkpoint, text: TextAssets, choices: Choices) -> None:
    folder = checkpoint.folder
    if choices.text and text.entry is None:
        raise CheckpointError(
            f"{folder}: {text.missing}; the package would take and give token ids only. Add the "
            "tokenizer's files, or ask for a package without text (--no-text, text=False)"
        )
    if choices.chat and text.entry is not None and text.entry["chat_template"] is None:
        raise CheckpointError(
            f"{folder}: there is no chat template in chat_template.jinja, tokenizer_config.json or "
            "chat_template.json; messages could not be taken, and a prompt would be text as it "
            "stands. Add the template, or ask for a package without chat (--no-chat, chat=False)"
        )


def _ids(name: str, key: str, value: Any, vocab_size: int) -> list[int]:
    """Return the ids that a file states: one, several or none."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for item in ids:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < vocab_size:
            raise CheckpointError(f"{name}: {key} is {value!r}; expected ids in [0, {vocab_size})")
    return ids


def _state_mask(
    config: dict[str, Any],
    text: TextAssets,
    adapter: Adapter,
    choices: Choices,
    sources: dict[str, str],
    warnings: list[str],
) -> None:
    said = {
        GIVEN: choices.mask_token_id,
        CONFIG: config.get("mask_token_id"),
        GENERATION: text.generation.get("mask_token_id"),
        text.sources.get("mask_token", "the tokenizer"): _id_of(text, "mask_token"),
    }
    said = {source: value for source, value in said.items() if value is not None}
    if not said:
        found = mask_id_from_tokenizer(text, adapter.mask_token)
        said = {} if found is None else {"the family's mask token in the tokenizer": found}
    if not said:
        return
    source, chosen = next(iter(said.items()))
    config["mask_token_id"], sources["mask_token_id"] = chosen, source
    for other, value in said.items():
        if source != GIVEN and value != chosen:
            warnings.append(
                f"the mask token is {chosen} by {source} and {value} by {other}; {source} is "
                "followed"
            )


def _state_token(
    config: dict[str, Any], key: str, text: TextAssets, sources: dict[str, str]
) -> None:
    """Look a token that nobody needs up where config.json does not say it."""
    role = key.removesuffix("_id")
    said = {
        CONFIG: config.get(key),
        GENERATION: text.generation.get(key),
        text.sources.get(role, "the tokenizer"): _id_of(text, role),
    }
    for source, value in said.items():
        if value is not None:
            config[key], sources[key] = value, source
            return


def _id_of(text: TextAssets, role: str) -> int | None:
    token = text.special_tokens.get(role)
    if token is None or text.tokenizer is None:
        return None
    found: int | None = text.tokenizer.token_to_id(token)
    return found


def _state_stops(
    config: dict[str, Any],
    text: TextAssets,
    adapter: Adapter,
    choices: Choices,
    vocab_size: int,
    sources: dict[str, str],
    warnings: list[str],
) -> None:
    if choices.eos_token_ids is not None:
        config["eos_token_id"] = _ids(GIVEN, "eos_token_ids", [*choices.eos_token_ids], vocab_size)
        sources["eos_token_ids"] = GIVEN
    else:
        stated = _stated_stops(config, text, vocab_size)
        _warn_of_conflict(stated, warnings)
        if text.tokenizer is not None:
            end = text.tokenizer.token_to_id(text.end_of_turn or "")
            if end is not None:
                stated["the chat template's end of turn"] = [end]
            stated = _without_plain_text(stated, text.tokenizer, warnings)
            if not any(stated.values()):
                usual = [text.tokenizer.token_to_id(token) for token in adapter.eos_tokens]
                stated["the family's usual tokens"] = [id for id in usual if id is not None]
        by_id: dict[int, list[str]] = {}
        for source, ids in stated.items():
            for token_id in ids:
                if source not in by_id.setdefault(token_id, []):
                    by_id[token_id].append(source)
        config["eos_token_id"] = [*by_id]
        if by_id:
            sources["eos_token_ids"] = "; ".join(
                f"{token_id}: {', '.join(names)}" for token_id, names in by_id.items()
            )
    if not config["eos_token_id"] and not choices.allow_no_eos:
        raise CheckpointError(
            f"no end-of-text token: neither {CONFIG} nor {GENERATION} nor the tokenizer says one, "
            "and every answer would go on to its last token. Name it (--eos-token-id, "
            "eos_token_ids), or ask for a package without (--allow-no-eos, allow_no_eos=True)"
        )


def _stated_stops(
    config: Mapping[str, Any], text: TextAssets, vocab_size: int
) -> dict[str, list[int]]:
    stated = {
        name: _ids(name, "eos_token_id", content.get("eos_token_id"), vocab_size)
        for name, content in ((CONFIG, config), (GENERATION, text.generation))
    }
    found = _id_of(text, "eos_token")
    if found is not None:
        stated[f"{text.sources['eos_token']}'s eos_token"] = [found]
    return stated


def _warn_of_conflict(stated: Mapping[str, list[int]], warnings: list[str]) -> None:
    """Say where no file names all that another one names."""
    sets = [set(ids) for ids in stated.values() if ids]
    if any(not (a <= b or b <= a) for a in sets for b in sets):
        shown = "; ".join(
            f"{name} {', '.join(map(str, ids))}" for name, ids in stated.items() if ids
        )
        warnings.append(f"end-of-text ids differ, each of them ends an answer: {shown}")


def _without_plain_text(
    stated: Mapping[str, list[int]], tokenizer: Tokenizer, warnings: list[str]
) -> dict[str, list[int]]:
    """Leave out ids that are pieces of ordinary text, as another family's default may be.

    Errors: CheckpointError where there is no other id.
    """
    added = tokenizer.get_added_tokens_decoder()

    def is_plain(token_id: int) -> bool:
        return token_id not in added and tokenizer.id_to_token(token_id) is not None

    kept: dict[str, list[int]] = {}
    plain: list[str] = []
    for source, ids in stated.items():
        kept[source] = [token_id for token_id in ids if not is_plain(token_id)]
        plain += [
            f"{source} says {token_id}, which is the text {tokenizer.decode([token_id])!r}"
            for token_id in ids
            if is_plain(token_id)
        ]
    if plain and not any(kept.values()):
        raise CheckpointError(
            f"the end-of-text token is wrong: {'; '.join(plain)}, and nothing names another. Name "
            "the right one (--eos-token-id, eos_token_ids)"
        )
    warnings += [f"the end-of-text id of {text}: it is left out" for text in plain]
    return kept
