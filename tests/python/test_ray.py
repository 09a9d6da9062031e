"""Scale-out on a local Ray: a batch job that survives kills, and the server with two replicas."""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import httpx
import ray

from fastdllm import LLM, Error, GenerationConfig
from fastdllm.ray import answer_dataset, build_app

from conftest import PackageOf, checkpoint_folder

SECONDS = 120  # for what must not hang
CONFIG = GenerationConfig(max_new_tokens=48, threshold=0.9, temperature=0.6, seed=5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start Ray with two cores; its address."""
    context = ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def questions() -> list[str]:
    lines = (checkpoint_folder("tiny_math") / "problems.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines[:40]]


@pytest.fixture(scope="module")
def expected(llm: LLM, questions: list[str]) -> list[str]:
    """What LLM.generate answers, row r with the seed 5 + r."""
    options = CONFIG.to_dict()
    configs = [GenerationConfig(**options | {"seed": 5 + row}) for row in range(len(questions))]
    return [answer.text for answer in llm.generate(questions, configs)]


@pytest.fixture
def source(tmp_path: Path, questions: list[str]) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = [
        json.dumps({"prompt": question, "id": f"q{n}"}) for n, question in enumerate(questions)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def workers(name: str) -> list[int]:
    """Return the processes of this test's cluster that run an actor's class."""

    def parent(process: int) -> int:
        return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])

    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if command.startswith(f"ray::{name}".encode()):
                raylet = parent(int(folder.name))
                if parent(raylet) == os.getpid():
                    found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def wait_for(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return every row of the Parquet files in order of their names."""
    return [
        row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def test_a_killed_worker_loses_no_row_and_writes_none_twice(
    cluster: str, package_of: PackageOf, source: Path, expected: list[str], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one(progress: Any) -> None:
        if progress.new_rows and not killed:
            killed.append(workers("MapWorker")[0])
            os.kill(killed[0], signal.SIGKILL)

    summary = answer_dataset(
        package_of("tiny_math"),
        source,
        tmp_path / "out",
        config=CONFIG,
        id_column="id",
        formats=("parquet", "jsonl"),
        shard_rows=4,
        replicas=2,
        on_progress=kill_one,
    )
    assert killed
    assert (summary.rows, summary.answered, summary.failed) == (40, 40, 0)
    rows = rows_of(tmp_path / "out" / "parquet")
    assert [row["row"] for row in rows] == list(range(40))
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(40)]
    assert [row["seed"] for row in rows] == list(range(5, 45))
    assert [row["text"] for row in rows] == expected
    lines = [
        json.loads(line)
        for file in sorted((tmp_path / "out" / "jsonl").iterdir())
        for line in file.read_text("utf-8").splitlines()
    ]
    assert lines == rows
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {
        "rows": 40,
        "answered": 40,
        "failed": 0,
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "completion_tokens": sum(row["completion_tokens"] for row in rows),
        "num_passes": sum(row["num_passes"] for row in rows),
    }


def test_a_killed_job_goes_on_where_it_stopped(
    cluster: str, package_of: PackageOf, source: Path, expected: list[str], tmp_path: Path
) -> None:
    package, out = package_of("tiny_math"), tmp_path / "out"
    command = [sys.executable, "-m", "fastdllm", "batch", package, source, out]
    command += ["--address", cluster, "--shard-rows", "2", "--max-new-tokens", "48"]
    command += ["--threshold", "0.9", "--temperature", "0.6", "--seed", "5"]
    job = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(out.glob("parquet/rows-*.parquet"))) >= 2 or job.poll())
    finally:
        job.kill()
        job.wait()
    wait_for(lambda: not workers("MapWorker"))
    before = {file: file.stat().st_ino for file in out.glob("parquet/rows-*.parquet")}
    assert 2 <= len(before) < 20
    told: list[Any] = []
    answer_dataset(package, source, out, config=CONFIG, shard_rows=2, on_progress=told.append)
    assert [told[0].rows, told[-1].new_rows] == [2 * len(before), 40 - 2 * len(before)]
    assert {file: file.stat().st_ino for file in before} == before
    assert [row["text"] for row in rows_of(out / "parquet")] == expected


def test_bad_rows_are_recorded_in_their_place_or_end_the_job(
    cluster: str, package_of: PackageOf, tmp_path: Path, questions: list[str], expected: list[str]
) -> None:
    package, source, out = package_of("tiny_math"), tmp_path / "bad.jsonl", tmp_path / "out"
    bad = ['{"prompt": 5}', "not JSON", '{"prompt": [99999]}', '{"prompt": "\\ud800"}', "{}"]
    good = [json.dumps({"prompt": question}) for question in questions[:2]]
    source.write_text("\n".join([good[0], *bad, "", good[1]]), "utf-8")
    with pytest.raises(Error, match=r"row 1: prompt: expected text, messages .*; found 5"):
        answer_dataset(package, source, out, config=CONFIG, on_error="fail")
    assert not rows_of(out / "parquet")
    summary = answer_dataset(package, source, out, config=CONFIG)
    assert (summary.rows, summary.answered, summary.failed) == (7, 2, 5)
    rows = rows_of(out / "parquet")
    assert [row["error"] is None for row in rows] == [True, *[False] * 5, True]
    assert rows[0]["text"] == expected[0]
    assert "outside the vocabulary" in rows[3]["error"]


def test_a_config_that_no_row_can_have_ends_the_job_once(
    cluster: str, package_of: PackageOf, source: Path, tmp_path: Path
) -> None:
    config = GenerationConfig(max_new_tokens=10**9)
    with pytest.raises(Error, match="max_new_tokens"):
        answer_dataset(package_of("tiny_math"), source, tmp_path / "out", config=config)


def test_two_replicas_serve_openai_routes_and_one_that_dies_comes_back(
    cluster: str, package_of: PackageOf, llm: LLM, questions: list[str]
) -> None:
    from ray import serve

    from fastdllm.ray.serving import ServeArgs

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        arguments = {"package": str(package_of("tiny_math")), "num_replicas": 2, "max_tokens": 128}
        serve.run(build_app(ServeArgs(**arguments)))
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": questions[0]}], "max_tokens": 64}
        config = GenerationConfig(max_new_tokens=64, threshold=0.9)
        answer = llm.generate(questions[0], config).text

        def ask() -> str | None:
            reply = httpx.post(url, json=body, timeout=SECONDS)
            if reply.status_code != 200:
                return None
            text: str = reply.json()["choices"][0]["message"]["content"]
            return text

        assert ask() == answer
        with httpx.stream("POST", url, json=body | {"stream": True}, timeout=SECONDS) as reply:
            events = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
        assert "".join(delta.get("content") or "" for delta in deltas) == answer
        assert events[-1] == "[DONE]"
        refused = httpx.post(url, json=body | {"max_tokens": 129}, timeout=SECONDS)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")

        first, second = workers("ServeReplica")
        os.kill(first, signal.SIGKILL)
        assert wait_for(ask) == answer  # the other one's
        back = wait_for(lambda: (set(workers("ServeReplica")) - {first, second}) or None)
        assert len(back) == 1
        assert second in workers("ServeReplica")
    finally:
        serve.shutdown()


def test_the_command_line_offers_the_formats_and_error_rules_of_the_job() -> None:
    from fastdllm.cli.program import build_parser
    from fastdllm.ray.batch import ON_ERROR
    from fastdllm.ray.shards import FORMATS

    words = ["batch", "package", "in", "out"]
    for name in FORMATS:
        assert build_parser().parse_args([*words, "--format", name]).format == [name]
    for name in ON_ERROR:
        assert build_parser().parse_args([*words, "--on-error", name]).on_error == name
