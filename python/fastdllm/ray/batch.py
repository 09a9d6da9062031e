"""A data set of prompts to a data set of answers, on the workers of a Ray cluster.

    fastdllm batch PACKAGE INPUT OUTPUT [--replicas 2 --threads 1] [options]

The input's rows are numbered and cut into shards. Ray Data hands shards to a pool of actors with an
engine each, restarts an actor that dies and hands its shard out again; the actor writes the shard
in a folder of this run and renames it. A shard has one name, so a row cannot be written twice, and
it is there or not, so a restarted job does what is missing. Row r is decoded with the seed
`seed + r`: its answer does not depend on who computes it, or when.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
import ray.exceptions

from fastdllm._core import (
    ConfigError,
    Error,
    GenerationConfig,
    NumericError,
    check_engine_options,
    read_package,
)
from fastdllm.answer import stop_strings
from fastdllm.llm import LLM, default_config
from fastdllm.ray import shards as output
from fastdllm.ray.rows import Row, Shard, read_rows, scan_input
from fastdllm.text import TextError
from fastdllm.version import __version__

ON_ERROR = ("record", "fail")
_ATTEMPTS = 6  # at a shard whose workers die, before it is held to be the cause
# Errors that a row can cause; every other error stops the job.
_ROW_ERRORS = (ConfigError, NumericError, TextError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is.

    rows: written, of num_rows. new_rows, failed, completion_tokens, seconds: of this run.
    """

    rows: int
    num_rows: int
    new_rows: int
    failed: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What an actor needs to know."""

    package: str
    run: str
    formats: tuple[str, ...]
    prompt_column: str
    id_column: str | None
    config: GenerationConfig
    stop: tuple[str, ...]
    raw: bool
    on_error: str
    engine: dict[str, Any]


def answer_dataset(
    package: str | os.PathLike[str],
    input_path: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    config: GenerationConfig | None = None,
    stop: str | Sequence[str] | None = None,
    raw: bool = False,
    prompt_column: str = "prompt",
    id_column: str | None = None,
    formats: Sequence[str] = ("parquet",),
    shard_rows: int = 256,
    on_error: str = "record",
    fresh: bool = False,
    replicas: int = 1,
    threads: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    **engine_options: Any,
) -> output.Summary:
    """Answer every row of a .jsonl or .parquet file, or of a folder of them; return the counts.

    package, input_path, output_dir: paths that every worker can read. config (None =
    default_config()), stop, raw: as for LLM; row r uses the seed config.seed + r. prompt_column:
    has text, messages or token ids. id_column: text or integers, copied as text. formats:
    'parquet', 'jsonl' or both. shard_rows: rows per output file, decoded together, and again when
    their worker dies. on_error: 'record' writes the error of a bad row in place of its answer,
    'fail' ends the job. fresh: delete another job's output in output_dir. replicas: number of
    engines, each with `threads` cores, and one GPU if the device is a GPU. engine_options: further
    keywords of Engine; max_waiting defaults to shard_rows. on_progress: called first and after
    every shard.

    Starting an interrupted job again continues it: finished shards are kept. Starts Ray if it is
    not running. Errors: Error, before work starts, for a bad argument, an input that cannot be
    read, or the folder of another job; later for a full disk, a backend that fails, or a worker
    that dies 6 times at the same shard.
    """
    started, folder, config = time.monotonic(), Path(output_dir), config or default_config()
    strings, formats = stop_strings(stop), _checked_formats(formats)
    engine = _checked_engine(engine_options, shard_rows=shard_rows, threads=threads)
    _require_numbers_and_choice(on_error, shard_rows=shard_rows, replicas=replicas)
    read_package(os.fspath(package))
    files, shards = scan_input(
        Path(input_path), shard_rows=shard_rows, prompt_column=prompt_column, id_column=id_column
    )
    job: dict[str, Any] = {
        "fastdllm_version": __version__,
        "package_sha256": _sha256_of(Path(package) / "fastdllm.json"),
        "num_rows": sum(file.rows for file in files),
        "input": [asdict(file) for file in files],
        "prompt_column": prompt_column,
        "id_column": id_column,
        "config": config.to_dict(),
        "stop": list(strings),
        "raw": raw,
        "shard_rows": shard_rows,
        "formats": list(formats),
    }
    _make_folder(folder)
    with output.only_job(folder):
        run = output.begin(folder, job, fresh=fresh)
        try:
            missing = [shard for shard in shards if not output.is_done(folder, shard, formats)]
            report = _Report(job["num_rows"], missing, started, on_progress)
            work = _Work(
                package=str(Path(package).absolute()),
                run=str(run.absolute()),
                formats=formats,
                prompt_column=prompt_column,
                id_column=id_column,
                config=config,
                stop=strings,
                raw=raw,
                on_error=on_error,
                engine=engine,
            )
            if missing:
                _run(work, missing, replicas, report)
            return output.finish(run, shards, formats)
        finally:
            output.end_runs(folder)


def _checked_engine(options: Mapping[str, Any], *, shard_rows: int, threads: int) -> dict[str, Any]:
    """Return the keywords of every worker's engine."""
    given = {name: value for name, value in options.items() if value is not None}
    engine = {"max_waiting": shard_rows, **given, "threads": threads}
    try:
        check_engine_options(**engine)
    except TypeError as problem:
        raise ConfigError(str(problem)) from None
    _require_at_least_1(threads=threads)
    return engine


def _require_at_least_1(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1")


def _require_numbers_and_choice(on_error: str, **numbers: int) -> None:
    _require_at_least_1(**numbers)
    if on_error not in ON_ERROR:
        raise ConfigError(f"on_error is {on_error!r}; expected {' or '.join(map(repr, ON_ERROR))}")


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Error(f"{folder}: not usable as a folder: {problem}") from None


def _checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    if isinstance(formats, str):
        formats = (formats,)
    if not formats or not set(formats) <= set(output.FORMATS):
        raise ConfigError(f"formats is {formats!r}; expected of {', '.join(output.FORMATS)}")
    return tuple(name for name in output.FORMATS if name in formats)


class _Report:
    """Adds up the counts of shards."""

    def __init__(
        self,
        num_rows: int,
        missing: Sequence[Shard],
        started: float,
        tell: Callable[[Progress], None] | None,
    ) -> None:
        self._num_rows, self._started, self._tell = num_rows, started, tell
        self._before = num_rows - sum(shard.num_rows for shard in missing)
        self._new_rows = self._failed = self._tokens = 0
        self.add()

    def add(self, rows: int = 0, failed: int = 0, completion_tokens: int = 0) -> None:
        """Add a shard and tell."""
        self._new_rows += rows
        self._failed += failed
        self._tokens += completion_tokens
        if self._tell is not None:
            self._tell(
                Progress(
                    rows=self._before + self._new_rows,
                    num_rows=self._num_rows,
                    new_rows=self._new_rows,
                    failed=self._failed,
                    completion_tokens=self._tokens,
                    seconds=time.monotonic() - self._started,
                )
            )


def _run(work: _Work, missing: Sequence[Shard], replicas: int, report: _Report) -> None:
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    needs = {"CPU": work.engine["threads"]}
    if work.engine.get("device", "cpu") != "cpu":
        needs["GPU"] = 1
    wanted = min(replicas, len(missing))
    free = cast(Any, ray).available_resources()
    room = min(int(free.get(name, 0) // amount) for name, amount in needs.items())
    done = ray.data.from_items(
        [asdict(shard) for shard in missing], override_num_blocks=len(missing)
    ).map(
        cast(Any, _Answerer),
        fn_constructor_args=(work,),
        # The job starts with the replicas that fit now, and grows with the cluster.
        compute=ray.data.ActorPoolStrategy(
            min_size=max(1, min(room, wanted)), max_size=wanted, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=needs["CPU"],
        num_gpus=needs.get("GPU"),
    )
    try:
        for result in done.iter_rows():
            if result["problem"]:
                raise Error(result["problem"])
            report.add(result["rows"], result["failed"], result["completion_tokens"])
    except ray.exceptions.RayError as problem:
        raise Error(f"the job stopped: {str(problem).strip().splitlines()[-1]}") from problem


class _Answerer:
    """An actor: an engine that answers shard after shard."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._llm: LLM | None = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Answer a shard and write it; return its counts, or what stops the job."""
        counts: dict[str, Any] = {"rows": 0, "failed": 0, "completion_tokens": 0, "problem": ""}
        shard = Shard(**item)
        try:
            with output.attempt(Path(self._work.run), shard, _ATTEMPTS):
                records = self._answer(shard)
        except (Error, OSError) as problem:
            return counts | {"problem": str(problem)}
        counts["rows"] = len(records)
        counts["failed"] = sum(record["error"] is not None for record in records)
        counts["completion_tokens"] = sum(record["completion_tokens"] or 0 for record in records)
        return counts

    def _answer(self, shard: Shard) -> list[output.Record]:
        work = self._work
        if self._llm is None:
            self._llm = LLM(work.package, **work.engine)
            _check_config(self._llm, work.config)
        rows = read_rows(shard, prompt_column=work.prompt_column, id_column=work.id_column)
        records = asyncio.run(_answer_all(self._llm, rows, work))
        output.write_shard(Path(work.run), shard, work.formats, records)
        return records


def _check_config(llm: LLM, config: GenerationConfig) -> None:
    """Refuse a config that is wrong for every row, once. Errors: ConfigError."""
    token = 0 if llm.engine.package.mask_token_id != 0 else 1
    llm.engine.submit([token], config).cancel()


async def _answer_all(llm: LLM, rows: Sequence[Row], work: _Work) -> list[output.Record]:
    """Answer rows together, each with its own outcome."""
    tasks = [asyncio.ensure_future(_answer(llm, row, work)) for row in rows]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _answer(llm: LLM, row: Row, work: _Work) -> output.Record:
    seed = (work.config.seed + row.number) % 2**64
    record: output.Record = {
        "row": row.number,
        "id": row.id,
        "text": None,
        "finish_reason": None,
        "stop": None,
        "seed": seed,
        "prompt_tokens": None,
        "completion_tokens": None,
        "num_passes": None,
        "error": row.error,
    }
    if row.error is None:
        config = GenerationConfig(**work.config.to_dict() | {"seed": seed})  # type: ignore[arg-type]
        try:
            answer = await llm.agenerate(row.prompt, config, stop=work.stop, raw=work.raw)
            record["text"] = answer.text
            record["finish_reason"] = answer.finish_reason
            record["stop"] = answer.stop
            record["prompt_tokens"] = answer.prompt_tokens
            record["completion_tokens"] = answer.completion_tokens
            record["num_passes"] = answer.num_passes
        except _ROW_ERRORS as problem:
            text = str(problem) or type(problem).__name__
            record["error"] = text.encode(errors="backslashreplace").decode()  # lone surrogates
    if record["error"] is not None and work.on_error == "fail":
        raise Error(f"row {row.number}: {record['error']}")
    return record
