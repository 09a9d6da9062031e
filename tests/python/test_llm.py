"""Text in and out: templates, streaming in whole characters, leaving early, errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import LLM, ConfigError, GenerationConfig
from fastdllm.text import ChatTemplate, TextCodec, TextError, TextStream

from conftest import PackageOf
from scripted import ByteCodec, RunCodec

QUESTION = "Tom has 3 boxes of 4 apples. How many apples is that?"


def test_a_string_is_one_user_message(llm: LLM) -> None:
    message = [{"role": "user", "content": QUESTION}]

    assert llm.encode(QUESTION) == llm.encode(message)
    assert llm.encode(QUESTION, raw=True) != llm.encode(QUESTION)
    assert llm.codec.decode(llm.encode(QUESTION, raw=True)) == QUESTION
    assert llm.encode([1, 2, 3]) == [1, 2, 3]


def test_a_completion_says_what_it_took(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=64, threshold=0.9)

    answer = llm.generate(QUESTION, config)

    assert answer.finish_reason in ("stop", "length")
    assert answer.prompt_tokens == len(llm.encode(QUESTION))
    assert answer.num_passes == answer.stats.refresh_passes + answer.stats.step_passes
    assert "<|" not in answer.text
    assert answer.text == llm.codec.decode(answer.token_ids)


def test_no_config_is_threshold(llm: LLM) -> None:
    found = llm.generate(QUESTION)
    expected = llm.generate(QUESTION, GenerationConfig(threshold=0.9))

    assert found.token_ids.tolist() == expected.token_ids.tolist()
    assert found.num_passes == expected.num_passes


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_the_pieces_joined_are_the_text(ignore_eos: bool, llm: LLM) -> None:
    config = GenerationConfig(
        max_new_tokens=64, block_length=8, threshold=0.9, ignore_eos=ignore_eos
    )

    pieces = list(llm.stream(QUESTION, config))

    assert "".join(pieces) == llm.generate(QUESTION, config).text
    assert all(pieces)


def test_errors_come_out_where_the_stream_is_read(llm: LLM) -> None:
    stream: Iterator[str] = llm.stream([1], GenerationConfig(max_new_tokens=100_000))

    with pytest.raises(ConfigError, match="longer than the model's context"):
        next(stream)


def test_a_package_without_tokenizer_says_so(package_of: PackageOf) -> None:
    with pytest.raises(fastdllm.PackageError, match=r"no tokenizer.*Engine"):
        LLM(package_of("llada-mha"))


def test_text_streams_only_whole_characters() -> None:
    stream = TextStream(ByteCodec(), ())
    word = "né🙂".encode()

    pieces = [stream.push([i], [byte]) for i, byte in enumerate(word)]

    assert pieces == ["n", "", "é", "", "", "", "🙂"]


def test_text_streams_from_left_to_right_up_to_the_stop_token() -> None:
    stream = TextStream(ByteCodec(), [0])

    assert stream.push([1, 2], b"bc") == ""
    assert stream.push([0], b"a") == "abc"
    assert stream.push([4], b"x") == ""
    assert stream.push([3], b"\0") == "\0"
    assert stream.finish() == ""


@pytest.mark.parametrize("codec", [ByteCodec, RunCodec])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("text", ["漢", "🙂", "é", "x漢", "né🙂漢 ", "👩\u200d👩\u200d👧"])
def test_a_long_answer_is_not_decoded_again_and_again(
    text: str, size: int, codec: type[ByteCodec]
) -> None:
    """Tokens are bytes, and `size` of them come at once: most pushes end inside a character."""
    text *= 100
    encoded = text.encode()
    decoder = codec()
    stream = TextStream(decoder, ())

    pieces = [
        stream.push(range(i, min(i + size, len(encoded))), encoded[i : i + size])
        for i in range(0, len(encoded), size)
    ]

    assert "".join(pieces) == text
    assert decoder.longest <= 100


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    text=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30
    ),
    copies=st.integers(1, 20),
)
def test_any_long_answer_comes_whole(text: str, copies: int) -> None:
    codec = ByteCodec()
    stream = TextStream(codec, ())
    encoded = (text * copies).encode()

    pieces = [stream.push([i], [byte]) for i, byte in enumerate(encoded)]

    assert "".join(pieces) == text * copies
    assert codec.longest <= 80


@pytest.mark.parametrize("codec", [ByteCodec, RunCodec])
@pytest.mark.parametrize("stop", ["漢🙂", "字end", "é" * 40])
@pytest.mark.parametrize("before", ["漢", "🙂", "漢é字🙂e"])
def test_a_stop_string_is_found_far_behind(before: str, stop: str, codec: type[ByteCodec]) -> None:
    """The window has moved many times, and the longest stop string does not fit into it."""
    text = before * 70
    stream = TextStream(codec(), (), [stop])
    encoded = (text + stop + "rest").encode()

    pieces = [stream.push([i], [byte]) for i, byte in enumerate(encoded)]

    assert stream.stop == stop
    assert "".join(pieces) == (text + stop).partition(stop)[0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(parts=st.lists(st.sampled_from([b"a", "漢".encode(), b"\xe6", b"\xbc\xa2", b"\xff"])))
def test_bytes_that_make_no_text_stream_as_a_whole_decode(parts: list[bytes]) -> None:
    encoded = b"".join(parts) * 12
    stream = TextStream(ByteCodec(), ())

    pieces = [stream.push([i], [byte]) for i, byte in enumerate(encoded)]

    assert "".join(pieces) + stream.finish() == ByteCodec().decode(encoded)


def test_a_run_of_bytes_that_ends_inside_a_character_becomes_a_whole_decode() -> None:
    encoded = ("€" * 60).encode()[:-1]
    stream = TextStream(RunCodec(), ())

    for i, byte in enumerate(encoded):
        stream.push([i], [byte])
    stream.finish()

    assert stream.text == RunCodec().decode(encoded)


def test_a_decoder_that_joins_tokens_streams_the_same_text(llm: LLM) -> None:
    """Many turns of real text: where the window of decoded tokens moves leaves no mark."""
    ids = llm.encode(QUESTION * 10, raw=True)
    stream = TextStream(llm.codec, ())

    pieces = [stream.push([i], [token]) for i, token in enumerate(ids)]

    assert "".join(pieces) == llm.codec.decode(ids) == QUESTION * 10


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), text=st.text(max_size=30))
def test_pieces_joined_are_the_text_whatever_the_order(data: st.DataObject, text: str) -> None:
    encoded = text.encode("utf-8")
    order = data.draw(st.permutations(range(len(encoded))))
    stream = TextStream(ByteCodec(), ())

    pieces = [stream.push([i], [encoded[i]]) for i in order]

    assert "".join(pieces) + stream.finish() == text


def test_a_template_that_refuses_messages_says_why() -> None:
    template = ChatTemplate("{{ raise_exception('no system role here') }}", {})

    with pytest.raises(TextError, match="no system role here"):
        template.render([{"role": "system", "content": "x"}])


def test_a_template_runs_in_a_sandbox() -> None:
    template = ChatTemplate(
        "{{ messages.__class__.__mro__ }}{{ ''.__class__.__subclasses__() }}", {}
    )

    with pytest.raises(TextError):
        template.render([])


def test_a_broken_template_is_named() -> None:
    with pytest.raises(TextError, match="template"):
        ChatTemplate("{% for %}", {})


def test_the_exported_template_asks_for_an_answer(package_of: PackageOf) -> None:
    llm = LLM(package_of("tiny_math"), threads=1)
    assert llm.codec.chat_template is not None

    text = llm.codec.chat_template.render([{"role": "user", "content": " Hi "}])

    assert text.startswith(
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    )
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert Path(llm.engine.package.path, "chat_template.jinja").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([], r"tokenizer is \[\]; expected an object or null"),
        ({}, "tokenizer.file is None; expected a file name"),
        ({"file": "../tokenizer.json"}, "tokenizer.file is '../tokenizer.json'"),
        ({"file": "absent.json"}, "absent.json: missing"),
        ({"file": "tokenizer.json", "chat_template": 3}, "chat_template is 3"),
        (
            {
                "file": "tokenizer.json",
                "chat_template": "chat_template.jinja",
                "special_tokens": ["x"],
            },
            "special_tokens is",
        ),
    ],
)
def test_a_tokenizer_entry_that_makes_no_sense_is_named(
    entry: Any, words: str, package_of: PackageOf
) -> None:
    with pytest.raises(fastdllm.PackageError, match=words):
        TextCodec(package_of("tiny_math"), entry)


def test_a_prompt_that_mixes_messages_and_ids_is_refused(llm: LLM) -> None:
    with pytest.raises(TypeError, match="mixes them"):
        llm.encode([{"role": "user", "content": "hi"}, 3])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        llm.encode([1.5])  # type: ignore[list-item]


def test_the_stream_waits_for_tokens_that_can_still_be_edited(llm: LLM) -> None:
    config = GenerationConfig(
        max_new_tokens=48, block_length=16, threshold=0.05, editing_threshold=0.3
    )

    pieces = list(llm.stream(QUESTION, config))

    assert "".join(pieces) == llm.generate(QUESTION, config).text


def test_the_stream_ends_with_the_stop_tokens_of_the_config(llm: LLM) -> None:
    whole = llm.generate(QUESTION, GenerationConfig(max_new_tokens=32, ignore_eos=True))
    stop = int(whole.token_ids[3])
    config = GenerationConfig(max_new_tokens=32, stop_token_ids=[stop])

    answer = llm.generate(QUESTION, config)

    assert answer.finish_reason == "stop"
    assert answer.token_ids[-1] == stop
    assert "".join(llm.stream(QUESTION, config)) == answer.text


QUESTIONS = [
    QUESTION,
    "Mia buys 5 pens at 2 dollars each and pays 14 dollars. How much is the change?",
    "Ann has 12 marbles and gives away 4. How many marbles does Ann have left?",
]


def test_a_list_of_prompts_gives_a_list_of_what_each_gives_alone(llm: LLM) -> None:
    alone = [llm.generate(question).text for question in QUESTIONS]
    messages = [[{"role": "user", "content": question}] for question in QUESTIONS]
    ids = [llm.encode(question) for question in QUESTIONS]

    assert len(set(alone)) == 3
    assert [answer.text for answer in llm.generate(QUESTIONS)] == alone
    assert [answer.text for answer in llm.generate(messages)] == alone
    assert [answer.text for answer in llm.generate(ids)] == alone
    assert [answer.text for answer in llm.generate([np.array(i, np.int32) for i in ids])] == alone
    assert [answer.text for answer in llm.generate([QUESTION, ids[1]])] == alone[:2]


def test_lists_of_one_and_of_none_stay_lists(llm: LLM) -> None:
    assert [a.text for a in llm.generate([QUESTION])] == [llm.generate(QUESTION).text]
    assert llm.generate([]) == []


def test_every_prompt_of_a_list_may_have_its_config(llm: LLM) -> None:
    configs = [GenerationConfig(max_new_tokens=n, ignore_eos=True) for n in (3, 5)]

    answers = llm.generate(QUESTIONS[:2], configs)

    assert [len(answer.token_ids) for answer in answers] == [3, 5]
    with pytest.raises(ConfigError, match="2 configs for 3 prompts"):
        llm.generate(QUESTIONS, configs)


def test_a_callback_goes_with_one_prompt(llm: LLM) -> None:
    with pytest.raises(TypeError, match="on_commit is for one prompt"):
        llm.generate(QUESTIONS, on_commit=lambda event: None)  # type: ignore[call-overload]


def test_a_completion_holds_the_logarithms_of_its_confidences(llm: LLM) -> None:
    confidences: dict[int, float] = {}

    def hear(event: fastdllm.CommitEvent) -> None:
        confidences.update(zip(event.positions.tolist(), event.confidences.tolist(), strict=True))

    answer = llm.generate(QUESTION, on_commit=hear)

    assert answer.logprobs.shape == answer.token_ids.shape
    expected = [math.log(confidences[i]) for i in range(len(answer.token_ids))]
    assert answer.logprobs.tolist() == pytest.approx(expected)


def test_gaps_are_filled_and_given_text_stays(llm: LLM) -> None:
    question = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"
    whole = llm.generate(question).text
    head, tail = whole[:10], whole[-15:]

    answer = llm.infill([head, 12, tail, 2], prompt=question)

    first, second = answer.filled
    assert answer.text == head + first + tail + second
    given = len(llm.encode(question)) + sum(len(llm.codec.encode(part)) for part in (head, tail))
    assert (answer.prompt_tokens, answer.completion_tokens) == (given, 14)
    assert len(answer.token_ids) == len(answer.logprobs) == 14 + given - len(llm.encode(question))
    assert llm.engine.package.mask_token_id not in answer.token_ids


def test_text_without_a_prompt_can_have_gaps(llm: LLM) -> None:
    answer = llm.infill([2, "apples"])

    assert answer.text == answer.filled[0] + "apples"
    with pytest.raises(ConfigError, match="at least one gap"):
        llm.infill(["apples"])


def test_parts_that_make_no_sense_are_named(llm: LLM) -> None:
    mask = llm.codec.tokenizer.id_to_token(llm.engine.package.mask_token_id)

    with pytest.raises(ConfigError, match=r"parts\[1\] is .*; write a gap as a number"):
        llm.infill(["a", f"b{mask}c"])
    with pytest.raises(ConfigError, match=r"parts\[0\] is 0; expected a gap of 1 or more"):
        llm.infill([0, "a"])
    with pytest.raises(TypeError):
        llm.infill(["a", 1.5])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"the prompt holds the mask token"):
        llm.infill(["a", 2], prompt=f"a {mask}", raw=True)


@pytest.mark.parametrize("parts", ["abc", "", b"abc", {"a": 2}, {3}, 3, None])
def test_parts_are_a_list(parts: Any, llm: LLM) -> None:
    with pytest.raises(TypeError, match=r"parts is .*; expected a list of str .* and int"):
        llm.infill(parts)


def test_a_mask_token_in_a_prompt_points_to_infill(llm: LLM) -> None:
    mask = llm.codec.tokenizer.id_to_token(llm.engine.package.mask_token_id)

    with pytest.raises(ConfigError, match="infill"):
        llm.generate(f"a {mask}", raw=True)
    with pytest.raises(ConfigError, match="infill"):
        next(llm.stream([llm.engine.package.mask_token_id]))
