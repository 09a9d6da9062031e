"""Alone and in a batch a request gets the same log-probabilities to the bit, whatever the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from fastdllm import Engine, GenerationConfig
from fastdllm.export.validate import open_graph

from export_fixtures import export_bare, write_checkpoint

PASS = {"input_ids": (0, 40), "position_ids": (0, 100), "logit_indices": (0, 7)}

# Rows that are no multiple of 16 numbers long: logits, hidden rows, those of the MLP, of a head.
SIZES: dict[str, dict[str, Any]] = {
    "97 tokens": {"embedding_size": 97},
    "130 tokens": {"embedding_size": 130},
    "257 tokens": {"embedding_size": 257},
    "hidden 42, 3 heads": {"d_model": 42, "n_heads": 3, "n_kv_heads": 3, "embedding_size": 101},
    "hidden 30, 5 heads": {"d_model": 30, "n_heads": 5, "n_kv_heads": 5, "mlp_hidden_size": 45},
    "grouped heads": {"n_kv_heads": 2, "mlp_hidden_size": 51, "embedding_size": 130},
}
REQUESTS = 24
POLICIES: tuple[dict[str, Any], ...] = (
    {"steps": 8},
    {"threshold": 0.3},
    {"remasking": "entropy", "steps": 5},
    {"temperature": 1.0, "steps": 5},
)


@pytest.fixture(scope="module", params=SIZES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = dict(SIZES[request.param])
    changes["vocab_size"] = changes.setdefault("embedding_size", 64)
    changes["mask_token_id"] = changes["vocab_size"] - 1
    folder = tmp_path_factory.mktemp("sizes")
    return export_bare(write_checkpoint(folder / "checkpoint", **changes), folder / "package")


@pytest.mark.parametrize("threads", [1, 2])
def test_log_probabilities_are_the_same_to_the_bit(package: Path, threads: int) -> None:
    alone = Engine(package, threads=threads, max_batch=1)
    together = Engine(package, threads=threads, max_batch=8)
    asked = [
        (
            [(7 * i + number) % 50 for i in range(3 + number % 5)],
            GenerationConfig(
                max_new_tokens=19, block_length=7, ignore_eos=True, seed=number, **policy
            ),
        )
        for number in range(REQUESTS)
        for policy in POLICIES
    ]
    expected = [alone.generate(*request) for request in asked]

    running = [together.submit(*request) for request in asked]
    found = [request.result() for request in running]

    different = sum(
        not np.array_equal(ours.logprobs, theirs.logprobs)
        or ours.token_ids.tolist() != theirs.token_ids.tolist()
        for ours, theirs in zip(found, expected, strict=True)
    )
    assert different == 0, f"{different} of {len(asked)} requests"


def test_every_output_of_a_row_is_the_same_beside_other_rows(package: Path) -> None:
    """Of the graph itself, the entropy too: seven fed rows, nothing cached, as many asked for."""
    session = open_graph(package / "model.onnx")
    numbers = np.random.default_rng(1)
    feed = {name: numbers.integers(*ends, (5, 7)) for name, ends in PASS.items()}
    feed |= {"attention_mask": np.ones((5, 1, 1, 7), bool), "present_length": np.array([7])}
    for past in session.get_inputs():
        if past.name.startswith("past"):
            feed[past.name] = np.zeros((5, past.shape[1], 0, past.shape[3]), np.float32)

    together = session.run(None, feed)

    for number in range(5):
        own = {n: x if n == "present_length" else x[number : number + 1] for n, x in feed.items()}
        for output, ours, theirs in zip(
            session.get_outputs(), session.run(None, own), together, strict=True
        ):
            assert np.array_equal(ours[0], theirs[number]), output.name
