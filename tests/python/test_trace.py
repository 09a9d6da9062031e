"""fastdllm trace and bench --plot: what is recorded, written, drawn and refused."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from fastdllm import LLM, GenerationConfig, cli
from fastdllm.trace import TraceDocument, make_trace
from fastdllm.trace.html import draw_html, json_in_html

from conftest import PackageOf

QUESTION = "Sam had 27 balls, bought 9 and lost 7. How many are left?"
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x> <!-- \"'& {{DATA}}"
    " $x_{2 \u202egnp.\u2066 \u05e9\u05dc\u05d5\u05dd \U0001f600 \u0007\u2028"
)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def trace(llm: LLM) -> TraceDocument:
    config = GenerationConfig(max_new_tokens=64, steps_per_block=8)
    return make_trace(llm, QUESTION, config, package="tiny_math")


def hostile(trace: TraceDocument) -> TraceDocument:
    """Return a trace whose every text is hostile."""
    passes = [one | {"tokens": [HOSTILE for _ in one["tokens"]]} for one in trace["passes"]]
    end = trace["completion"] | {"text": HOSTILE}
    changed: Any = trace | {"prompt": HOSTILE, "package": HOSTILE, "passes": passes}
    return changed | {"completion": end}


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_passes_of_a_trace_make_up_the_answer(llm: LLM, trace: TraceDocument) -> None:
    own = llm.generate(QUESTION, GenerationConfig(max_new_tokens=64, steps_per_block=8))
    tokens: dict[int, int] = {}
    for one in trace["passes"]:
        tokens.update(zip(one["positions"], one["token_ids"], strict=True))
        assert len(one["positions"]) == len(one["confidences"]) == len(one["tokens"])
    end = trace["completion"]
    assert [tokens[i] for i in range(len(own.token_ids))] == own.token_ids.tolist()
    assert end["text"] == own.text
    assert end["completion_tokens"] == own.completion_tokens
    assert end["num_passes"] == own.num_passes == len(trace["passes"])
    assert end["refresh_passes"] == sum(one["refreshed"] for one in trace["passes"])
    assert end["tokens_per_forward"] == own.completion_tokens / own.num_passes
    seconds = [one["seconds"] for one in trace["passes"]]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= end["seconds"]


def test_one_run_writes_all_that_is_asked_for(
    package_of: PackageOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    html, png = tmp_path / "a.html", tmp_path / "a.png"
    options = ("--max-new-tokens", 32, "--cache", "prefix")
    files = ("--html", html, "--png", png, "--json", "-")
    assert run("trace", package_of("tiny_math"), "--prompt", QUESTION, *files, *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config"]["cache"] == "prefix"
    assert told["config"]["threshold"] == 0.9
    assert told["package"] == "tiny_math"
    assert told["prompt"] == QUESTION
    assert data_of(html.read_text("utf-8")) == told
    assert png.read_bytes().startswith(PNG)
    assert sorted(tmp_path.iterdir()) == [html, png]


def data_of(html: str) -> Any:
    """Return the data of an HTML trace as a browser finds it: up to the first end tag."""
    found = re.search(
        r'<script type="application/json" id="trace">(.*?)</script', html, re.S | re.I
    )
    assert found is not None
    return json.loads(found[1])


def test_no_text_of_a_trace_becomes_markup(trace: TraceDocument) -> None:
    told = hostile(trace)
    html = draw_html(told)
    assert data_of(html) == told
    assert html.count("<script") == draw_html(trace).count("<script") == 2
    assert "<img" not in html
    assert "<!--" not in html.replace("<!doctype", "")
    title = re.search(r"<title>(.*?)</title>", html, re.S)
    assert title is not None
    assert "<" not in title[1]
    assert not set(json_in_html("<>&")) & set("<>&")


def test_an_html_trace_names_nothing_outside_itself(trace: TraceDocument) -> None:
    html = draw_html(trace)
    assert "default-src 'none'" in html
    assert not re.search(r"\b(src|href)\s*=", html)
    assert re.findall(r"https?://[^\s\"']+", html) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|url\(", html)


def test_a_picture_is_small_and_1200_pixels_wide_whatever_it_shows(
    llm: LLM, trace: TraceDocument, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("matplotlib")
    from fastdllm.trace.png import draw_png

    long = GenerationConfig(max_new_tokens=128, threshold=0.9, ignore_eos=True, block_length=8)
    window = GenerationConfig(max_new_tokens=64, threshold=0.9, deferred_window=16)
    shown = {
        "usual": trace,
        "hostile": hostile(trace),
        "long": make_trace(llm, QUESTION, long, package="p"),
        "window": make_trace(llm, QUESTION, window, package="p"),
        "empty": trace | {"passes": []},
    }
    for name, one in shown.items():
        path = tmp_path / f"{name}.png"
        draw_png(one, path)  # type: ignore[arg-type]
        picture = path.read_bytes()
        assert picture.startswith(PNG)
        assert int.from_bytes(picture[16:20], "big") == 1200
        assert len(picture) < 150_000
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "nothing to write"),
        (["--html", "no/such/a.html"], "there is no folder no/such"),
        (["--html", "."], "is a folder"),
        (["--html", "a", "--json", "a"], "--html names the same file"),
        (["--html", "-"], "--html -: expected the name of a file"),
        (["--png", "-"], "--png -: expected a name that ends in .png"),
        (["--png", "a.jpg"], "--png a.jpg: expected a name that ends in .png"),
        (["--json", "-", "--steps", "0"], "steps is 0"),
        (["--html", "a.html", "--threshold", "2"], "threshold is 2"),
    ],
)
def test_what_cannot_be_traced_is_refused_and_writes_nothing(
    options: list[str],
    told: str,
    package_of: PackageOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = package_of("tiny_math").absolute()
    monkeypatch.chdir(tmp_path)
    assert run("trace", package, "--prompt", QUESTION, *options) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_whole_when_drawing_fails(
    package_of: PackageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    path.write_text("before")

    def broken(trace: TraceDocument) -> str:
        raise OSError("no space left")

    monkeypatch.setattr("fastdllm.trace.html.draw_html", broken)
    assert run("trace", package_of("tiny_math"), "--prompt", QUESTION, "--html", path) == 1
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "options",
    [("trace", "--prompt", QUESTION, "--png", "a.png"), ("bench", "--plot", "a.svg")],
    ids=["trace", "bench"],
)
def test_without_matplotlib_the_extra_is_named_before_anything_runs(
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("fastdllm.trace.png", "fastdllm.bench.plot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    command, *others = options
    assert run(command, "no-package", *others) == 1
    assert "pip install 'fastdllm[plot]'" in capsys.readouterr().err


def test_bench_draws_its_modes(
    package_of: PackageOf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    bench = ("bench", package_of("tiny_math"), "--max-new-tokens", 4, "--repeat", 1)
    for suffix in ("png", "svg"):
        assert run(*bench, "--plot", tmp_path / f"a.{suffix}") == 0
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert run(*bench, "--plot", tmp_path / "a.gif") == 1
    assert "expected a name that ends in .png or .svg" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2
