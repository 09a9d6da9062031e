"""The decoding that a package recommends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdllm import _core
from fastdllm._core import ConfigError, GenerationConfig, PackageError


def recommended_options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that fastdllm.json recommends, by name.

    Errors: PackageError for an entry that is not as PACKAGE.md says.
    """
    stated = metadata.get("decoding", {})
    if not isinstance(stated, Mapping) or not all(
        isinstance(entry, Mapping) and "value" in entry for entry in stated.values()
    ):
        raise PackageError("fastdllm.json: decoding is no object of options with a value each")
    return {str(name): entry["value"] for name, entry in stated.items()}


def recommended_config(metadata: Mapping[str, Any]) -> GenerationConfig:
    """Return the config of these options: threshold 0.9 where they name no rule and no schedule.

    Errors: PackageError, also for a value that its option does not take.
    """
    options = recommended_options(metadata)
    try:
        return _core.config_with(**options)
    except (ConfigError, TypeError) as problem:
        raise PackageError(f"fastdllm.json: decoding: {problem}") from None
