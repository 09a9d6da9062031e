"""`fastdllm serve` under a small load of the benchmark's, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, PackageOf

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

PATIENCE = 60
LONG = {
    "prompt": "Tom has 3 boxes",
    "max_tokens": 400,
    "steps": 200,
    "ignore_eos": True,
    "cache": "dual",
    "stream": True,
    "diffusing": True,
}


def load(package: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Run the benchmark in a short form; what it measured."""
    output = folder / "serving.json"
    words = [package, "--output", output, "--pool", "12", "--threads", "1", *options]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "serving.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return found


def test_clients_that_share_a_server_get_the_engines_own_answers(
    package_of: PackageOf, tmp_path: Path
) -> None:
    found = load(package_of("tiny_math"), tmp_path, "--clients", "20", "--requests", "60")

    assert found["statuses"].keys() <= {"200", "429"}
    assert found["answers"] > 30
    assert found["answers"] + found["vanished"] >= 60
    assert found["vanished"] > 0
    assert (found["wrong"], found["cut"], found["errors_logged"], found["exit_code"]) == (0,) * 4


def test_a_full_queue_says_when_to_come_back_and_nothing_is_lost(
    package_of: PackageOf, tmp_path: Path
) -> None:
    options = ("--clients", "30", "--requests", "60", "--max-waiting", "2", "--vanishing", "0")

    found = load(package_of("tiny_math"), tmp_path, *options)

    assert found["statuses"]["429"] > 0
    assert found["statuses"]["200"] == found["answers"]
    assert (found["wrong"], found["cut"], found["exit_code"]) == (0, 0, 0)


def test_sigterm_under_load_finishes_what_runs_and_refuses_what_comes(
    package_of: PackageOf, tmp_path: Path
) -> None:
    options = ("--clients", "20", "--seconds", "2", "--drain")

    found = load(package_of("tiny_math"), tmp_path, *options)

    assert found["answers"] > 0
    assert found["statuses"].get("503", 0) + found["refused"] > 0
    assert (found["wrong"], found["cut"], found["errors_logged"], found["exit_code"]) == (0,) * 4


@pytest.fixture
def server(package_of: PackageOf, tmp_path: Path) -> Iterator[Any]:
    words = [sys.executable, "-m", "fastdllm", "serve", package_of("tiny_math"), "--port", "0"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [*words, "--threads", "1", "--grace-seconds", "120"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)$", process.stdout.readline().strip())
            assert found is not None
            process.port = int(found[1])  # type: ignore[attr-defined]
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def asked(port: int, method: str, path: str, body: Any = None) -> Iterator[Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        kind = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), kind)
        yield connection.getresponse()
    finally:
        connection.close()


def test_a_stream_goes_on_to_its_end_while_the_server_drains(server: Any) -> None:
    with asked(server.port, "POST", "/v1/completions", LONG) as stream:
        first = stream.readline()
        server.send_signal(signal.SIGTERM)
        while True:  # until the signal is noticed
            with asked(server.port, "GET", "/ready") as response:
                if response.status == 503:
                    break
        with asked(server.port, "GET", "/health") as response:
            assert response.status == 200
        with asked(server.port, "POST", "/v1/completions", LONG) as response:
            refused = (response.status, response.getheader("retry-after"), response.read())
        rest = stream.read()

    assert refused[0] == 503
    assert int(refused[1]) > 0
    assert json.loads(refused[2])["error"]["code"] == "draining"
    chunks = [json.loads(line[6:]) for line in [first, *rest.split(b"\n")] if line[6:7] == b"{"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["stats"]["num_passes"] == 200
    assert rest.endswith(b"data: [DONE]\n\n")
    assert server.wait(PATIENCE) == 0


def test_a_second_sigterm_ends_it_at_once(server: Any) -> None:
    with asked(server.port, "POST", "/v1/completions", LONG) as stream:
        stream.readline()
        server.send_signal(signal.SIGTERM)
        while True:
            with asked(server.port, "GET", "/ready") as response:
                if response.status == 503:
                    break
        server.send_signal(signal.SIGTERM)

        assert server.wait(PATIENCE) == 1
        rest = b""
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            rest = stream.read()
        assert b"[DONE]" not in rest
