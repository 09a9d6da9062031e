"""The command line, as users run it: its main function here, and processes where that matters."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fastdllm import GenerationConfig, cli
from fastdllm.cli.config import config_of
from fastdllm.cli.program import build_parser
from fastdllm.options import OPTIONS

from conftest import PackageOf, checkpoint_folder

QUESTION = "Tom has 3 boxes of 4 apples. How many apples is that?"
COMMAND = [sys.executable, "-m", "fastdllm"]


def run_process(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=120
    )


def run(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line in this process; what it says and returns is a process's."""
    command, out, err = list(map(str, args)), io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code: int = cli.main(command)
        except SystemExit as ended:  # argparse leaves this way
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def error_of(answer: subprocess.CompletedProcess[str]) -> str:
    """Return the one line on stderr of a failure."""
    assert answer.returncode == 1
    assert answer.stderr.startswith("fastdllm: error: ")
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_generate_prints_the_answer(package_of: PackageOf) -> None:
    package = package_of("tiny_math")

    by_option = run_process("generate", package, "--prompt", QUESTION, "--max-new-tokens", "32")
    by_stdin = run("generate", package, "--max-new-tokens", "32", stdin=QUESTION + "\n")
    streamed = run("generate", package, "--stream", "--max-new-tokens", "32", stdin=QUESTION)

    assert by_option.returncode == 0, by_option.stderr
    assert by_option.stdout.strip()
    assert by_option.stdout == by_stdin.stdout == streamed.stdout


def value_of(field: str) -> Any:
    """Return a value that the option takes and that is not its default."""
    row = OPTIONS[field]
    values = {
        "integer": 7,
        "number": 0.5,
        "flag": True,
        "ids": [3, 5],
        "biases": {12: -1.5, 3: 2.0},
    }
    others = [name for name in row.choices if name != row.default]
    return others[0] if others else values[row.type]


@pytest.mark.parametrize("field", GenerationConfig().to_dict())
def test_every_field_of_the_config_is_an_option(field: str) -> None:
    value = value_of(field)
    flag = f"--{field.replace('_', '-')}"
    words = [str(value)]
    if value is True:
        words = []
    elif isinstance(value, list):
        words = [str(v) for v in value]
    elif isinstance(value, dict):
        words = [f"{token}={bias}" for token, bias in value.items()]

    config = config_of(build_parser().parse_args(["generate", "package", flag, *words]))

    assert config.to_dict()[field] == value


def test_lists_may_be_given_with_commas() -> None:
    flags = ["--logit-bias", "12=-1.5,3=2", "--banned-token-ids", "1,2", "--stop-token-ids", "3,5"]

    config = config_of(build_parser().parse_args(["generate", "package", *flags]))

    assert config.logit_bias == {3: 2.0, 12: -1.5}
    assert config.banned_token_ids == [1, 2]
    assert config.stop_token_ids == [3, 5]


def test_lists_that_come_again_add_up() -> None:
    flags = [
        *("--logit-bias", "5=1", "--logit-bias", "6=-1,7=2", "--logit-bias", "5=3"),
        *("--banned-token-ids", "1,2", "--banned-token-ids", "4"),
        *("--stop-token-ids", "3", "--stop-token-ids", "5", "8"),
    ]

    for _ in range(2):  # and not from one command line to the next
        config = config_of(build_parser().parse_args(["generate", "package", *flags]))

        assert config.logit_bias == {5: 3.0, 6: -1.0, 7: 2.0}
        assert config.banned_token_ids == [1, 2, 4]
        assert config.stop_token_ids == [3, 5, 8]


@pytest.mark.parametrize("flag", ["--logit-bias=12", "--logit-bias=a=1", "--banned-token-ids=x"])
def test_a_malformed_list_is_wrong_usage(flag: str) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["generate", "package", flag])
    assert ended.value.code == 2


def test_generate_takes_every_option_of_the_config(package_of: PackageOf) -> None:
    options = {
        "max-new-tokens": "12",
        "block-length": "5",
        "steps": "6",
        "cache": "prefix",
        "remasking": "random",
        "temperature": "0.5",
        "cfg-scale": "0.5",
        "seed": "3",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]

    answer = run(
        "generate",
        package_of("tiny_math"),
        *("--prompt", QUESTION, *flags, "--ignore-eos", "--json"),
    )

    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    expected = GenerationConfig(
        max_new_tokens=12,
        block_length=5,
        steps=6,
        cache="prefix",
        remasking="random",
        temperature=0.5,
        cfg_scale=0.5,
        seed=3,
        ignore_eos=True,
    )
    assert found["config"] == expected.to_dict()
    assert len(found["token_ids"]) == 12
    assert found["num_passes"] == 6


OTHER_QUESTION = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"


def test_several_prompts_are_answered_in_order(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    both = ("--prompt", QUESTION, "--prompt", OTHER_QUESTION)
    first, second = (
        run("generate", package, "--prompt", question).stdout.rstrip("\n")
        for question in (QUESTION, OTHER_QUESTION)
    )

    answer = run("generate", package, *both)
    lines = run("generate", package, *both, "--json").stdout.splitlines()

    assert answer.stdout == f"{first}\n\n{second}\n"
    assert [json.loads(line)["text"] for line in lines] == [first, second]
    assert "--stream takes one --prompt" in error_of(run("generate", package, *both, "--stream"))


def test_stop_ends_the_answer_before_it(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    whole = json.loads(run("generate", package, "--prompt", OTHER_QUESTION, "--json").stdout)
    options = ("--prompt", OTHER_QUESTION, "--stop", "zz", "--stop", "####")

    stopped = json.loads(run("generate", package, *options, "--json").stdout)
    streamed = run("generate", package, *options, "--stream")

    assert "####" in whole["text"]
    assert stopped["text"] == whole["text"].split("####")[0]
    assert (stopped["stop"], stopped["finish_reason"]) == ("####", "stop")
    assert stopped["completion_tokens"] > len(stopped["token_ids"]) == len(stopped["logprobs"])
    assert streamed.stdout == stopped["text"] + "\n"


def test_the_log_of_a_probability_0_is_null_in_json(package_of: PackageOf) -> None:
    """So much noise draws tokens that the bias leaves no probability."""
    noise = ("--logit-bias", "5=5000", "--temperature", "10000", "--max-new-tokens", "4")

    answer = run(
        "generate", package_of("tiny_math"), "--prompt", "x", *noise, "--ignore-eos", "--json"
    )

    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout, parse_constant=pytest.fail)
    assert found["logprobs"] == [None] * 4


def test_infill_fills_the_gaps_of_a_text(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    text = "There are {6} apples.{1}"

    alone = run("generate", package, "--infill", text)
    asked = json.loads(
        run("generate", package, "--prompt", QUESTION, "--infill", text, "--json").stdout
    )

    assert alone.stdout.startswith("There are ")
    first, second = asked["filled"]
    assert asked["text"] == f"There are {first} apples.{second}"
    assert asked["completion_tokens"] == 7
    assert "neither --stop nor --stream" in error_of(
        run("generate", package, "--infill", text, "--stop", "x")
    )
    assert "expected a gap of 1" in error_of(run("generate", package, "--infill", "a{0}"))


def test_threshold_is_the_default_only_without_another_rule(package_of: PackageOf) -> None:
    package = package_of("tiny_math")
    short = ("--prompt", QUESTION, "--max-new-tokens", "4", "--json")

    default = json.loads(run("generate", package, *short).stdout)
    factor = json.loads(run("generate", package, *short, "--factor", "1.0").stdout)

    assert default["config"]["threshold"] == 0.9
    assert factor["config"]["threshold"] is None


def test_info_and_check_describe_a_package(package_of: PackageOf) -> None:
    package = package_of("tiny_math")

    info = run("info", package)
    facts = json.loads(run("info", package, "--json").stdout)
    check = run_process("check", package)
    results = json.loads(run("check", package, "--json").stdout)

    assert "vocab_size" in info.stdout
    assert facts["model"]["vocab_size"] == 512
    assert check.returncode == 0
    assert "FAIL" not in check.stdout
    assert all(result["passed"] for result in results)


def test_check_fails_loudly(package_of: PackageOf, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(package_of("tiny_math"), package)
    (package / "tokenizer.json").write_text("{}", "utf-8")

    answer = run("check", package)

    assert "FAIL" in answer.stdout
    assert "schema" in error_of(answer)


def test_bench_compares_the_modes(package_of: PackageOf) -> None:
    options = ("--max-new-tokens", "16", "--block-length", "8", "--repeat", "1")

    table = run("bench", package_of("tiny_math"), *options)
    found = json.loads(run("bench", package_of("tiny_math"), *options, "--json").stdout)

    assert table.returncode == 0, table.stderr
    for mode in ("naive", "prefix", "dual", "threshold"):
        assert mode in table.stdout
    assert [mode["num_passes"] for mode in found["modes"]][:3] == [16, 16, 16]


def test_export_makes_a_package_and_does_not_replace_one_unasked(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="exporting needs torch")
    checkpoint, package = checkpoint_folder("llada-mha"), tmp_path / "package"

    first = run_process("export", checkpoint, package, "--no-text")
    second = run("export", checkpoint, package, "--no-text")
    third = run("export", checkpoint, package, "--no-text", "--overwrite", "--precision", "fp16")

    assert first.returncode == 0, first.stderr
    assert "overwrite" in error_of(second)
    assert third.returncode == 0, third.stderr
    assert json.loads(run("info", package, "--json").stdout)["precision"] == "fp16"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("info", "/nowhere"), "no such package folder"),
        (("generate", "/nowhere", "--prompt", "x"), "no such package folder"),
        (("check", "/nowhere"), "failed: schema"),
        (("generate", "{package}", "--prompt", "x", "--threshold", "2"), "threshold is 2"),
        (
            ("generate", "{package}", "--prompt", "x", "--max-new-tokens", "0"),
            "max_new_tokens is 0",
        ),
        (("generate", "{package}", "--prompt", "x", "--max-new-tokens", "9999"), "context"),
    ],
)
def test_a_failure_is_one_clear_line(
    args: tuple[str, ...], words: str, package_of: PackageOf
) -> None:
    package = str(package_of("tiny_math"))

    answer = run(*(arg.format(package=package) for arg in args))

    assert words in error_of(answer)
    assert len(answer.stderr.splitlines()) == 1


def test_a_process_fails_with_one_clear_line() -> None:
    answer = run_process("generate", "/nowhere", "--prompt", "x")

    assert "no such package folder" in error_of(answer)
    assert len(answer.stderr.splitlines()) == 1
    assert run_process("unknown").returncode == 2


@pytest.mark.parametrize(
    "args", [(), ("unknown",), ("generate",), ("generate", "p", "--cache", "triple")]
)
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    assert run(*args).returncode == 2


def test_ctrl_c_exits_with_130(package_of: PackageOf) -> None:
    command = [
        *COMMAND,
        *("generate", str(package_of("tiny_math")), "--stream", "--prompt", QUESTION),
        *("--max-new-tokens", "256", "--block-length", "8", "--cache", "none", "--steps", "256"),
        "--ignore-eos",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
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
    assert b"Traceback" not in errors
