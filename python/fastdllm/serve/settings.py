"""Limits and keys of a server."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from fastdllm._core import ConfigError
from fastdllm.serve.hosts import read_host

_MAY_BE_0 = ("default_tokens", "grace_seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and keys of a server. Errors: ConfigError.

    api_keys: one of them has to come with every request to /v1, none = open. protect_metrics: the
    same for /metrics. allowed_hosts: names in Host and Origin headers beside those of this machine;
    where there are some, no other is answered. default_tokens: max_tokens of a request that names
    none; 0 = 128, or max_tokens where that is less. max_choices: answers of one request, prompts
    times n.
    request_seconds: from a request's arrival to its last byte, waiting included. head_seconds,
    body_seconds: for the client to send them. grace_seconds: for running requests when the server
    is told to stop.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    protect_metrics: bool = False
    default_tokens: int = 0
    max_tokens: int = 4096
    max_prompt_tokens: int = 32768
    max_choices: int = 16
    max_body_bytes: int = 2**20
    max_connections: int = 1024
    request_seconds: float = 600.0
    body_seconds: float = 10.0
    head_seconds: float = 10.0
    keep_alive_seconds: int = 15
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kind: Any = type(each.default)
            if each.name in ("api_keys", "allowed_hosts"):
                if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
                    raise ConfigError(f"{each.name} is no tuple of texts")
                continue
            if type(value) is not kind and (kind is not float or type(value) is not int):
                raise ConfigError(
                    f"{each.name} is a {type(value).__name__}; expected {kind.__name__}"
                )
            if kind is bool:
                continue
            least = 0 if each.name in _MAY_BE_0 else 1 if kind is int else 0.01
            if not least <= value <= 2**40:
                raise ConfigError(f"{each.name} is {value}; expected a number from {least} up")
        if self.default_tokens == 0:
            object.__setattr__(self, "default_tokens", min(128, self.max_tokens))
        if self.default_tokens > self.max_tokens:
            raise ConfigError(
                f"default_tokens is {self.default_tokens}; expected at most max_tokens,"
                f" {self.max_tokens}"
            )
        for key in self.api_keys:
            if not key.isascii() or not key.isprintable() or not key.strip() or " " in key:
                raise ConfigError("an API key is not usable; expected printable ASCII, no spaces")
        object.__setattr__(self, "allowed_hosts", tuple(map(_host_name, self.allowed_hosts)))


def _host_name(text: str) -> str:
    """Return a name as Host headers are compared with it. Errors: ConfigError."""
    found = read_host(f"[{text}]" if text.count(":") > 1 and "[" not in text else text)
    if found is None or found.port is not None:
        raise ConfigError(
            f"allowed_hosts holds {text[:80]!a}; expected a name or an address, without a port"
        )
    return found.name
