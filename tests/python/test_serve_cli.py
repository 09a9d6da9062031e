"""`fastdllm serve` as a process: what it prints, its log, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from served import ENDLESS, MESSAGES, SECONDS, wait_until

httpx = pytest.importorskip("httpx", reason="these tests need httpx")
pytest.importorskip("fastapi", reason="the server needs fastapi and uvicorn")
Started = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def start(package_of: Callable[[str], Path], tmp_path: Path) -> Iterator[Started]:
    made = []

    def started(
        *options: object, packages: int = 1, **environment: str
    ) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fastdllm", "serve"),
                *[package_of("tiny_math")] * packages,
                *("--port", "0", "--threads", "1", *map(str, options)),
            ],
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "log").open("w"),
            text=True,
            env={**os.environ, **environment},
        )
        made.append(process)
        assert process.stdout is not None
        found = re.search(r"http://[0-9.]+:\d+", process.stdout.readline())
        assert found, (tmp_path / "log").read_text("utf-8")
        return process, found[0]

    yield started
    for process in made:
        process.kill()
        process.wait(SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def refused(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastdllm", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_stream_finish_and_ends_with_0(
    start: Started, tmp_path: Path, number: int
) -> None:
    process, url = start("--grace-seconds", 600)
    body = {**ENDLESS, "max_tokens": 64, "stream": True, "diffusing": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=SECONDS) as response:
        lines = response.iter_lines()
        first = next(lines)
        process.send_signal(number)
        rest = [line for line in lines if line]
    assert first.startswith("data: ")
    assert rest[-1] == "data: [DONE]"
    assert process.wait(SECONDS) == 0
    (line,) = (tmp_path / "log").read_text("utf-8").splitlines()
    facts = json.loads(line)
    assert (facts["status"], facts["finish_reason"]) == (200, "length")
    assert facts["completion_tokens"] == 64


def test_a_second_signal_ends_at_once(start: Started) -> None:
    process, url = start()
    body = {**ENDLESS, "stream": True, "diffusing": True}
    with (
        httpx.Client(base_url=url, timeout=SECONDS) as http,
        http.stream("POST", "/v1/completions", json=body) as response,
    ):
        next(response.iter_lines())
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/ready").status_code == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 1


def test_a_second_signal_tells_who_waits_and_logs_a_line_for_each(
    start: Started, tmp_path: Path
) -> None:
    process, url = start()
    waits = {**ENDLESS, "steps": 500, "max_tokens": 500}
    with (
        ThreadPoolExecutor(1) as beside,
        httpx.Client(base_url=url, timeout=SECONDS) as http,
    ):
        asked = beside.submit(httpx.post, f"{url}/v1/completions", json=waits, timeout=SECONDS)
        wait_until(lambda: 'requests_running{model="tiny_math"} 1' in http.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/ready").status_code == 503)
        process.send_signal(signal.SIGTERM)
        response = asked.result(SECONDS)
        assert process.wait(SECONDS) == 1
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "stopped"
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    facts = [json.loads(line) for line in lines if "/v1/completions" in line]
    assert [(one["status"], one["error"]) for one in facts] == [(503, "stopped")]
    assert '"level": "error"' not in "".join(lines)


def test_keys_come_from_options_a_variable_and_a_file(start: Started, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\nthree\n\n", "utf-8")
    options = ("--api-key", "one", "--api-key-file", tmp_path / "keys", "--name", "mine")
    _, url = start(*options, FASTDLLM_API_KEY="two")
    body: dict[str, Any] = {"model": "mine", "messages": MESSAGES}
    for key, status in (("one", 200), ("two", 200), ("three", 200), ("four", 401)):
        headers = {"authorization": f"Bearer {key}"}
        response = httpx.post(
            f"{url}/v1/chat/completions", json=body, headers=headers, timeout=SECONDS
        )
        assert response.status_code == status


def test_several_packages_share_the_memory_that_one_has(start: Started) -> None:
    def cache_limits(*options: object, packages: int) -> list[float]:
        _, url = start(*options, packages=packages)
        lines = httpx.get(f"{url}/metrics", timeout=SECONDS).text.splitlines()
        return [float(x.split()[-1]) for x in lines if x.startswith("fastdllm_cache_limit_bytes{")]

    (alone,) = cache_limits(packages=1)
    assert sum(cache_limits("--name", "a", "--name", "b", packages=2)) <= alone


def test_wrong_uses_are_one_line_each(package_of: Callable[[str], Path], tmp_path: Path) -> None:
    package = package_of("tiny_math")
    assert "fastdllm.json" in refused(tmp_path, "--port", 0)
    assert "two packages are named tiny_math" in refused(package, package)
    assert "2 names for 1 packages" in refused(package, "--name", "a", "--name", "b")
    assert "max_tokens is 0" in refused(package, "--max-tokens", 0)
    assert "expected at most max_tokens" in refused(
        package, "--default-tokens", 129, "--max-tokens", 128
    )
    assert "request_seconds is nan" in refused(package, "--request-seconds", "nan")
    assert "out of range" in refused(package, "--port", 70000)
    assert "API key" in refused(package, "--api-key", "with space")
    names = ("--name", "a", "--name", "b")
    assert "need --cache-bytes" in refused(package, package, *names, "--device", "cuda")
    (tmp_path / "keys").write_text("\n", "utf-8")
    assert "holds no key" in refused(package, "--api-key-file", tmp_path / "keys")
    (tmp_path / "keys").write_bytes(b"\xff")
    assert f"{tmp_path / 'keys'}: is no UTF-8" in refused(
        package, "--api-key-file", tmp_path / "keys"
    )


def test_a_limit_below_the_usual_tokens_lowers_them(start: Started) -> None:
    _, url = start("--max-tokens", 3)
    response = httpx.post(f"{url}/v1/completions", json={"prompt": "a", "ignore_eos": True})
    assert response.json()["usage"]["completion_tokens"] == 3


def test_a_missing_extra_is_named() -> None:
    program = """
import sys
sys.modules["fastapi"] = None
import fastdllm.serve
try:
    fastdllm.serve.create_app
except ImportError as problem:
    print(problem)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "pip install 'fastdllm[serve]'" in done.stdout
