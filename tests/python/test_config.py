"""The options of a generation are the same wherever they are named."""

from __future__ import annotations

import inspect
import json
import re

from fastdllm import GenerationConfig
from fastdllm.cli.program import build_parser

from conftest import ROOT

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


def test_the_c_struct_has_them_behind_its_size() -> None:
    header = (ROOT / "cpp/include/fastdllm/fastdllm.h").read_text("utf-8")
    body = re.search(r"typedef struct fastdllm_config \{(.*?)\}", header, re.DOTALL)
    assert body is not None
    members = re.findall(r"(\w+);", re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL))

    assert members[0] == "struct_size"
    assert [name for name in members[1:] if not name.startswith("num_")] == FIELDS


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


def test_the_command_line_has_an_option_for_each() -> None:
    options = build_parser().parse_args(["generate", "package"])
    own = {"command", "package", "threads", "backend", "device", "json", "cmake_dir"}
    own |= {"prompt", "raw", "stream", "stop", "infill"}

    assert [name for name in vars(options) if name not in own | {"run"}] == FIELDS
    for name, value in GenerationConfig().to_dict().items():
        assert getattr(options, name) == value


def test_the_readmes_table_has_a_row_for_each_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.split("| field | default | meaning |")[1].split("\n\n")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]

    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(FIELDS)
