"""fastdllm::Tokenizer against the `tokenizers` wheel: equal but for what many_strings.py lists."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)
from tokenizers import pre_tokenizers as pre

from conftest import ROOT, checkpoint_folder
from many_strings import characters_cut_alike, characters_normalized_alike, many_strings

TOOL = Path(
    os.environ.get("FASTDLLM_TOKENIZER_TOOL", ROOT / "build/dev/tests/cpp/text/tokenizer_tool")
)
if not TOOL.exists():
    pytest.skip(f"{TOOL} is not built (make test-cpp builds it)", allow_module_level=True)

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
QWEN = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"""
    r"""\s*[\r\n]+|\s+(?!\S)|\s+"""
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
LLADA = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"""
    r"""\s*[\r\n]|\s+(?!\S)|\s+"""
)


def special(*contents: str) -> list[AddedToken]:
    return [AddedToken(content, normalized=False, special=True) for content in contents]


def plain(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, special=False, **flags)


def trained(
    pre_tokenizer: Any, added: list[AddedToken], *, normalizer: Any = None, **model: Any
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=2500, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(many_strings(4000), trainer)
    tokenizer.add_tokens(added)
    return tokenizer


def split_and_bytes(pattern: str) -> Any:
    words = pre.Split(Regex(pattern), "isolated")
    return pre.Sequence([words, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


def tiny_math() -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint_folder("tiny_math") / "tokenizer.json"))


def qwen_like() -> Tokenizer:
    added = [*special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>")]
    added += [plain(text, normalized=False) for text in ("<tool_call>", "<think>", "</think>")]
    return trained(split_and_bytes(QWEN), added, normalizer=normalizers.NFC())


def llama3_like() -> Tokenizer:
    added = special("<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tokenizer = trained(split_and_bytes(LLAMA3), added, ignore_merges=True)
    begin = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 2500)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), begin])
    return tokenizer


def llada_like() -> Tokenizer:
    added = special("<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>")
    return trained(split_and_bytes(LLADA), added, normalizer=normalizers.Sequence([]))


def gpt2_like() -> Tokenizer:
    """Every flag of added tokens, and a space in front of each text."""
    added = [
        *special("<|endoftext|>", "<s>"),
        AddedToken("<|mask|>", lstrip=True, normalized=False, special=True),
        AddedToken("[MASK]", rstrip=True, normalized=True, special=True),
        plain("café_token", normalized=True),
        plain("word", single_word=True, normalized=True),
        plain("<think>", lstrip=True, rstrip=True, normalized=False),
        plain("ab", normalized=True),
        plain("abcd", single_word=True, normalized=True),
        plain(" <s> ", normalized=False),
    ]
    return trained(pre.ByteLevel(add_prefix_space=True), added, normalizer=normalizers.NFC())


def digits_like() -> Tokenizer:
    """Runs of digits, split at a text, and a vocabulary without tokens for some bytes."""
    words = [pre.Digits(), pre.Split("<think>", "merged_with_next"), pre.ByteLevel()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.Sequence(words)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    tokenizer.train_from_iterator(
        ["the quick brown fox 1234"] * 2, trainers.BpeTrainer(vocab_size=60, show_progress=False)
    )
    return tokenizer


def gemma_like() -> Tokenizer:
    """Pieces of characters, white space as another one, bytes for what has no token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<pad>", "<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=200,
        max_token_length=8,
        show_progress=False,
    )
    lines = [line for text in many_strings(3000) for line in text[:200].split(" ")]
    tokenizer.train_from_iterator(lines, trainer)
    facts = json.loads(tokenizer.to_str())
    facts["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    facts["added_tokens"] = [t for t in facts["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(facts))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens([*special("<|mask|>"), plain("<think>", normalized=False)])
    return tokenizer


FAMILIES: list[Callable[[], Tokenizer]] = [
    tiny_math,
    qwen_like,
    llama3_like,
    llada_like,
    gpt2_like,
    digits_like,
    gemma_like,
]


def ask_cpp(tokenizer: Tokenizer | str, folder: Path, requests: list[Any]) -> list[Any]:
    """Ask the C++ tokenizer; {"error": ...} alone is its answer to a file that it refuses."""
    file = folder / "tokenizer.json"
    text = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [TOOL, file],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]
    if done.returncode == 1 and "error" in answers[-1]:
        return answers[-1:]
    assert done.returncode == 0, done.stderr
    assert len(answers) == 1 + len(requests)
    return answers[1:]


def encoded_by_cpp(tokenizer: Tokenizer | str, folder: Path, texts: list[str]) -> list[Any]:
    answers = ask_cpp(tokenizer, folder, [{"encode": text} for text in texts])
    return [answer.get("ids", answer) for answer in answers]


def encoded_by_wheel(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [code.ids for code in tokenizer.encode_batch(texts, add_special_tokens=False)]


def assert_equal(inputs: list[Any], found: list[Any], expected: list[Any]) -> None:
    triples = zip(inputs, found, expected, strict=True)
    wrong = [(i, f, e) for i, f, e in triples if f != e]
    shown = "\n".join(
        f"{i!r:.200}\n  C++   {f!r:.300}\n  wheel {e!r:.300}" for i, f, e in wrong[:5]
    )
    assert not wrong, f"{len(wrong)} of {len(inputs)} differ:\n{shown}"


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_text_are_the_wheels_for_10000_strings(
    family: Callable[[], Tokenizer], tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    tokenizer = family()
    strings = many_strings()

    expected = encoded_by_wheel(tokenizer, strings)
    assert_equal(strings, encoded_by_cpp(tokenizer, tmp_path, strings), expected)

    rng = random.Random(1)
    size = tokenizer.get_vocab_size()
    chosen = [rng.choices(range(-1, size + 2), k=rng.randint(0, 12)) for _ in range(3000)]
    sequences = expected + chosen
    for skip in (False, True):
        requests = [{"decode": ids, "skip": skip} for ids in sequences]
        texts = [answer.get("text", answer) for answer in ask_cpp(tokenizer, tmp_path, requests)]
        known = [[i for i in ids if 0 <= i < size] for ids in sequences]
        assert_equal(sequences, texts, tokenizer.decode_batch(known, skip_special_tokens=skip))
    record_property(
        f"tokenizer in C++ and the wheel, {family.__name__}",
        f"{len(strings)} strings encoded, {2 * len(sequences)} sequences decoded, all equal",
    )


PATTERNS = [
    GPT2, QWEN, LLAMA3, LLADA, r"\s", r"\S+", r"[^\S\n]+", r"\w+", r"[\w-]+", r"\W", r"\d{2,3}",
    r"\D{2,}?", r"^.", r".$", r"^", r"$", r".", r"x*", r"a?", "", r"(?i)the|straße|k|\u017f",
    r"(?i:[a-zß]+)", r"(?i:[^a-z]+)", r"(?<=a)b|(?<!a)c", r"(?=b)", r"(?>a+)b", r"a++|b*+c",
    r"(a|b)+", r"a{2}|b{1,}|{x}|a{,x|]}", r"[\]\[^-]", r"[a\-z]", r"\p{Han}+|\p{^L}\P{N}",
    r"\p{Lu}\p{Ll}*|\p{M}+|\p{P}|\p{Sm}|\p{So}+", r"[\p{Lu}\p{Lt}]|[^\p{L}\p{M}]+", r"[一-龥]+",
    r"\u4e00|\x{4f60}|\t|\n|\r|\f|\v|\a|\e", r"\.|\/|\#|\-|\ |\"|\'|\é", r"[\s\S]+?\n",
    r"[\v\d\s]+",
]  # fmt: skip
BEHAVIORS = ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_split_patterns_cut_as_oniguruma_cuts(pattern: str, tmp_path: Path) -> None:
    strings = many_strings(900, seed=11)[300:]
    strings += ["aab", "abcb", "aaab{x}a{,x]", "ab\ncd\n", "\na", "the Straße KELVIN"]
    for index, behavior in enumerate(BEHAVIORS):
        words = pre.Split(Regex(pattern), behavior, invert=index % 2 == 1)
        after = pre.Split("a", BEHAVIORS[index - 1], invert=index % 2 == 0)
        tokenizer = byte_tokenizer(pre.Sequence([words, after, pre.ByteLevel(use_regex=False)]))
        texts = strings if index == 0 else strings[::4]

        found = encoded_by_cpp(tokenizer, tmp_path, texts)

        assert_equal(texts, found, encoded_by_wheel(tokenizer, texts))


def byte_tokenizer(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    """A token per byte, and one per pair of equal ones: words show by what is not joined."""
    alphabet = sorted(pre.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*alphabet, *(2 * c for c in alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(c, c) for c in alphabet]))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def in_chunks(pieces: list[str], length: int) -> list[str]:
    return ["".join(pieces[at : at + length]) for at in range(0, len(pieces), length)]


KINDS = [
    r"\s",
    r"\w",
    r"\d",
    r"\p{L}",
    r"\p{N}",
    r"\p{M}",
    r"\p{P}",
    r"\p{S}",
    r"\p{Lu}",
    r"\p{Han}",
]


@pytest.mark.parametrize("pattern", [*KINDS, r"[\w]", r"[\S]", r"(?i:[a-z])", "digits"])
def test_every_character_is_of_the_same_kind(pattern: str, tmp_path: Path) -> None:
    texts = in_chunks(characters_cut_alike(), 200)
    # What is kept after the removal is what the pattern does not match.
    kind = pre.Split(Regex(pattern), "removed")
    if pattern == "digits":
        kind = pre.Sequence(
            [pre.Digits(individual_digits=True), pre.Split(Regex("..+"), "removed")]
        )
    tokenizer = byte_tokenizer(pre.Sequence([kind, pre.ByteLevel(False, use_regex=False)]))

    found = encoded_by_cpp(tokenizer, tmp_path, texts)

    assert_equal(texts, found, encoded_by_wheel(tokenizer, texts))


def test_every_character_is_normalized_alike(tmp_path: Path) -> None:
    # Private and unassigned ones have no decomposition.
    characters = [c for c in characters_normalized_alike() if category(c) not in ("Cn", "Co")]
    contexts = [f"a{c}\u0327\u0301{c} {c}\u1161" for c in characters]
    texts = in_chunks(contexts, 100)
    tokenizer = byte_tokenizer(pre.ByteLevel(False, use_regex=False), normalizers.NFC())

    found = encoded_by_cpp(tokenizer, tmp_path, texts)

    assert_equal(texts, found, encoded_by_wheel(tokenizer, texts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"byte_fallback": False}, "model is neither of bytes"),
        ({"vocab": {"a": 0, "<0x41>": 1}, "merges": []}, "model is neither of bytes"),
    ],
)
def test_pieces_of_characters_without_bytes_are_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    facts = json.loads(gemma_like().to_str())
    facts["model"] |= change

    [answer] = ask_cpp(json.dumps(facts), tmp_path, [])

    assert words in answer["error"]


@pytest.mark.parametrize("kind", ["ByteFallback", "Replace"])
def test_decoders_of_characters_that_do_something_else_are_refused(
    kind: str, tmp_path: Path
) -> None:
    facts = json.loads(gemma_like().to_str())
    parts = facts["decoder"]["decoders"]
    facts["decoder"]["decoders"] = [part for part in parts if part["type"] != kind]
    if kind == "Replace":
        facts["decoder"]["decoders"].insert(0, {"type": "Strip", "content": " ", "start": 1})

    [answer] = ask_cpp(json.dumps(facts), tmp_path, [])

    assert "decoder" in answer["error"]


def test_ids_that_the_wheel_would_number_otherwise_are_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(pre.ByteLevel())
    tokenizer.add_tokens(special("<a>", "<b>"))
    text = tokenizer.to_str().replace('"id":513', '"id":600').replace('"id": 513', '"id": 600')
    assert Tokenizer.from_str(text).token_to_id("<b>") == 513

    [answer] = ask_cpp(text, tmp_path, [])

    assert "added_tokens[1].id is 600; expected 513" in answer["error"]
