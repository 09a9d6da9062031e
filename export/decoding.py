"""How a checkpoint's authors decode it, for packages to state: by family, then by its own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdllm._core import ConfigError, GenerationConfig
from fastdllm.export.adapters import Adapter, ModelSpec
from fastdllm.export.errors import CheckpointError

GENERATION = "generation_config.json"


def recommended(
    adapter: Adapter, spec: ModelSpec, generation: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return options of GenerationConfig by name: their value, and the source that says it.

    generation: of generation_config.json. Sampling that is switched off there (do_sample) counts as
    temperature 0. Errors: CheckpointError for a value that no option takes.
    """
    found = {
        name: {"value": value, "source": f"the family {adapter.family}"}
        for name, value in adapter.decoding(spec).items()
    }
    if adapter.follows_generation_config:
        said = {
            name: generation[name]
            for name in ("temperature", "top_p", "top_k")
            if generation.get(name) is not None
        }
        if generation.get("do_sample") is False:
            said = {"temperature": 0.0}
        elif generation.get("do_sample") is True:
            said = {"temperature": 1.0} | said
        for name, value in said.items():
            found[name] = {"value": value, "source": GENERATION}
    try:
        GenerationConfig(**{name: entry["value"] for name, entry in found.items()})
    except (ConfigError, TypeError) as problem:
        raise CheckpointError(f"{GENERATION}: {problem}") from None
    return found
