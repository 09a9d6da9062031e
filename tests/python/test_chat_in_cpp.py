"""fastdllm::text gives what Python gives: conversations, and text that streams."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fastdllm import LLM
from fastdllm.check import read_metadata
from fastdllm.export.chat_format import derive_chat_format, derive_variants, render_chat_format
from fastdllm.text import ChatTemplate, TextCodec, TextError, TextStream

from chat_templates import DEFAULT_SYSTEM, NO_SYSTEM, PLAIN, ROLE_TAGS, THINKING, TRIMMED
from conftest import PackageOf
from cpp_tools import ask

TOKENS = {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}
TEXTS = (
    "", " ", "\n", "\r\n\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u200b", "Hi", "x y",
    "你好", "🙂", "<think>", "</think>", "<|im_end|>", "<|bos|>", "user", "system", "\x00", "\\",
    '"', "<tool_response>", "</tool_response>", "{{ x }}",
)  # fmt: skip


def package_with(template: str, package: Path, folder: Path) -> Path:
    """Return a package like another with a chat template of its own."""
    folder.mkdir()
    for file in package.iterdir():
        (folder / file.name).hardlink_to(file)
    metadata = read_metadata(package)
    metadata["tokenizer"]["chat_format"], reason = derive_chat_format(template, TOKENS)
    metadata["tokenizer"]["chat_format_variants"] = derive_variants(template, TOKENS)
    assert reason is None
    (folder / "fastdllm.json").unlink()
    (folder / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")
    return folder


def conversations(count: int, texts: tuple[str, ...] = TEXTS) -> list[list[dict[str, str]]]:
    draw = random.Random(5)
    return [
        [
            {
                "role": draw.choice(("user", "user", "assistant", "system")),
                "content": "".join(draw.choices(texts, k=draw.randrange(5))),
            }
            for _ in range(draw.randrange(1, 7))
        ]
        for _ in range(count)
    ]


SWITCH = PLAIN + "{% if enable_thinking is defined and enable_thinking is false %}<off>{% endif %}"


def test_switches_of_a_template_are_formats_of_their_own(
    package_of: PackageOf, tmp_path: Path
) -> None:
    package = package_with(SWITCH, package_of("tiny_math"), tmp_path / "package")
    jinja = ChatTemplate(SWITCH, TOKENS)
    messages = [{"role": "user", "content": "Hi"}]
    for variables in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
        request = {"messages": messages, "variables": json.dumps(variables)}
        [answer] = ask("text_tool", package, [request])
        assert answer == {"text": jinja.render(messages, variables=variables)}
    for wrong, words in (
        ('{"tools": []}', 'a chat format for {"enable_thinking":false}, {"enable_thinking":true}'),
        ("[1]", "no JSON object"),
        ("{", "no JSON object"),
    ):
        [answer] = ask("text_tool", package, [{"messages": messages, "variables": wrong}])
        assert words in answer["error"]
    assert derive_variants(PLAIN, TOKENS) == []


CONTROL = (
    *("<|mdm_mask|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>", "<|eot_", "id|>", "<|"),
    *("\U0010fffd", "\U0010fffc", "e\u0301"),
)


def test_control_tokens_inside_messages_are_text_as_in_python(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    codec = LLM(package, threads=1).codec
    asked = conversations(1500, (*TEXTS, *CONTROL * 2))
    answers = ask("text_tool", package, ({"messages": m, "encode": True} for m in asked))
    assert [answer["ids"] for answer in answers] == [codec.encode_chat(m) for m in asked]
    mask = codec.tokenizer.token_to_id("<|mdm_mask|>")
    assert not any(mask in answer["ids"] for answer in answers)


@pytest.mark.parametrize(
    "template", [PLAIN, DEFAULT_SYSTEM, TRIMMED, ROLE_TAGS, THINKING, NO_SYSTEM]
)
def test_conversations_render_as_the_template_renders_them(
    template: str, package_of: PackageOf, tmp_path: Path
) -> None:
    package = package_with(template, package_of("tiny_math"), tmp_path / "package")
    form = read_metadata(package)["tokenizer"]["chat_format"]
    jinja = ChatTemplate(template, TOKENS)
    asked = conversations(1500)
    answers = ask("text_tool", package, ({"messages": messages} for messages in asked))
    rendered = 0
    for messages, answer in zip(asked, answers, strict=True):
        if "error" in answer:
            with pytest.raises(ValueError):  # noqa: PT011 - the refusal, however it is said
                render_chat_format(form, messages)
        else:
            rendered += 1
            assert answer["text"] == jinja.render(messages), messages
    assert rendered > 200
    for messages, answer in zip(asked, answers, strict=True):
        try:
            jinja.render(messages)
        except TextError:
            assert "error" in answer


def answer_tokens(draw: random.Random, codec: TextCodec) -> list[int]:
    """Return tokens of an answer, some of them parts of characters, some in no order at all."""
    if draw.random() < 0.3:
        return [draw.randrange(512) for _ in range(draw.randrange(100))]
    words = (
        "a",
        "##",
        "#",
        " 12",
        "naïve ",
        "你好",
        "🙂👍",
        "\n",
        "####",
        "Привет",
        "<|endoftext|>",
    )
    return codec.encode("".join(draw.choices(words, k=draw.randrange(40))))


def streamed(codec: TextCodec, request: dict[str, Any]) -> dict[str, Any]:
    stream = TextStream(codec, request["stop_ids"], request["stop"])
    pieces = [stream.push(positions, tokens) for positions, tokens in request["pushes"]]
    pieces.append(stream.finish())
    counts = [stream.tokens_of(stream.text), stream.tokens_of(stream.text + (stream.stop or ""))]
    return {"pieces": pieces, "text": stream.text, "stop": stream.stop, "tokens": counts}


def test_text_streams_as_in_python(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    codec = TextCodec(package, read_metadata(package)["tokenizer"])
    draw = random.Random(8)
    requests = []
    for _ in range(1500):
        ids = answer_tokens(draw, codec)
        order = list(range(len(ids)))
        if draw.random() < 0.7:
            draw.shuffle(order)
        pushes = []
        while order:
            now = [order.pop() for _ in range(min(len(order), draw.randrange(1, 9)))]
            pushes.append([now, [ids[position] for position in now]])
        parts = ("#", "##", "a", "1", "2\n", "好", "🙂", "Привет 你", "ve ", "\ufffd")
        stop = [
            "".join(draw.choices(parts, k=draw.randrange(1, 3))) for _ in range(draw.randrange(4))
        ]
        stop_ids = [506] if draw.random() < 0.5 else []
        requests.append({"pushes": pushes, "stop": stop, "stop_ids": stop_ids})
    answers = ask("text_tool", package, requests)
    for request, answer in zip(requests, answers, strict=True):
        assert answer == streamed(codec, request), request
    assert sum(answer["stop"] is not None for answer in answers) > 300
