"""How the HTTP service of the examples ends requests and itself, and what it takes to start."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import PackageOf
from example_service import LONG, Service, running
from programs import ENVIRONMENT, program
from test_cli import QUESTION


@pytest.fixture(scope="module")
def service(package_of: PackageOf) -> Iterator[Service]:
    with running(package_of("tiny_math")) as one:
        yield one
        assert one.stop() == 0


@pytest.fixture
def small(package_of: PackageOf) -> Iterator[Service]:
    """One request at a time, and nobody waits."""
    with running(package_of("tiny_math"), "--max-batch", "1", "--max-waiting", "0") as one:
        yield one


def test_too_many_are_503_until_there_is_room(small: Service) -> None:
    connection, answer = small.open(stream=True, **LONG)
    assert answer.readline()  # it runs

    status, refused = small.generate(prompt=QUESTION)
    health, _ = small.ask("GET", "/health")
    connection.close()

    assert (status, health) == (503, 200)
    assert "error" in refused


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_ends_its_request(streams: bool, small: Service) -> None:
    connection, answer = small.open(stream=streams, **LONG)
    if streams:
        assert answer.readline()
    assert small.generate(prompt=QUESTION)[0] == 503
    start = time.monotonic()
    answer.close()
    connection.close()

    while small.generate(prompt=QUESTION, max_new_tokens=4)[0] == 503:
        time.sleep(0.02)

    assert time.monotonic() - start < 2.0


def test_one_that_connects_and_says_nothing_holds_up_nobody(service: Service) -> None:
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(8)]

    status, _ = service.generate(prompt=QUESTION, max_new_tokens=4)

    assert status == 200
    for one in silent:
        one.close()


def test_slow_clients_hold_up_neither_others_nor_the_end(package_of: PackageOf) -> None:
    with running(package_of("tiny_math"), "--grace-seconds", "0") as service:
        slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(40)]
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.2):
                for one in slow:
                    with contextlib.suppress(OSError):
                        one.send(b"G")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(drip)
            time.sleep(0.5)
            start = time.monotonic()
            try:
                assert service.ask("GET", "/health")[0] == 200
                assert time.monotonic() - start < 1.0
                assert service.stop() == 0
                assert time.monotonic() - start < 3.0
            finally:
                ended.set()
        for one in slow:
            one.close()


def test_a_signal_lets_requests_end(package_of: PackageOf) -> None:
    asked = {"prompt": QUESTION, "max_new_tokens": 48, "steps": 48, "ignore_eos": True}
    with running(package_of("tiny_math")) as service:
        connection, answer = service.open(stream=True, **asked)
        first = answer.readline()
        service.process.send_signal(signal.SIGINT)
        rest = answer.read().decode()
        connection.close()

        assert service.process.wait(20) == 0
        assert first.startswith(b"data: {")
        assert '"finish_reason":"length"' in rest
        assert rest.endswith("data: [DONE]\n\n")
        with pytest.raises(OSError, match="refused"):
            service.connect().connect()


@pytest.mark.parametrize("streams", [True, False])
def test_after_the_grace_time_requests_are_cancelled(streams: bool, package_of: PackageOf) -> None:
    with running(package_of("tiny_math"), "--grace-seconds", "0") as service:
        connection, answer = service.open(stream=streams, **LONG)
        start = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        rest = answer.read().decode()
        connection.close()

        assert service.process.wait(20) == 0
        assert time.monotonic() - start < 2.0
        assert '"finish_reason":"abort"' in rest


def test_an_idle_service_ends_at_once(package_of: PackageOf) -> None:
    with running(package_of("tiny_math")) as service:
        start = time.monotonic()

        assert service.stop() == 0
        assert time.monotonic() - start < 2.0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "usage: http_service PACKAGE"),
        (("/nowhere",), "no such package folder"),
        (("{package}", "--port"), "--port is no option"),
        (("{package}", "--allowed-host", "a:80"), "--allowed-host is no name"),
        (("{package}", "--allowed-host"), "--allowed-host is no option"),
        (("{package}", "--colour", "red"), "--colour is no option"),
        (
            ("{package}", "--port", "99999"),
            "--port is '99999'; expected an integer from 0 to 65535",
        ),
        (("{package}", "--port", "12abc"), "--port is '12abc'"),
        (("{package}", "--max-waiting", "20000"), "--max-waiting is '20000'"),
        (("{package}", "--grace-seconds", "-1"), "--grace-seconds is '-1'"),
        (("{package}", "--host", "256.0.0.1"), "cannot listen"),
    ],
)
def test_a_service_that_cannot_start_says_why(
    args: tuple[str, ...], words: str, package_of: PackageOf
) -> None:
    filled = [arg.format(package=package_of("tiny_math")) for arg in args]

    done = subprocess.run(
        [program("examples/http_service"), *filled],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
        check=False,
    )

    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
