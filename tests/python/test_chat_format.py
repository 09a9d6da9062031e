"""A chat template as data: what is read off it, and that what is no format is none."""

from __future__ import annotations

import pytest

from fastdllm.export.chat_format import derive_chat_format, render_chat_format
from fastdllm.text import ChatTemplate

from chat_templates import (
    DEFAULT_SYSTEM,
    NO_SYSTEM,
    PLAIN,
    ROLE_TAGS,
    THINKING,
    TRIMMED,
)

TOKENS = {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}
CONVERSATION = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "\u3000Hi \n"},
    {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello!"},
    {"role": "user", "content": "And now? <|im_end|>"},
]


@pytest.mark.parametrize("source", [PLAIN, DEFAULT_SYSTEM, TRIMMED, ROLE_TAGS, THINKING])
def test_a_format_renders_what_its_template_renders(source: str) -> None:
    form, reason = derive_chat_format(source, TOKENS)
    assert reason is None
    assert form is not None
    template = ChatTemplate(source, TOKENS)
    for messages in (CONVERSATION, CONVERSATION[1:], CONVERSATION[1:2], CONVERSATION[2:]):
        assert render_chat_format(form, messages) == template.render(messages)


def test_what_stands_around_a_turn_is_read_off() -> None:
    form, _ = derive_chat_format(DEFAULT_SYSTEM, TOKENS)
    assert form is not None
    assert form["begin"] == "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    assert form["generation_prompt"] == "<|im_start|>assistant\n"
    assert form["roles"]["user"] == {
        "before": "<|im_start|>user\n",
        "after": "<|im_end|>\n",
        "trim": False,
        "drop_through": None,
        "refused": [],
    }


def test_a_template_that_looks_into_contents_limits_its_format() -> None:
    form, _ = derive_chat_format(THINKING, TOKENS)
    assert form is not None
    assert form["last_role"] == "user"
    assert form["roles"]["assistant"]["drop_through"] == "</think>"
    assert form["roles"]["user"]["refused"] == ["<tool_response>"]
    with pytest.raises(ValueError, match="holds text that the template acts on"):
        render_chat_format(form, [{"role": "user", "content": "<tool_response>1</tool_response>"}])
    with pytest.raises(ValueError, match="is not the user's"):
        render_chat_format(form, CONVERSATION[:3])


def test_a_role_that_the_template_refuses_or_drops_is_not_in_the_format() -> None:
    dropped = PLAIN.replace(
        "<|im_start|>{{ m.role", "{% if m.role != 'system' %}<|im_start|>{{ m.role"
    )
    dropped = dropped.replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endif %}{% endfor")
    for source in (NO_SYSTEM, dropped):
        form, reason = derive_chat_format(source, TOKENS)
        assert reason is None
        assert form is not None
        assert form["first_system"] is None
        assert set(form["roles"]) == {"user", "assistant"}
        with pytest.raises(ValueError, match="a role that the format does not have"):
            render_chat_format(form, CONVERSATION)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ strftime_now('%Y') }}" + PLAIN, "it uses strftime_now"),
        (PLAIN + "{{ [1, 2] | random }}", "it uses random"),
        ("{{ messages[0].content }}", "it gives no message of"),
        (PLAIN.replace("{{ m.content", "{{ loop.index }}{{ m.content"), ""),
        (PLAIN.replace("m.content", "m.content | upper"), "it gives no message of"),
        (PLAIN.replace("m.content", "m.content[:2000]"), "conversations come out differently"),
        (PLAIN.replace("m.content", "m.content.lstrip()"), "conversations come out differently"),
        (PLAIN.replace("m.content", "m.content.replace('x', 'y')"), "it acts on 'x'"),
        (
            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.content }}>{% endfor %}",
            "roles must alternate",
        ),
    ],
)
def test_what_is_more_than_a_format_has_none_and_says_why(source: str, reason: str) -> None:
    form, found = derive_chat_format(source, TOKENS)
    assert form is None
    assert found is not None
    assert reason in found
