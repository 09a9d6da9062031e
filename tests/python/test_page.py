"""The server's page and the HTML of a trace, in headless Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastdllm import LLM, Engine, GenerationConfig
from fastdllm.trace import make_trace
from fastdllm.trace.html import draw_html

from chromium import CONTRASTS, Keys, Page, Settings, browsing, serving
from held import Held
from test_trace import HOSTILE, QUESTION, data_of, hostile

SHORT = GenerationConfig(max_new_tokens=64, threshold=0.9)
OTHER = "Zoe had 22 cups, bought 5 and lost 9. How many are left?"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browsing() as page:
        yield page


@pytest.fixture(scope="module")
def address(llm: LLM) -> Iterator[str]:
    with serving({"tiny_math": llm}, Settings(max_tokens=100, default_tokens=64)) as url:
        yield url


def test_the_page_shows_the_engines_own_answer_and_its_passes(
    page: Page, address: str, llm: LLM
) -> None:
    own = llm.generate(QUESTION, SHORT)
    page.open(address)
    page.ask(QUESTION)
    assert page.answered() == own.text
    assert page.fact("Passes").split()[0] == str(own.num_passes)
    assert page.fact("Passes").endswith("2 refreshes, 2 steps")
    assert page.fact("Tokens").startswith(f"{own.completion_tokens} ended by stop")
    per_forward = own.completion_tokens / own.num_passes
    assert page.fact("Tokens per forward") == f"{per_forward:.2f}"
    tokens = [llm.codec.decode_token(token) for token in own.token_ids.tolist()[:-1]]
    shown = "".join(page.tokens()[: len(tokens)])
    assert shown.replace("\u2423", " ").replace("\u21b5", "\n") == "".join(tokens)
    assert own.text in page.find("#status").get_attribute("textContent")
    assert page.complaints() == []


def test_options_of_the_page_are_the_requests(page: Page, address: str, llm: LLM) -> None:
    page.open(address)
    for policy, config in {
        "fixed steps": GenerationConfig(max_new_tokens=32, steps=8, cache="dual"),
        "factor": GenerationConfig(max_new_tokens=32, factor=0.5, cache="dual"),
        "Fréchet profile": GenerationConfig(max_new_tokens=32, frechet=0.5, cache="dual"),
        "entropy bound": GenerationConfig(max_new_tokens=32, entropy_bound=0.5, cache="dual"),
    }.items():
        page.choose("#policy", policy)
        page.write("#value", "8" if policy == "fixed steps" else "0.5")
        page.choose("#cache", "dual")
        page.choose("#kind", "one question")
        page.write("[name=max_new_tokens]", "32")
        page.ask(QUESTION)
        own = llm.generate(QUESTION, config)
        assert page.answered() == own.text
        assert page.fact("Passes").split()[0] == str(own.num_passes)
    page.choose("#kind", "raw text")
    page.choose("#policy", "threshold")
    for name, value in (("temperature", "0.7"), ("seed", "11"), ("block_length", "8")):
        page.write(f"[name={name}]", value)
    page.ask("Tom has 3 boxes")
    sampled = GenerationConfig(
        max_new_tokens=32, threshold=0.9, cache="dual", temperature=0.7, seed=11, block_length=8
    )
    assert page.answered() == llm.generate("Tom has 3 boxes", sampled, raw=True).text


def test_keys_alone_go_back_through_passes_and_along_tokens(page: Page, address: str) -> None:
    page.open(address)
    page.choose("#policy", "fixed steps")
    page.ask(QUESTION)
    page.answered()
    final = page.tokens()
    slider = page.find("input[type=range]")
    slider.send_keys(Keys.HOME)
    assert set(page.tokens()) == {"\u2591"}
    slider.send_keys(Keys.ARROW_RIGHT)
    fresh = page.all(".tokens .token.fresh")
    assert [one.text for one in fresh] == [one for one in page.tokens() if one != "\u2591"]
    assert f"{len(fresh)} tokens committed" in slider.get_attribute("aria-valuetext")
    slider.send_keys(Keys.END)
    assert page.tokens() == final
    assert len(page.all("svg .cell")) == len(final)
    assert len(page.all("svg .refresh")) == 2
    page.all("svg .cell")[0].click()  # a mouse may pick a pass in the picture
    assert slider.get_attribute("value") == "1"
    slider.send_keys(Keys.END)

    page.find("[data-position='0']").send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element.get_attribute("data-position") == "2"
    assert page.find(".about").text == page.label(2)
    assert re.fullmatch(
        r"Position 2: .+, token \d+, confidence [\d.]+, committed by pass \d+", page.label(2)
    )
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert page.driver.switch_to.active_element.get_attribute("data-position") == "32"


def test_the_tab_key_reaches_everything_and_is_never_held(page: Page, address: str) -> None:
    page.open(address)
    page.ask(QUESTION)
    page.answered()
    page.js("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(60):
        one = page.js(
            "const at = document.activeElement; return at === document.body ? null :"
            " [at.id || at.name || at.dataset.position || at.textContent.trim() || at.type,"
            " getComputedStyle(at).outlineStyle]"
        )
        if one is None or (reached and one[0] == reached[0]):
            break
        reached.append(one[0])
        assert one[1] != "none", one
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    else:
        pytest.fail(f"no end of {reached}")
    expected = {"model", "key", "theme", "policy", "value", "cache", "max_new_tokens", "seed"}
    expected |= {"fresh", "prompt", "send", "save-json", "save-html", "First", "Play", "range", "0"}
    assert expected <= set(reached)
    unnamed = page.js(
        "return [...document.querySelectorAll('input, select, textarea')]"
        ".filter((one) => !one.labels.length).map((one) => one.outerHTML)"
    )
    assert unnamed == []


def test_a_refusal_is_shown_at_its_field_and_loses_nothing(page: Page, address: str) -> None:
    page.open(address)
    page.ask(QUESTION)
    before = page.answered()
    page.write("[name=max_new_tokens]", "101")
    page.ask(OTHER)
    page.until(page.error)
    assert page.error() == "max_new_tokens is 101; this server's limit is 100"
    assert page.find("[name=max_new_tokens]").get_attribute("aria-invalid") == "true"
    assert page.find("#prompt").get_attribute("value") == OTHER
    assert [one.text for one in page.all(".turn p")] == [QUESTION, before]
    assert page.fact("Passes").startswith("4")  # still the answer before
    page.write("[name=max_new_tokens]", "64")
    assert not page.error()  # what it was about has changed
    assert not page.all("[aria-invalid]")
    page.choose("#kind", "one question")
    page.find("#prompt").send_keys(Keys.ENTER)
    page.until(lambda: len(page.all(".turn")) == 4)
    assert page.answered()
    assert not page.all("[aria-invalid]")


def test_a_value_out_of_range_is_not_sent(page: Page, address: str) -> None:
    page.open(address)
    page.js("document.getElementById('options').open = false")
    page.js("document.getElementById('value').value = '1.5'")
    page.find("#prompt").send_keys(QUESTION, Keys.ENTER)
    page.until(lambda: page.find("#value").is_displayed())
    assert page.all(".turn") == []
    assert page.find("#prompt").get_attribute("value") == QUESTION


def test_an_error_is_gone_when_the_browser_refuses_what_is_asked_next(
    page: Page, address: str
) -> None:
    page.open(address)
    page.write("[name=max_new_tokens]", "101")
    page.ask(QUESTION)
    page.until(page.error)
    page.write("#value", "1.5")
    assert page.error()  # it is still so
    page.find("#prompt").send_keys(Keys.ENTER)
    assert not page.error()
    assert page.all(".turn") == []


def test_a_key_is_asked_for_and_kept_for_the_session_only(page: Page, llm: LLM) -> None:
    with serving({"tiny_math": llm}, Settings(api_keys=("open-sesame",))) as url:
        page.open(url)
        page.until(page.error)
        assert "no valid API key" in page.error()
        assert page.driver.switch_to.active_element.get_attribute("id") == "key"
        page.find("#key").send_keys("open-sesame", Keys.TAB)
        page.until(lambda: page.all("#model option"))
        assert not page.error()
        page.ask(QUESTION)
        assert page.answered() == llm.generate(QUESTION, SHORT).text
        stored = page.js("return [JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert "open-sesame" not in stored[0]
        assert "open-sesame" in stored[1]


def test_cancel_frees_the_engine_and_gives_the_prompt_back(
    page: Page, address: str, llm: LLM
) -> None:
    held = Held(llm.engine)
    try:
        page.open(address)
        page.ask(QUESTION)
        page.until(lambda: load_of(llm.engine) == 2)
        page.button("Cancel").click()
        page.until(lambda: page.find("#send").is_displayed())
        assert page.find("#prompt").get_attribute("value") == QUESTION
        assert page.all(".turn") == []
        held.release()
        held.request.cancel()
        page.until(lambda: load_of(llm.engine) == 0)
    finally:
        held.release()
    page.find("#prompt").send_keys(Keys.ENTER)
    page.until(lambda: page.all(".turn"))
    assert page.answered() == llm.generate(QUESTION, SHORT).text


def load_of(engine: Engine) -> int:
    load = engine.load()
    return load.running + load.waiting


def test_saved_files_are_those_of_the_command_line(page: Page, address: str) -> None:
    page.open(address)
    page.ask(QUESTION)
    page.answered()
    page.js(
        "window.saved = []; URL.createObjectURL = (blob) => {"
        " blob.text().then((text) => window.saved.push(text)); return 'data:,'; }"
    )
    page.button("Save JSON").click()
    page.until(lambda: len(page.js("return window.saved")) == 1)
    page.button("Save HTML").click()
    page.until(lambda: len(page.js("return window.saved")) == 2)
    document, html = page.js("return window.saved")
    trace = json.loads(document)
    assert data_of(html) == trace

    def without_data(text: str) -> str:
        return re.sub(r'(id="trace">).*?(</script)', r"\1\2", text, count=1, flags=re.S)

    assert without_data(html) == without_data(draw_html(trace))


def test_no_text_is_markup_in_page_or_file(page: Page, llm: LLM, tmp_path: Path) -> None:
    trace = hostile(make_trace(llm, QUESTION, SHORT, package="tiny_math"))
    path = tmp_path / "trace.html"
    path.write_text(draw_html(trace), "utf-8")
    page.open(path.as_uri())
    assert page.js("return document.title").startswith("fastdllm trace: ")
    assert page.all("main img, main script") == []
    assert page.find(".trace pre").get_attribute("textContent") == HOSTILE
    shown = page.tokens()[0]
    assert "<script>document.title='taken'</script>" in shown
    assert not set("\u202e\u2066\u0007\u2028") & set(shown)
    page.find("input[type=range]").send_keys(Keys.HOME)
    assert set(page.tokens()) == {"\u2591"}
    assert page.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page: Page, address: str, scheme: str) -> None:
    page.open(address, scheme=scheme)
    page.ask(QUESTION)
    page.answered()
    assert page.js(CONTRASTS) == []
    page.button("Theme: auto").click()
    other = page.js("return getComputedStyle(document.body).backgroundColor")
    page.button("Theme: light").click()
    assert page.js("return getComputedStyle(document.body).backgroundColor") != other
    assert page.js(CONTRASTS) == []


@pytest.mark.parametrize("width", [360, 720, 1920])
def test_nothing_is_cut_off_at_any_width(page: Page, address: str, width: int) -> None:
    page.open(address, width=width)
    page.ask(QUESTION + " " + "x" * 200)
    page.answered()
    wide, seen = page.js(
        "const { scrollWidth, clientWidth } = document.documentElement;"
        " return [scrollWidth, clientWidth]"
    )
    assert wide == seen <= width
