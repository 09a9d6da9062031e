"""The input of a batch job: files of prompts, whose rows are numbered and cut into shards."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastdllm._core import Error
from fastdllm.problems import is_prompt

SUFFIXES = (".jsonl", ".parquet")
_CHUNK = 1 << 20  # bytes
_LOOKED_AT = 100  # rows in which a column must appear


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of the input: its name inside the folder, and its size and checksum."""

    name: str
    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Rows [first_row, first_row + num_rows) of the input, all of one file.

    start: where they begin in it: a byte of JSON lines, a row of Parquet.
    """

    first_row: int
    num_rows: int
    path: str
    start: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prompt as LLM.encode takes it, or why there is none; the row's number and id."""

    number: int
    id: str | None
    prompt: Any
    error: str | None


def scan_input(
    path: Path, *, shard_rows: int, prompt_column: str, id_column: str | None
) -> tuple[list[InputFile], list[Shard]]:
    """Read a file, or a folder's files in order of their names, once; cut their rows into shards.

    Rows count from 0 through all files; blank lines are none. Errors: Error for what cannot be
    read, holds no row, or lacks a column (JSON lines: in the first 100 rows).
    """
    files: list[InputFile] = []
    shards: list[Shard] = []
    first_row = 0
    for file in _files(path):
        try:
            if file.suffix == ".parquet":
                digest, starts, rows, found = _scan_parquet(file, shard_rows)
            else:
                digest, starts, rows, found = _scan_lines(file, shard_rows)
            size = file.stat().st_size
        except (OSError, pa.ArrowException) as problem:
            raise Error(f"{file}: not readable as {file.suffix[1:]}: {problem}") from None
        for column in filter(None, (prompt_column, id_column)):
            if rows and column not in found:
                names = ", ".join(map(repr, sorted(found))) or "none"
                raise Error(f"{file}: has no column {column!r}; found {names}")
        files.append(InputFile(name=file.name, bytes=size, sha256=digest, rows=rows))
        for number, start in enumerate(starts):
            done = number * shard_rows
            shards.append(
                Shard(
                    first_row=first_row + done,
                    num_rows=min(shard_rows, rows - done),
                    path=str(file.absolute()),
                    start=start,
                )
            )
        first_row += rows
    if not shards:
        raise Error(f"{path}: holds no row")
    return files, shards


def read_rows(shard: Shard, *, prompt_column: str, id_column: str | None) -> list[Row]:
    """Read a shard's rows. A row that is no prompt says so in its error. Errors: Error."""
    path = Path(shard.path)
    try:
        if path.suffix == ".parquet":
            columns = (prompt_column, *filter(None, (id_column,)))
            items: Iterator[Any] = _read_parquet(shard, columns)
        else:
            items = _read_lines(shard)
        rows = [
            _row(number, item, prompt_column, id_column)
            for number, item in enumerate(items, shard.first_row)
        ]
    except (OSError, pa.ArrowException) as problem:
        raise Error(f"{path}: not readable: {problem}") from None
    if len(rows) != shard.num_rows:
        raise Error(f"{path}: changed while the job ran; expected {shard.num_rows} rows at a shard")
    return rows


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise Error(f"{path}: holds no {' or '.join(SUFFIXES)} file")
        return files
    if path.suffix not in SUFFIXES:
        raise Error(f"{path}: expected a {' or '.join(SUFFIXES)} file, or a folder of such")
    return [path]


def _scan_lines(path: Path, shard_rows: int) -> tuple[str, list[int], int, set[str]]:
    digest = hashlib.sha256()
    starts: list[int] = []
    found: set[str] = set()
    rows = offset = 0
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            if line.strip():
                if rows % shard_rows == 0:
                    starts.append(offset)
                if rows < _LOOKED_AT and isinstance(item := _parse(line), dict):
                    found.update(item)
                rows += 1
            offset += len(line)
    return digest.hexdigest(), starts, rows, found


def _scan_parquet(path: Path, shard_rows: int) -> tuple[str, list[int], int, set[str]]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    with pq.ParquetFile(path) as parquet:
        rows = parquet.metadata.num_rows
        names = set(parquet.schema_arrow.names)
    return digest.hexdigest(), list(range(0, rows, shard_rows)), rows, names


def _parse(line: bytes) -> Any:
    """Return the line's value, or the error that parsing it raised."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as problem:
        return problem


def _read_lines(shard: Shard) -> Iterator[Any]:
    with Path(shard.path).open("rb") as file:
        file.seek(shard.start)
        lines = (line for line in file if line.strip())
        yield from map(_parse, itertools.islice(lines, shard.num_rows))


def _read_parquet(shard: Shard, columns: tuple[str, ...]) -> Iterator[Any]:
    first, last = shard.start, shard.start + shard.num_rows
    with pq.ParquetFile(shard.path) as parquet:
        sizes = [
            parquet.metadata.row_group(group).num_rows
            for group in range(parquet.metadata.num_row_groups)
        ]
    begin = 0
    for group, size in enumerate(sizes):
        here = slice(max(first - begin, 0), min(last - begin, size))
        if here.start < here.stop:
            table = _row_group(shard.path, group, columns)
            yield from table.slice(here.start, here.stop - here.start).to_pylist()
        begin += size


@functools.lru_cache(maxsize=1)  # a worker's shards follow one another
def _row_group(path: str, group: int, columns: tuple[str, ...]) -> Any:
    with pq.ParquetFile(path) as parquet:
        return parquet.read_row_group(group, columns=list(columns))


def _row(number: int, item: Any, prompt_column: str, id_column: str | None) -> Row:
    prompt, row_id, error = None, None, None
    if isinstance(item, Exception):
        error = f"not JSON: {item}"
    elif not isinstance(item, dict):
        error = f"expected an object with {prompt_column!r}; found {type(item).__name__}"
    else:
        prompt = item.get(prompt_column)
        if not is_prompt(prompt):
            expected = "text, messages with 'role' and 'content', or token ids"
            error = f"{prompt_column}: expected {expected}; found {_shown(prompt)}"
        try:
            row_id = _id(None if id_column is None else item.get(id_column))
        except ValueError:
            error = f"{id_column}: expected text or an integer; found {_shown(item[id_column])}"
    return Row(number=number, id=row_id, prompt=prompt, error=error)


def _id(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    text = str(value)
    text.encode()  # a lone surrogate is a ValueError
    return text


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
