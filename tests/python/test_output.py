"""Files that trace, bench and chat write: links and pipes stay, and refusals name the file."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from fastdllm import Error, cli
from fastdllm.output import check_writable, write_whole

from conftest import PackageOf


def write(path: Path, text: str) -> None:
    write_whole(path, lambda beside: beside.write_text(text))


@pytest.mark.parametrize("before", ["before", None], ids=["there", "dangling"])
def test_a_symbolic_link_stays_and_what_it_names_is_written(
    before: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if before is not None:
        (folder / "target").write_text(before)
    link = tmp_path / "link.html"
    link.symlink_to(Path("folder", "target"))

    check_writable({"--html": link})
    write(link, "after")

    assert link.is_symlink()
    assert (folder / "target").read_text() == "after"
    assert len(list(folder.iterdir())) == 1


def test_a_pipe_is_given_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link.html"
    link.symlink_to(pipe)
    read: list[str] = []
    for path in (pipe, link):
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
        reader.start()

        check_writable({"--html": path})
        write(path, "all of it")
        reader.join(30)

    assert read == ["all of it"] * 2
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_a_device_file_is_not_replaced(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o20666, os.makedev(1, 3))  # what /dev/null is on Linux
        device.write_text("")
    except (OSError, AttributeError):
        pytest.skip("device files cannot be made or opened here")

    write(device, "gone")

    assert device.is_char_device()


def test_two_options_may_not_name_one_file_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("a.json")

    with pytest.raises(Error, match="--html names the same file"):
        check_writable({"--html": tmp_path / "a.json", "--json": link})


def test_a_link_into_no_folder_is_refused_by_that_folder(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(Path("no", "a.json"))

    with pytest.raises(Error, match=f"there is no folder {tmp_path / 'no'}"):
        check_writable({"--json": link})


def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(
    package_of: PackageOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may all
    monkeypatch.setattr("fastdllm.trace.make_trace", lambda *args, **options: pytest.fail("ran"))
    path = tmp_path / "a.json"

    assert cli.main(["trace", str(package_of("tiny_math")), "--prompt", "a", "--json", str(path)])

    told = f"--json {path}: the folder {tmp_path} cannot be written to"
    assert told in capsys.readouterr().err


def test_an_error_while_writing_names_the_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60)

    def fail(beside: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(beside))

    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, fail)

    assert str(caught.value).endswith(f"No space left on device: '{path}'")
    assert not list(tmp_path.iterdir())
