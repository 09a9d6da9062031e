"""Requests made from the OpenAPI document: no 5xx, and every response as the document says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastdllm

from served import serving

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

# Options that do not go together are told with 400: a JSON schema cannot say which these are.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "429"]
"""


def test_every_response_is_as_the_document_says(llm: fastdllm.LLM, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG, "utf-8")
    with serving(llm, max_tokens=16, default_tokens=4, max_choices=2) as served:
        found = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", tmp_path / "schemathesis.toml", "run"),
                f"{served.url}/openapi.json",
                *("--phases", "fuzzing", "--max-examples", "8", "--seed", "1"),
                *("--generation-database", "none", "--continue-on-failure"),
            ],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]
