"""What fastdllm-cli does with arguments, input and packages that are odd or hostile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import PackageOf
from programs import ENVIRONMENT
from test_cpp_cli import cli, run


@pytest.mark.parametrize(("command", "what"), [("generate", "the prompt"), ("chat", "the message")])
@pytest.mark.parametrize(
    ("stdin", "words"), [("<&-", "is closed"), ("</", "cannot be read: Is a directory")]
)
def test_input_that_cannot_be_read_is_no_empty_prompt(
    command: str, what: str, stdin: str, words: str, package_of: PackageOf
) -> None:
    found = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {stdin}', cli(), command, package_of("tiny_math")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )

    assert found.returncode == 1
    assert found.stdout == ""
    expected = f"{what} is to be read from standard input, which {words}"
    assert found.stderr == f"fastdllm-cli: error: {expected}\n"


def test_a_closed_output_is_an_error_of_its_own(package_of: PackageOf) -> None:
    """Were it only closed, a file opened later would take its place."""
    words = [cli(), "generate", package_of("tiny_math"), "--ids", "3", "--max-new-tokens", "4"]

    found = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )

    assert found.returncode == 1
    assert found.stderr == "fastdllm-cli: error: standard output: Bad file descriptor\n"


@pytest.mark.parametrize("ids", ["", ",", ",,,", "1,,2", "1,", ",1", " "])
def test_ids_with_an_empty_item_are_refused(ids: str) -> None:
    found = run("generate", "/nowhere", f"--ids={ids}")

    assert found.returncode == 2
    assert "--ids is ''; expected an integer in [0, 2147483647]" in found.stderr


def test_ids_are_taken_as_they_are_printed(package_of: PackageOf) -> None:
    words = ("--max-new-tokens", "4", "--ignore-eos")
    outputs = [
        run("generate", package_of("tiny_math"), "--ids", ids, *words).stdout
        for ids in ("3,10,4", "3 10 4", "3, 10,  4")
    ]

    assert len(outputs[0].split()) == 4
    assert len(set(outputs)) == 1


def test_a_path_that_is_no_utf8_goes_into_json() -> None:
    found = run("check", os.fsdecode(b"/nowhere/caf\xe9"), "--json")

    assert found.returncode == 1
    assert "/nowhere/caf\ufffd" in json.loads(found.stdout)[0]["detail"]


def test_info_of_no_path_is_an_error() -> None:
    found = run("info", "")

    assert found.returncode == 1
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1


def test_info_shows_no_control_characters(package_of: PackageOf, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), package)
    metadata = json.loads((package / "fastdllm.json").read_text("utf-8"))
    metadata["family"] = "a\x00b\x1b[2J\x9b"
    (package / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")

    found = run("info", package)

    assert found.returncode == 0
    assert r'"a\u0000b\u001b[2J\u009b"' in found.stdout.splitlines()[0]
