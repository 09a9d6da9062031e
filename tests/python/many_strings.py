"""10,000 strings of all kinds, and what tokenizers in C++ and Python see differently."""

# ruff: noqa: RUF001, SIM905 - letters that look like others, on purpose; lists as they are read

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from functools import cache

# The wheel's Oniguruma knows Unicode 16 and its Rust 17, Debian 12's PCRE2 14 and its utf8proc 15:
# these characters, of scripts and blocks added since, are letters, marks, numbers or symbols to the
# first and nothing to the second. A split pattern cuts differently beside them. (A younger PCRE2
# knows more of them.)
YOUNG = [
    (0x897, 0x897), (0xCF3, 0xCF3), (0xECE, 0xECE), (0x1B4E, 0x1B4F),
    (0x1B7F, 0x1B7F), (0x1C89, 0x1C8A), (0x2427, 0x2429), (0x2FFC, 0x2FFF),
    (0x31E4, 0x31EF), (0xA7CB, 0xA7CD), (0xA7DA, 0xA7DC), (0x105C0, 0x105F3),
    (0x10D40, 0x10D8F), (0x10EC2, 0x10EFF), (0x1123F, 0x11241), (0x11380, 0x113E2),
    (0x116D0, 0x116E3), (0x11B00, 0x11BF9), (0x11DE0, 0x11DE9), (0x11F00, 0x11F5A),
    (0x1342F, 0x1342F), (0x13440, 0x143FA), (0x16100, 0x16139), (0x16D40, 0x16D79),
    (0x16FF4, 0x16FF6), (0x18CFF, 0x18CFF), (0x1B132, 0x1B132), (0x1B155, 0x1B155),
    (0x1CC00, 0x1CEB3), (0x1D2C0, 0x1D2D3), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E08F),
    (0x1E4D0, 0x1E5FF), (0x1F6DC, 0x1F6DC), (0x1F774, 0x1F77F), (0x1F7D9, 0x1F7D9),
    (0x1F8B2, 0x1F8C1), (0x1FA75, 0x1FA77), (0x1FA87, 0x1FA8F), (0x1FAAD, 0x1FAAF),
    (0x1FABB, 0x1FABF), (0x1FAC6, 0x1FACF), (0x1FADA, 0x1FADF), (0x1FAE8, 0x1FAE9),
    (0x1FAF7, 0x1FAF8), (0x1FBCB, 0x1FBEF), (0x2B739, 0x2B739), (0x2EBF0, 0x2EE5D),
    (0x31350, 0x323AF),
]  # fmt: skip

# The wheel normalizes with Unicode 9's tables: it does not put these marks, added in Unicode 10 to
# 15, into canonical order among others. utf8proc does.
UNORDERED = [
    (0x7FD, 0x7FD), (0x898, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C),
    (0xD3B, 0xD3C), (0xEBA, 0xEBA), (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA),
    (0xA82C, 0xA82C), (0x10D24, 0x10D27), (0x10EAB, 0x10EAC), (0x10EFD, 0x10EFF),
    (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070), (0x1133B, 0x1133B),
    (0x1145E, 0x1145E), (0x11839, 0x1183A), (0x11935, 0x11938), (0x1193D, 0x1193E),
    (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47),
    (0x11A99, 0x11A99), (0x11D42, 0x11D42), (0x11D44, 0x11D45), (0x11D97, 0x11D97),
    (0x11F41, 0x11F42), (0x16FF0, 0x16FF1), (0x1E08F, 0x1E08F), (0x1E130, 0x1E136),
    (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF),
]  # fmt: skip


def _outside(ranges: list[tuple[int, int]]) -> list[str]:
    """Unicode without these, surrogates, private planes and those that hold nothing."""
    listed = {code for first, last in ranges for code in range(first, last + 1)}
    codes = (*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE0200))
    return [chr(code) for code in codes if code not in listed]


@cache
def characters_cut_alike() -> list[str]:
    return _outside(YOUNG)


@cache
def characters_normalized_alike() -> list[str]:
    return _outside(UNORDERED)


WORDS = """the quick brown fox Tom has boxes of apples and gives away How many are left I'm you're
we've they'll don't O'NEIL's it'D ISN'T naïve café Überraschung straße ǅ ﬁnal ﬃ ſtill Kelvin \u212a
Привет мир как дела Ёлка їжак Γειά σου κόσμε ΑΣ ς שלום עולם بِسْمِ ٱللَّٰهِ مرحبا السلام
你好 世界 今天天气 東京 こんにちは カタカナ ｶﾀｶﾅ 안녕하세요 한국어
นี่คือภาษาไทย किताब हिन्दी क्षत्रिय বাংলা தமிழ் ગુજરાતી ಕನ್ನಡ မြန်မာ ខ្មែរ
አማርኛ ქართული Հայերեն ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ བོད་ e\u0301 a\u0327\u0301 A\u030a \u1100\u1161\u11a8
\u212b \u2126 q\u0307\u0323 q\u0323\u0307 \u0344 \u0958 \ufb1d \u2adc \u0f73 ﷺ ﬀ
² ³ ¹ ¼ ½ ¾ ① ⑳ Ⅷ ⅷ ٣٤٥ १२३ ๑๒๓ 一二三 〇 𝟘𝟙𝟚 𝒜𝓁𝓅𝒽𝒶 🄰 Ⓐ""".split()

CODE = """def f(x): -> None: return x**2 != {k: v} for(int i=0;i<n;++i){a[i]+=b[i]&0xFF;}
std::vector<int> #include <cstdio> printf("%d\\n", x); SELECT * FROM t WHERE a='b';
<div class="a">&nbsp;</div> // /* */ ___init__ --flag=1 https://example.org/a?b=c&d=%20
user@host $PATH \\frac{1}{2} => === <<EOF #!/bin/sh λx.x ∀x∈ℝ: ⌈x⌉ ≥ ∑ €5 £3""".split(" ")

NUMBERS = """0 7 42 123 1234 12345678901234567890 3.14 -1e-9 1,000,000 0x1F 2024-02-29
１２３ 4²""".split()

# Joined by U+200D, with U+FE0F behind, with tones of skin, flags.
EMOJI = [
    "😀", "👍🏽", "👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "🇩🇪🇫🇷", "🇩", "❤\ufe0f",
    "☎\ufe0e", "1\ufe0f\u20e3", "#\ufe0f\u20e3", "🧑🏿\u200d🚀", "🫠", "\u200d", "\ufe0f",
    "🤦🏼\u200d♂\ufe0f", "©®", "™",
]  # fmt: skip

SPACES = [
    " ", "  ", "     ", "\t", "\n", "\n\n", "\r\n", "\r\n\r\n", " \n", "\n ", "\r", "\t \t",
    "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085", "\u180e", "\u200b", "\ufeff", "\v",
    "\f", " \u00a0 ", "\u1680", " " * 40, "\n" * 12,
]  # fmt: skip

CONTROLS = [
    chr(code)
    for code in (
        *range(32), 0x7F, *range(0x80, 0xA0), 0xAD, 0x200C, 0x200D, 0x200E, 0x202E, 0xFFF9, 0xFFFD,
        0xFFFE, 0xFFFF, 0xE000, 0x10FFFF, 0xE0001,
    )
]  # fmt: skip

# Tokens that a tokenizer of the tests adds, whole and broken.
TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>", "<|eot_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|mdm_mask|>", "<think>", "</think>", "<think", "<|im_", "|>", "<|",
    "<|endoftext|", "<tool_call>", "[MASK]", "[mask]", "café_token", "cafe\u0301_token", "word",
    "wordy", "aword", "<s>", "<s><s>", " <s> ", "<<s>>", "ab", "abc", "abcd",
]  # fmt: skip

MARKS = [chr(c) for c in (*range(0x300, 0x370), 0x591, 0x5B0, 0x64B, 0x651, 0x93C, 0x94D, 0xE48,
                          0x20D0, 0x302A, 0x3099, 0x309A, 0x1D165, 0x1D16E)]  # fmt: skip


@cache
def many_strings(count: int = 10_000, seed: int = 5) -> list[str]:
    """The same strings every time: a list of hand-made ones, then mixtures."""
    rng = random.Random(seed)
    alike = characters_cut_alike()
    normalized_alike = set(characters_normalized_alike())
    any_character = [c for c in alike if c in normalized_alike]

    def of(pieces: list[str], most: int, between: list[str]) -> str:
        chosen = rng.choices(pieces, k=rng.randint(1, most))
        return "".join(piece + rng.choice(between) for piece in chosen)

    def form(text: str) -> str:
        return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)

    everything = WORDS + CODE + NUMBERS + EMOJI + SPACES + CONTROLS + TOKENS
    kinds: list[Callable[[], str]] = [
        lambda: of(WORDS, 12, [" ", " ", " ", ", ", ". ", "\n", ""]),
        lambda: form(of(WORDS, 8, [" ", ""])),
        lambda: of(CODE, 10, [" ", " ", "\n    ", "\r\n\t", ""]),
        lambda: of(NUMBERS + WORDS[:20], 10, [" ", "", ",", "\n"]),
        lambda: of(EMOJI, 8, ["", "", " "]),
        lambda: of(TOKENS + WORDS, 8, ["", " ", "  ", "\n"]),
        lambda: of([*SPACES, "a", "1", "."], 12, [""]),
        lambda: of([*CONTROLS, "a", "\0"], 10, ["", " "]),
        lambda: of(["e", "o", "a", "ᄀ", "ᅡ", "ᆨ", "가", "ä", "Ω", *MARKS * 2], 14, [""]),
        lambda: of(everything, 25, ["", " "]),
        lambda: "".join(rng.choices(any_character, k=rng.randint(1, 12))),
        lambda: "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(rng.randint(1, 60))),
        lambda: "".join(chr(rng.randrange(0xA0, 0x250)) for _ in range(rng.randint(1, 30))),
        lambda: (
            rng.choice(["a", "ab", "na", "1", "é", "中", " ", "!", "\n", "e\u0301"])
            * rng.randint(20, 400)
        ),
    ]
    strings = ["", " ", "\0", "a", *everything, *("a" + piece + "b" for piece in everything)]
    strings += ["word" * 3000, "1234567890" * 500, "é" * 3000, " " * 5000, "\n" * 3000, "a1" * 2000]
    strings += ["".join(rng.choices("abcdefghij", k=20_000)), "".join(WORDS), "".join(CODE * 5)]
    while len(strings) < count:
        strings.append(kinds[len(strings) % len(kinds)]())
    return strings[:count]
