"""`fastdllm serve`: its options, what it loads, and its exit code."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdllm._core import Error
from fastdllm.cli.config import add_engine_options, add_text_options, engine_options_of, integer
from fastdllm.serve.settings import Settings

if TYPE_CHECKING:
    from fastdllm.llm import LLM

KEY_VARIABLE = "FASTDLLM_API_KEY"
_NOTES = {
    "protect_metrics": "ask for a key at /metrics too",
    "default_tokens": "new tokens of a request that names none; at most --max-tokens",
    "max_tokens": "most new tokens that a request may ask for",
    "max_prompt_tokens": "most tokens of a prompt",
    "max_choices": "most answers of one request, prompts times n",
    "max_body_bytes": "a larger body gets 413",
    "max_connections": "one more gets 503",
    "request_seconds": "from a request's arrival to its last byte, waiting included",
    "body_seconds": "for a client to send its body",
    "head_seconds": "for a client to send a request's head",
    "keep_alive_seconds": "for which an idle connection is kept",
    "grace_seconds": "for running requests after SIGTERM or Ctrl-C",
}


def add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fastdllm serve`."""
    command = commands.add_parser("serve", help="serve packages over HTTP as OpenAI's API does")
    command.add_argument("packages", type=Path, nargs="+", metavar="PACKAGE")
    command.add_argument(
        "--name", action="append", help="a package's name to clients, in order; default: its folder"
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default %(default)s"
    )
    command.add_argument("--port", type=_port, default=8000, help="0: a free one; default 8000")
    add_engine_options(command, max_waiting=256)  # more get 429
    add_text_options(command, variables=False)
    command.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help=f"clients have to send it; may come again; also {KEY_VARIABLE}, which no other"
        " process sees in a list",
    )
    command.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line")
    command.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="a name that clients and their pages may call the server by; may come again; at a"
        " loopback address default: localhost, 127.0.0.1 and [::1] alone",
    )
    for name, text in _NOTES.items():
        default = getattr(Settings(), name)
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            command.add_argument(option, action="store_true", help=text)
            continue
        kind: Any = integer if isinstance(default, int) else float
        shown = f"{text}; default {default:g}" if kind is float else f"{text}; default {default}"
        command.add_argument(option, type=kind, default=default, help=shown)
    command.set_defaults(default_tokens=0)  # as many as --max-tokens leaves
    command.set_defaults(run=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    """Load the packages, say where they are served, serve until a signal."""
    settings = Settings(
        api_keys=_keys(options),
        allowed_hosts=tuple(options.allowed_host or ()),
        **{name: getattr(options, name) for name in _NOTES},
    )
    names = _names(options)
    cache_bytes = _cache_bytes(options)
    from fastdllm.serve import serve
    from fastdllm.serve.server import open_socket

    with open_socket(options.host, options.port) as listening:  # before loading, which is slow
        models = {
            name: _load(options, folder, cache_bytes)
            for name, folder in zip(names, options.packages, strict=True)
        }
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        line = f"serving {', '.join(names)} at http://{shown}:{port}"
        ended = serve(models, settings, listening, lambda: print(line, flush=True))
        return 0 if ended else 1


def _load(options: argparse.Namespace, folder: Path, cache_bytes: int | None) -> LLM:
    from fastdllm.llm import LLM

    llm = LLM(folder, **engine_options_of(options) | {"cache_bytes": cache_bytes})
    llm.codec.control_tokens_in_messages = options.control_tokens
    return llm


def _cache_bytes(options: argparse.Namespace) -> int | None:
    """Return what each package gets; None: the engine's default, for a single one."""
    count = len(options.packages)
    if options.cache_bytes is not None or count == 1:
        given: int | None = options.cache_bytes
        return given
    if options.device != "cpu":
        raise Error("several packages on a GPU need --cache-bytes, the K/V memory of each")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // count


def _names(options: argparse.Namespace) -> list[str]:
    given = options.name or []
    if given and len(given) != len(options.packages):
        raise Error(
            f"there are {len(given)} names for {len(options.packages)} packages; expected one each"
        )
    names = given or [folder.absolute().name for folder in options.packages]
    for name in names:
        if names.count(name) > 1:
            raise Error(f"two packages are named {name}; tell them apart with --name")
        if not name or not name.isprintable():
            raise Error(f"a package's name is {name!r}; expected printable characters")
    return names


def _keys(options: argparse.Namespace) -> tuple[str, ...]:
    keys = list(options.api_key or ())
    if (named := os.environ.get(KEY_VARIABLE)) is not None:
        keys.append(named)
    if options.api_key_file is not None:
        try:
            lines = options.api_key_file.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise Error(f"{options.api_key_file}: is no UTF-8 text; expected keys") from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise Error(f"{options.api_key_file}: holds no key; expected one a line")
        keys += found
    return tuple(dict.fromkeys(keys))


def _port(text: str) -> int:
    value = integer(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected 0 to 65535")
    return value
