"""A tokenizer.json made of vocab.json and merges.txt, for checkpoints that have no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fastdllm.export.errors import CheckpointError
from fastdllm.export.published import DeclaredToken, Published, read_json, read_text

VOCAB, MERGES = "vocab.json", "merges.txt"
# How Qwen2's tokenizer cuts a text: contractions, words with what stands before them, single
# digits, marks with the line ends behind them, white space.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Whose way of cutting texts the vocab.json and merges.txt of a tokenizer_class are made for.
KINDS = {
    "Qwen2Tokenizer": "qwen2",
    "Qwen2TokenizerFast": "qwen2",
    "GPT2Tokenizer": "gpt2",
    "GPT2TokenizerFast": "gpt2",
}
OTHER_FORMS = ("tokenizer.model", "spiece.model", "tekken.json", "vocab.txt")


def has_bpe_files(folder: Path) -> bool:
    """Tell whether both files are there. Errors: CheckpointError where only one is."""
    there = [name for name in (VOCAB, MERGES) if (folder / name).exists()]
    if len(there) == 1:
        raise CheckpointError(
            f"{folder}: has {there[0]} without {(VOCAB, MERGES)[there[0] == VOCAB]}: the tokenizer "
            "is not complete"
        )
    return bool(there)


def tokenizer_from_bpe_files(published: Published, usual: str | None) -> Tokenizer:
    """Make the tokenizer. usual: the family's kind, where its tokenizer_class is its own.

    Errors: CheckpointError for a file, or a class that is not known.
    """
    folder = published.folder
    stated = published.tokenizer_config.get("tokenizer_class")
    kind = KINDS.get(str(stated), usual)
    if kind is None:
        raise CheckpointError(
            f"{folder}: there is no tokenizer.json, and tokenizer_config.json's tokenizer_class is "
            f"{stated!r}; {VOCAB} and {MERGES} are read as {' or '.join(KINDS)} do. Save a "
            "tokenizer.json with the family's own tokenizer"
        )
    vocab = _vocabulary(folder / VOCAB)
    missing = [token for token in published.declared if token.content not in vocab]
    _check_ids(published, vocab)
    # The library numbers added tokens in a row; ids with gaps have to be the vocabulary's.
    if [token.id for token in missing] != [*range(len(vocab), len(vocab) + len(missing))]:
        vocab |= {token.content: token.id for token in missing}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=_merges(folder / MERGES)))
    except Exception as problem:
        raise CheckpointError(f"{folder / MERGES}: does not fit {VOCAB}: {problem}") from None
    spaced = bool(published.tokenizer_config.get("add_prefix_space"))
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
                pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, published.declared)
    return tokenizer


def add_tokens(tokenizer: Tokenizer, tokens: Sequence[DeclaredToken]) -> list[DeclaredToken]:
    """Add tokens in the order of their ids; return those that the library numbers otherwise."""
    refused = []
    for token in tokens:
        known = tokenizer.token_to_id(token.content)
        next_id = tokenizer.get_vocab_size(with_added_tokens=True)
        if token.id != (next_id if known is None else known):
            refused.append(token)
            continue
        flags = {
            name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")
        }
        added = AddedToken(token.content, special=token.special, **flags)
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([added])
    return refused


def _vocabulary(path: Path) -> dict[str, int]:
    vocab = read_json(path)
    for token, token_id in vocab.items():
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise CheckpointError(f"{path}: {token!r} is {token_id!r}; expected an id")
    return vocab


def _check_ids(published: Published, vocab: dict[str, int]) -> None:
    tokens: dict[int, str] = {token_id: token for token, token_id in vocab.items()}
    for token in published.declared:
        other = tokens.setdefault(token.id, token.content)
        known = vocab.get(token.content, token.id)
        if other != token.content or known != token.id:
            raise CheckpointError(
                f"{published.folder}: {token.source} adds {token.content!r} as id {token.id}; "
                f"{VOCAB} has {other!r} there and {token.content!r} as {known}"
            )


def _merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(read_text(path).split("\n")):
        if not line.strip() or (number == 0 and line.startswith("#version")):
            continue
        left, space, right = line.rstrip("\r").partition(" ")
        if not space or not left or not right or " " in right:
            raise CheckpointError(f"{path}: line {number + 1} is {line!r}; expected two tokens")
        merges.append((left, right))
    return merges


def describe_form(folder: Path) -> str | None:
    """Return the file of another form of tokenizer that is there, for a message."""
    found: list[Any] = [name for name in OTHER_FORMS if (folder / name).exists()]
    found += [path.name for path in folder.glob("*.tiktoken")]
    return str(found[0]) if found else None
