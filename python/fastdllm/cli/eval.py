"""`fastdllm eval`: lm-evaluation-harness's command line, where fastdllm is a model."""

from __future__ import annotations

import argparse
import sys

from fastdllm._core import Error

_OTHER_COMMANDS = ("ls", "validate")


def add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; all its arguments are lm_eval's."""
    command = commands.add_parser(
        "eval",
        help="run tasks of lm-evaluation-harness; its options, with --model fastdllm",
        add_help=False,
        prefix_chars="\0",  # nothing is an option here
    )
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(run=run_eval)


def run_eval(options: argparse.Namespace) -> int:
    """Run lm_eval, with fastdllm as its model unless another one is named."""
    names = [one.split("=", 1)[0] for one in options.arguments]
    if "--device" in names:
        raise Error("--device is not for fastdllm; expected --model_args device=cuda:0")
    from fastdllm.evaluation import check_model_args, cli_evaluate

    given = _model_args(options.arguments)
    if given is not None:
        from lm_eval.utils import simple_parse_args_string

        check_model_args(simple_parse_args_string(given))
    arguments, sys.argv = sys.argv, ["lm_eval", *_with_model(options.arguments)]
    try:
        cli_evaluate()
    finally:
        sys.argv = arguments
    return 0


def _with_model(arguments: list[str]) -> list[str]:
    named = any(one.split("=", 1)[0] in ("--model", "-M", "--config", "-C") for one in arguments)
    tells = not arguments or arguments[0] in _OTHER_COMMANDS or arguments[-1] in ("-h", "--help")
    return arguments if named or tells else [*arguments, "--model", "fastdllm"]


def _model_args(arguments: list[str]) -> str | None:
    """Return fastdllm's --model_args, to be checked before tasks load; None where it has none.

    Those of a --config file are left to lm_eval, and so are JSON, lists and quotes.
    """
    if not arguments or arguments[0] in _OTHER_COMMANDS or {"-h", "--help"} & set(arguments):
        return None
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", "-M", default="fastdllm")
    parser.add_argument("--model_args", "-a", nargs="+", action="extend", default=[])
    parser.add_argument("--config", "-C")
    known, _ = parser.parse_known_args(arguments)
    text = ",".join(known.model_args)
    if known.model != "fastdllm" or known.config or set(text) & set("[({\"'"):
        return None
    return text
