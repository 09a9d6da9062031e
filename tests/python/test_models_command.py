"""The released checkpoints' table, and that its sizes are those of an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastdllm.cli import main
from fastdllm.cli.models import models_table, table_lines
from fastdllm.hub.released import RELEASED, released_model
from fastdllm.hub.sizes import cache_bytes, count_weights, weight_bytes


def test_the_command_lists_every_released_checkpoint(capsys):
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [row["name"] for row in rows] == [model.repository for model in RELEASED]
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "inclusionAI/LLaDA2.0-mini" in text
    assert "none yet" in text or all(row["adapter"] for row in rows)


def test_a_row_has_the_size_that_its_authors_publish():
    rows = {row["name"]: row for row in models_table()}
    llada = rows["GSAI-ML/LLaDA-8B-Instruct"]
    assert 2 * llada["weights"] == 16_031_162_368  # bytes of its six bf16 files
    assert 6.5e9 < rows["inclusionAI/LLaDA-MoE-7B-A1B-Instruct"]["weights"] < 7.5e9
    assert 15e9 < rows["inclusionAI/LLaDA2.0-mini"]["weights"] < 17e9
    assert 95e9 < rows["inclusionAI/LLaDA2.0-flash"]["weights"] < 105e9
    for row in rows.values():
        if row["memory_bytes"]:
            assert row["memory_bytes"]["fp16"] > row["memory_bytes"]["int4"]


def test_a_name_is_found_with_and_without_its_organisation():
    assert released_model("llada2.0-MINI") is released_model("inclusionAI/LLaDA2.0-mini")
    assert released_model("nobody/nothing") is None


def test_a_config_may_say_false_where_no_scaling_is_meant():
    rows = {row["name"]: row for row in models_table()}
    assert released_model("RND1-Base-0910").config["rope_scaling"] is False
    assert rows["radicalnumerics/RND1-Base-0910"]["adapter"] == "rnd1"


def test_the_documentation_has_the_table():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    assert "\n".join(table_lines()) in page


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("LLaDA-8B-Base", "fp32"),
        ("SDAR-1.7B-Chat", "int8"),
        ("Fast_dLLM_v2_1.5B", "fp16"),
        ("LLaDA2.0-mini", "int4"),
    ],
)
def test_the_sizes_are_those_of_an_export(name, precision):
    pytest.importorskip("torch")
    from fastdllm.export.adapters import adapter_for
    from fastdllm.export.pipeline import trace_graph
    from fastdllm.export.precision import PRECISIONS
    from fastdllm.export.twin import twin_spec
    from fastdllm.export.weights import stored_bytes

    config = released_model(name).full_config
    spec = twin_spec(adapter_for(config).spec(config))
    _, placed = trace_graph(spec, PRECISIONS[precision], 23)
    assert weight_bytes(spec, precision) == pytest.approx(stored_bytes(placed), rel=0.02)
    assert cache_bytes(spec, precision, 2) == 2 * cache_bytes(spec, precision, 1)
    assert count_weights(spec) * 4 == weight_bytes(spec, "fp32")
