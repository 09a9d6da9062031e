"""Makes a release: first `prepare`, then a commit, then `tag`. Makes nothing where a check fails.

    python tools/release.py prepare [--date 2026-11-30]
    python tools/release.py check
    python tools/release.py tag [--no-build]

prepare: what stands under Unreleased in CHANGELOG.md goes under the version of CMakeLists.txt. As
long as that version has no tag, it may be run again. check: CHANGELOG.md has the form of Keep a
Changelog, its newest version is CMakeLists.txt's, nothing is unreleased, the tree is clean, and the
tag is not there yet. tag: checks, builds `make dist` and `make wheels`, and makes the annotated
tag vVERSION with the version's changes. Before it, run `make test-all`; it reminds you of that.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
Section = dict[str, list[str]]  # kind to entries


class ReleaseError(Exception):
    """What has to be mended before a release."""


def version_of(root: Path) -> str:
    """Return the version of CMakeLists.txt, where it stands alone."""
    text = (root / "CMakeLists.txt").read_text("utf-8")
    found = re.search(r"project\(\w+ VERSION (\d+\.\d+\.\d+)\b", text)
    if found is None:
        raise ReleaseError("CMakeLists.txt: no project(... VERSION MAJOR.MINOR.PATCH ...)")
    return found[1]


def read_changelog(text: str) -> tuple[str, dict[str, Section]]:
    """Return what stands before the versions, and each version's entries; newest first.

    A version's key is its heading: `[Unreleased]`, or `[0.2.0] - 2026-11-30`.
    """
    before, *parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    versions: dict[str, Section] = {}
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        if not re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading):
            raise ReleaseError(f"CHANGELOG.md: '## {heading}'; expected '[0.2.0] - YYYY-MM-DD'")
        preface, *kinds = re.split(r"^### (.+)\n", body, flags=re.MULTILINE)
        if preface.strip():
            raise ReleaseError(f"CHANGELOG.md: {heading}: text outside of Added, Changed ...")
        section: Section = {}
        for kind, entries in zip(kinds[::2], kinds[1::2], strict=True):
            if kind not in KINDS:
                raise ReleaseError(f"CHANGELOG.md: {heading}: '{kind}'; expected one of {KINDS}")
            if kind in section:
                raise ReleaseError(f"CHANGELOG.md: {heading}: '{kind}' comes twice")
            section[kind] = re.findall(r"^- .*(?:\n  .*)*", entries, re.MULTILINE)
            if "\n".join(section[kind]) != entries.strip():
                raise ReleaseError(f"CHANGELOG.md: {heading}: {kind} holds more than a list")
        versions[heading] = section
    if next(iter(versions), None) != "[Unreleased]":
        raise ReleaseError("CHANGELOG.md: the first heading is not '## [Unreleased]'")
    return before, versions


def write_changelog(before: str, versions: dict[str, Section]) -> str:
    """Return the file's text; the kinds in their order."""
    text = before
    for heading, section in versions.items():
        text += f"## {heading}\n\n"
        for kind in KINDS:
            if section.get(kind):
                text += f"### {kind}\n\n" + "\n".join(section[kind]) + "\n\n"
    return text.rstrip("\n") + "\n"


def released(text: str, version: str, date: str) -> str:
    """Move what is unreleased under the version, beside what stands there already."""
    before, versions = read_changelog(text)
    unreleased = versions.pop("[Unreleased]")
    same = next((one for one in versions if one.startswith(f"[{version}]")), None)
    there: Section = versions.pop(same) if same else {}
    section = {kind: unreleased.get(kind, []) + there.get(kind, []) for kind in KINDS}
    return write_changelog(
        before, {"[Unreleased]": {}, f"[{version}] - {date}": section, **versions}
    )


def git(root: Path, *words: str) -> str:
    """Run git in the repository and return what it prints."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def check(root: Path) -> tuple[str, str]:
    """Return the version and its changes. Errors: ReleaseError."""
    version = version_of(root)
    _, versions = read_changelog((root / "CHANGELOG.md").read_text("utf-8"))
    if any(versions["[Unreleased]"].values()):
        raise ReleaseError("CHANGELOG.md: something is under Unreleased; run prepare, then commit")
    newest = next((one for one in versions if one != "[Unreleased]"), "none")
    if not newest.startswith(f"[{version}]"):
        raise ReleaseError(f"CHANGELOG.md's newest version is {newest}, CMakeLists.txt's {version}")
    if not any(versions[newest].values()):
        raise ReleaseError(f"CHANGELOG.md: {newest} says nothing")
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} is there already; raise the version")
    if dirty := git(root, "status", "--porcelain"):
        raise ReleaseError(f"the tree is not clean:\n{dirty}")
    return version, write_changelog("", {newest: versions[newest]})


def tag(root: Path, *, builds: bool) -> str:
    """Check, build, tag; return the tag's name."""
    version, changes = check(root)
    if builds:
        for target in ("dist", "wheels"):
            if subprocess.run(["make", target], cwd=root, check=False).returncode != 0:
                raise ReleaseError(f"make {target} failed")
    message = f"fastdllm {version}\n\n{changes}"
    git(root, "tag", "--annotate", f"v{version}", "--cleanup=verbatim", "--message", message)
    return f"v{version}"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit code 1: what has to be mended is on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("prepare", "check", "tag"))
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    parser.add_argument("--no-build", action="store_true", help="tag without building")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    root: Path = options.root
    try:
        if options.command == "prepare":
            path = root / "CHANGELOG.md"
            version = version_of(root)
            if git(root, "tag", "--list", f"v{version}"):
                raise ReleaseError(f"v{version} is released; raise the version in CMakeLists.txt")
            path.write_text(released(path.read_text("utf-8"), version, options.date), "utf-8")
            print(f"CHANGELOG.md has {version}; look at it, run make test-all, commit, then tag")
        elif options.command == "check":
            print(f"{check(root)[0]} can be tagged; run make test-all before")
        else:
            print(f"tagged {tag(root, builds=not options.no_build)}; push it by its name")
    except ReleaseError as problem:
        print(f"release: error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
