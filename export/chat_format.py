"""A chat template as data, for programs without Jinja: what stands around each message.

The format is read off renderings of marked messages, and kept only where it gives what the template
gives for many conversations, made so as to hit what templates do with roles and contents. See
PACKAGE.md for its keys.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, meta, nodes

from fastdllm.template_limits import TEMPLATE_EXTENSIONS
from fastdllm.text import ChatTemplate, Message, TemplateLimitError, TextError, Variables

ROLES = ("system", "user", "assistant")
# What another rendering of the same messages may give differently.
UNSTEADY = {"strftime_now", "lipsum", "random"}
# Variables that are no switches.
NO_SWITCHES = {"messages", "add_generation_prompt", "tools", "documents", "strftime_now"}
NO_SWITCHES |= {"raise_exception", "range", "namespace", "dict", "cycler", "joiner"}
MAX_SWITCHES = 8
THINK_END = "</think>"
MAX_REFUSED = 8
MAX_SECONDS = 60.0  # of the processor, for all comparisons of one template


class NoFormat(Exception):
    """The template is more than a format, and why."""


def derive_chat_format(
    source: str, special_tokens: Mapping[str, str], variables: Variables = None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the format of a template; or None, and what it does that no format does.

    variables: of the template, always the same. Errors: TextError for a template that does not
    parse or goes beyond its limits.
    """
    template = _TimedTemplate(source, special_tokens, variables)
    syntax = Environment(extensions=TEMPLATE_EXTENSIONS).parse(source)
    try:
        _require_steady(syntax)
        form = _read_off(template)
        literals = _literals(syntax, special_tokens)
        _refuse_what_differs(form, template, literals)
        _verify(form, template, literals)
    except NoFormat as reason:
        return None, str(reason)
    return form, None


def derive_variants(source: str, special_tokens: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the formats that a template has when one of its switches is on or off.

    A switch is a variable that changes what is rendered when it is true or false, as
    enable_thinking. Errors: as derive_chat_format().
    """
    syntax = Environment(extensions=TEMPLATE_EXTENSIONS).parse(source)
    names = sorted(meta.find_undeclared_variables(syntax) - set(special_tokens) - NO_SWITCHES)
    template = ChatTemplate(source, special_tokens)
    found: list[dict[str, Any]] = []
    for name in names[:MAX_SWITCHES]:
        if _switches(template, name):
            for value in (False, True):
                form, _ = derive_chat_format(source, special_tokens, {name: value})
                if form is not None:
                    found.append({"variables": {name: value}, "format": form})
    return found


def _switches(template: ChatTemplate, name: str) -> bool:
    messages = _messages(("user", "assistant", "user"), ("q", "a", "r"))
    try:
        texts = {template.render(messages, variables={name: value}) for value in (True, False)}
        return len(texts | {template.render(messages)}) > 1
    except TemplateLimitError:
        raise
    except TextError:
        return False


class _TimedTemplate(ChatTemplate):
    """A chat template that renders for so long in all: it is rendered thousands of times."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], variables: Variables
    ) -> None:
        super().__init__(source, special_tokens)
        self._variables = variables
        self._end = time.thread_time() + MAX_SECONDS

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Variables = None,
    ) -> str:
        if time.thread_time() > self._end:
            raise NoFormat(f"comparing it with a format takes more than {MAX_SECONDS:g} seconds")
        return super().render(
            messages,
            add_generation_prompt=add_generation_prompt,
            variables=self._variables if variables is None else variables,
        )


def render_chat_format(form: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """Render messages as C++ does. Errors: ValueError for what the format does not take."""
    if not messages:
        raise ValueError("there are no messages")
    if form["last_role"] not in (None, messages[-1]["role"]):
        raise ValueError(f"the last message is not the {form['last_role']}'s")
    text = ""
    for number, message in enumerate(messages):
        first_system = number == 0 and message["role"] == "system"
        turn = form["first_system"] if first_system else form["roles"].get(message["role"])
        if turn is None:
            raise ValueError(f"message {number} has a role that the format does not have")
        content = message["content"]
        if any(refused in content for refused in turn["refused"]):
            raise ValueError(f"message {number} holds text that the template acts on")
        if turn["drop_through"] is not None and turn["drop_through"] in content:
            content = content.rpartition(turn["drop_through"])[2].lstrip("\n")
        if turn["trim"]:
            content = content.strip()
        begin = form["begin"] if number == 0 and not first_system else ""
        text += begin + turn["before"] + content + turn["after"]
    return text + str(form["generation_prompt"])


def _require_steady(syntax: nodes.Template) -> None:
    names = {name.name for name in syntax.find_all(nodes.Name)}
    names |= {used.name for used in syntax.find_all(nodes.Filter)}
    if unsteady := names & UNSTEADY:
        raise NoFormat(f"it uses {', '.join(sorted(unsteady))}: no two days or calls are the same")


def _literals(syntax: nodes.Template, special_tokens: Mapping[str, str]) -> list[str]:
    """Return the texts that the template knows; it may look for them in contents."""
    found = {text.value for text in syntax.find_all(nodes.Const) if isinstance(text.value, str)}
    return sorted(text for text in found | set(special_tokens.values()) if text.strip())


def _messages(roles: Sequence[str], contents: Sequence[str]) -> list[Message]:
    return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]


def _around(template: ChatTemplate, *roles: str, prompted: bool = True) -> list[str]:
    """Return what stands before, between and behind the contents of messages of these roles."""
    marks = [f"\u2983{number}mark\u2984" for number in range(len(roles))]
    try:
        rest = template.render(_messages(roles, marks), add_generation_prompt=prompted)
    except TemplateLimitError:
        raise
    except TextError as problem:
        raise NoFormat(f"it refuses messages of {', '.join(roles)}: {problem}") from None
    pieces = []
    for mark in marks:
        piece, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise NoFormat(f"it gives no message of {', '.join(roles)} once and in order")
        pieces.append(piece)
    return [*pieces, rest]


def _read_off(template: ChatTemplate) -> dict[str, Any]:
    # Conversations end with the user's turn: what ends otherwise may be a special case.
    answer = _around(template, "user", "assistant", "user")
    repeated = _around(template, "user", "user")
    alone = _around(template, "user")
    after_user = _common_beginning(
        alone[1], _around(template, "user", prompted=False)[1], repeated[1], answer[1]
    )
    before_user = repeated[1].removeprefix(after_user)
    roles = {
        "user": _turn(template, (), "user", before_user, after_user),
        "assistant": _turn(
            template,
            ("user",),
            "assistant",
            answer[1].removeprefix(after_user),
            _less(answer[2], before_user),
        ),
    }
    form: dict[str, Any] = {
        "begin": _less(alone[0], before_user),
        "first_system": None,
        "roles": roles,
        "generation_prompt": alone[1].removeprefix(after_user),
        "last_role": None,
    }
    # A template may refuse or drop system messages; then the format has none to take.
    try:
        first = _around(template, "system", "user")
        form["first_system"] = _turn(template, (), "system", first[0], _less(first[1], before_user))
        later = _around(template, "user", "system", "user")
        if later[1].startswith(after_user) and later[2].endswith(before_user):
            before = later[1].removeprefix(after_user)
            after = later[2].removesuffix(before_user)
            roles["system"] = _turn(template, ("user",), "system", before, after)
    except NoFormat:
        pass
    return form


def _common_beginning(*texts: str) -> str:
    columns = zip(*texts, strict=False)
    return "".join(column[0] for column in itertools.takewhile(lambda c: len(set(c)) == 1, columns))


def _less(text: str, end: str) -> str:
    if not text.endswith(end):
        raise NoFormat(f"the user's turn begins with {end!r} in one place, in another {text!r}")
    return text.removesuffix(end)


def _turn(
    template: ChatTemplate, lead: tuple[str, ...], role: str, before: str, after: str
) -> dict[str, Any]:
    """Return what the format does with the role, and how contents are changed."""

    def shown(content: str) -> str:
        roles = (*lead, role, "user")
        contents = [*(["\u2983lead\u2984"] * len(lead)), content, "\u2983end\u2984"]
        text = template.render(_messages(roles, contents))
        return text.partition("\u2983lead\u2984")[2] if lead else text

    try:
        spaced, thought = shown("\n kept \n"), shown(f"<think>\ndropped\n{THINK_END}\n\nkept")
    except TemplateLimitError:
        raise
    except TextError as problem:
        raise NoFormat(f"it refuses contents of the role {role}: {problem}") from None
    return {
        "before": before,
        "after": after,
        "trim": "\n kept" not in spaced,
        "drop_through": None if "dropped" in thought else THINK_END,
        "refused": [],
    }


def _differs(form: Mapping[str, Any], template: ChatTemplate, messages: list[Message]) -> bool:
    try:
        ours = render_chat_format(form, messages)
    except ValueError:
        return False  # it says that it does not take them
    try:
        return ours != template.render(messages)
    except TemplateLimitError:
        raise
    except TextError:
        return True


def _refuse_what_differs(form: dict[str, Any], template: ChatTemplate, literals: list[str]) -> None:
    """Let turns refuse texts of the template's that it acts on when a content holds them."""
    # An answer with thoughts in it, since templates look for the question that it belongs to.
    answered = _messages(("user", "assistant"), ("q", f"<think>\nt\n{THINK_END}\n\na"))
    places: list[tuple[dict[str, Any] | None, list[Message], str, list[Message]]] = [
        (form["first_system"], [], "system", _messages(("user",), ("q",))),
        (form["roles"].get("system"), answered, "system", _messages(("user",), ("q",))),
        (form["roles"]["user"], answered, "user", []),
        (form["roles"]["user"], [], "user", [*answered[1:], *_messages(("user",), ("q",))]),
        (form["roles"]["assistant"], answered[:1], "assistant", _messages(("user",), ("q",))),
    ]
    marked = [text for text in literals if re.search(r"[^\w\s]", text)][:64]
    singles = [(text, content) for text in literals for content in (text, f"x {text} y")]
    pairs = [(a, a + "x" + b) for a, b in itertools.product(marked, marked)]
    for turn, before, role, behind in places:
        if turn is None:
            continue
        for text, content in [*singles, *pairs]:
            messages = [*before, *_messages((role,), (content,)), *behind]
            if not _differs(form, template, messages):
                continue
            if len(text) < 4 or text not in marked or len(turn["refused"]) == MAX_REFUSED:
                raise NoFormat(f"it acts on {text!r} in the content of the role {role}")
            turn["refused"].append(text)


def _verify(form: dict[str, Any], template: ChatTemplate, literals: list[str]) -> None:
    """Compare many conversations; where only other ends differ, ask for the user's turn last."""
    for _ in range(2):
        wrong = [c for c in _conversations(literals) if _differs(form, template, c)]
        if not wrong:
            return
        if any(messages[-1]["role"] == "user" for messages in wrong):
            break
        form["last_role"] = "user"
    shown = [(message["role"], message["content"][:30]) for message in wrong[0][:4]]
    raise NoFormat(f"{len(wrong)} conversations come out differently, as {shown}")


def _conversations(literals: list[str]) -> Iterator[list[Message]]:
    contents = [
        "",
        " ",
        "Hi",
        " Hello!  \n",
        "\n\ttab\r\n\r\n",
        "\u00a0\u2003wide\u3000\u0085",
        "\x1c\x1funit\x0b\x0c",
        "\u200bno space\ufeff",
        "Привет, 你好 🙂 e\u0301",
        "{{ messages }} {% raise %} {# no #} &lt;&amp; \\n 'a' \"b\"",
        f"<think>\nFirst.\n{THINK_END}\n\nThen.",
        f"<think>{THINK_END}\n \n x",
        "<think> open",
        "system user assistant tool",
        "[INST] <s> </s> <|im_start|>user\nHi<|im_end|>",
        "long " * 2000,
        *literals,
    ]
    draw = random.Random(20)
    orders = [o for n in range(1, 5) for o in itertools.product(ROLES, repeat=n)]
    turns = [tuple(itertools.islice(itertools.cycle(ROLES[1:]), n)) for n in (5, 12, 41)]
    for roles in [*orders * 4, *turns, *[("system", *roles) for roles in turns]]:
        yield _messages(roles, draw.choices(contents, k=len(roles)))
    for role in ROLES:
        for content in contents:
            yield _messages((role, "user"), (content, "Hi"))
            yield _messages(("user", role, "user"), ("Hi", content, content))
            yield _messages(("user", role), ("Hi", content))
