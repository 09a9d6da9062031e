"""Release manners: the changelog's form, the release script in a scratch repository, subjects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import commit_subject
import release

CHANGELOG = """# Changelog

Words.

## [Unreleased]

### Fixed

- One thing
  in two lines.

### Added

- Another.

## [0.1.0] - 2026-01-01

### Added

- All.
"""


def git(root: Path, *words: str) -> str:
    setup = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *setup, *words], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository at version 0.2.0 that is not prepared yet."""
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "A")
        monkeypatch.setenv(f"{name}_EMAIL", "a@b.c")
    (tmp_path / "CMakeLists.txt").write_text("project(x VERSION 0.2.0 LANGUAGES CXX)\n", "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    (tmp_path / "Makefile").write_text(
        "dist wheels:\n\techo $@ >>built\n\techo built >.gitignore\n", "utf-8"
    )
    (tmp_path / ".gitignore").write_text("built\n", "utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "Begin")
    return tmp_path


def run(scratch: Path, *words: str) -> int:
    return release.main([*words, "--root", str(scratch)])


def test_the_changelog_has_its_form_and_names_a_thing_once() -> None:
    _, versions = release.read_changelog((ROOT / "CHANGELOG.md").read_text("utf-8"))

    entries = [one for section in versions.values() for kind in section.values() for one in kind]
    assert len(entries) == len(set(entries))
    assert sum(one.startswith("- Precisions") for one in entries) == 1
    newest = next((one for one in versions if one != "[Unreleased]"), None)
    version = release.version_of(ROOT)
    assert newest is None or newest.startswith(f"[{version}]") or any(versions["[Unreleased]"])


def test_a_release_is_prepared_checked_built_and_tagged(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scratch, "tag") == 1
    assert "something is under Unreleased" in capsys.readouterr().err
    assert run(scratch, "prepare", "--date", "2026-02-03") == 0
    text = (scratch / "CHANGELOG.md").read_text("utf-8")
    assert text.startswith(
        "# Changelog\n\nWords.\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-03\n\n### Added\n\n"
        "- Another.\n\n### Fixed\n\n- One thing\n  in two lines.\n\n## [0.1.0] - 2026-01-01\n"
    )
    assert run(scratch, "check") == 1
    assert "the tree is not clean" in capsys.readouterr().err
    git(scratch, "commit", "-qam", "Release")

    assert run(scratch, "tag") == 0

    assert (scratch / "built").read_text("utf-8") == "dist\nwheels\n"
    assert git(scratch, "cat-file", "-t", "v0.2.0") == "tag\n"
    message = git(scratch, "tag", "-l", "--format=%(contents)", "v0.2.0")
    assert message.startswith(
        "fastdllm 0.2.0\n\n## [0.2.0] - 2026-02-03\n\n### Added\n\n- Another."
    )
    assert "All." not in message
    for command in ("tag", "prepare"):
        assert run(scratch, command) == 1
        assert "v0.2.0" in capsys.readouterr().err


def test_a_version_without_a_tag_takes_what_came_later(scratch: Path) -> None:
    run(scratch, "prepare", "--date", "2026-02-03")
    path = scratch / "CHANGELOG.md"
    later = "## [Unreleased]\n\n### Added\n\n- Later.\n"
    path.write_text(path.read_text("utf-8").replace("## [Unreleased]\n", later), "utf-8")

    assert run(scratch, "prepare", "--date", "2026-02-04") == 0

    text = path.read_text("utf-8")
    assert text.count("## [0.2.0]") == 1
    assert "## [0.2.0] - 2026-02-04\n\n### Added\n\n- Later.\n- Another.\n" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("## [Unreleased]", "## Unreleased"), "expected '[0.2.0] - YYYY-MM-DD'"),
        (("### Fixed", "### New"), "'New'; expected one of"),
        (("### Fixed", "### Added"), "'Added' comes twice"),
        (("### Fixed\n", "Text.\n\n### Fixed\n"), "text outside of Added"),
        (("- Another.", "Another."), "holds more than a list"),
        (("## [Unreleased]\n", ""), "outside|first heading"),
    ],
)
def test_another_form_is_refused(change: tuple[str, str], told: str) -> None:
    with pytest.raises(release.ReleaseError) as caught:
        release.read_changelog(CHANGELOG.replace(*change, 1))
    assert any(part in str(caught.value) for part in told.split("|"))


def test_the_versions_have_to_be_the_same(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(scratch, "prepare")
    (scratch / "CMakeLists.txt").write_text("project(x VERSION 0.3.0)\n", "utf-8")
    git(scratch, "commit", "-qam", "Release")

    assert run(scratch, "check") == 1
    assert "newest version is [0.2.0]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "right"),
    [
        ("x" * 72, True),
        ("x" * 73, False),
        ("A subject\n\nA body.\n", True),
        ("A subject\nA body.\n", False),
        ("Merge work done side by side", False),
        ("# only a comment\n", False),
    ],
)
def test_subjects_of_commits(message: str, right: bool, tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_text(message, "utf-8")

    assert (commit_subject.main(str(path)) == 0) == right
