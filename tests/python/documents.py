"""The Markdown files of the repository, and the snippets that they hold."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

FOLDERS = (".", "docs", "cpp", "cpp/cmake", "export", "benchmarks", "benchmarks/tiny_math")
FOLDERS += ("benchmarks/results", "tests", "tests/gpu")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Document:
    """path: relative to the repository."""

    path: str

    @property
    def text(self) -> str:
        return (ROOT / self.path).read_text("utf-8")

    @property
    def prose(self) -> str:
        """The text without fenced code."""
        return FENCE.sub("", self.text)

    def fences(self, language: str) -> list[str]:
        return [body for said, body in FENCE.findall(self.text) if said == language]

    def anchors(self) -> set[str]:
        """The headings, as links name them."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {slug(title) for title in titles}

    def links(self) -> list[str]:
        """The targets of links and pictures, but those of other hosts."""
        found = re.findall(r"\]\(([^()\s]+)\)", self.prose)
        return [target for target in found if not re.match(r"[a-z]+:", target)]

    def commands(self) -> list[list[str]]:
        """The words of each command line in indented code; lines that end in a \\ are joined."""
        text = self.prose.replace("\\\n", " ")
        lines = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
        split = []
        for line in lines:
            for part in line.split(" && "):
                try:
                    split.append(shlex.split(part, comments=True))
                except ValueError:  # a quoted text that goes on in the next line
                    continue
        return [words for words in split if words]

    def __str__(self) -> str:
        return self.path


def slug(title: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", title).strip().lower()
    return re.sub(r"[ \t]", "-", re.sub(r"[^\w\- ]", "", plain))


DOCUMENTS = [
    Document(path=str(path.relative_to(ROOT)))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.md"))
]
PAGES = [one for one in DOCUMENTS if one.path.startswith("docs/")]


def document(path: str) -> Document:
    return next(one for one in DOCUMENTS if one.path == path)


def sources(*folders: str) -> dict[Path, str]:
    """Every source file below these folders, by path."""
    endings = {".py", ".cpp", ".hpp", ".h", ".c", ".sh", ".txt", ".cmake"}
    return {
        path: path.read_text("utf-8")
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in endings and "__pycache__" not in path.parts
    }
