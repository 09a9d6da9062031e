"""The known model families. A new one is a new file here and a line in ADAPTERS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdllm.export.adapters.base import (
    Adapter,
    ModelSpec,
    MoeSpec,
    Rows,
    TensorNames,
    TensorSource,
    source_name,
)
from fastdllm.export.adapters.dream import Dream, OpenDLLM
from fastdllm.export.adapters.fast_dllm_v2 import FastDLLMv2
from fastdllm.export.adapters.known_keys import KeysRead
from fastdllm.export.adapters.llada import LLaDA
from fastdllm.export.adapters.llada2 import LLaDA2
from fastdllm.export.adapters.llada_moe import LLaDAMoE
from fastdllm.export.adapters.sdar import RND1, SDAR, DreamReasoner, SDARMoE
from fastdllm.export.errors import CheckpointError

ADAPTERS: tuple[Adapter, ...] = (
    LLaDA(),
    LLaDAMoE(),
    Dream(),
    FastDLLMv2(),
    SDAR(),
    SDARMoE(),
    DreamReasoner(),
    RND1(),
    OpenDLLM(),
    LLaDA2(),
)

__all__ = [
    "ADAPTERS",
    "Adapter",
    "ModelSpec",
    "MoeSpec",
    "Rows",
    "TensorNames",
    "TensorSource",
    "adapter_for",
    "read_spec",
    "source_name",
]


def adapter_for(config: Mapping[str, Any]) -> Adapter:
    """Choose the adapter of a config.json by model_type and architectures.

    Errors: CheckpointError naming the known families and the file to write.
    """
    model_type = config.get("model_type")
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise CheckpointError(f"config.json: architectures is {architectures!r}; expected a list")
    architectures = [str(name) for name in architectures]
    fitting = [adapter for adapter in ADAPTERS if model_type in adapter.model_types]
    for adapter in fitting:
        if set(architectures) & set(adapter.architectures):
            return adapter
    if fitting and not architectures:
        return fitting[0]
    known = "; ".join(
        f"{' or '.join(adapter.model_types)} with {' or '.join(adapter.architectures)}"
        for adapter in ADAPTERS
    )
    raise CheckpointError(
        f"config.json: model_type {model_type!r} with architectures {architectures!r} is unknown; "
        f"known are: {known}. A new family is a new file in export/adapters/."
    )


def read_spec(adapter: Adapter, config: Mapping[str, Any]) -> ModelSpec:
    """Read a config.json. Unknown keys are refused: they may mean a different network.

    Errors: CheckpointError naming the key.
    """
    keys = KeysRead(config)
    spec = adapter.spec(keys)
    keys.refuse_unread(adapter.harmless_keys, adapter.family)
    return spec
