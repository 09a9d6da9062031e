"""Exports to the same place at the same time: each ends with a whole package or one clear error."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from fastdllm.export import ExportError, package
from fastdllm.export.package import METADATA, package_folder


def write(target: Path, content: str, *, overwrite: bool = False) -> None:
    with package_folder(target, overwrite=overwrite) as folder:
        (folder / METADATA).write_text(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("moment", ["made", "opened"])
def test_a_folder_that_another_export_removes_before_it_is_locked_is_made_again(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another export comes between the folder and its lock, once."""
    target, removed = tmp_path / "package", []
    make, open_folder = tempfile.mkdtemp, os.open

    def come_between(folder: str) -> None:
        if not removed:
            removed.append(folder)
            package._remove_remains(target)
            assert not Path(folder).exists()

    def made(**options: Any) -> str:
        folder = make(**options)
        if moment == "made":
            come_between(folder)
        return folder

    def opened(path: Any, *rest: Any, **more: Any) -> int:
        descriptor = open_folder(path, *rest, **more)
        if moment == "opened" and str(path).endswith(".part") and not removed:
            come_between(str(path))
        return descriptor

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    monkeypatch.setattr(os, "open", opened)

    write(target, "whole")

    assert len(removed) == 1
    assert (target / METADATA).read_text() == "whole"
    assert names_in(tmp_path) == ["package"]


def test_a_folder_that_is_written_to_stays(tmp_path: Path) -> None:
    target = tmp_path / "package"
    with package_folder(target, overwrite=False) as folder:
        package._remove_remains(target)
        assert folder.exists()
        (folder / METADATA).write_text("whole")
    assert names_in(tmp_path) == ["package"]


def test_a_killed_exports_folder_goes(tmp_path: Path) -> None:
    (tmp_path / ".package.abcdefgh.part").mkdir()
    (tmp_path / ".package.abcdefgh.old").mkdir()
    write(tmp_path / "package", "whole")
    write(tmp_path / "package", "again", overwrite=True)
    assert names_in(tmp_path) == ["package"]


def test_a_package_that_another_export_finished_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "package"

    def late() -> None:
        with package_folder(target, overwrite=False) as folder:
            (folder / METADATA).write_text("late")
            write(target, "first")

    with pytest.raises(ExportError, match="another export was there first"):
        late()

    assert (target / METADATA).read_text() == "first"
    assert names_in(tmp_path) == ["package"]


def test_an_old_package_set_aside_is_not_taken_for_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "package"
    write(target, "old")
    move = package._moved

    def fails(partial: Path, there: Path) -> bool:
        if target.exists():
            return move(partial, there)
        target.mkdir()  # so that the other export looks for what is left beside a package
        package._remove_remains(target)
        target.rmdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "_moved", fails)
    with pytest.raises(ExportError, match="No space left"):
        write(target, "new", overwrite=True)

    assert (target / METADATA).read_text() == "old"
    assert names_in(tmp_path) == ["package"]


def test_many_exports_to_one_place_leave_one_whole_package(tmp_path: Path) -> None:
    target = tmp_path / "package"
    failures: list[BaseException] = []

    def often(number: int) -> None:
        try:
            for turn in range(50):
                write(target, f"{number} {turn}", overwrite=True)
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert (target / METADATA).read_text().endswith(" 49")
    assert names_in(tmp_path) == ["package"]
