"""The same prompt, options and seed give the same tokens from Python, C++, C, CLI and service."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import fastdllm
from fastdllm import GenerationConfig

from conftest import ROOT, PackageOf
from example_service import Service, running
from programs import program, run_program
from test_cli import OTHER_QUESTION, QUESTION

AARCH64 = ROOT / ".deps" / "aarch64"


@dataclass(frozen=True, kw_only=True)
class Case:
    prompt: str = QUESTION
    config: dict[str, Any] = field(default_factory=dict)
    stop: str | None = None


CASES = {
    "threshold": Case(config={"threshold": 0.9}),
    "sampled": Case(config={"temperature": 0.8, "seed": 7, "threshold": 0.7}),
    "sampled by a schedule": Case(
        config={"temperature": 1.0, "seed": 2**63, "steps": 16, "max_new_tokens": 32, "top_p": 0.9}
    ),
    "factor": Case(prompt=OTHER_QUESTION, config={"factor": 1.0}),
    "prefix cache": Case(prompt=OTHER_QUESTION, config={"cache": "prefix", "threshold": 0.8}),
    "no cache": Case(config={"cache": "none", "threshold": 0.8, "block_length": 16}),
    "stop string": Case(prompt=OTHER_QUESTION, config={"threshold": 0.9}, stop="####"),
    "entropy": Case(config={"entropy_bound": 0.3, "logit_bias": {20: 1.5}}),
    "other scripts": Case(prompt="Zwölf 🍎, три ящика: 多少?", config={"threshold": 0.9}),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def expected_of(llm: fastdllm.LLM) -> Callable[[Case], fastdllm.Completion]:
    """What Python's LLM says."""
    known: dict[int, fastdllm.Completion] = {}

    def expected(case: Case) -> fastdllm.Completion:
        if id(case) not in known:
            config = GenerationConfig(**case.config)
            known[id(case)] = llm.generate(case.prompt, config, stop=case.stop)
        return known[id(case)]

    return expected


ExpectedOf = Callable[[Case], fastdllm.Completion]


@pytest.fixture(scope="module")
def service(package_of: PackageOf) -> Iterator[Service]:
    with running(package_of("tiny_math")) as one:
        yield one


def flags_of(config: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in config.items():
        text = value
        if isinstance(value, dict):
            text = ",".join(f"{token}={bias}" for token, bias in value.items())
        flags.append(f"--{name}={text}")
    return flags


def words_of(case: Case) -> list[str]:
    stop = [] if case.stop is None else ["--stop", case.stop]
    return ["--prompt", case.prompt, *stop, *flags_of(case.config), "--json"]


def test_the_command_line_in_cpp(
    case: Case, expected_of: ExpectedOf, package_of: PackageOf
) -> None:
    cli = program("apps/fastdllm-cli")

    done = run_program(cli, "generate", package_of("tiny_math"), *words_of(case))

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["token_ids"] == expected_of(case).token_ids.tolist()
    assert answer["text"] == expected_of(case).text
    assert answer["num_passes"] == expected_of(case).num_passes
    assert answer["completion_tokens"] == expected_of(case).completion_tokens


def test_token_ids_in_cpp(
    case: Case, expected_of: ExpectedOf, package_of: PackageOf, llm: fastdllm.LLM
) -> None:
    if case.stop is not None:
        pytest.skip("a stop string is text")
    ids = ",".join(map(str, llm.encode(case.prompt)))

    done = run_program(
        program("apps/fastdllm-cli"),
        *("generate", package_of("tiny_math"), "--ids", ids, *flags_of(case.config)),
    )

    assert [int(i) for i in done.stdout.split()] == expected_of(case).token_ids.tolist()


@pytest.mark.parametrize("name", ["threshold", "sampled", "prefix cache", "stop string"])
def test_the_command_line_on_aarch64(
    name: str, expected_of: ExpectedOf, package_of: PackageOf
) -> None:
    """Under qemu, where `make test-aarch64` has built it."""
    cli = program("apps/fastdllm-cli", ROOT / "build" / "aarch64")
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("there is no qemu-aarch64")
    emulated = [qemu, "-L", AARCH64 / "root", cli]
    library = ["--onnxruntime-library", AARCH64 / "libonnxruntime.so"]

    done = run_program(
        *emulated, "generate", package_of("tiny_math"), *library, *words_of(CASES[name])
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["token_ids"] == expected_of(CASES[name]).token_ids.tolist()


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_the_service(case: Case, streams: bool, expected_of: ExpectedOf, service: Service) -> None:
    stop = {} if case.stop is None else {"stop": case.stop}
    ask = {"prompt": case.prompt, **stop, **case.config}

    answer = service.stream(**ask)[-1]["completion"] if streams else service.generate(**ask)[1]

    assert answer["token_ids"] == expected_of(case).token_ids.tolist()
    assert answer["text"] == expected_of(case).text


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("embed", GenerationConfig(threshold=0.9)),
        ("embed_c", GenerationConfig(threshold=0.9, max_new_tokens=64)),
    ],
)
def test_the_examples(
    name: str, config: GenerationConfig, package_of: PackageOf, llm: fastdllm.LLM
) -> None:
    for prompt in (QUESTION, OTHER_QUESTION):
        done = run_program(program(f"examples/{name}"), package_of("tiny_math"), prompt)

        assert done.returncode == 0, done.stderr
        assert done.stdout == llm.generate(prompt, config).text + "\n"


@pytest.mark.parametrize(("threshold", "temperature", "seed"), [(0.9, 0, 0), (0.7, 0.8, 2**63)])
def test_a_program_in_c(
    threshold: float, temperature: float, seed: int, package_of: PackageOf, llm: fastdllm.LLM
) -> None:
    config = GenerationConfig(
        max_new_tokens=48, threshold=threshold, temperature=temperature, seed=seed
    )
    asked = (QUESTION, 48, threshold, temperature, seed)

    done = run_program(program("../tests/c/answer_c"), package_of("tiny_math"), *asked)

    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == llm.generate(QUESTION, config).token_ids.tolist()


def test_the_example_with_token_ids(package_of: PackageOf, llm: fastdllm.LLM) -> None:
    ids = llm.encode(QUESTION)
    config = GenerationConfig(max_new_tokens=64, threshold=0.9)

    done = run_program(program("examples/embed_ids"), package_of("tiny_math"), *ids)

    tokens = done.stdout.splitlines()[0].split()
    assert [int(i) for i in tokens] == llm.engine.generate(ids, config).token_ids.tolist()
