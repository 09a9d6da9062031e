"""The server's answers: OpenAI's routes and client, streams."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastdllm

from held import Held
from served import (
    CHAT,
    MESSAGES,
    QUESTION,
    TEXT,
    Served,
    chat,
    complete,
    events_of,
    refused,
    serving,
    wait_until,
)

httpx = pytest.importorskip("httpx", reason="these tests need httpx")


@pytest.fixture(scope="module")
def served(llm: fastdllm.LLM) -> Iterator[Served]:
    with serving(llm) as one:
        yield one


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[Any]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def test_a_chat_is_answered_as_the_engine_answers_it(http: Any, llm: fastdllm.LLM) -> None:
    expected = llm.generate(QUESTION)
    answer = chat(http).json()
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert choice["finish_reason"] == expected.finish_reason
    assert choice["stats"]["num_passes"] == expected.num_passes
    assert answer["usage"] == {
        "prompt_tokens": expected.prompt_tokens,
        "completion_tokens": expected.completion_tokens,
        "total_tokens": expected.prompt_tokens + expected.completion_tokens,
    }


def test_every_form_of_a_prompt_is_completed_as_it_stands(http: Any, llm: fastdllm.LLM) -> None:
    texts = ["There are", "12 - 5"]
    ids = [llm.encode(text, raw=True) for text in texts]
    expected = [llm.generate(text, raw=True).text for text in texts]
    for prompt, count in ((texts[0], 1), (texts, 2), (ids[0], 1), (ids, 2)):
        choices = complete(http, prompt=prompt).json()["choices"]
        assert [choice["text"] for choice in choices] == expected[:count]
        assert [choice["index"] for choice in choices] == list(range(count))


def test_options_reach_the_engine_by_their_own_names(http: Any, llm: fastdllm.LLM) -> None:
    options: dict[str, Any] = {"steps_per_block": 4, "block_length": 16, "cache": "prefix"}
    expected = llm.generate(QUESTION, fastdllm.GenerationConfig(max_new_tokens=48, **options))
    choice = chat(http, max_tokens=48, **options).json()["choices"][0]
    assert choice["message"]["content"] == expected.text
    assert choice["stats"]["num_passes"] == expected.num_passes


def test_the_body_has_every_option_of_the_config() -> None:
    from fastdllm.serve.requests import ChatRequest, CompletionRequest

    for body in (ChatRequest, CompletionRequest):
        assert not set(fastdllm.GenerationConfig().to_dict()) - set(body.model_fields)


def test_n_answers_have_seeds_that_follow_each_other(http: Any) -> None:
    options = {"temperature": 1.5, "top_k": 40, "max_tokens": 24}
    many = chat(http, n=3, seed=7, **options).json()
    texts = [choice["message"]["content"] for choice in many["choices"]]
    alone = [chat(http, seed=7 + i, **options).json() for i in range(3)]
    assert texts == [one["choices"][0]["message"]["content"] for one in alone]
    assert many["usage"]["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert many["usage"]["completion_tokens"] == sum(
        one["usage"]["completion_tokens"] for one in alone
    )


def test_requests_without_a_seed_differ_and_with_one_repeat(http: Any) -> None:
    options = {"temperature": 20, "ignore_eos": True, "max_tokens": 24}

    def texts(**more: Any) -> set[str]:
        answers = [chat(http, **options, **more).json() for _ in range(3)]
        return {answer["choices"][0]["message"]["content"] for answer in answers}

    assert len(texts()) == 3
    assert len(texts(seed=7)) == 1


@pytest.mark.parametrize("stop", ["####", ["apples are", "####"]])
def test_stop_strings_end_an_answer(http: Any, llm: fastdllm.LLM, stop: Any) -> None:
    choice = chat(http, stop=stop).json()["choices"][0]
    assert choice["message"]["content"] == llm.generate(QUESTION, stop=stop).text
    assert choice["finish_reason"] == "stop"


def test_logprobs_are_those_of_the_tokens_as_they_were_committed(
    http: Any, llm: fastdllm.LLM
) -> None:
    expected = llm.generate(QUESTION)
    content = chat(http, logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert [token["logprob"] for token in content] == expected.logprobs.tolist()
    assert "".join(token["token"] for token in content).startswith(expected.text)
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    config = fastdllm.GenerationConfig(max_new_tokens=8, threshold=0.9)
    completed = llm.generate("There are", config, raw=True)
    found = complete(http, logprobs=0, max_tokens=8).json()["choices"][0]["logprobs"]
    assert found["token_logprobs"] == completed.logprobs.tolist()
    assert found["top_logprobs"] is None
    assert refused(complete(http, logprobs=1))["param"] == "logprobs"


def test_text_offsets_are_places_in_the_text(llm: fastdllm.LLM) -> None:
    from fastdllm.serve.logprobs import text_logprobs

    words, special = llm.encode("Tom has 3 boxes, caf\u00e9", raw=True), 510
    ids = np.array([special, *words[:2], special, *words[2:], special], np.int32)
    answered = replace(
        llm.generate(QUESTION),
        text=llm.codec.decode(ids),
        token_ids=ids,
        logprobs=np.zeros(len(ids), np.float32),
    )
    found = text_logprobs(llm.codec, answered)
    ends = [*found.text_offset[1:], len(answered.text)]
    parts = [answered.text[a:b] for a, b in zip(found.text_offset, ends, strict=True)]
    assert "".join(parts) == answered.text
    assert [part for part in parts if part] == [
        token for token in found.tokens if not token.startswith("<|") and "\ufffd" not in token
    ] + ["\u00e9"]


def test_a_probability_of_zero_is_a_number_of_json(llm: fastdllm.LLM) -> None:
    from fastdllm.serve.logprobs import chat_logprobs, text_logprobs

    answer = llm.generate("There are", fastdllm.GenerationConfig(max_new_tokens=2), raw=True)
    answer = replace(answer, logprobs=np.full(len(answer.token_ids), -math.inf))
    assert {one.logprob for one in chat_logprobs(llm.codec, answer).content} == {-9999.0}
    assert set(text_logprobs(llm.codec, answer).token_logprobs) == {-9999.0}


def test_echo_puts_the_prompt_before_the_text(http: Any) -> None:
    plain = complete(http).json()["choices"][0]["text"]
    assert complete(http, echo=True).json()["choices"][0]["text"] == "There are" + plain
    streamed = events_of(complete(http, echo=True, stream=True).text)[:-1]
    assert "".join(e["choices"][0]["text"] for e in streamed) == "There are" + plain


def test_a_suffix_is_what_the_answer_ends_before(http: Any, llm: fastdllm.LLM) -> None:
    config = fastdllm.GenerationConfig(max_new_tokens=2, threshold=0.9)
    parts = [2, " apples. 12 - 5 = 7"]
    expected = llm.infill(parts, config, prompt="There are 3 * 4 = ", raw=True)
    answer = complete(http, prompt="There are 3 * 4 = ", suffix=parts[1], max_tokens=2).json()
    assert answer["choices"][0]["text"] == expected.filled[0]
    assert answer["usage"]["prompt_tokens"] == expected.prompt_tokens
    for field, value in (("stream", True), ("stop", "x"), ("echo", True)):
        response = complete(http, suffix="x", **{field: value})
        assert refused(response)["param"] == field
    error = refused(complete(http, suffix="x" + llm.codec.decode_token(511)))
    assert (error["param"], error["message"]) == ("suffix", "suffix holds the mask token")
    assert refused(complete(http, prompt=[511], suffix="x"))["param"] == "prompt"


def test_an_empty_suffix_asks_for_nothing(http: Any) -> None:
    plain = complete(http).json()
    answer = complete(http, suffix="").json()
    assert answer["choices"][0]["text"] == plain["choices"][0]["text"]
    assert answer["usage"] == plain["usage"]
    assert complete(http, suffix="", stream=True).status_code == 200


def test_seconds_are_of_one_clock_and_end_with_each_answer(
    served: Served, http: Any, hold: Callable[..., Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdllm.serve.connection import Call

    clock = itertools.count()
    monkeypatch.setattr(Call, "seconds", lambda self: float(next(clock)))
    told = []
    for chunk in events_of(chat(http, stream=True, diffusing=True).text)[:-1]:
        told += [chunk[name]["seconds"] for name in ("diffusing", "stats") if name in chunk]
    assert told == sorted(told)
    assert all(seconds.is_integer() for seconds in told)
    engine = served.models["tiny_math"].engine
    held = hold(engine)
    with ThreadPoolExecutor() as pool:
        prompts = [" apples apples apples", "There are 3 * 4 = "]
        fields = {"prompt": prompts, "suffix": " apples. 12 - 5 = 7", "max_tokens": 24}
        answer = pool.submit(lambda: complete(http, **fields).json())
        wait_until(lambda: engine.load().waiting == 2)
        held.release()
        slow, quick = (choice["stats"] for choice in answer.result(60)["choices"])
    assert quick["num_passes"] < slow["num_passes"]
    assert quick["seconds"] < slow["seconds"]


def test_a_stream_gives_the_text_of_the_answer(http: Any) -> None:
    whole = chat(http).json()
    response = chat(http, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("stop", [None, "####"])
def test_diffusing_tells_every_pass_and_the_whole_text(http: Any, stop: Any) -> None:
    fields = {"max_tokens": 40, "steps_per_block": 4, "stop": stop}
    whole = chat(http, **fields).json()["choices"][0]
    chunks = events_of(chat(http, stream=True, diffusing=True, n=2, **fields).text)[:-1]
    for index in range(2):
        of_choice = [c for c in chunks if c["choices"][0]["index"] == index]
        passes = [c["diffusing"] for c in of_choice if "diffusing" in c]
        assert [one["step"] for one in passes] == list(range(len(passes)))
        assert all(one["index"] == index for one in passes)
        assert len(passes) == whole["stats"]["num_passes"]
        assert (
            "".join(c["choices"][0]["delta"].get("content", "") for c in of_choice)
            == (whole["message"]["content"])
        )
        last = of_choice[-1]
        assert last["choices"][0]["finish_reason"] == whole["finish_reason"]
        assert {**last["stats"], "seconds": 0} == {**whole["stats"], "seconds": 0}
        committed = [position for one in passes for position in one["positions"]]
        assert len(committed) == len(set(committed))
    assert "\u2591" in chunks[2]["diffusing"]["text"]


def test_models_are_listed_and_an_unknown_one_is_not_found(http: Any) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("tiny_math", "model")
    assert http.get("/v1/models/tiny_math").json() == model
    assert chat(http, model="tiny_math").status_code == 200
    assert refused(chat(http, model="other"), 404)["code"] == "model_not_found"
    assert refused(http.get("/v1/models/other"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/metrics", "/v1/models", "/v1/models/tiny_math"]
)
def test_head_is_get_without_its_body(http: Any, path: str) -> None:
    head, get = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_several_packages_are_served_by_name(
    llm: fastdllm.LLM, package_of: Callable[[str], Any], hold: Callable[..., Held]
) -> None:
    from fastdllm.serve import Settings

    other = fastdllm.LLM(package_of("tiny_math"), threads=1, max_batch=1, max_waiting=0)
    served = Served({"one": llm, "other/name": other}, Settings())
    try:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            assert [m["id"] for m in http.get("/v1/models").json()["data"]] == ["one", "other/name"]
            assert http.get("/v1/models/other/name").json()["id"] == "other/name"
            assert chat(http, model="other/name").json()["model"] == "other/name"
            assert refused(chat(http))["param"] == "model"
            held = hold(other.engine)
            refused(chat(http, model="other/name"), 429)
            assert chat(http, model="one").status_code == 200
            held.release()
    finally:
        served.stop()


def test_tokens_and_text_turn_into_each_other(http: Any, llm: fastdllm.LLM) -> None:
    tokens = http.post("/v1/tokenize", json={"prompt": "There are 3"}).json()
    assert tokens["token_ids"] == llm.encode("There are 3", raw=True)
    assert "".join(tokens["tokens"]) == "There are 3"
    assert tokens["count"] == len(tokens["token_ids"])
    back = http.post("/v1/detokenize", json={"token_ids": tokens["token_ids"]}).json()
    assert back["text"] == "There are 3"
    chatted = http.post("/v1/tokenize", json={"messages": MESSAGES}).json()
    assert chatted["token_ids"] == llm.encode(QUESTION)
    assert refused(http.post("/v1/tokenize", json={}))["param"] == "prompt"
    assert refused(http.post("/v1/detokenize", json={"token_ids": [512]}))["param"] == "token_ids"


class TestOpenaiClient:
    """The official client, as its users call it."""

    def test_chat_completions_and_streams(self, served: Served, llm: fastdllm.LLM) -> None:
        openai = pytest.importorskip("openai", reason="the official client is not installed")
        expected = llm.generate(QUESTION).text
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            assert [model.id for model in client.models.list()] == ["tiny_math"]
            arguments: dict[str, Any] = {"model": "tiny_math", "messages": MESSAGES}
            answer = client.chat.completions.create(
                **arguments, logprobs=True, extra_body={"cache": "prefix"}
            )
            assert answer.choices[0].message.content == expected
            assert answer.choices[0].logprobs.content[0].logprob <= 0
            with client.chat.completions.create(**arguments, stream=True) as stream:
                pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "".join(pieces) == expected
            history = [*MESSAGES, answer.choices[0].message.model_dump(), *MESSAGES]
            again = client.chat.completions.create(model="tiny_math", messages=history)
            assert again.usage.prompt_tokens > answer.usage.prompt_tokens
            done = client.completions.create(model="tiny_math", prompt="There are", max_tokens=8)
            assert done.choices[0].finish_reason in ("stop", "length")
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="other", prompt="x")
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(**arguments, presence_penalty=1)
            assert caught.value.param == "presence_penalty"

    def test_the_async_client(self, served: Served, llm: fastdllm.LLM) -> None:
        openai = pytest.importorskip("openai", reason="the official client is not installed")
        expected = llm.generate(QUESTION).text

        async def ask() -> None:
            async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x") as client:
                arguments: dict[str, Any] = {"model": "tiny_math", "messages": MESSAGES}
                whole = [client.chat.completions.create(**arguments) for _ in range(12)]
                answers = await asyncio.gather(*whole)
                assert {answer.choices[0].message.content for answer in answers} == {expected}
                stream = await client.chat.completions.create(
                    **arguments, stream=True, extra_body={"diffusing": True}
                )
                chunks = [chunk async for chunk in stream]
                passes = [c.diffusing for c in chunks if hasattr(c, "diffusing")]
                assert passes[0]["step"] == 0
                assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected

        asyncio.run(ask())


def test_the_document_of_the_routes_is_json(http: Any) -> None:
    document = json.loads(http.get("/openapi.json").text)
    assert {CHAT, TEXT, "/v1/models", "/health", "/metrics"} <= set(document["paths"])
