"""A package's engine beside the reference on the same graph: what they do has to be the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdllm
from fastdllm import CommitEvent, GenerationConfig, reference
from fastdllm.testing import package_forward

BIDIRECTIONAL = ["llada-mha", "dream-gqa"]  # the second one predicts from the row before
BLOCK_CAUSAL = ["sdar", "fast-dllm-v2"]  # likewise, and with a seed token and sub-blocks
WITHOUT_SHIFT = ["llada-mha", "sdar"]  # editing needs that
SMALLEST_VOCABULARY = 249  # of the ids that no family keeps for its eos or mask token


class Pair:
    """The engine of a package, and its graph for the reference."""

    def __init__(self, package: Path, engine: fastdllm.Engine) -> None:
        self.engine = engine
        self.facts = engine.package
        self.forward = package_forward(package, threads=1)

    def reference(
        self, ids: list[int], fields: dict[str, Any], *, infills: bool = False
    ) -> reference.Trace:
        run = reference.infill if infills else reference.generate
        return run(self.forward, ids, GenerationConfig(**fields), self.facts)

    def has_sub_blocks(self, fields: dict[str, Any]) -> bool:
        block = fields.get("block_length") or self.facts.block_length or 0
        inner = fields.get("sub_block_length") or self.facts.sub_block_length or block
        causal = self.facts.attention == "block_causal"
        return causal and fields.get("cache", "auto") in ("dual", "auto") and inner < block

    def compare(
        self, ids: list[int], fields: dict[str, Any], *, infills: bool = False
    ) -> fastdllm.GenerationResult:
        """Decode behind a prompt, or fill a canvas, by both. Returns the engine's result."""
        commits: list[tuple[list[int], list[int]]] = []
        blocks: list[int] = []

        def note(event: CommitEvent) -> None:
            if len(event.positions) > 0:
                commits.append((event.positions.tolist(), event.token_ids.tolist()))
                blocks.append(event.block)

        run = self.engine.infill if infills else self.engine.generate
        found = run(ids, GenerationConfig(**fields), note)
        expected = self.reference(ids, fields, infills=infills)

        assert commits == expected.commits
        assert blocks == expected.blocks
        assert found.token_ids.tolist() == expected.token_ids
        assert np.exp(found.logprobs) == pytest.approx(np.exp(expected.logprobs), abs=1e-5)
        # The engine fills the cache in a pass of its own before it starts on sub-blocks.
        fills = found.num_passes - expected.num_passes
        assert 0 <= fills <= (len(set(blocks)) if self.has_sub_blocks(fields) else 0)
        assert found.finish_reason == expected.finish_reason
        batch = 2 if fields.get("cfg_scale", 0.0) > 0 else 1
        asked = found.stats.logit_rows_computed - fills * batch
        assert asked == expected.logit_rows_computed
        # What an earlier request with the same beginning has left is not computed again.
        assert found.stats.rows_computed + found.stats.reused_rows == expected.rows_computed
        assert self.facts.mask_token_id not in found.token_ids
        if not infills:
            assert not set(fields.get("banned_token_ids", ())) & set(found.token_ids.tolist())
        return found
