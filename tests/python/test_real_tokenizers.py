"""Published tokenizers in C++ and in the `tokenizers` wheel: the same ids, and the same text.

`make test-real-tokenizers` fetches them into a cache folder; without them the tests are skipped.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_text_in_cpp import ask_cpp, assert_equal, encoded_by_cpp, encoded_by_wheel
from tokenizers import Tokenizer

from many_strings import many_strings
from real_tokenizers import NAMES, real_tokenizer

BUILD_SECONDS = 5.0


@pytest.fixture(scope="module", params=NAMES)
def source(request: pytest.FixtureRequest) -> str:
    return (real_tokenizer(request.param) / "tokenizer.json").read_text("utf-8")


def test_ids_and_text_are_the_wheels_for_10000_strings(
    source: str,
    tmp_path: Path,
    record_property: Callable[[str, Any], None],
    request: pytest.FixtureRequest,
) -> None:
    tokenizer = Tokenizer.from_str(source)
    strings = many_strings()
    expected = encoded_by_wheel(tokenizer, strings)
    assert_equal(strings, encoded_by_cpp(source, tmp_path, strings), expected)

    rng = random.Random(1)
    size = max(tokenizer.get_vocab().values()) + 1
    sequences = expected + [rng.choices(range(size), k=rng.randint(0, 12)) for _ in range(3000)]
    sequences += [rng.choices(range(200, 500), k=12) for _ in range(500)]  # bytes, for some
    for skip in (False, True):
        requests = [{"decode": ids, "skip": skip} for ids in sequences]
        texts = [answer.get("text", answer) for answer in ask_cpp(source, tmp_path, requests)]
        assert_equal(sequences, texts, tokenizer.decode_batch(sequences, skip_special_tokens=skip))
    record_property(
        f"published tokenizer in C++ and the wheel, {request.node.callspec.id}",
        f"{len(strings)} strings encoded, {2 * len(sequences)} sequences decoded, all equal",
    )


def test_it_is_built_in_seconds(
    source: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    begin = time.monotonic()
    assert "error" not in ask_cpp(source, tmp_path, [{"encode": "a"}])[0]
    seconds = time.monotonic() - begin
    record_property("seconds to build", f"{seconds:.2f}")
    assert seconds < BUILD_SECONDS
