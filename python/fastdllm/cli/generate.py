"""`fastdllm generate`: prompts in, answers out."""

from __future__ import annotations

import argparse
import re
import sys

from fastdllm._core import Error
from fastdllm.cli.common import is_terminal, package_command, print_json
from fastdllm.cli.config import (
    add_config,
    add_text_options,
    config_of,
    engine_options_of,
    read_prompt,
)


def add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that answers prompts."""
    generate = package_command(commands, "generate", "answer prompts")
    generate.add_argument(
        "--prompt",
        action="append",
        help="the question; - (the default) reads standard input; may come again: answered together"
        ", in order, with --json a line each",
    )
    generate.add_argument(
        "--raw", action="store_true", help="take the prompt as it stands, without chat template"
    )
    generate.add_argument(
        "--stream",
        action="store_true",
        help="print text as it becomes final (default on a terminal)",
    )
    generate.add_argument(
        "--stop", action="append", metavar="TEXT", help="end the answer before it; may come again"
    )
    generate.add_argument(
        "--infill",
        metavar="TEXT",
        help="fill the gaps of a text: {4} is one of 4 tokens; --prompt stands before it, if given",
    )
    add_text_options(generate)
    add_config(generate)
    generate.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    from fastdllm.answer import facts_of
    from fastdllm.llm import LLM

    config = config_of(options)
    prompts = options.prompt or ([] if options.infill is not None else ["-"])
    streams = not options.json and (options.stream or is_terminal(sys.stdout))
    if options.infill is not None and (len(prompts) > 1 or options.stop or options.stream):
        raise Error("--infill takes one --prompt at most, and neither --stop nor --stream")
    if options.stream and len(prompts) > 1:
        raise Error(f"--stream takes one --prompt; found {len(prompts)}")
    llm = LLM(options.package, **engine_options_of(options))
    llm.codec.control_tokens_in_messages = options.control_tokens
    how = {"raw": options.raw, "chat_template_kwargs": options.chat_template_kwargs}
    prompts = [read_prompt(prompt) for prompt in prompts]
    if options.infill is not None:
        gaps = enumerate(re.split(r"\{(\d+)\}", read_prompt(options.infill)))
        parts = [int(part) if i % 2 else part for i, part in gaps if part]
        answers = [llm.infill(parts, config, prompt=(prompts or [None])[0], **how)]
    elif streams and len(prompts) == 1:
        for piece in llm.stream(prompts[0], config, stop=options.stop, **how):
            print(piece, end="", flush=True)
        print()
        return 0
    else:
        answers = llm.generate(prompts, config, stop=options.stop, **how)
    for number, answer in enumerate(answers):
        if options.json:
            print_json(facts_of(answer, config), indent=1 if len(answers) == 1 else None)
        else:
            print("\n" * (number > 0) + answer.text)
    return 0
