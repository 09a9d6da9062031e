"""The example programs answer what the engine answers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import fastdllm

from conftest import ROOT, PackageOf
from programs import program, run_program

QUESTION = "Sam had 27 balls, bought 9 and lost 7. How many are left?"
OTHER = "Zoe had 11 shells, bought 3 and lost 3. How many are left?"
CONFIG = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
GAPS = "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?"


def example(name: str, *words: object, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "python" / "examples" / name), *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def package(package_of: PackageOf) -> Path:
    return package_of("tiny_math")


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text("utf-8") + (
        ROOT / "tests" / "python" / "test_everywhere.py"
    ).read_text("utf-8")
    for path in (ROOT / "python" / "examples").glob("*.py"):
        assert f'"{path.name}"' in here
    for path in (ROOT / "cpp" / "examples").glob("*.cpp"):
        assert re.search(rf'"(examples/)?{path.stem}"', here) or path.stem == "http_service"


def test_chat(package: Path, llm: fastdllm.LLM) -> None:
    printed = example("chat.py", package, "--single", stdin=f"{QUESTION}\n{OTHER}\n")

    assert printed == f"{llm.generate(QUESTION).text}\n{llm.generate(OTHER).text}\n"
    messages = [{"role": "user", "content": QUESTION}]
    messages += [{"role": "assistant", "content": llm.generate(messages).text}]
    second = llm.generate([*messages, {"role": "user", "content": OTHER}]).text
    assert example("chat.py", package, stdin=f"{QUESTION}\n{OTHER}\n").endswith(f"{second}\n")


def test_batch(package: Path, llm: fastdllm.LLM, tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text(f"{QUESTION}\n{OTHER}\n", "utf-8")

    rows = [
        json.loads(row)
        for row in example("batch.py", package, tmp_path / "prompts").split("\n")[:-1]
    ]

    assert [row["prompt"] for row in rows] == [QUESTION, OTHER]
    assert [row["text"] for row in rows] == [
        llm.generate(q, CONFIG).text for q in (QUESTION, OTHER)
    ]


def test_async_service(package: Path, llm: fastdllm.LLM) -> None:
    """Two clients at the same time, one of which asks twice; a third leaves without an answer."""
    script = ROOT / "python" / "examples" / "async_service.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(package), "0"], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline().split()[-1])
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(f"{QUESTION}\n".encode())
        clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(2)]
        for client, asked in zip(clients, ([QUESTION, OTHER], [OTHER]), strict=True):
            client.sendall("".join(f"{one}\n" for one in asked).encode())
            client.shutdown(socket.SHUT_WR)
        said = [client.makefile().read() for client in clients]
        for client in clients:
            client.close()
        service.terminate()
    first, other = (llm.generate(one, CONFIG).text for one in (QUESTION, OTHER))
    assert said == [f"{first}\n\n{other}\n\n", f"{other}\n\n"]


def test_infill(package: Path) -> None:
    assert example("infill.py", package).startswith("There are 3 * 4 = 12 apples. 12 - 5 = 7 are")


def test_callbacks(package: Path, llm: fastdllm.LLM) -> None:
    answer = llm.generate(QUESTION, CONFIG)

    lines = example("callbacks.py", package, QUESTION).splitlines()

    assert lines[-1] == f"stop {answer.text!r}"
    assert len(lines) == answer.num_passes + 1
    ended = example("callbacks.py", package, QUESTION, 2).splitlines()
    assert ended[:2] == lines[:2]
    assert ended[2].startswith("abort")


def test_embedding(package: Path) -> None:
    printed = example("embedding.py", package)

    assert f"{QUESTION} -> After buying" in printed
    assert "#### 29" in printed
    assert f"{OTHER} -> After buying" in printed
    assert "#### 11" in printed


# --- C++ ----------------------------------------------------------------------------------------


def test_chat_in_cpp(package: Path) -> None:
    asked = f"{QUESTION}\n{OTHER}\n"

    done = run_program(program("examples/chat"), package, stdin=asked)

    assert done.returncode == 0, done.stderr
    assert done.stdout == example("chat.py", package, stdin=asked)


def test_batch_in_cpp(package: Path, llm: fastdllm.LLM) -> None:
    done = run_program(program("examples/batch"), package, stdin=f"{QUESTION}\n{OTHER}\n")

    answers = [llm.generate(one, CONFIG) for one in (QUESTION, OTHER)]
    assert done.stdout == "".join(f"{one.text}\n[{one.num_passes} passes]\n" for one in answers)


def test_infill_in_cpp(package: Path, llm: fastdllm.LLM) -> None:
    before, after = "There are 3 * 4 = ", " apples."

    done = run_program(program("examples/infill"), package, GAPS, before, 2, after)

    config = fastdllm.GenerationConfig(threshold=0.9)
    assert done.stdout == llm.infill([before, 2, after], config, prompt=GAPS).text + "\n"


def test_callbacks_in_cpp(package: Path, llm: fastdllm.LLM) -> None:
    answer = llm.generate(QUESTION, CONFIG, stop="####")

    done = run_program(program("examples/callbacks"), package, QUESTION)

    assert done.stdout.count("positions; final so far: ") == answer.num_passes
    assert done.stdout.endswith(f"stop: {answer.text}\n")


@pytest.mark.parametrize("name", ["chat", "batch", "infill", "callbacks"])
def test_examples_in_cpp_say_how_they_are_used(name: str) -> None:
    done = run_program(program(f"examples/{name}"))

    assert (done.returncode, done.stderr.startswith(f"{name}: usage: {name} PACKAGE")) == (1, True)
