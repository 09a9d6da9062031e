"""The output of a batch job: a file per shard and format, complete or missing.

OUTPUT/job.json                      what the job is: it goes on only as the same job
OUTPUT/parquet/rows-000000000256.parquet   a shard, by the number of its first row
OUTPUT/jsonl/rows-000000000256.jsonl
OUTPUT/summary.json                  the counts, when every row is there
OUTPUT/.run-*                        where files are written before they are renamed

Every run of a job has its own .run folder and removes those of runs before it: what a worker of a
killed run still writes has no place to be renamed from.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from fastdllm._core import Error
from fastdllm.ray.rows import Shard

FORMATS = ("parquet", "jsonl")
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("stop", pa.string()),
        ("seed", pa.uint64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("num_passes", pa.int64()),
        ("error", pa.string()),
    ]
)


class Record(TypedDict):
    """An output row: Completion's fields, null where `error` says why there is no answer.

    row: number of the input row. id: its id as text. seed: that its answer was decoded with.
    """

    row: int
    id: str | None
    text: str | None
    finish_reason: str | None
    stop: str | None
    seed: int
    prompt_tokens: int | None
    completion_tokens: int | None
    num_passes: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished job wrote. failed: the rows whose `error` says why they have no answer."""

    rows: int
    answered: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    num_passes: int


@contextlib.contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Keep other jobs out of an output folder. Errors: Error when one is there."""
    with (folder / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error(f"{folder}: another job writes here") from None
        yield


def begin(folder: Path, job: Mapping[str, Any], *, fresh: bool) -> Path:
    """Write job.json, or check that the folder holds the same job's; return this run's folder.

    fresh: remove what another job left. Errors: Error for another job's folder, or foreign files.
    """
    path = folder / "job.json"
    run = folder / f".run-{uuid.uuid4().hex}"
    if fresh:
        end_runs(folder)  # first: from here on, no worker of theirs can add a shard
        for old in (folder / "summary.json", *_shard_files(folder), path):  # job.json last
            old.unlink(missing_ok=True)
    if path.exists():
        _check_same(path, job)
    else:
        foreign = _shard_files(folder)
        foreign += [file for file in folder.iterdir() if not _is_own(file)]
        if foreign:
            found = foreign[0].relative_to(folder)
            raise Error(f"{folder}: holds {found} but no job.json; expected an empty folder")
    end_runs(folder)
    run.mkdir()
    if not path.exists():
        _write_json(run, path, job)
    for name in job["formats"]:
        (folder / name).mkdir(exist_ok=True)
    return run


def end_runs(folder: Path) -> None:
    """Remove the folders of all runs, with what is unfinished in them."""
    for run in folder.glob(".run-*"):
        run.replace(run.with_name(f".ended-{run.name}"))  # no file appears in it from here on
    for ended in folder.glob(".ended-*"):
        shutil.rmtree(ended, ignore_errors=True)


def is_done(folder: Path, shard: Shard, formats: Sequence[str]) -> bool:
    """Tell whether a shard is there in every format."""
    return all(shard_path(folder, shard, name).exists() for name in formats)


def shard_path(folder: Path, shard: Shard, name: str) -> Path:
    """Return where a shard lies in a format."""
    return folder / name / f"rows-{shard.first_row:012d}.{name}"


@contextlib.contextmanager
def attempt(run: Path, shard: Shard, most: int) -> Iterator[None]:
    """Count in a run's folder how often a shard was begun, as a dead worker cannot report it.

    Errors: Error for one attempt more than `most`.
    """
    mark = run / f"{shard.first_row}.attempts"
    with mark.open("ab") as file:
        file.write(b".")
        begun = file.tell()
    if begun > most:
        last = shard.first_row + shard.num_rows - 1
        raise Error(f"rows {shard.first_row} to {last}: {most} workers died with them")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def write_shard(run: Path, shard: Shard, formats: Sequence[str], records: Sequence[Record]) -> None:
    """Write a shard in every format. Writing it again, from anywhere, changes no row.

    run: begin's folder. Errors: OSError, also when the run has ended.
    """
    for name in formats:
        with _written_whole(run, shard_path(run.parent, shard, name)) as file:
            if name == "parquet":
                pq.write_table(pa.Table.from_pylist(records, SCHEMA), file)
            else:
                file.writelines(_json(record, indent=None) for record in records)


def finish(run: Path, shards: Sequence[Shard], formats: Sequence[str]) -> Summary:
    """Count what was written, check that every row is there once, write summary.json.

    Errors: Error that names a shard whose rows are not those of the input.
    """
    rows = failed = 0
    sums = dict.fromkeys(("prompt_tokens", "completion_tokens", "num_passes"), 0)
    for shard in shards:
        for name in formats:
            path = shard_path(run.parent, shard, name)
            table = _read(path, name)
            expected = range(shard.first_row, shard.first_row + shard.num_rows)
            if table["row"] != list(expected):
                raise Error(f"{path}: expected rows {expected.start} to {expected.stop - 1}")
        rows += shard.num_rows
        failed += sum(error is not None for error in table["error"])
        for key in sums:
            sums[key] += sum(filter(None, table[key]))
    summary = Summary(rows=rows, answered=rows - failed, failed=failed, **sums)
    _write_json(run, run.parent / "summary.json", asdict(summary))
    return summary


def _read(path: Path, name: str) -> dict[str, list[Any]]:
    columns = ["row", "error", "prompt_tokens", "completion_tokens", "num_passes"]
    try:
        if name == "parquet":
            with pq.ParquetFile(path) as parquet:
                table: dict[str, list[Any]] = parquet.read(columns=columns).to_pydict()
            return table
        with path.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        return {column: [record[column] for record in records] for column in columns}
    except (OSError, ValueError, KeyError, pa.ArrowException) as problem:
        raise Error(f"{path}: not a shard of this job: {problem}") from None


def _shard_files(folder: Path) -> list[Path]:
    return [file for name in FORMATS for file in (folder / name).glob(f"rows-*.{name}")]


def _is_own(file: Path) -> bool:
    return file.name.startswith(".") or file.name in FORMATS


def _check_same(path: Path, job: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise Error(f"{path}: not readable: {problem}") from None
    difference = _difference(found, json.loads(_json(job)), "")
    if difference is not None:
        raise Error(
            f"{path}: is another job's: {difference}; start anew with --fresh, or in another folder"
        )


def _difference(found: Any, given: Any, where: str) -> str | None:
    if isinstance(found, dict) and isinstance(given, dict):
        for key in (*given, *(key for key in found if key not in given)):
            if key == "fastdllm_version":  # for the reader
                continue
            name = f"{where}.{key}" if where else key
            inside = _difference(found.get(key), given.get(key), name)
            if inside is not None:
                return inside
        return None
    return None if found == given else f"{where} is {_shown(given)} now, was {_shown(found)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _json(content: object, indent: int | None = 1) -> bytes:
    text = json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _write_json(run: Path, path: Path, content: object) -> None:
    with _written_whole(run, path) as file:
        file.write(_json(content))


@contextlib.contextmanager
def _written_whole(run: Path, path: Path) -> Iterator[BinaryIO]:
    """Yield a file that appears at its path only when all of it is on the disk."""
    beside = run / f"{path.name}.{uuid.uuid4().hex}"
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
