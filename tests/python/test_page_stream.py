"""The page while an answer comes: a server says what the test says, when it says it."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fastdllm.trace.html import PAGE

from chromium import Page, browsing, running
from held import SECONDS


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as page:
        yield page


class Scripted:
    """A server whose streams say what the test says, when it says it."""

    def __init__(self, page_folder: Path) -> None:
        self.facts: dict[str, Any] = {"chat": True}
        self.asked: queue.Queue[Any] = queue.Queue()
        self.told: queue.Queue[str | None] = queue.Queue()
        self.app = Starlette(
            routes=[
                Route("/", lambda request: FileResponse(page_folder / "index.html")),
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.answer, methods=["POST"]),
                Route("/v1/completions", self.answer, methods=["POST"]),
                Mount("/page", StaticFiles(directory=page_folder)),
            ]
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m", "fastdllm": self.facts}]})

    async def answer(self, request: Request) -> Response:
        self.asked.put(await request.json())

        def lines() -> Iterator[str]:  # Starlette iterates on a thread of its own
            while (line := self.told.get(timeout=SECONDS)) is not None:
                yield line

        return StreamingResponse(lines(), media_type="text/event-stream")

    def tell(self, content: object) -> None:
        self.told.put(f"data: {json.dumps(content)}\n\n")

    def tell_pass(self, step: int, tokens: dict[int, str], text: str) -> None:
        facts = {
            "index": 0, "step": step, "block": 0, "block_start": 0, "block_end": 4,
            "block_finished": False, "refreshed": step == 0, "rows": 9,
            "positions": [*tokens], "token_ids": [7 for _ in tokens],
            "confidences": [0.6 for _ in tokens], "tokens": [*tokens.values()],
            "text": "", "seconds": 0.1 * (step + 1),
        }  # fmt: skip
        self.tell({"choices": [{"index": 0, "delta": {"content": text}}], "diffusing": facts})

    def end(self) -> None:
        choice = {"index": 0, "delta": {}, "finish_reason": "length"}
        stats = {"num_passes": 2, "refresh_passes": 1, "step_passes": 1, "seconds": 0.2}
        self.tell({"choices": [choice], "stats": stats | {"tokens_per_forward": 2.0}})
        usage = {"prompt_tokens": 5, "completion_tokens": 4}
        self.tell({"choices": [], "usage": usage})
        self.told.put("data: [DONE]\n\n")
        self.told.put(None)


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, str]]:
    one = Scripted(PAGE)
    config = uvicorn.Config(one.app, log_level="error", lifespan="off")
    with running(uvicorn.Server(config)) as url:
        yield one, url
        one.told.put(None)


def test_tokens_appear_as_passes_come_unless_the_view_was_slid_back(
    page: Page, scripted: tuple[Scripted, str]
) -> None:
    server, url = scripted
    page.open(url)
    page.ask("hello")
    server.tell_pass(0, {1: " b", 3: "d"}, "")
    page.until(lambda: page.tokens() == ["\u2591", " b", "\u2591", "d"])
    assert page.find(".block").get_attribute("class") == "block current"
    assert page.find("[data-position='1']").get_attribute("class") == "token sure-1 fresh"
    page.button("Back").click()
    server.tell_pass(1, {0: "a", 2: "c"}, "a bcd")
    page.until(lambda: page.find("input[type=range]").get_attribute("max") == "2")
    assert set(page.tokens()) == {"\u2591"}
    page.button("Last").click()
    server.end()
    assert page.answered() == "a bcd"
    assert page.tokens() == ["a", " b", "c", "d"]
    assert page.find(".rest").text == "60 positions behind the end of the answer stayed masked."


def test_earlier_turns_are_sent_until_a_new_chat(
    page: Page, scripted: tuple[Scripted, str]
) -> None:
    server, url = scripted
    page.open(url)
    sent = []
    for prompt in ("one", "two", "three"):
        if prompt == "three":
            page.button("New chat").click()
        page.ask(prompt)
        body = server.asked.get(timeout=SECONDS)
        sent.append([(turn["role"], turn["content"]) for turn in body["messages"]])
        server.tell_pass(0, {0: "A"}, "A")
        server.end()
        page.answered()
    assert sent[0] == [("user", "one")]
    assert sent[1] == [("user", "one"), ("assistant", "A"), ("user", "two")]
    assert sent[2] == [("user", "three")]
    assert body["diffusing"] is body["stream"] is True
    assert body["threshold"] == 0.9


def test_what_came_before_an_error_stays_and_is_no_turn_to_send(
    page: Page, scripted: tuple[Scripted, str]
) -> None:
    server, url = scripted
    page.open(url)
    page.ask("one")
    server.tell_pass(0, {0: "A"}, "A")
    server.tell({"error": {"message": "the engine failed", "type": "server_error"}})
    server.told.put(None)
    page.until(page.error)
    assert page.error() == "the engine failed"
    assert page.tokens() == ["A", "\u2591", "\u2591", "\u2591"]
    assert "Answer, not complete" in page.find(".turn.assistant").text
    page.ask("two")
    server.asked.get(timeout=SECONDS)
    assert server.asked.get(timeout=SECONDS)["messages"] == [{"role": "user", "content": "two"}]
    server.told.put(None)
    page.until(lambda: page.error() == "The answer ended before it was complete.")
    assert page.find("#prompt").get_attribute("value") == "two"


def test_a_model_without_chat_template_is_asked_with_raw_text(
    page: Page, scripted: tuple[Scripted, str]
) -> None:
    server, url = scripted
    server.facts = {"chat": False, "block_length": 8}
    page.open(url)
    page.until(lambda: page.find("#kind").get_attribute("value") == "raw")
    assert page.find("[name=block_length]").get_attribute("placeholder") == "8"
    page.ask("Once upon")
    assert server.asked.get(timeout=SECONDS)["prompt"] == "Once upon"
    server.end()
    page.answered()
