"""`fastdllm chat`: piped, on a terminal, what is drawn, and what is kept."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdllm
from fastdllm import GenerationConfig
from fastdllm.chat import Conversation
from fastdllm.check import read_metadata
from fastdllm.cli import chat as chat_command
from fastdllm.text import ChatTemplate

from chat_templates import NO_SYSTEM
from conftest import EngineOf, PackageOf
from scripted import ByteCodec, ScriptedEngine, event_of, left_to_right, scripted_llm
from test_cpp_cli import Terminal

QUESTION = "Tom has 3 boxes of 4 apples. How many apples is that?"
COMMAND = (sys.executable, "-m", "fastdllm")
SLOW = ("--max-new-tokens", "448", "--threshold", "1", "--ignore-eos", "--cache", "none")
TALK = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


def chat(*args: object, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """Pipe a chat; its output as text."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    command = [*COMMAND, "chat", *map(str, args)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=120, check=False)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def talking(passes: list[Any], template: str | None = TALK) -> Conversation:
    """Return a conversation with an engine that answers always the same."""
    codec = ByteCodec()
    codec.chat_template = ChatTemplate(template, {}) if template else None
    llm = scripted_llm(ScriptedEngine(passes), codec)
    return Conversation(llm, GenerationConfig(), package="package")


def said(conversation: Conversation) -> None:
    conversation.messages = [
        {"role": "user", "content": "a\x1b"},
        {"role": "assistant", "content": "b"},
    ]


def package_with_template(package: Path, folder: Path, template: str | None) -> Path:
    """Return a package like another, with another chat template or none."""
    folder.mkdir()
    for file in package.iterdir():
        if file.name not in ("fastdllm.json", "chat_template.jinja"):
            (folder / file.name).hardlink_to(file)
    metadata = read_metadata(package)
    entry = metadata["files"].pop("chat_template.jinja")
    if template is None:
        metadata["tokenizer"]["chat_template"] = None
    else:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
        metadata["files"]["chat_template.jinja"] = entry | {"bytes": len(template.encode())}
    (folder / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")
    return folder


# --- piped ------------------------------------------------------------------------------------


def test_piped_lines_are_turns_of_one_conversation(
    package_of: PackageOf, llm: fastdllm.LLM
) -> None:
    turns = [QUESTION, "And with 4 boxes?"]
    config = GenerationConfig(max_new_tokens=48, threshold=0.9)
    messages: list[dict[str, str]] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        text = llm.generate(messages, config, stop="####").text
        messages.append({"role": "assistant", "content": text})
    answers = [message["content"] for message in messages[1::2]]
    words = (package_of("tiny_math"), "--max-new-tokens", "48", "--stop", "####")

    found = chat(*words, stdin=f"\r\n{turns[0]}\r\n\n{turns[1]}")
    as_json = chat(*words, "--json", stdin="\n".join(turns))

    assert found.returncode == 0, found.stderr
    assert found.stdout == "".join(f"{answer}\n" for answer in answers)
    assert [json.loads(line)["text"] for line in as_json.stdout.splitlines()] == answers


def test_a_turn_that_fails_is_left_out(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    alone = chat(package, stdin=f"{QUESTION}\n")

    found = chat(package, stdin=f"{'long ' * 400}\ncaf\xe9\n{QUESTION}\n".encode("latin-1"))

    assert found.returncode == 1
    assert "context" in found.stderr.splitlines()[0]
    assert found.stderr.splitlines()[1] == "fastdllm: error: the message is not valid UTF-8"
    assert found.stdout == alone.stdout


def test_without_a_chat_template_every_turn_stands_alone_and_that_is_said(
    package_of: PackageOf, llm: fastdllm.LLM, tmp_path: Path
) -> None:
    package = package_with_template(package_of("tiny_math"), tmp_path / "package", None)
    config = GenerationConfig(max_new_tokens=16, threshold=0.9)
    turns = ["Ann has 2 pens. How many", QUESTION]

    found = chat(package, "--max-new-tokens", "16", stdin="\n".join(turns))
    refused = chat(package, "--system", "Be kind.", stdin=QUESTION)

    assert "has no chat template: every turn is a prompt of its own" in found.stderr
    assert found.stdout == "".join(llm.generate(t, config, raw=True).text + "\n" for t in turns)
    assert refused.returncode == 1
    assert "no chat template" in refused.stderr


def test_a_system_message_that_the_template_refuses_is_an_error_before_any_turn(
    package_of: PackageOf, tmp_path: Path
) -> None:
    package = package_with_template(package_of("tiny_math"), tmp_path / "package", NO_SYSTEM)

    found = chat(package, "--system", "Be kind.", stdin=QUESTION)

    assert (found.returncode, found.stdout) == (1, "")
    assert "no system role" in found.stderr


def test_input_that_is_closed_is_an_error(package_of: PackageOf) -> None:
    words = [*COMMAND, "chat", str(package_of("tiny_math"))]

    found = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *words], capture_output=True, text=True, check=False
    )

    assert found.returncode == 1
    assert "the message is to be read from standard input, which is closed" in found.stderr


# --- on a terminal ----------------------------------------------------------------------------


def terminal(package: Path, *options: str, setting: str = "LINES=24") -> Terminal:
    """Open a chat on a terminal, up to its first prompt."""
    given = ("/usr/bin/env", "TERM=xterm-256color", setting)
    opened = Terminal(*given, *COMMAND, "chat", package, *options)
    opened.wait_for("> ")
    return opened


@pytest.fixture
def tiny_math(package_of: PackageOf) -> Path:
    pytest.importorskip("rich")
    return package_of("tiny_math")


def test_masks_are_drawn_until_the_answer_stands(tiny_math: Path, llm: fastdllm.LLM) -> None:
    config = GenerationConfig(max_new_tokens=48, threshold=1.0)
    answer = llm.generate([{"role": "user", "content": QUESTION}], config).text
    shown = terminal(tiny_math, "--max-new-tokens", "48", "--threshold", "1")

    shown.type(f"{QUESTION}\n")
    shown.wait_for("\u2591")
    shown.wait_for("tokens per pass")
    shown.wait_for("\x1b[2K")  # what was drawn is taken away
    shown.wait_for(answer.replace("\n", "\r\n") + "\r\n")
    shown.wait_for("> ")
    shown.type("\x04")

    assert shown.end() == 0


@pytest.mark.parametrize(
    ("setting", "is_coloured"),
    [("COLORTERM=truecolor", True), ("NO_COLOR=1", False), ("TERM=dumb", False)],
)
def test_colours_are_left_out_where_they_are_not_wanted(
    setting: str, is_coloured: bool, tiny_math: Path
) -> None:
    doubtful = ("--temperature", "3", "--remasking", "random", "--ignore-eos")
    shown = terminal(tiny_math, *doubtful, setting=setting)
    shown.type(f"{QUESTION}\n")
    shown.wait_for(QUESTION)
    shown.wait_for("> ")
    shown.type("\x04")

    assert shown.end() == 0
    colours = re.findall(r"\x1b\[[0-9;]*?3[1-7]m", shown.all_shown)
    assert bool(colours) == is_coloured


def test_ctrl_c_ends_the_answer_and_then_the_program(tiny_math: Path) -> None:
    shown = terminal(tiny_math, *SLOW)
    shown.type(f"{QUESTION}\n")
    shown.wait_for("pass 5")
    shown.type("\x03")
    shown.wait_for("(ended by Ctrl-C)")
    shown.type("/stats\n")
    shown.wait_for("ended by abort")
    shown.wait_for("> ")
    shown.type("\x03")
    with contextlib.suppress(OSError):  # it has ended
        shown.type("\n")  # readline may wait already when the signal is noticed

    assert shown.end() == 130


def test_commands_set_show_save_reset_and_load(tiny_math: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    shown = terminal(tiny_math, "--max-new-tokens", "32")
    for line, answer in (
        ("/set", "ignore_eos false"),
        ("/set threshold 0.5", "threshold 0.5"),
        ("/set threshold 7", "threshold is 7; expected a number in (0, 1]"),
        ("/set cache none", 'cache "none"'),
        ("/set threshold none", "threshold null"),
        ("/set frechet 0.25", "frechet 0.25"),
        ("/set colour red", "there is no option colour"),
        ("/stats", "no turn yet"),
        (f"Tom has 3 boxes of 4\\\n{QUESTION}", "tokens per pass"),
        ("/stats", "all turns (1)"),
        (f"/save {kept}", "2 messages"),
        ("/reset", "> "),
        ("/stats", "no turn yet"),
        (f"/load {kept}", "2 messages"),
        ("/stats", "all turns (1)"),
        ("/save", "expected /save FILE"),
        (f"/load {tmp_path}", "Is a directory"),
        ("/nonsense", "there is no command /nonsense; /help lists them"),
        ("/help", "goes on"),
    ):
        shown.type(f"{line}\n")
        shown.wait_for(line.split("\\")[0])
        shown.wait_for(answer)
        shown.wait_for("> ") if answer != "> " else None
    shown.type("/quit\n")

    assert shown.end() == 0
    found = json.loads(kept.read_text("utf-8"))
    assert found["messages"][0] == {"role": "user", "content": f"Tom has 3 boxes of 4\n{QUESTION}"}
    assert found["config"]["frechet"] == 0.25
    assert found["stats"][0]["finish_reason"] == "stop"


def test_without_rich_a_terminal_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)

    with pytest.raises(fastdllm.Error, match=r"pip install 'fastdllm\[chat\]'"):
        chat_command._console()


# --- a conversation ---------------------------------------------------------------------------


def test_ctrl_c_keeps_what_stands_of_an_answer() -> None:
    conversation = talking(left_to_right(b"abcdef"))
    seen = 0

    def interrupt(event: fastdllm.StreamEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    text, completion = conversation.ask("Hi", interrupt)

    assert (text, completion) == ("abc", None)
    assert [message["content"] for message in conversation.messages] == ["Hi", "abc"]
    assert conversation.stats[0]["finish_reason"] == "abort"
    assert conversation.stats[0]["completion_tokens"] == 3
    assert conversation.stats[0]["refresh_passes"] == 1


def test_a_saved_conversation_is_loaded_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    first, second = talking([]), talking([])
    said(first)
    first.set("logit_bias", '{"12": -1.5}')

    first.save(path)
    second.load(path)

    assert second.to_json() == first.to_json()
    assert [file.name for file in tmp_path.iterdir()] == ["chat.json"]


def test_saving_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chat.json"
    conversation = talking([])
    conversation.save(path)
    before = path.read_text("utf-8")
    said(conversation)

    def fail(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        conversation.save(path)

    assert path.read_text("utf-8") == before
    assert [file.name for file in tmp_path.iterdir()] == ["chat.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object"),
        ("{}", "messages: expected a list"),
        ('{"messages": [{"role": "user"}]}', r"messages\[0\]: expected an object with a role"),
        ('{"messages": [{"role": "robot", "content": ""}]}', r"messages\[0\]"),
        ('{"messages": [{"role": [], "content": ""}]}', r"messages\[0\]"),
        ('{"messages": [{"role": "user", "content": 3}]}', r"messages\[0\]"),
        ('{"messages": [], "config": {"threshold": 7}}', "config: threshold is 7"),
        ('{"messages": [], "config": {"treshold": 1}}', "config: .*treshold"),
        ('{"messages": [], "config": []}', "config: expected an object"),
        ('{"messages": [], "stats": [{}]}', "stats: expected a list of objects with finish"),
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(
    content: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content, "utf-8")
    conversation = talking([])
    said(conversation)
    before = conversation.to_json()

    with pytest.raises(fastdllm.Error, match=words):
        conversation.load(path)

    assert conversation.to_json() == before


def test_a_block_causal_model_reuses_what_was_said(engine_of: EngineOf) -> None:
    codec = ByteCodec()
    codec.chat_template = ChatTemplate(TALK, {})
    config = GenerationConfig(max_new_tokens=8, ignore_eos=True)
    conversation = Conversation(
        scripted_llm(engine_of("sdar"), codec), config, package="sdar", system="Be kind. " * 30
    )

    for turn in ("One?", "Two?"):
        conversation.ask(turn, lambda event: None)

    first, second = conversation.stats
    assert second["reused_rows"] is not None
    assert second["reused_rows"] >= first["prompt_tokens"] // 4 * 4 - 4
    conversation.reset()
    assert [message["role"] for message in conversation.messages] == ["system"]


# --- what is drawn ----------------------------------------------------------------------------


def test_what_would_move_the_cursor_is_written_out() -> None:
    from fastdllm.text import escaped

    assert escaped("a\tb\n\x1b[2J\x9b\r\x7f\u202e漢\u200d") == (
        "a\tb\n\\x1b[2J\\x9b\\x0d\\x7f\\u202e漢\u200d"
    )


def test_characters_are_not_torn_where_tints_change() -> None:
    pytest.importorskip("rich")
    from fastdllm.chat.view import Span, spans

    tokens = {i: (token, 1.0 if i != 2 else 0.2) for i, token in enumerate("x漢y".encode())}
    tokens[6] = (ord("z"), 0.6)

    assert list(spans(ByteCodec(), tokens, (5, 8), 8)) == [
        Span("x漢y", "sure", False),
        Span("\u2591", "mask", True),
        Span("z", "medium", True),
        Span("\u2591", "mask", True),
    ]


@pytest.mark.parametrize("width", [1, 7, 40])
def test_a_drawing_fits_its_terminal(width: int) -> None:
    pytest.importorskip("rich")
    from rich.cells import cell_len
    from rich.console import Console

    from fastdllm.chat.view import LiveAnswer

    console = Console(file=io.StringIO(), width=width, height=6, color_system=None)
    view = LiveAnswer(console, ByteCodec(), frozenset({256}))
    text = "漢字 \x1b[2J and words\n" * 9
    view.take(event_of(0, [*enumerate(text.encode()), (400, 256)], True))

    with console.capture() as captured:
        console.print(view)

    lines = captured.get().rstrip("\n").split("\n")
    assert len(lines) <= 6
    assert "\x1b" not in captured.get()
    if width > 1:  # a wide character has two
        assert max(map(cell_len, lines)) <= width


def test_nothing_behind_the_end_of_text_is_drawn() -> None:
    pytest.importorskip("rich")
    from rich.console import Console

    from fastdllm.chat.view import LiveAnswer

    console = Console(file=io.StringIO(), width=60, height=20, color_system=None)
    view = LiveAnswer(console, ByteCodec(), frozenset({256}))
    event = event_of(0, [(0, ord("a")), (2, 256), (4, ord("b"))], False)
    event.block_end, event.confidences = 9, np.ones(3)
    view.take(event)

    with console.capture() as captured:
        console.print(view)

    assert captured.get().splitlines() == ["a\u2591", "block 1 · pass 1 · 1.0 tokens per pass"]
