"""A hook of mkdocs: pages that lie beside the code, and links that work in the repository as well.

Every page is written for a reader of the repository: its links are relative to its own file. Here
those to other pages and to pictures become links of the site; those to sources become plain text,
since the site does not hold the sources.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Where the site has a file of the repository that is not in docs/.
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/NOTES.md": "notes.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/results/paper.md": "paper.md",
    "benchmarks/tiny_math/README.md": "tiny_math.md",
    "cpp/JETSON.md": "jetson.md",
    "cpp/README.md": "cpp_sources.md",
    "export/PACKAGE.md": "package.md",
    "tests/README.md": "tests.md",
    "tests/gpu/README.md": "gpu_tests.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
PICTURES = "benchmarks/results"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages and pictures that lie outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / PICTURES).iterdir()):
        if picture.suffix in (".svg", ".png"):
            name = f"pictures/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return linked(markdown, source)


def linked(markdown: str, source: str) -> str:
    """Return the text of a file with the site's links; fenced code is left alone."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda found: _link(found, source), part)
        for part in parts
    )


def _link(found: re.Match[str], source: str) -> str:
    mark, text, target = found.groups()
    if re.match(r"[a-z]+:", target) or target.startswith("#"):
        return found[0]
    path, hash_, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if path in PAGES:
        place = PAGES[path]
    elif path.startswith("docs/"):
        place = path.removeprefix("docs/")
    elif mark and path.startswith(f"{PICTURES}/"):
        place = f"pictures/{posixpath.basename(path)}"
    elif (ROOT / path).exists():
        return text
    else:
        return found[0]  # mkdocs says that it leads nowhere
    return f"{mark}[{text}]({place}{hash_}{anchor})"
