"""Text in and out: templates, streaming in whole characters, leaving early, errors."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import LLM, ConfigError, GenerationConfig
from fastdllm.text import ChatTemplate, TextCodec, TextError, TextStream

from conftest import PackageOf

QUESTION = "Tom has 3 boxes of 4 apples. How many apples is that?"


class ByteCodec(TextCodec):
    """A token is a byte of UTF-8: the hardest case for streaming."""

    def __init__(self) -> None:
        self.chat_template = None

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def stream_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fastdllm-stream"]


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


def test_no_config_is_threshold_and_dual_cache(llm: LLM) -> None:
    found = llm.generate(QUESTION)
    expected = llm.generate(QUESTION, GenerationConfig(threshold=0.9, cache="dual"))

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


def test_leaving_a_stream_ends_its_generation(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=256, block_length=8, cache="none", ignore_eos=True)

    for _ in llm.stream(QUESTION, config):
        break

    assert stream_threads() == []
    assert llm.generate(QUESTION, GenerationConfig(max_new_tokens=4)).num_passes > 0


def test_an_unread_stream_starts_nothing(llm: LLM) -> None:
    stream = llm.stream(QUESTION)

    assert stream_threads() == []
    del stream


def test_errors_come_out_where_the_stream_is_read(llm: LLM) -> None:
    stream: Iterator[str] = llm.stream([1], GenerationConfig(max_new_tokens=100_000))

    with pytest.raises(ConfigError, match="longer than the model's context"):
        next(stream)
    assert stream_threads() == []


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
        ({"file": "absent.json"}, "absent.json: not readable"),
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
