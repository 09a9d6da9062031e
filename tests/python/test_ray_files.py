"""A batch job's files, without a cluster: what is read, what is written, what is refused."""

# ruff: noqa: E402
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

import pyarrow.parquet as pq

from fastdllm import ConfigError, Error, GenerationConfig
from fastdllm.ray import answer_dataset, batch, build_app, shards
from fastdllm.ray.rows import Row, Shard, read_rows, scan_input
from fastdllm.ray.serving import ServeArgs
from fastdllm.ray.shards import Record

from conftest import PackageOf

COLUMNS = {"prompt_column": "prompt", "id_column": None}
SHARD = Shard(first_row=4, num_rows=2, path="in.jsonl", start=0)
JOB: dict[str, Any] = {"config": {"threshold": 0.9}, "formats": ["parquet", "jsonl"]}


def record(row: int, error: str | None = None) -> Record:
    tokens = None if error else 3
    return {
        "row": row,
        "id": None,
        "text": None if error else "three",
        "finish_reason": None if error else "stop",
        "stop": None,
        "seed": row,
        "prompt_tokens": tokens,
        "completion_tokens": tokens,
        "num_passes": tokens,
        "error": error,
    }


def test_rows_are_numbered_through_all_files_and_shards_end_with_a_file(tmp_path: Path) -> None:
    prompts = [f"p{n}" for n in range(9)]
    lines = "".join(f'{{"prompt": "{prompt}"}}\r\n\n' for prompt in prompts[:5])
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")
    (tmp_path / "notes.txt").write_text("no input", "utf-8")
    pq.write_table(pa.table({"prompt": prompts[5:]}), tmp_path / "b.parquet", row_group_size=3)
    files, cut = scan_input(tmp_path, shard_rows=2, **COLUMNS)
    assert [(file.name, file.rows) for file in files] == [("a.jsonl", 5), ("b.parquet", 4)]
    assert [(one.first_row, one.num_rows) for one in cut] == [
        (0, 2),
        (2, 2),
        (4, 1),
        (5, 2),
        (7, 2),
    ]
    rows = [row for one in cut for row in read_rows(one, **COLUMNS)]
    assert [row.prompt for row in rows] == prompts
    assert [row.number for row in rows] == list(range(9))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", "a", "expected a .jsonl or .parquet file"),
        ("in.parquet", "no parquet", "in.parquet: not readable as parquet"),
        ("in.jsonl", "\n\n", "in.jsonl: holds no row"),
        ("in.jsonl", '{"question": "?", "n": 1}\n', "no column 'prompt'; found 'n', 'question'"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(Error, match=message):
        scan_input(tmp_path / name, shard_rows=2, **COLUMNS)


def test_ids_are_text_and_a_bad_one_is_the_rows_error(tmp_path: Path) -> None:
    ids = ['"a"', "7", "null", "1.5", "true", '"\\udc00"']
    text = "\n".join(f'{{"prompt": "p", "id": {one}}}' for one in ids)
    (tmp_path / "in.jsonl").write_text(text, "utf-8")
    columns = {"prompt_column": "prompt", "id_column": "id"}
    _, (shard,) = scan_input(tmp_path / "in.jsonl", shard_rows=9, **columns)
    rows = read_rows(shard, **columns)
    assert [row.id for row in rows] == ["a", "7", None, None, None, None]
    assert [row.error is None for row in rows] == [True] * 3 + [False] * 3
    assert rows[3].error == "id: expected text or an integer; found 1.5"


def test_an_input_that_shrinks_while_the_job_runs_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n', "utf-8")
    _, (shard,) = scan_input(path, shard_rows=9, **COLUMNS)
    path.write_text('{"prompt": "a"}\n', "utf-8")
    with pytest.raises(Error, match="changed while the job ran"):
        read_rows(shard, **COLUMNS)


def test_a_shard_is_done_when_it_is_there_in_every_format(tmp_path: Path) -> None:
    run = shards.begin(tmp_path, JOB, fresh=False)
    shards.write_shard(run, SHARD, ["parquet"], [record(4), record(5, "bad")])
    assert not shards.is_done(tmp_path, SHARD, JOB["formats"])
    shards.write_shard(run, SHARD, JOB["formats"], [record(4), record(5, "bad")])
    assert shards.is_done(tmp_path, SHARD, JOB["formats"])
    summary = shards.finish(run, [SHARD], JOB["formats"])
    assert (summary.rows, summary.failed, summary.completion_tokens) == (2, 1, 3)
    assert pq.read_table(tmp_path / "parquet").num_rows == 2  # a folder of data, nothing else


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    run = shards.begin(tmp_path, JOB, fresh=False)
    broken: Any = [record(4), {"row": "no number"}]
    with pytest.raises(pa.ArrowException):
        shards.write_shard(run, SHARD, ["parquet"], broken)
    assert not list((tmp_path / "parquet").iterdir())
    assert not list(run.iterdir())


def test_the_end_of_a_job_finds_rows_that_are_not_the_inputs(tmp_path: Path) -> None:
    run = shards.begin(tmp_path, JOB, fresh=False)
    shards.write_shard(run, SHARD, JOB["formats"], [record(4), record(4)])
    with pytest.raises(Error, match=r"rows-000000000004.parquet: expected rows 4 to 5"):
        shards.finish(run, [SHARD], JOB["formats"])


def test_another_jobs_folder_is_refused_unless_it_is_to_start_anew(tmp_path: Path) -> None:
    run = shards.begin(tmp_path, JOB, fresh=False)
    shards.write_shard(run, SHARD, JOB["formats"], [record(4), record(5)])
    (run / "rows-000000000009.parquet.1f").write_bytes(b"half")
    other = JOB | {"config": {"threshold": 0.8}}
    with pytest.raises(Error, match=r"config.threshold is 0.8 now, was 0.9; start anew"):
        shards.begin(tmp_path, other, fresh=False)
    run = shards.begin(tmp_path, JOB | {"fastdllm_version": "another"}, fresh=False)
    assert shards.is_done(tmp_path, SHARD, JOB["formats"])
    assert [*tmp_path.glob(".*")] == [run]
    assert not list(run.iterdir())
    shards.begin(tmp_path, other, fresh=True)
    assert not shards.is_done(tmp_path, SHARD, ["jsonl"])
    assert json.loads((tmp_path / "job.json").read_text()) == other


def test_a_rows_error_that_is_no_valid_text_can_be_written(tmp_path: Path) -> None:
    class Template:
        async def agenerate(self, *_: object, **__: object) -> None:
            raise ValueError("no role \udc00")

    row = Row(number=0, id=None, prompt=[{"role": "\udc00", "content": "?"}], error=None)
    work: Any = SimpleNamespace(config=GenerationConfig(), stop=(), raw=False, on_error="record")
    llm: Any = Template()
    answered = asyncio.run(batch._answer(llm, row, work))
    assert answered["error"] == r"no role \udc00"
    run, shard = shards.begin(tmp_path, JOB, fresh=False), replace(SHARD, first_row=0, num_rows=1)
    shards.write_shard(run, shard, JOB["formats"], [answered])
    assert shards.finish(run, [shard], JOB["formats"]).failed == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_worker_that_outlives_its_run_writes_nothing_into_the_next(
    tmp_path: Path, fresh: bool
) -> None:
    old, formats = shards.begin(tmp_path, JOB, fresh=False), ["jsonl"]

    def begun_anew_while_written() -> Iterator[Record]:
        yield record(4)
        shards.begin(tmp_path, JOB, fresh=fresh)
        yield record(5)

    rows: Any
    for rows in (begun_anew_while_written(), [record(4), record(5)]):
        with pytest.raises(FileNotFoundError):
            shards.write_shard(old, SHARD, formats, rows)
    assert not shards.is_done(tmp_path, SHARD, formats)
    with pytest.raises(FileNotFoundError), shards.attempt(old, SHARD, 2):
        pass


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("precious", "utf-8")
    for fresh in (False, True):
        with pytest.raises(Error, match=r"holds thesis but no job.json"):
            shards.begin(tmp_path, JOB, fresh=fresh)
    assert (tmp_path / "thesis").read_text("utf-8") == "precious"


def test_two_jobs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        shards.only_job(tmp_path),
        pytest.raises(Error, match="another job writes here"),
        shards.only_job(tmp_path),
    ):
        pass
    with shards.only_job(tmp_path):
        pass


def test_rows_whose_workers_die_again_and_again_end_the_job(tmp_path: Path) -> None:
    run = shards.begin(tmp_path, JOB, fresh=False)
    for _ in range(2):  # begun, and never heard of again
        with (run / "4.attempts").open("ab") as mark:
            mark.write(b".")
    with (
        pytest.raises(Error, match="rows 4 to 5: 2 workers died with them"),
        shards.attempt(run, SHARD, 2),
    ):
        pass
    run = shards.begin(tmp_path, JOB, fresh=False)  # the job is started again
    with shards.attempt(run, SHARD, 2):
        pass
    assert not list(run.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_rows": 0}, "shard_rows is 0; expected at least 1"),
        ({"replicas": -1}, "replicas is -1; expected at least 1"),
        ({"formats": ("csv",)}, "formats is .*; expected of parquet, jsonl"),
        ({"formats": ()}, "formats is .*; expected of parquet, jsonl"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'record' or 'fail'"),
        ({"stop": ""}, "stop is ''"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_written(
    tmp_path: Path, package_of: PackageOf, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n', "utf-8")
    with pytest.raises(ConfigError, match=message):
        answer_dataset(package_of("tiny_math"), tmp_path / "in.jsonl", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_applications_arguments_are_checked_before_a_replica_starts(
    package_of: PackageOf, tmp_path: Path
) -> None:
    package = str(package_of("tiny_math"))
    for given, message in (
        ({"max_tokenz": "5"}, "no argument 'max_tokenz'; expected of"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"api_keys": "secret"}, "no argument 'api_keys'"),
        ({"max_batch": "0"}, "max_batch: Input should be greater"),
        ({"min_replicas": 1}, "min_replicas needs max_replicas"),
        ({"target_ongoing_requests": 4}, "target_ongoing_requests needs max_replicas"),
        ({"num_replicas": 2, "max_replicas": 4}, "num_replicas and max_replicas exclude"),
        ({"min_replicas": 5, "max_replicas": 4}, "min_replicas is 5; .*max_replicas, 4"),
        ({"package": str(tmp_path)}, "fastdllm.json"),
    ):
        with pytest.raises(Error, match=message):
            build_app({"package": package} | given)  # as Ray's command line calls it


def test_autoscaling_and_gpus_are_the_deployments_options(package_of: PackageOf) -> None:
    arguments = {"max_replicas": "4", "device": "cuda", "threads": "3", "grace_seconds": "7"}
    app = build_app(ServeArgs(package=str(package_of("tiny_math")), **arguments))
    (deployment,) = [app._bound_deployment]
    assert deployment.ray_actor_options["num_cpus"] == 3
    assert deployment.ray_actor_options["num_gpus"] == 1
    config = deployment._deployment_config
    assert config.graceful_shutdown_timeout_s == 7
    assert config.autoscaling_config.max_replicas == 4
    assert config.autoscaling_config.target_ongoing_requests == 8
    assert config.max_ongoing_requests == 16
