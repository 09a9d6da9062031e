"""The sizes of files and functions, and which way modules and folders depend on one another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from conftest import ROOT

PYTHON = ("python", "export", "benchmarks", "tools", "tests")
CPP = ("cpp", "bindings", "tests")
MAX_FILE_LINES = 450
MAX_PYTHON_LINES = 80
MAX_CPP_LINES = 60


def files(folders: tuple[str, ...], *endings: str) -> list[Path]:
    found = (path for one in folders for path in (ROOT / one).rglob("*"))
    return sorted(one for one in found if one.suffix in endings and one.is_file())


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield the head and the number of lines of every C++ function, by its braces."""
    ignored = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'"
    code = re.sub(ignored, lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
    opened: list[tuple[int, str]] = []
    begin = 0
    for place in re.finditer(r"[;{}]", code):
        if place[0] == "{":
            opened.append((place.start(), " ".join(code[begin : place.start()].split())))
        elif place[0] == "}" and opened:
            start, head = opened.pop()
            if "(" in head and not re.match(r"(namespace|struct|class|enum|union)\b", head):
                yield head, code.count("\n", start, place.start()) + 1
        begin = place.end()


def circles(uses: Mapping[str, set[str]]) -> list[str]:
    """Return those that lead back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = list(uses.get(start, ()))
        while left:
            one = left.pop()
            if one not in seen:
                seen.add(one)
                left.extend(uses.get(one, ()))
        return seen

    return sorted(one for one in uses if one in reached(one))


def test_files_are_under_450_lines() -> None:
    every = files(PYTHON, ".py") + files(CPP, ".cpp", ".hpp", ".h", ".c")
    assert len(every) > 300
    assert not [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in every
        if (lines := len(path.read_text("utf-8").splitlines())) >= MAX_FILE_LINES
    ]


def test_python_functions_are_at_most_80_lines() -> None:
    long = []
    for path in files(PYTHON, ".py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > MAX_PYTHON_LINES:
                    long.append(f"{path.relative_to(ROOT)}: {node.name}: {lines}")
    assert not long


def test_cpp_functions_are_at_most_60_lines() -> None:
    assert list(functions("int f(int a) {\n  if (a) {\n  }\n}\nstruct S {\n};\n")) == [
        ("if (a)", 2),
        ("int f(int a)", 4),
    ]
    assert not [
        f"{path.relative_to(ROOT)}: {head}: {lines}"
        for path in files(CPP, ".cpp", ".hpp", ".h", ".c")
        for head, lines in functions(path.read_text("utf-8"))
        if lines > MAX_CPP_LINES
    ]


def imports(tree: ast.Module, package: list[str]) -> Iterator[str]:
    """Yield what a module imports when it is imported, not later in a function."""
    left: list[ast.stmt] = list(tree.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*parts, name.name]) for name in node.names)
        elif isinstance(node, ast.Try) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)
        ):
            left.extend(node.body)


def test_no_python_modules_import_in_a_circle() -> None:
    modules: dict[str, Path] = {}
    for root, name in (
        (ROOT / "python" / "fastdllm", "fastdllm"),
        (ROOT / "export", "fastdllm.export"),
    ):
        for path in files((str(root),), ".py"):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join([name, *parts]).removesuffix(".__init__")] = path
    uses: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name.split(".")[: None if path.name == "__init__.py" else -1]
        uses[name] = set()
        for found in imports(ast.parse(path.read_text("utf-8")), package):
            # A name of a module, or a module; every module's own packages are there before it.
            used = found if found in modules else found.rpartition(".")[0]
            if used in modules and not f"{name}.".startswith(f"{used}."):
                uses[name].add(used)
    assert sum(map(len, uses.values())) > 200
    assert not circles(uses)


def test_no_folders_of_cpp_include_in_a_circle() -> None:
    source = ROOT / "cpp" / "src"
    of_files: dict[str, set[str]] = {}
    of_folders: dict[str, set[str]] = {}
    for path in files(("cpp/src",), ".cpp", ".hpp"):
        here = path.relative_to(source)
        for name in re.findall(r'^#include "([^"]+)"', path.read_text("utf-8"), re.MULTILINE):
            if (source / name).exists():
                of_files.setdefault(str(here), set()).add(name)
                if here.parent != Path(name).parent:
                    of_folders.setdefault(str(here.parent), set()).add(str(Path(name).parent))
    assert len(of_folders) > 5
    assert not circles(of_files)
    assert not circles(of_folders)
