"""fastdllm-cli, the command line in C++: it says what Python's says."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import fastdllm
from fastdllm import GenerationConfig

from conftest import PackageOf
from programs import ENVIRONMENT, program, run_program
from test_cli import OTHER_QUESTION, QUESTION, value_of
from test_cli import run as run_python_cli

LONG = ("--max-new-tokens", "256", "--steps", "256", "--cache", "none", "--ignore-eos")


def cli() -> Path:
    return program("apps/fastdllm-cli")


def run(*args: object, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    return run_program(cli(), *args, stdin=stdin)


def answers_of(text: str) -> list[Any]:
    """Return JSON, of one object or one a line."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def assert_same_answers(found: list[Any], expected: list[Any]) -> None:
    """Compare all but what no two runs have in common."""
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, dict) and "stats" in one:
            assert one.pop("logprobs") == pytest.approx(other.pop("logprobs"), abs=1e-6)
            for seconds in ("graph_seconds", "total_seconds"):
                assert one["stats"].pop(seconds) > 0 < other["stats"].pop(seconds)
        assert one == other


SAME = [
    ("generate", "--prompt", QUESTION),
    ("generate", "--prompt", QUESTION, "--stream"),
    ("generate", "--prompt", QUESTION, "--raw", "--max-new-tokens", "16"),
    ("generate", "--prompt", OTHER_QUESTION, "--stop", "zz", "--stop", "####"),
    ("generate", "--prompt", OTHER_QUESTION, "--stop", "####", "--stream"),
    ("generate", "--prompt", QUESTION, "--prompt", OTHER_QUESTION),
    ("generate", "--infill", "There are {6} apples.{1}"),
    ("generate", "--infill", "{ {} {x} {1.5} {{3}} {4"),
]
SAME_JSON = [
    ("generate", "--prompt", QUESTION, "--temperature", "0.8", "--seed", "3", "--steps=16"),
    ("generate", "--prompt", QUESTION, "--factor", "1", "--cache", "prefix"),
    ("generate", "--prompt", QUESTION, "--prompt", OTHER_QUESTION, "--stop", "####"),
    ("generate", "--prompt", QUESTION, "--infill", "There are {6} apples.{1}"),
    (
        *("generate", "--prompt", "x", "--logit-bias", "5=5000", "--temperature", "10000"),
        *("--max-new-tokens", "4", "--ignore-eos"),  # logs of probability 0
    ),
    ("info",),
    ("check",),
]


@pytest.mark.parametrize("args", SAME, ids=" ".join)
def test_it_prints_what_pythons_prints(args: tuple[str, ...], package_of: PackageOf) -> None:
    command, *rest = args
    expected = run_python_cli(command, package_of("tiny_math"), *rest)

    found = run(command, package_of("tiny_math"), *rest)

    assert found.returncode == 0, found.stderr
    assert found.stdout == expected.stdout
    assert found.stderr == ""


@pytest.mark.parametrize("args", SAME_JSON, ids=" ".join)
def test_its_json_is_pythons(args: tuple[str, ...], package_of: PackageOf) -> None:
    command, *rest = args
    expected = run_python_cli(command, package_of("tiny_math"), *rest, "--json")

    found = run(command, package_of("tiny_math"), *rest, "--json")

    assert found.returncode == 0, found.stderr
    assert_same_answers(answers_of(found.stdout), answers_of(expected.stdout))
    assert found.stdout.isascii()


FAILURES = [
    ("info", "/nowhere"),
    ("generate", "/nowhere", "--prompt", "x"),
    ("check", "/nowhere"),
    ("generate", "{package}", "--prompt", "x", "--threshold", "2"),
    ("generate", "{package}", "--prompt", "x", "--max-new-tokens", "0"),
    ("generate", "{package}", "--prompt", "x", "--max-new-tokens", "9999"),
    ("generate", "{package}", "--prompt", "x", "--prompt", "y", "--stream"),
    ("generate", "{package}", "--infill", "a {2}", "--stop", "x"),
    ("generate", "{package}", "--prompt", "<|mdm_mask|>", "--raw"),
]


@pytest.mark.parametrize("args", FAILURES, ids=" ".join)
def test_a_failure_is_pythons_line(args: tuple[str, ...], package_of: PackageOf) -> None:
    words = [arg.format(package=package_of("tiny_math")) if "{p" in arg else arg for arg in args]
    expected = run_python_cli(*words)

    found = run(*words)

    assert found.returncode == expected.returncode == 1
    assert found.stderr.removeprefix("fastdllm-cli") == expected.stderr.removeprefix("fastdllm")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "a command is needed"),
        (("unknown",), "there is no command 'unknown'"),
        (("generate",), "PACKAGE is needed"),
        (("generate", "p", "q"), "'q' is one argument too many"),
        (("generate", "p", "--cache", "triple"), "cache is 'triple'; expected one of 'none'"),
        (("generate", "p", "--threshold", "x"), "threshold is 'x'; expected a number"),
        (("generate", "p", "--seed=-1"), "seed is '-1'; expected an integer in [0, 2^64)"),
        (("generate", "p", "--threads", "257"), "threads is 257; expected at most 256"),
        (("generate", "p", "--banned-token-ids", "x"), "banned_token_ids is 'x'; expected ids"),
        (("generate", "p", "--prompt"), "--prompt needs a value"),
        (("generate", "p", "--prompt", "--json"), "--prompt needs a value"),
        (("generate", "p", "--ids", "1,x"), "--ids is 'x'; expected an integer"),
        (("chat", "p", "--block-size", "8"), "there is no option --block-size"),
        (("bench", "p", "--repeat", "0"), "--repeat is '0'; expected an integer in [1,"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_exits_with_2(args: tuple[str, ...], words: str) -> None:
    found = run(*args)

    assert found.returncode == 2
    assert found.stdout == ""
    assert words in found.stderr.splitlines()[-1]
    assert found.stderr.startswith("usage: fastdllm-cli")


def test_every_field_of_the_config_is_an_option(package_of: PackageOf) -> None:
    """One at a time, since not all go together; what is not allowed alone comes with its needs."""
    needs = {"threshold_decay": {"threshold": 0.5}}
    unlike_bidirectional = {"sub_block_length"}
    for number, field in enumerate(GenerationConfig().to_dict()):
        if field in unlike_bidirectional:
            continue
        spelling = ("kebab", "snake", "equals")[number % 3]
        value = value_of(field)
        expected = GenerationConfig(**{field: value, **needs.get(field, {})})  # type: ignore[arg-type]
        words = []
        for name, given in {field: value, **needs.get(field, {})}.items():
            flag = f"--{name if spelling == 'snake' else name.replace('_', '-')}"
            text = str(given)
            if isinstance(given, list):
                text = ",".join(map(str, given))
            elif isinstance(given, dict):
                text = ",".join(f"{token}={bias}" for token, bias in given.items())
            if given is True:
                words.append(flag)
            else:
                words += [f"{flag}={text}"] if spelling == "equals" else [flag, text]

        found = run("generate", package_of("tiny_math"), "--ids", "3,10", *words, "--json")

        assert found.returncode == 0, found.stderr
        config = json.loads(found.stdout)["config"]
        as_json = json.loads(json.dumps(expected.to_dict()))
        assert config[field] == as_json[field], field
        assert list(config) == list(expected.to_dict())


def test_lists_add_up_as_in_python(package_of: PackageOf) -> None:
    words = [
        *("--logit-bias", "5=1", "--logit-bias", "6=-1,7=2", "--logit-bias", "5=3"),
        *("--banned-token-ids", "1,2", "--banned-token-ids", "4"),
        *("--stop-token-ids", "3", "--stop-token-ids", "5", "8"),
    ]

    found = run("generate", package_of("tiny_math"), "--ids=9", *words, "--json")

    config = json.loads(found.stdout)["config"]
    assert config["logit_bias"] == {"5": 3.0, "6": -1.0, "7": 2.0}
    assert config["banned_token_ids"] == [1, 2, 4]
    assert config["stop_token_ids"] == [3, 5, 8]


def test_token_ids_go_in_and_out(package_of: PackageOf, llm: fastdllm.LLM) -> None:
    config = GenerationConfig(max_new_tokens=24, threshold=0.9)
    prompts = [llm.encode(QUESTION), llm.encode(OTHER_QUESTION)]
    expected = [llm.engine.generate(ids, config).token_ids.tolist() for ids in prompts]
    words = [word for ids in prompts for word in ("--ids", ",".join(map(str, ids)))]

    found = run("generate", package_of("tiny_math"), *words, "--max-new-tokens", "24")

    assert [[int(i) for i in line.split()] for line in found.stdout.splitlines()] == expected


def test_a_prompt_that_is_no_utf8_is_refused(package_of: PackageOf) -> None:
    found = run("generate", package_of("tiny_math"), stdin=b"caf\xe9")

    assert found.returncode == 1
    assert found.stderr == "fastdllm-cli: error: the prompt is not valid UTF-8\n"


def test_help_lists_every_option_and_version_is_the_librarys() -> None:
    overview, help_text = run("--help"), run("generate", "--help")

    assert overview.returncode == help_text.returncode == 0
    for command in ("generate", "chat", "info", "check", "bench"):
        assert re.search(rf"^  {command} ", overview.stdout, re.MULTILINE)
        assert run(command, "--help").stdout.startswith(f"usage: fastdllm-cli {command}")
    for field in GenerationConfig().to_dict():
        assert f"  --{field.replace('_', '-')}" in help_text.stdout
    assert max(map(len, help_text.stdout.splitlines())) <= 100
    assert re.fullmatch(r"fastdllm \d+\.\d+\.\d+\n", run("--version").stdout)


def test_info_shows_what_pythons_shows(package_of: PackageOf) -> None:
    expected = run_python_cli("info", package_of("tiny_math")).stdout

    found = run("info", package_of("tiny_math")).stdout

    words = {"None": "null", "False": "false", "True": "true"}
    spelled = re.sub(r"\b(None|False|True)\b", lambda word: words[word[0]], expected)
    assert found == spelled


def test_info_of_the_build_names_its_backends() -> None:
    facts = json.loads(run("info", "--json").stdout)

    assert "onnxruntime" in facts["backends"]
    assert "onnxruntime" in run("info").stdout


def test_check_says_in_json_which_probes_are_damaged(package_of: PackageOf, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), package)
    probes = json.loads((package / "probes.json").read_text("utf-8"))
    probes["graph"][0]["vocab_ids"][0] = 10**6
    content = json.dumps(probes).encode()
    (package / "probes.json").write_bytes(content)
    metadata = json.loads((package / "fastdllm.json").read_text("utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    metadata["files"]["probes.json"] = {"bytes": len(content), "sha256": digest}
    (package / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")

    found = run("check", package, "--json")

    assert found.returncode == 1
    failed = {one["name"]: one["detail"] for one in json.loads(found.stdout) if not one["passed"]}
    assert failed["graph"].startswith("probes.json: ")


def test_a_flag_takes_no_value(package_of: PackageOf) -> None:
    for flag in ("--raw=false", "--ignore-eos=false"):
        found = run("generate", package_of("tiny_math"), "--prompt", "x", flag)

        assert found.returncode == 2
        assert "takes no value" in found.stderr


def test_metadata_of_very_many_fields_is_refused(package_of: PackageOf, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), package)
    metadata = json.loads((package / "fastdllm.json").read_text("utf-8"))
    metadata["more"] = {f"f{i}": 0 for i in range(20_000)}
    (package / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")

    found = run("info", package)

    assert found.returncode == 1
    assert "more than 10000 fields" in found.stderr


def test_check_finds_damaged_weights(package_of: PackageOf, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), package)
    weights = package / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    (package / "notes.txt").write_text("mine", "utf-8")

    found = run("check", package)

    assert found.returncode == 1
    assert "FAIL  model.onnx.data: sha256 is" in found.stdout
    assert "FAIL  files: not listed in fastdllm.json: notes.txt" in found.stdout
    assert "ok    tokenizer.json" in found.stdout
    assert "graph" not in found.stdout
    assert "failed: files, model.onnx.data" in found.stderr


def test_bench_compares_the_modes(package_of: PackageOf) -> None:
    options = ("--max-new-tokens", "16", "--block-length", "8", "--repeat", "1")

    table = run("bench", package_of("tiny_math"), *options, "--prompt", QUESTION)
    found = json.loads(run("bench", package_of("tiny_math"), *options, "--json").stdout)

    assert table.returncode == 0, table.stderr
    assert table.stdout.splitlines()[1].split()[:3] == ["mode", "passes", "tokens/pass"]
    assert [mode["name"] for mode in found["modes"]] == [
        *("naive", "prefix", "dual", "dual + threshold 0.9")
    ]
    assert [mode["num_passes"] for mode in found["modes"]][:3] == [16, 16, 16]


def test_ctrl_c_exits_with_130(package_of: PackageOf) -> None:
    command = [cli(), "generate", package_of("tiny_math"), "--stream", "--prompt", QUESTION, *LONG]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.read(1)  # it streams: the generation runs
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=20)
        finally:
            child.kill()

    assert child.returncode == 130
    assert time.monotonic() - start < 2.0
    assert errors == b""


def test_a_reader_that_leaves_ends_it_quietly(package_of: PackageOf) -> None:
    command = [cli(), "generate", package_of("tiny_math"), "--stream", "--prompt", QUESTION, *LONG]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.read(1)
            start = time.monotonic()
            child.stdout.close()
            errors = child.stderr.read()
            child.wait(timeout=20)
        finally:
            child.kill()

    assert child.returncode == 1
    assert time.monotonic() - start < 2.0
    assert errors == b""


def test_chat_remembers_what_was_said(package_of: PackageOf, llm: fastdllm.LLM) -> None:
    turns = [QUESTION, "And with 4 boxes?"]
    config = GenerationConfig(max_new_tokens=48, threshold=0.9)
    messages: list[dict[str, str]] = []
    expected = ""
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        messages.append(
            {"role": "assistant", "content": llm.generate(messages, config, stop="####").text}
        )
        expected += messages[-1]["content"] + "\n"
    words = ("chat", package_of("tiny_math"), "--max-new-tokens", "48", "--stop", "####")

    found = run(*words, stdin="\n".join(turns))
    as_json = run(*words, "--json", stdin="\n".join(turns))

    assert found.returncode == 0, found.stderr
    assert found.stdout == expected
    texts = [json.loads(line)["text"] for line in as_json.stdout.splitlines()]
    assert texts == [message["content"] for message in messages[1::2]]


def test_chat_goes_on_after_a_turn_that_failed(package_of: PackageOf) -> None:
    alone = run("chat", package_of("tiny_math"), stdin=f"{QUESTION}\n")

    found = run("chat", package_of("tiny_math"), stdin=f"{'long ' * 400}\n{QUESTION}\n")

    assert found.returncode == 1
    assert "context" in found.stderr
    assert found.stdout == alone.stdout


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *args: object) -> None:
        child, self._file = pty.fork()
        if child == 0:
            os.execve(str(args[0]), list(map(str, args)), ENVIRONMENT)
        self._child = child
        self.shown = ""  # behind what was waited for
        self.all_shown = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until `text` is shown, behind what was waited for before."""
        start = time.monotonic()
        while text not in self.shown:
            left = start + seconds - time.monotonic()
            assert left > 0, f"{text!r} did not come; shown: {self.shown!r}"
            if select.select([self._file], [], [], left)[0]:
                read = os.read(self._file, 4096).decode(errors="replace")
                self.shown, self.all_shown = self.shown + read, self.all_shown + read
        self.shown = self.shown.split(text, 1)[1]

    def end(self) -> int:
        status = os.waitpid(self._child, 0)[1]
        os.close(self._file)
        return os.waitstatus_to_exitcode(status)


def test_on_a_terminal_ctrl_c_ends_the_answer_then_the_program(package_of: PackageOf) -> None:
    terminal = Terminal(cli(), "chat", package_of("tiny_math"), *LONG)
    terminal.wait_for("> ")
    terminal.type(f"{QUESTION}\n")
    terminal.wait_for(QUESTION)
    time.sleep(0.3)  # the answer takes seconds
    terminal.type("\x03")
    terminal.wait_for("> ", seconds=2.0)
    terminal.type("\x03")

    assert terminal.end() == 130


def test_on_a_terminal_ctrl_d_ends_the_chat(package_of: PackageOf) -> None:
    terminal = Terminal(cli(), "chat", package_of("tiny_math"), "--max-new-tokens", "8")
    terminal.wait_for("> ")
    terminal.type(f"{QUESTION}\n")
    terminal.wait_for("> ")
    terminal.type("\x04")

    assert terminal.end() == 0
