"""`fastdllm chat`: its options, a conversation on a terminal, and one line a turn where piped."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fastdllm._core import Error, GenerationConfig
from fastdllm.cli.config import add_config, add_text_options, config_of, engine_options_of

if TYPE_CHECKING:
    from rich.console import Console

    from fastdllm.answer import StreamEvent
    from fastdllm.chat import Conversation, TurnStats
    from fastdllm.llm import LLM

_HELP = """\
/reset            forget what was said, but the system message
/set              show all options; /set NAME VALUE sets one: /set threshold 0.8, /set steps none
/stats            what the last turn and all turns cost
/save FILE        write messages, options and costs as JSON; /load FILE goes on with them
/help             this; /quit ends the program
A line that ends in \\ goes on. A space before a / makes it a message."""
_COMMANDS = ("/help", "/load", "/quit", "/reset", "/save", "/set", "/stats")


def add_chat(command: argparse.ArgumentParser) -> None:
    """Add the options of `fastdllm chat` to a command that has PACKAGE and the engine's options."""
    command.add_argument("--system", metavar="TEXT", help="what the conversation begins with")
    command.add_argument(
        "--stop", action="append", metavar="TEXT", help="end every answer before it; may come again"
    )
    add_text_options(command)
    add_config(command)
    command.set_defaults(run=run_chat)


def run_chat(options: argparse.Namespace) -> int:
    """Chat: on a terminal with commands and live answers, else each line is a turn."""
    from fastdllm.chat import Conversation
    from fastdllm.llm import LLM

    config = config_of(options)
    if sys.stdin is None:
        raise Error("the message is to be read from standard input, which is closed")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not options.json
    console = _console() if is_terminal else None  # reports a missing `rich` early
    if options.system is not None:
        _require_text("--system", options.system)
    llm = LLM(options.package, **engine_options_of(options))
    llm.codec.control_tokens_in_messages = options.control_tokens
    conversation = Conversation(
        llm,
        config,
        package=str(options.package),
        system=options.system,
        stop=options.stop,
        chat_template_kwargs=options.chat_template_kwargs,
    )
    if not conversation.has_template:
        print(
            f"fastdllm: {options.package} has no chat template: every turn is a prompt of its own",
            file=sys.stderr,
        )
    if console is not None:
        return _Terminal(conversation, console).talk()
    return _answer_lines(conversation, as_json=options.json)


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise Error(
            "a chat on a terminal needs rich: pip install 'fastdllm[chat]'; piped, it does not"
        ) from None
    return Console(highlight=False)


def _require_text(what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Error(f"{what} is not valid UTF-8") from None
    return text


def _print_error(problem: Exception) -> None:
    from fastdllm.text import escaped

    print(f"fastdllm: error: {escaped(str(problem))}", file=sys.stderr, flush=True)


def _print_piece(text: str) -> None:
    print(text, end="", flush=True)


def _answer_lines(conversation: Conversation, *, as_json: bool) -> int:
    """Answer each line of standard input unchanged; a turn that fails is left out."""
    from fastdllm.answer import facts_of

    code = 0
    for line in sys.stdin.buffer:
        asked = line.removesuffix(b"\n").removesuffix(b"\r")
        if not asked:
            continue
        config = conversation.config
        show = _nothing if as_json else _printer(_print_piece)
        try:
            text = _require_text("the message", asked.decode("utf-8", "surrogateescape"))
            _, completion = conversation.ask(text, show)
        except Error as problem:  # such as a context that is full: the rest still stands
            _print_error(problem)
            code = 1
            continue
        if completion is not None and as_json:
            facts = facts_of(completion, config)
            print(json.dumps(facts, allow_nan=False), flush=True)
        elif not as_json:
            print(flush=True)
        if completion is None and not sys.stdin.isatty():
            raise KeyboardInterrupt  # standard input is piped: Ctrl-C ends the program
    return code


def _nothing(event: StreamEvent) -> None:
    pass


def _printer(write: Callable[[str], None]) -> Callable[[StreamEvent], None]:
    return lambda event: write(event.piece) if event.piece else None


class _Terminal:
    """A conversation with a person at a terminal."""

    def __init__(self, conversation: Conversation, console: Console) -> None:
        self._conversation = conversation
        self._console = console
        self._is_dumb = console.is_dumb_terminal
        with contextlib.suppress(ImportError):  # Python can be built without it
            import readline

            readline.set_completer_delims(" ")
            readline.set_completer(self._complete)
            readline.parse_and_bind("tab: complete")
            readline.parse_and_bind("set enable-bracketed-paste off")

    def talk(self) -> int:
        print("/help lists commands. Ctrl-C ends an answer, at the prompt the chat.")
        while (text := self._read()) is not None:
            if not text:
                continue
            try:
                _require_text("the message", text)
                if text.startswith("/"):
                    if text.split() == ["/quit"]:
                        return 0
                    self._run(text)
                else:
                    self._answer(text)
            except (Error, OSError) as problem:
                _print_error(problem)
        print()
        return 0

    @staticmethod
    def _read() -> str | None:
        """Read a message, which goes on where a line ends in a backslash; None at the end."""
        lines: list[str] = []
        try:
            while True:
                line = input(". " if lines else "> ")
                lines.append(line.removesuffix("\\"))
                if not line.endswith("\\"):
                    return "\n".join(lines)
        except EOFError:
            return None

    def _answer(self, text: str) -> None:
        from fastdllm.chat.view import LiveAnswer
        from fastdllm.text import escaped

        if self._is_dumb:
            answer, completion = self._conversation.ask(
                text, _printer(lambda piece: _print_piece(escaped(piece)))
            )
            print(flush=True)
        else:
            codec, stop_ids = self._conversation.llm.codec, self._stop_ids()
            with LiveAnswer(self._console, codec, stop_ids) as view:
                answer, completion = self._conversation.ask(
                    text, lambda event: view.take(event.commit) if event.commit else None
                )
            print(escaped(answer), flush=True)
        if completion is None:
            left_out = "" if answer else " nothing was final yet: the question is left out"
            print(f"(ended by Ctrl-C){left_out}", file=sys.stderr)

    def _stop_ids(self) -> frozenset[int]:
        """Return the tokens that end the shown text."""
        config = self._conversation.config
        if config.ignore_eos or config.stop_at != "token":
            return frozenset()
        named = config.stop_token_ids
        package = self._conversation.llm.engine.package
        return frozenset(package.eos_token_ids if named is None else named)

    def _run(self, line: str) -> None:
        """Run a command. Errors: fastdllm.Error, OSError."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/save", "/load") and rest:
            path = Path(rest).expanduser()
            if name == "/save":
                self._conversation.save(path)
            else:
                self._conversation.load(path)
            print(f"{path}: {len(self._conversation.messages)} messages")
        elif name == "/set":
            self._set(rest)
        elif rest or name not in _COMMANDS:
            raise Error(f"there is no command {line}; /help lists them")
        elif name in ("/save", "/load"):
            raise Error(f"{name} needs a file; expected {name} FILE")
        elif name == "/reset":
            self._conversation.reset()
        elif name == "/stats":
            _show_stats(self._conversation)
        else:
            print(_HELP)

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name and not value.strip():
            raise Error(f"/set {name} needs a value; expected /set NAME VALUE")
        if name:
            self._conversation.set(name, value.strip())
        for field, found in self._conversation.config.to_dict().items():
            if not name or field == name:
                print(f"{field} {json.dumps(found)}")

    @staticmethod
    def _complete(text: str, state: int) -> str | None:
        import readline

        begun = readline.get_line_buffer()[: readline.get_begidx()].split()
        words: Iterator[str] = iter(())
        if not begun:
            words = (name for name in _COMMANDS if text.startswith("/"))
        elif begun == ["/set"]:
            words = iter(GenerationConfig().to_dict())
        found = [word for word in words if word.startswith(text)]
        return f"{found[state]} " if state < len(found) else None


def _show_stats(conversation: Conversation) -> None:
    from fastdllm.chat import tokens_per_forward

    stats = conversation.stats
    if not stats:
        print("no turn yet")
        return
    _show_turn("last turn", stats[-1], conversation.llm)
    tokens = sum(turn["completion_tokens"] for turn in stats)
    passes = sum(turn["num_passes"] for turn in stats)
    seconds = sum(turn["seconds"] for turn in stats)
    print(
        f"all turns ({len(stats)}): {tokens} tokens in {passes} passes"
        f" ({tokens_per_forward(tokens, passes):.1f} per pass), {seconds:.2f} s"
    )


def _show_turn(name: str, turn: TurnStats, llm: LLM) -> None:
    from fastdllm.text import escaped

    reused = turn["reused_rows"]
    print(
        f"{name}: {turn['completion_tokens']} tokens in {turn['num_passes']} passes"
        f" ({turn['refresh_passes']} refreshes, {turn['step_passes']} steps;"
        f" {turn['tokens_per_forward']:.1f} per pass), {turn['seconds']:.2f} s,"
        f" ended by {escaped(turn['finish_reason'])}\n"
        f"prompt: {turn['prompt_tokens']} tokens,"
        f" {'unknown how many' if reused is None else reused} reused from before;"
        f" the context has {llm.engine.package.max_context_length}"
    )
