"""The options of a generation are the same wherever they are named."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import subprocess
from pathlib import Path

import pytest

import fastdllm
from fastdllm import ConfigError, GenerationConfig, PackageError, cli
from fastdllm._core import check_engine_options
from fastdllm.cli.program import build_parser
from fastdllm.option_docs import option_tables
from fastdllm.options import ENGINE_OPTIONS, OPTIONS

from conftest import ROOT
from programs import program

ENGINE = set(ENGINE_OPTIONS)
FIELDS = list(GenerationConfig().to_dict())


def test_the_cpp_struct_has_the_fields_in_this_order() -> None:
    header = (ROOT / "cpp/include/fastdllm/generation.hpp").read_text("utf-8")
    body = re.search(r"struct GenerationConfig \{(.*?)\n\};", header, re.DOTALL)
    assert body is not None
    code = re.sub(r"//.*", "", body[1])
    members = [
        re.search(r"(\w+)\s*(?:\{\}|=.*)?$", " ".join(statement.split()))
        for statement in code.split(";")
        if statement.strip() and "operator" not in statement
    ]

    assert [member[1] for member in members if member is not None] == FIELDS


def members_of(struct: str) -> list[str]:
    header = (ROOT / "cpp/include/fastdllm/fastdllm.h").read_text("utf-8")
    body = re.search(rf"typedef struct {struct} \{{(.*?)\}}", header, re.DOTALL)
    assert body is not None
    members = re.findall(r"(\w+);", re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL))

    assert members[0] == "struct_size"
    return [name for name in members[1:] if not name.startswith("num_")]


def test_the_c_struct_has_them_behind_its_size() -> None:
    assert sorted(members_of("fastdllm_config")) == sorted(FIELDS)


def test_python_has_them_as_keywords_and_properties() -> None:
    properties = {
        name for name, value in vars(GenerationConfig).items() if inspect.isdatadescriptor(value)
    }
    signature = (GenerationConfig.__init__.__doc__ or "").split(") -> ")[0]

    assert properties == set(FIELDS)
    assert re.findall(r"(\w+): ", signature) == FIELDS


def test_json_keeps_all_of_them() -> None:
    config = GenerationConfig(
        max_new_tokens=7, threshold=0.5, stop_token_ids=[3], logit_bias={5: -1.5}
    )

    written = json.loads(json.dumps(config.to_dict()))

    assert list(written) == FIELDS
    written["logit_bias"] = {int(token): bias for token, bias in written["logit_bias"].items()}
    assert GenerationConfig(**written) == config


def options_of(command: str) -> dict[str, object]:
    needed = {"tune": ["problems"], "trace": ["--prompt", "text"]}
    return vars(build_parser().parse_args([command, "package", *needed.get(command, [])]))


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_the_command_line_has_an_option_for_each(command: str) -> None:
    options = options_of(command)

    assert [name for name in options if name in FIELDS] == FIELDS
    for name, value in GenerationConfig().to_dict().items():
        assert options[name] == value


@pytest.mark.parametrize(
    "command", ["generate", "chat", "check", "bench", "tune", "serve", "trace"]
)
def test_every_command_that_runs_a_package_has_the_engines(command: str) -> None:
    options = options_of(command)

    assert set(options) >= ENGINE
    for name in ENGINE - {"max_waiting"}:  # a server has fewer
        assert options[name] == OPTIONS[name].default


def run_cpp(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("apps/fastdllm-cli"), *words], capture_output=True, text=True, check=False
    )


def test_the_cpp_command_line_has_all_of_them() -> None:
    shown = run_cpp("generate", "--help").stdout

    found = set(re.findall(r"^  --([a-z-]+)", shown, re.MULTILINE))
    assert {name.replace("_", "-") for name in OPTIONS} <= found


def test_engine_and_llm_have_the_engines_as_keywords() -> None:
    for made in (fastdllm.Engine, fastdllm.LLM):
        keywords = inspect.signature(made).parameters
        assert {name: one.default for name, one in keywords.items() if name != "package_dir"} == {
            name: OPTIONS[name].default for name in OPTIONS if name in ENGINE
        }


def test_ray_has_the_engines() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    from fastdllm.ray import serving

    batch = vars(build_parser().parse_args(["batch", "package", "input", "output"]))

    assert set(serving.ServeArgs.model_fields) >= ENGINE
    assert set(batch) >= ENGINE


def test_evaluation_takes_the_engines(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from fastdllm import evaluation

    for name in ENGINE:
        with pytest.raises(PackageError, match="no such package folder"):
            evaluation.check_model_args({"package": str(tmp_path / "none"), name: 1})
    with pytest.raises(ConfigError, match=r"did you mean max_batch\?"):
        evaluation.check_model_args({"package": str(tmp_path), "max_bach": 1})


def test_the_c_struct_of_engines_has_the_engines() -> None:
    assert set(members_of("fastdllm_engine_options")) == ENGINE


def test_a_servers_bodies_have_a_field_for_each() -> None:
    requests = pytest.importorskip("fastdllm.serve.requests")
    for body in (requests.ChatRequest, requests.CompletionRequest):
        properties = body.model_json_schema()["properties"]
        assert set(FIELDS) <= set(properties)
        for name in FIELDS:
            choices = OPTIONS[name].choices
            kinds = properties[name]["anyOf"]
            assert tuple(kinds[0].get("enum", ())) == choices
            assert kinds[-1] == {"type": "null"}


def test_the_documentation_has_a_row_for_each() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", option_tables(), re.MULTILINE)

    assert rows == list(OPTIONS)


def test_a_row_says_what_there_is_to_know() -> None:
    for name, row in OPTIONS.items():
        assert dict(row)["name"] == name
        assert row.help
        assert row.since
        assert (row.default is None) <= row.optional
        assert dict(pickle.loads(pickle.dumps(row))) == dict(row)
    assert [name for name, row in OPTIONS.items() if row.group == "generation"] == FIELDS
    assert (OPTIONS["steps"].minimum, OPTIONS["steps"].maximum) == (1, 2**20)
    assert OPTIONS["seed"].maximum == 2**64 - 1
    assert OPTIONS["frechet"].range == "in [0, 1)"
    assert OPTIONS["cache"].choices == ("none", "prefix", "dual", "auto")


# A word for each type, and what it is: by the table alone, without a line for the option.
WORDS = {
    "integer": ("3", 3),
    "number": ("0.25", 0.25),
    "ids": ("1,2", [1, 2]),
    "biases": ("12=-1.5,7=2", {12: -1.5, 7: 2.0}),
    "text": ("other", "other"),
    "path": ("other", "other"),
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_command_line_reads_each_by_its_type(name: str) -> None:
    row = OPTIONS[name]
    word, value = WORDS.get(row.type, ("true", True))
    if row.type == "choice":
        word = str(row.choices[-1])
        value = word
    flag = row.type == "flag" and not row.default
    words = [f"--{name.replace('_', '-')}"] + ([] if flag else [word])

    assert vars(build_parser().parse_args(["generate", "package", *words]))[name] == value
    if row.optional and row.type != "ids":
        assert (
            vars(build_parser().parse_args(["generate", "package", words[0], "none"]))[name] is None
        )
    if row.type in ("integer", "number", "choice"):
        with pytest.raises(SystemExit):
            build_parser().parse_args(["generate", "package", words[0], "wrong"])


def test_what_was_meant_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match=r"no option 'treshold'; did you mean threshold\?"):
        GenerationConfig(treshold=0.9)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Engine has no option 'max_bach'; did you mean max_batch"):
        fastdllm.Engine("nowhere", max_bach=2)  # type: ignore[call-arg]
    with pytest.raises(SystemExit):
        cli.main(["generate", "package", "--treshold", "0.9"])
    assert "did you mean --threshold?" in capsys.readouterr().err
    found = run_cpp("generate", "p", "--treshold", "1")
    assert found.returncode == 2
    assert "there is no option --treshold; did you mean --threshold?" in found.stderr


def test_wrong_engine_options_are_told_before_a_package_is_read() -> None:
    for options, words in (
        ({"threads": 257}, "threads is 257; expected at most 256"),
        ({"max_batch": 0}, "max_batch is 0; expected at least 1"),
        ({"cache_bytes": 0}, "cache_bytes is 0; expected at least 1, or None"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_engine_options(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="device is 5; expected str"):
        check_engine_options(device=5)  # type: ignore[arg-type]
