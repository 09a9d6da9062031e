"""`fastdllm completion`: bash completes with it, other shells get a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "fastdllm")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ch"], {"check", "chat"}),
        (["chat", "--thr"], {"--threads", "--threshold", "--threshold-decay"}),
        (["chat", "--cache", "d"], {"dual"}),
        (["generate", "pack"], {"packages"}),
        (["tune", "packages", "prob"], {"problems.jsonl"}),
    ],
)
def test_bash_completes_commands_options_values_and_paths(
    words: list[str], expected: set[str], tmp_path: Path
) -> None:
    pytest.importorskip("shtab")
    (tmp_path / "packages").mkdir()
    (tmp_path / "problems.jsonl").touch()
    script = subprocess.run(
        [*COMMAND, "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "script").write_text(script, "utf-8")
    asked = (
        'source ./script; COMP_WORDS=(fastdllm "$@"); COMP_CWORD=$#; '
        "$(complete -p fastdllm | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )

    found = subprocess.run(
        ["bash", "-c", asked, "bash", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert {word.strip("/ ") for word in found.stdout.splitlines()} == expected


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell: str) -> None:
    pytest.importorskip("shtab")

    found = subprocess.run(
        [*COMMAND, "completion", shell], capture_output=True, text=True, check=True
    )

    assert "fastdllm" in found.stdout
    assert "chat" in found.stdout
