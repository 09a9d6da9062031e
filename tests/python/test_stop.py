"""Stop strings: where the text ends, what streams before it, and what the completion counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdllm import LLM, CommitEvent, ConfigError, GenerationConfig
from fastdllm.text import TextStream

from scripted import ByteCodec, ScriptedEngine, WordCodec, left_to_right, scripted_llm

QUESTION = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"
WORDS = {0: "", 1: "one ", 2: "two\n#", 3: "## ", 4: "four", 5: "# five"}


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Read a character at a time until a stop string stands at the end: the definition."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def test_a_stop_string_over_two_tokens_ends_the_text_before_it() -> None:
    engine = ScriptedEngine(left_to_right([1, 2, 3, 4]))
    llm = scripted_llm(engine, WordCodec(WORDS))

    answer = llm.generate([9], stop="###")

    assert answer.text == "one two\n"
    assert (answer.stop, answer.finish_reason) == ("###", "stop")


def test_the_request_ends_with_the_pass_that_completes_the_stop_string() -> None:
    engine = ScriptedEngine(left_to_right([1, 2, 3, 4, 4, 4, 4]))

    answer = scripted_llm(engine, WordCodec(WORDS)).generate([9], stop="###")

    assert engine.passes_run == answer.num_passes == 3


def test_tokens_are_kept_that_hold_text_before_the_stop_string() -> None:
    llm = scripted_llm(ScriptedEngine(left_to_right([1, 2, 3, 4])), WordCodec(WORDS))

    inside = llm.generate([9], stop="###")  # "two\n#" begins it, but holds "two\n" too
    at_edge = llm.generate([9], stop="## ")
    at_once = llm.generate([9], stop="one")

    assert inside.token_ids.tolist() == [1, 2]
    assert at_edge.text == "one two\n#"
    assert at_edge.token_ids.tolist() == [1, 2]
    assert (at_once.text, at_once.token_ids.tolist()) == ("", [])


def test_a_token_that_begins_the_stop_string_stays_out() -> None:
    llm = scripted_llm(ScriptedEngine(left_to_right([1, 4, 3, 4])), WordCodec(WORDS))

    answer = llm.generate([9], stop="## four")

    assert (answer.text, answer.token_ids.tolist()) == ("one four", [1, 4])
    assert answer.logprobs.tolist() == [-0.0, -1.0]
    assert answer.logprobs.dtype == np.float64


def test_generated_tokens_count_to_the_end_of_the_stop_string() -> None:
    """A pass may commit more than that: it is no part of the answer and is not counted."""
    engine = ScriptedEngine([[(0, 1), (1, 4), (2, 3), (3, 4), (4, 4)]])

    answer = scripted_llm(engine, WordCodec(WORDS)).generate([9, 9], stop="##")

    assert (len(answer.token_ids), answer.completion_tokens, answer.prompt_tokens) == (2, 3, 2)


def test_a_stop_string_that_is_not_yet_in_the_committed_prefix_ends_nothing() -> None:
    engine = ScriptedEngine([[(2, 3)], [(1, 4)], [(0, 1)], [(3, 4)]])

    answer = scripted_llm(engine, WordCodec(WORDS)).generate([9], stop="##")

    assert engine.passes_run == 3  # token 3 came first, what stands before it last
    assert answer.text == "one four"


def test_what_stands_behind_an_end_of_text_token_is_not_searched() -> None:
    engine = ScriptedEngine([[(0, 1), (1, 0), (2, 4)]])

    answer = scripted_llm(engine, WordCodec(WORDS)).generate([9], stop="four")

    assert (answer.text, answer.stop, answer.finish_reason) == ("one ", None, "stop")
    assert (answer.token_ids.tolist(), answer.completion_tokens) == ([1, 0], 2)


def test_the_stop_string_that_is_complete_first_counts() -> None:
    llm = scripted_llm(ScriptedEngine([list(enumerate(b"xabcd"))]), ByteCodec())

    assert llm.generate([9], stop=["abcd", "bc"]).text == "xa"
    assert llm.generate([9], stop=["bc", "abc"]).text == "x"  # together: the longer one
    assert llm.generate([9], stop=["d", "zz"]).text == "xabc"


def test_what_could_begin_a_stop_string_waits_and_comes_when_it_did_not() -> None:
    llm = scripted_llm(ScriptedEngine(left_to_right(b"a##b##")), ByteCodec())

    events = list(llm.stream_events([9], stop="###"))

    assert [event.piece for event in events] == ["a", "", "", "##b", "", "", "##"]
    completion = events[-1].completion
    assert completion is not None
    assert (completion.text, completion.stop) == ("a##b##", None)


def test_nothing_of_a_stop_string_leaks_into_the_stream() -> None:
    llm = scripted_llm(ScriptedEngine(left_to_right(b"ab##### 7")), ByteCodec())

    assert "".join(llm.stream([9], stop="#### 7")) == "ab#"


def test_a_stop_string_may_end_in_a_character_of_several_tokens() -> None:
    text = "né🙂!".encode()
    llm = scripted_llm(ScriptedEngine(left_to_right(text)), ByteCodec())

    answer = llm.generate([9], stop="🙂")

    assert (answer.text, answer.token_ids.tolist()) == ("né", list("né".encode()))
    assert answer.completion_tokens == len(text) - 1


def test_tokens_that_can_still_be_edited_end_nothing() -> None:
    """A stop string that an edit takes back before its block is finished was never there."""
    passes = [[(0, ord("a")), (1, ord("#"))], [(1, ord("b"))], [(2, ord("c"))]]
    engine = ScriptedEngine(passes)
    config = GenerationConfig(threshold=0.5, editing_threshold=0.5)

    answer = scripted_llm(engine, ByteCodec()).generate([9], config, stop="#")

    assert (answer.text, answer.stop, engine.passes_run) == ("abc", None, 3)


def test_a_callback_goes_on_hearing_and_can_abort() -> None:
    heard: list[int] = []

    def hear(event: CommitEvent) -> bool:
        heard.append(event.step)
        return event.step < 1

    llm = scripted_llm(ScriptedEngine(left_to_right([1, 4, 4, 3])), WordCodec(WORDS))
    answer = llm.generate([9], stop="##", on_commit=hear)

    assert heard == [0, 1]
    assert (answer.text, answer.finish_reason, answer.stop) == ("one four", "abort", None)


@pytest.mark.parametrize(
    ("stop", "error", "words"),
    [
        ("", ConfigError, "stop is ''"),
        ([""], ConfigError, "expected strings that are not empty"),
        (["a", ""], ConfigError, "not empty"),
        ([3], TypeError, r"stop is \[3\]"),
        (b"ab", TypeError, "expected a string or strings"),
        (b"", TypeError, r"stop is b''"),
        ({"a": 1}, TypeError, r"stop is \{'a': 1\}; expected a string or strings"),
        ({}, TypeError, r"stop is \{\}"),
        (0, TypeError, "stop is 0"),
    ],
)
def test_stops_that_make_no_sense_are_named(stop: Any, error: Any, words: str) -> None:
    engine = ScriptedEngine(left_to_right([1]))
    llm = scripted_llm(engine, WordCodec(WORDS))

    with pytest.raises(error, match=words):
        llm.generate([9], stop=stop)
    assert engine.requests == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_how_the_commits_come_makes_no_difference(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="ab#é", max_size=24))
    stops = data.draw(st.lists(st.text(alphabet="ab#é", min_size=1, max_size=5), max_size=3))
    encoded = text.encode()
    order = data.draw(st.permutations(range(len(encoded))))
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=len(encoded), max_size=len(encoded)))
    expected, stop = first_stop(text, stops)
    stream = TextStream(ByteCodec(), (), stops)

    given_out = ""
    for size in sizes:
        positions, order = order[:size], order[size:]
        given_out += stream.push(positions, [encoded[i] for i in positions])
        assert expected.startswith(given_out)
        assert stream.text == given_out
    given_out += stream.finish()

    assert (given_out, stream.stop) == (expected, stop)
    kept = encoded[: stream.tokens_of(stream.text)] if stop is not None else encoded
    assert kept.decode() == expected


@pytest.mark.parametrize("block_length", [4, 8, 32])
@pytest.mark.parametrize("stop", ["####", "\n#### 7", "apples", [". 12", "zz"], "8 cats"])
def test_a_models_answer_ends_before_its_stop_string(
    stop: Any, block_length: int, llm: LLM
) -> None:
    """Small blocks: the stop strings stand across their edges and span tokens."""
    config = GenerationConfig(max_new_tokens=64, block_length=block_length, threshold=0.9)
    whole = llm.generate(QUESTION, config)
    expected, found = first_stop(whole.text, [stop] if isinstance(stop, str) else stop)

    answer = llm.generate(QUESTION, config, stop=stop)
    pieces = list(llm.stream(QUESTION, config, stop=stop))

    assert (answer.text, answer.stop) == (expected, found)
    assert "".join(pieces) == expected
    assert all(pieces)
    assert answer.num_passes <= whole.num_passes
    kept = answer.token_ids.tolist()
    assert kept == whole.token_ids.tolist()[: len(kept)]
    assert llm.codec.decode(kept).startswith(expected)
    assert len(answer.logprobs) == len(kept) <= answer.completion_tokens


def test_a_stop_string_saves_the_passes_behind_it(llm: LLM) -> None:
    config = GenerationConfig(max_new_tokens=64, block_length=8, threshold=0.9)

    assert (
        llm.generate(QUESTION, config, stop="boxes").num_passes
        <= llm.generate(QUESTION, config).num_passes
    )
    first_word = llm.generate(QUESTION, config).text.split()[0]
    assert llm.generate(QUESTION, config, stop=first_word).num_passes < 4


def test_stop_token_ids_end_an_answer_beside_stop_strings(llm: LLM) -> None:
    whole = llm.generate(QUESTION)
    config = GenerationConfig(threshold=0.9, stop_token_ids=[int(whole.token_ids[3])])

    answer = llm.generate(QUESTION, config, stop="####")

    assert (answer.stop, answer.finish_reason) == (None, "stop")
    assert answer.token_ids.tolist() == whole.token_ids.tolist()[:4]
    assert answer.completion_tokens == 4


def test_padding_behind_the_end_of_text_is_not_counted(llm: LLM) -> None:
    whole = llm.generate(QUESTION)
    padded = llm.generate(
        QUESTION, GenerationConfig(max_new_tokens=64, threshold=0.9, stop_at="block")
    )
    asked_for = llm.generate(
        QUESTION, GenerationConfig(max_new_tokens=64, threshold=0.9, ignore_eos=True)
    )

    assert whole.token_ids[-1] in llm.engine.package.eos_token_ids
    assert whole.completion_tokens == len(whole.token_ids) < len(padded.token_ids)
    assert padded.completion_tokens == whole.completion_tokens
    assert asked_for.completion_tokens == len(asked_for.token_ids) == 64
