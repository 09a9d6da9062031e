"""What importing costs, and what no source may know."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from conftest import ROOT

FAMILIES = re.compile(r"\b(llada|dream|sdar|qwen|diffucoder)\w*\b", re.IGNORECASE)


def test_importing_loads_nothing_heavy() -> None:
    program = (
        "import sys, fastdllm; fastdllm.Engine; fastdllm.GenerationConfig();"
        "print(*sorted({n.partition('.')[0] for n in sys.modules} & {'torch', 'onnx',"
        " 'onnxruntime', 'tokenizers', 'jinja2', 'transformers'}))"
    )

    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert found.stdout.split() == []


WITHOUT_EXPORTER = """
import sys
missing = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors")
sys.modules |= dict.fromkeys(missing)  # None there: importing it fails
from fastdllm.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["info", "models"])
def test_what_lists_families_needs_no_exporter(command: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXPORTER, command],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (found.returncode, found.stderr) == (0, "")
    assert "fast-dllm-v2" in found.stdout


@pytest.mark.parametrize("folder", ["cpp", "bindings"])
def test_the_runtime_knows_no_model_family(folder: str) -> None:
    named = []
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in (".cpp", ".hpp", ".h", ".txt", ".cmake"):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if FAMILIES.search(line):
                named.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")

    assert named == []
