"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from fastdllm._core import ConfigError

_MAY_BE_0 = ("default_tokens", "grace_seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and keys of a server. Errors: ConfigError.

    api_keys: one of them has to come with every request to /v1, none = open. protect_metrics: the
    same for /metrics. default_tokens: max_tokens of a request that names none; 0 = 128, or
    max_tokens where that is less. max_choices: answers of one request, prompts times n.
    request_seconds: from a request's arrival to its last byte, waiting included. head_seconds,
    body_seconds: for the client to send them. grace_seconds: for running requests when the server
    is told to stop.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
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
            if each.name == "api_keys":
                if not isinstance(value, tuple) or not all(isinstance(key, str) for key in value):
                    raise ConfigError("api_keys is no tuple of texts")
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
