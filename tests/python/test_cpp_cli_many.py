"""fastdllm-cli with more prompts than its engine takes at once."""

from __future__ import annotations

import json

import pytest

from conftest import PackageOf
from programs import program, run_program

MANY = 3000  # an engine takes 1032
SHORT = ("--max-new-tokens", "1", "--block-length", "1")


def test_thousands_of_prompts_are_answered_in_order(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    ids = [(1 + i % 7, 2 + i % 5) for i in range(MANY)]
    asked = [word for one in ids for word in ("--ids", f"{one[0]},{one[1]}")]

    answer = run_program(
        program("apps/fastdllm-cli"), "generate", package, *SHORT, "--json", *asked
    )

    assert answer.returncode == 0, answer.stderr
    found = [json.loads(line)["token_ids"] for line in answer.stdout.splitlines()]
    assert len(found) == MANY
    alike: dict[tuple[int, int], list[int]] = {}
    for one, tokens in zip(ids, found, strict=True):
        assert alike.setdefault(one, tokens) == tokens
    assert len({tuple(tokens) for tokens in alike.values()}) > 1


@pytest.mark.parametrize("count", [1033, 1500])
def test_texts_wait_for_a_place_too(package_of: PackageOf, count: int) -> None:
    asked = ["--prompt", "1 + 1"] * count
    answer = run_program(
        program("apps/fastdllm-cli"), "generate", package_of("tiny_math"), *SHORT, "--json", *asked
    )
    assert answer.returncode == 0, answer.stderr
    texts = {json.loads(line)["text"] for line in answer.stdout.splitlines()}
    assert len(answer.stdout.splitlines()) == count
    assert len(texts) == 1


def test_a_wrong_prompt_among_thousands_is_told_before_any_answer(package_of: PackageOf) -> None:
    asked = ["--ids", "1,2"] * 1500 + ["--ids", "999999"]
    answer = run_program(
        program("apps/fastdllm-cli"), "generate", package_of("tiny_math"), *SHORT, *asked
    )
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "999999" in answer.stderr
