"""The comparison that runs on a GPU, here on the CPU; see tests/gpu/README.md."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT, PackageOf

SCRIPT = ROOT / "tests" / "gpu" / "compare_backends.py"
PROBLEMS = ROOT / "benchmarks" / "tiny_math" / "checkpoint" / "problems.jsonl"


def compare(package: object, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(package), str(PROBLEMS), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_same_backend_agrees_with_itself(package_of: PackageOf) -> None:
    same = ("--backend", "onnxruntime", "--device", "cpu", "--count", "3")

    answer = compare(package_of("tiny_math"), *same, "--max-new-tokens", "32")

    assert answer.returncode == 0, answer.stderr
    assert "logits: largest difference 0, " in answer.stdout
    assert "answers: 100.0% the same tokens" in answer.stdout


def test_without_a_gpu_it_says_so_in_one_line(package_of: PackageOf) -> None:
    answer = compare(package_of("tiny_math"), "--device", "cuda:7", "--count", "1")

    assert answer.returncode == 1
    assert answer.stderr.startswith("compare_backends: error: ")
    assert len(answer.stderr.splitlines()) <= 5  # the libraries that were tried
