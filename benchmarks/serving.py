"""Puts `fastdllm serve` under load, and compares every answer with the engine's own.

    python benchmarks/serving.py PACKAGE [--clients 200 --seconds 120 --vanishing 0.1 --output FILE]
    python benchmarks/serving.py PACKAGE --drain    # SIGTERM at the end, with all clients at work

Clients ask at random from a pool of requests: prompts and answers of mixed lengths, chat and
completions, streaming (with and without every pass) and not. A share of the requests vanishes: the
client closes the connection in the middle. The answers that they should get are made before, by an
LLM in this process. Exit code 1: an answer is wrong or cut, a status is no 200 (or 429, which is
tried again), the server keeps what vanished clients left, or it does not end well.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from measuring import commit_id, processor, versions

from fastdllm.llm import LLM, config_with

NAMES = ("Tom", "Mia", "Sam", "Ana")
THINGS = ("apples", "pens", "books", "coins")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"threshold": 0.7, "cache": "prefix"},
    {"steps_per_block": 8, "cache": "dual"},
    {"factor": 0.75, "stop": "####"},
    {"temperature": 0.8, "seed": 7, "threshold": 0.9},
    {"ignore_eos": True, "threshold": 0.9},
)
TOKENS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Asked:
    """A request of the pool, and what is to come back."""

    path: str
    body: dict[str, Any]
    text: str
    finish_reason: str
    tokens: int


@dataclass
class Seen:
    """What the clients saw. Times in seconds."""

    latencies: list[float] = field(default_factory=list)
    first_commits: list[float] = field(default_factory=list)
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    tokens: int = 0
    vanished: int = 0
    refused: int = 0
    asked: int = 0


class Gone(Exception):
    """The client left in the middle, on purpose."""


def pool_of(llm: LLM, count: int) -> list[Asked]:
    """Return requests with their answers, as an engine gives them that has nothing else to do."""
    draw = random.Random(3)
    pool = []
    for number in range(count):
        sentences = [
            f"{draw.choice(NAMES)} has {draw.randrange(2, 9)} boxes of {draw.randrange(2, 9)}"
            f" {draw.choice(THINGS)} and gives {draw.randrange(1, 4)} away."
            for _ in range(draw.choice((1, 1, 2, 4)))
        ]
        prompt = " ".join([*sentences, "How many are left?"])
        options = {**OPTIONS[number % len(OPTIONS)], "max_tokens": draw.choice(TOKENS)}
        is_chat = draw.random() < 0.6
        named = {name: value for name, value in options.items() if name != "stop"}
        config = config_with(max_new_tokens=named.pop("max_tokens"), **named)
        answer = llm.generate(
            [{"role": "user", "content": prompt}] if is_chat else prompt,
            config,
            stop=options.get("stop"),
            raw=not is_chat,
        )
        given = (
            {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        )
        pool.append(
            Asked(
                path="/v1/chat/completions" if is_chat else "/v1/completions",
                body=given | options,
                text=answer.text,
                finish_reason=answer.finish_reason,
                tokens=answer.completion_tokens,
            )
        )
    return pool


class Load:
    """Clients that ask until they are told to stop. told: the server was sent SIGTERM."""

    def __init__(self, client: httpx.AsyncClient, pool: list[Asked], options: Any) -> None:
        self.client, self.pool, self.options = client, pool, options
        self.seen = Seen()
        self.is_over = False
        self.told = 0.0

    async def run_client(self, number: int) -> None:
        """Ask one after another."""
        draw = random.Random(number)
        while not self.is_over:
            if self.options.requests is not None and self.seen.asked >= self.options.requests:
                return
            self.seen.asked += 1
            asked = draw.choice(self.pool)
            leaves = draw.random() < self.options.vanishing
            start = time.monotonic()
            try:
                status = await self.ask(asked, draw, leaves)
            except Gone:
                self.seen.vanished += 1
                continue
            except httpx.HTTPError as problem:
                is_slow = isinstance(problem, httpx.TimeoutException)
                if self.told and start > self.told - 0.2 and not is_slow:
                    self.seen.refused += 1
                    return
                self.seen.cut.append(f"{type(problem).__name__}: {problem}")
                continue
            self.seen.statuses[str(status)] += 1
            if status == 200:
                self.seen.latencies.append(time.monotonic() - start)
                self.seen.tokens += asked.tokens
            elif self.told:
                return
            else:
                await asyncio.sleep(draw.uniform(0.5, 1.5))

    async def ask(self, asked: Asked, draw: random.Random, leaves: bool) -> int:
        """Send a request, compare its answer, return the status. Errors: Gone, HTTPError."""
        streams = draw.random() < 0.5
        body = dict(asked.body)
        if streams:
            body |= {"stream": True, "diffusing": draw.random() < 0.5}
        if leaves and not streams:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.client.post(asked.path, json=body), draw.uniform(0, 1))
            raise Gone  # also where the answer was faster
        start = time.monotonic()
        async with self.client.stream("POST", asked.path, json=body) as response:
            if response.status_code != 200:
                await response.aread()
                return response.status_code
            if streams:
                text, reason = await self.read_stream(response, start, draw, leaves)
            else:
                choice = json.loads(await response.aread())["choices"][0]
                text = choice["message"]["content"] if "message" in choice else choice["text"]
                reason = choice["finish_reason"]
        if (text, reason) != (asked.text, asked.finish_reason):
            self.seen.wrong.append(f"{body}: {text!r} {reason}; expected {asked.text!r}")
        return 200

    async def read_stream(
        self, response: httpx.Response, start: float, draw: random.Random, leaves: bool
    ) -> tuple[str, str | None]:
        """Return the text and the reason why it ended. Errors: Gone; HTTPError for a cut one."""
        pieces, reason, left = [], None, draw.randrange(3)
        is_done = is_begun = False
        async for line in response.aiter_lines():
            if not line:
                continue
            if leaves and (left := left - 1) < 0:
                raise Gone
            if line == "data: [DONE]":
                is_done = True
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise httpx.RemoteProtocolError(chunk["error"]["message"])
            if "diffusing" in chunk and not is_begun:
                is_begun = True
                self.seen.first_commits.append(time.monotonic() - start)
            for choice in chunk["choices"]:
                delta = choice.get("delta")
                pieces.append(choice["text"] if delta is None else delta.get("content", ""))
                reason = choice["finish_reason"] or reason
        if leaves:
            raise Gone
        if not is_done:
            raise httpx.RemoteProtocolError("the stream ended early")
        return "".join(pieces), reason


def resident_mb(process: int) -> float:
    """Return a process's resident memory."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


async def drive(options: argparse.Namespace, url: str, server: Any, pool: list[Asked]) -> Any:
    """Run the clients; return what they saw, the samples of memory, and how long it took."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=options.clients)
    samples: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        load = Load(client, pool, options)
        start = time.monotonic()
        clients = [asyncio.create_task(load.run_client(i)) for i in range(options.clients)]
        working = asyncio.gather(*clients)
        while not working.done() and time.monotonic() - start < options.seconds:
            samples.append((time.monotonic() - start, resident_mb(server.pid)))
            await asyncio.wait([working], timeout=1.0)
        if options.drain:
            load.told = time.monotonic()
            server.send_signal(signal.SIGTERM)
        else:
            load.is_over = True
        await working
        seconds = time.monotonic() - start
        if not options.drain:
            await require_idle(client, load.seen)
    return load.seen, samples, seconds


async def require_idle(client: httpx.AsyncClient, seen: Seen) -> None:
    """Note as wrong what the server still runs for clients that vanished."""
    for _ in range(50):
        text = (await client.get("/metrics")).text
        busy = re.findall(r"^(fastdllm_requests_(?:running|waiting)\{.*?\} [1-9].*)$", text, re.M)
        if not busy:
            return
        await asyncio.sleep(0.1)
    seen.wrong.append(f"still at work without clients: {', '.join(busy)}")


def slope_of(samples: list[tuple[float, float]]) -> float:
    """Return the least-squares slope of the second half: MB per minute."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0
    return 60 * statistics.linear_regression(*zip(*half, strict=True)).slope


def percentiles(values: list[float]) -> dict[str, float] | None:
    """Return the median and the 99th percentile."""
    if len(values) < 2:
        return None
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def report(options: argparse.Namespace, seen: Seen, samples: Any, seconds: float) -> dict[str, Any]:
    """Return what was measured, for JSON."""
    answers = len(seen.latencies)
    return {
        "package": options.package.name,
        "processor": processor(),
        "commit": commit_id(),
        "versions": versions(),
        "clients": options.clients,
        "seconds": seconds,
        "drain": options.drain,
        "answers": answers,
        "answers_per_second": answers / seconds,
        "tokens_per_second": seen.tokens / seconds,
        "latency_seconds": percentiles(seen.latencies),
        "first_commit_seconds": percentiles(seen.first_commits),
        "statuses": dict(sorted(seen.statuses.items())),
        "vanished": seen.vanished,
        "refused": seen.refused,
        "wrong": len(seen.wrong),
        "cut": len(seen.cut),
        "resident_mb": {
            "first": samples[0][1],
            "middle": samples[len(samples) // 2][1],
            "last": samples[-1][1],
            "most": max(memory for _, memory in samples),
            "second_half_mb_per_minute": slope_of(samples),
        },
    }


def start_server(options: argparse.Namespace, log: Any) -> tuple[subprocess.Popen[str], str]:
    """Start `fastdllm serve` on a free port; return it and its address."""
    limits = ["--max-waiting", str(options.max_waiting), "--threads", str(options.threads)]
    server = subprocess.Popen(
        [sys.executable, "-m", "fastdllm", "serve", options.package, "--port", "0", *limits],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        server.kill()
        raise SystemExit(f"the server did not start: {line}")
    return server, found[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, help="end when so many were sent")
    parser.add_argument("--vanishing", type=float, default=0.1, help="share of the requests")
    parser.add_argument("--pool", type=int, default=60, help="different requests")
    parser.add_argument("--max-waiting", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--drain", action="store_true", help="SIGTERM while all clients ask")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    pool = pool_of(LLM(options.package, threads=options.threads), options.pool)
    with tempfile.TemporaryFile("w+") as log:
        server, url = start_server(options, log)
        try:
            seen, samples, seconds = asyncio.run(drive(options, url, server, pool))
            if not options.drain:
                server.send_signal(signal.SIGTERM)
            code = server.wait(60)
        finally:
            server.kill()
        log.seek(0)
        errors = [line for line in log if '"level": "info"' not in line]
    found = report(options, seen, samples, seconds) | {
        "exit_code": code,
        "errors_logged": len(errors),
    }
    print(json.dumps(found, indent=1))
    for line in [*seen.wrong[:5], *seen.cut[:5], *errors[:5]]:
        print(line, file=sys.stderr)
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    expected = {"200", "429", "503"} if options.drain else {"200", "429"}
    is_well = not seen.wrong and not seen.cut and seen.statuses.keys() <= expected
    return 0 if is_well and code == 0 and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
