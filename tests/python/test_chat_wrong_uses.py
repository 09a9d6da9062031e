"""`fastdllm chat`: files that would end it later, values of no use, answers that never began."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_chat_cli import said, talking

import fastdllm
from fastdllm.cli import chat

TURN = {
    "finish_reason": "stop",
    "num_passes": 2,
    "refresh_passes": 1,
    "step_passes": 1,
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "tokens_per_forward": 2.0,
    "reused_rows": None,
    "seconds": 0.5,
}


def kept(folder: Path, **changed: Any) -> Path:
    """Write the file of a conversation in which something is changed."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    content = {"messages": messages, "config": {}, "stats": [TURN]} | changed
    path = folder / "chat.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_only_reused_rows_of_a_turn_may_be_unknown(tmp_path: Path) -> None:
    conversation = talking([])

    conversation.load(kept(tmp_path))

    assert conversation.stats == [TURN]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "not Unicode"),
        ({"stats": [TURN | {"finish_reason": "\udfff"}]}, "not Unicode"),
        ({"stats": [TURN | {"seconds": None}]}, "null only for reused_rows"),
        ({"stats": [TURN | {"finish_reason": None}]}, "stats: expected"),
        ({"stats": [TURN | {"seconds": float("nan")}]}, "stats: expected"),
        ({"stats": [TURN | {"reused_rows": float("nan")}]}, "stats: expected"),
        ({"stats": [TURN | {"seconds": float("inf")}]}, "stats: expected"),
        ({"stats": [TURN | {"num_passes": 10**400}]}, "stats: expected"),
        ({"stats": [TURN | {"num_passes": True}]}, "stats: expected"),
        ({"stats": [TURN | {"num_passes": -1}]}, "stats: expected"),
    ],
)
def test_a_file_that_would_end_the_chat_later_is_refused(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    conversation = talking([])
    said(conversation)
    before = conversation.to_json()

    with pytest.raises(fastdllm.Error, match=words):
        conversation.load(kept(tmp_path, **changed))

    assert conversation.to_json() == before


def test_errors_and_stats_of_a_file_do_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    from rich.console import Console

    conversation = talking([])
    package: Any = conversation.llm.engine.package
    package.max_context_length = 512
    conversation.load(kept(tmp_path, stats=[TURN | {"finish_reason": "\x1b[2J"}]))
    kept(tmp_path, config={"\x1b]0;taken\x07": 1})
    lines = iter(["/stats", f"/load {tmp_path / 'chat.json'}", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))

    assert chat._Terminal(conversation, Console(file=io.StringIO())).talk() == 0

    told = capsys.readouterr()
    assert "ended by \\x1b[2J" in told.out
    assert "\\x1b]0;taken\\x07" in told.err
    assert not {"\x1b", "\x07"} & set(told.out + told.err)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("threshold", "abc", "threshold is abc; expected a number in (0, 1], or none"),
        ("temperature", "none", "temperature is none; expected a number"),
        ("steps", "1.5", "steps is 1.5; expected an integer in [1, 2^20], or none"),
        ("seed", "none", "seed is none; expected an integer"),
        ("ignore_eos", "maybe", "ignore_eos is maybe; expected true or false"),
        ("cache", "3", "cache is 3; expected one of none, prefix, dual, auto"),
        (
            "logit_bias",
            "abc",
            'logit_bias is abc; expected token ids and numbers, such as {"12": -1.5}',
        ),
        ("banned_token_ids", "x", "banned_token_ids is x; expected token ids, such as [1, 2], or"),
        ("stop_token_ids", "3", "stop_token_ids is 3; expected token ids, such as [1, 2], or none"),
    ],
)
def test_a_value_of_no_use_is_refused_in_words(name: str, text: str, words: str) -> None:
    conversation = talking([])
    before = conversation.config.to_dict()

    with pytest.raises(fastdllm.ConfigError) as caught:
        conversation.set(name, text)

    assert str(caught.value).startswith(words)
    assert conversation.config.to_dict() == before


@pytest.mark.parametrize(
    ("name", "text", "empty"),
    [
        ("logit_bias", '{"12": -1.5}', {}),
        ("banned_token_ids", "[3]", []),
        ("stop_token_ids", "[3]", None),
    ],
)
def test_none_clears_what_is_a_list(name: str, text: str, empty: object) -> None:
    conversation = talking([])
    conversation.set(name, text)
    assert conversation.config.to_dict()[name]

    conversation.set(name, "none")

    assert conversation.config.to_dict()[name] == empty


def test_an_answer_that_ctrl_c_ended_before_any_text_leaves_its_question_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conversation = talking([])
    said(conversation)
    before = list(conversation.messages)

    monkeypatch.setattr(conversation.llm, "stream_events", interrupted)
    assert conversation.ask("Hi", lambda event: None) == ("", None)

    assert conversation.messages == before
    assert conversation.stats[0]["finish_reason"] == "abort"


def interrupted(*args: object, **options: object) -> Iterator[fastdllm.StreamEvent]:
    raise KeyboardInterrupt
    yield
