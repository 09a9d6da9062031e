"""The HTTP service of the examples as a process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from programs import ENVIRONMENT, program
from test_cli import QUESTION

JSON = {"Content-Type": "application/json"}
# Some seconds of work: as many passes as tokens, none of them cached.
LONG = {
    "prompt": QUESTION,
    "max_new_tokens": 384,
    "steps": 384,
    "cache": "none",
    "ignore_eos": True,
}


class Service:
    """A service under way, on a port of its own."""

    def __init__(self, package: Path, *options: str) -> None:
        command = [program("examples/http_service"), package, "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        assert found, (line, self.process.stderr and self.process.stderr.read())
        self.port = int(found[1])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: str | bytes | None = None) -> tuple[int, Any]:
        """Return the status and the JSON of a short request."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, JSON)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def generate(self, **fields: Any) -> tuple[int, Any]:
        return self.ask("POST", "/generate", json.dumps(fields))

    def open(self, **fields: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask, and do not wait for more than the answer's beginning."""
        connection = self.connect()
        connection.request("POST", "/generate", json.dumps(fields), JSON)
        return connection, connection.getresponse()

    def stream(self, **fields: Any) -> list[Any]:
        """Return what the events of a stream hold; its last is no JSON."""
        connection, answer = self.open(stream=True, **fields)
        with contextlib.closing(connection):
            assert answer.status == 200
            assert answer.getheader("Content-Type") == "text/event-stream"
            lines = answer.read().decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def stop(self, by: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int:
        self.process.send_signal(by)
        return self.process.wait(seconds)


@contextlib.contextmanager
def running(package: Path, *options: str) -> Iterator[Service]:
    service = Service(package, *options)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.communicate()
