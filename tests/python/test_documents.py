"""What README and docs say is true: links, snippets, command lines, options, error messages."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import pytest

import fastdllm
from fastdllm.cli.program import build_parser
from fastdllm.option_docs import option_tables

from conftest import ROOT, PackageOf
from documents import DOCUMENTS, PAGES, Document, document, slug, sources
from programs import program, run_program

sys.path.insert(0, str(ROOT / "tools"))
import pictures

README = document("README.md")
PACKAGE = Path(fastdllm.__file__).parent
WITH_PYTHON = [one for one in DOCUMENTS if one.fences("python")]


def of(name: str) -> list[pytest.param]:
    """Every document with a command line that begins with this word."""
    return [one for one in DOCUMENTS if any(words[0] == name for words in one.commands())]


def test_readme_is_short_and_names_the_two_commands() -> None:
    assert len(README.text.splitlines()) <= 180
    for command in ("make demo", "make test"):
        assert command in README.text


def test_readme_leads_to_every_page() -> None:
    linked = {target.partition("#")[0] for target in README.links()}

    missing = {str(one) for one in PAGES} - linked - {"docs/index.md", "docs/python.md"}
    assert not missing


@pytest.mark.parametrize("one", DOCUMENTS, ids=str)
def test_links_lead_somewhere(one: Document) -> None:
    for target in one.links():
        path, _, anchor = target.partition("#")
        place = (ROOT / one.path).parent / path if path else ROOT / one.path
        assert place.exists(), f"{one}: {target} does not exist"
        if anchor and place.suffix == ".md":
            there = document(str(place.resolve().relative_to(ROOT)))
            assert anchor in there.anchors(), f"{one}: {target} names no heading of {there}"


def test_headings_become_the_anchors_that_the_site_makes() -> None:
    pages = pytest.importorskip("markdown.extensions.toc", reason="the site is built by mkdocs")
    titles = ["ONNX Runtime's own library", "`present_length` is an input", "fp16 + a, b"]

    for title in titles:
        plain = title.replace("`", "")
        assert re.sub("-+", "-", slug(title)) == pages.slugify(plain, "-")


@pytest.mark.parametrize("one", WITH_PYTHON, ids=str)
def test_python_snippets_run(
    one: Document,
    package_of: PackageOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All snippets of a page after one another, in a folder that has the package."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tiny_math").symlink_to(package_of("tiny_math"))
    monkeypatch.chdir(tmp_path)
    snippets = one.fences("python")
    server = None
    if any("127.0.0.1:8000" in snippet for snippet in snippets):
        pytest.importorskip("openai", reason="the snippet asks by OpenAI's client")
        served = pytest.importorskip("served")
        llm = fastdllm.LLM("packages/tiny_math", threads=1)
        server = served.Served({"tiny_math": llm}, served.Settings())
        snippets = [text.replace("http://127.0.0.1:8000", server.url) for text in snippets]
    names: dict[str, object] = {"__name__": "snippets"}
    try:
        for number, snippet in enumerate(snippets):
            exec(compile(snippet, f"{one}, snippet {number + 1}", "exec"), names)
    finally:
        if server is not None:
            server.stop()
    assert capsys.readouterr().out.strip()


def test_readmes_question_takes_several_passes_and_is_answered_right(llm: fastdllm.LLM) -> None:
    """What a newcomer copies first."""
    (question,) = re.findall(r'question = "([^"]+)"', README.text)

    answer = llm.generate(question, fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9))

    assert answer.num_passes >= 4
    assert answer.text.endswith("#### 29")


@pytest.mark.parametrize("name", ["decoding.svg", "caches.svg"])
def test_pictures_show_what_the_model_does(name: str, llm: fastdllm.LLM) -> None:
    drawn = {"decoding.svg": pictures.draw_decoding, "caches.svg": pictures.draw_caches}[name](llm)

    there = (ROOT / "docs" / "pictures" / name).read_text("utf-8")
    assert drawn == there, "run python tools/pictures.py"


@pytest.mark.parametrize("one", of("fastdllm"), ids=str)
def test_command_lines_are_what_the_command_takes(one: Document) -> None:
    parser = build_parser()
    for _, *words in (words for words in one.commands() if words[0] == "fastdllm"):
        try:
            parser.parse_args(words)
        except SystemExit as end:
            if end.code != 0:
                pytest.fail(f"{one}: fastdllm {' '.join(words)}")


@pytest.mark.parametrize("one", of("fastdllm-cli"), ids=str)
def test_command_lines_are_what_the_program_takes(one: Document) -> None:
    cpp = program("apps/fastdllm-cli")
    for words in (words for words in one.commands() if words[0] == "fastdllm-cli"):
        shown = run_program(cpp, words[1], "--help")
        assert shown.returncode == 0, f"{one}: {' '.join(words)}"
        for option in (word for word in words if word.startswith("--")):
            assert option.partition("=")[0] in shown.stdout, f"{one}: {option}"


@pytest.mark.parametrize("one", DOCUMENTS, ids=str)
def test_scripts_and_targets_that_are_named_exist(one: Document) -> None:
    targets = set()
    for line in re.findall(r"^([\w$()/. -]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.M):
        targets.update(line.split())
    told = re.findall(r"`([^`\n]+)`", one.prose) + [" ".join(words) for words in one.commands()]
    for line in told:
        for script in re.findall(r"python3? ((?:benchmarks|tools|tests)/\S+\.py)", line):
            assert (ROOT / script).exists(), f"{one}: {line}"
        for module in re.findall(r"python3? -m (fastdllm[\w.]*)", line):
            path = PACKAGE.joinpath(*module.split(".")[1:])
            places = (path.with_suffix(".py"), path / "__init__.py")
            assert any(place.exists() for place in places), f"{one}: {line}"
        if found := re.match(r"make ([a-z][\w-]*)", line):
            assert found[1] in targets, f"{one}: {line}"


def test_snippets_in_c_and_cpp_are_parts_of_the_examples() -> None:
    """They are compiled with the project, and run by test_examples.py."""
    examples = sources("cpp/examples").values()
    for one in DOCUMENTS:
        for snippet in [*one.fences("cpp"), *one.fences("c"), *one.fences("cmake")]:
            assert any(snippet in text for text in examples), f"{one}: {snippet.splitlines()[0]}"


@pytest.mark.parametrize("one", [fastdllm.Engine, fastdllm.LLM])
def test_examples_in_the_docstrings_run(
    one: type, package_of: PackageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tiny_math").symlink_to(package_of("tiny_math"))
    monkeypatch.chdir(tmp_path)
    names = {"fastdllm": fastdllm, one.__name__: one}
    (found,) = doctest.DocTestFinder(recurse=False).find(one, one.__name__, globs=names)

    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0


def test_examples_in_the_headers_are_parts_of_the_examples() -> None:
    """Lines between @code and @endcode; a line `...` leaves something out."""
    examples = [re.sub(r"^ +", "", text, flags=re.M) for text in sources("cpp/examples").values()]
    blocks = []
    for header in sources("cpp/include").values():
        found = re.findall(r"@code\n(.*?)^\W*@endcode", header, re.DOTALL | re.MULTILINE)
        blocks += [re.sub(r"^ *(///|\*) *", "", body, flags=re.M) for body in found]
    assert len(blocks) >= 3
    for part in (part for block in blocks for part in block.split("...\n")):
        assert any(part in text for text in examples), part


def test_the_page_of_options_is_made_of_the_table() -> None:
    """python -m fastdllm.option_docs prints it."""
    text = document("docs/options.md").text
    table = text.partition("<!-- options: begin -->\n")[2].partition("<!-- options: end -->")[0]

    assert table == option_tables(), "put what python -m fastdllm.option_docs prints into it"


def test_messages_under_troubleshooting_are_in_the_sources() -> None:
    """Word for word but for `...`; those under Building and CUDA's own are of other programs."""
    texts = sources("cpp/src", "cpp/apps", "python/fastdllm", "export").values()
    joined = re.sub(r'"\s*f?"', "", "\n".join(texts))  # "a " "b" is "a b"
    page = document("docs/troubleshooting.md").prose.partition("## Building")[0]
    titles = re.findall(r"^### (`.+)$", page, re.MULTILINE)
    assert len(titles) > 10
    for message in re.findall(r"`([^`]+)`", "\n".join(titles)):
        if message.startswith("no kernel image"):
            continue
        for part in message.split("..."):
            assert part.strip(": ") in joined, f"{message!r}: {part!r} is not in the sources"
