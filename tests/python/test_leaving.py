"""Python shuts down at any moment of a request: nothing aborts, hangs or prints.

FASTDLLM_LEAVING_COUNT runs of the scripts of leaving.py, by default each once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PackageOf
from leaving import SCRIPTS, build_late_gil, leave_often

COUNT = int(os.environ.get("FASTDLLM_LEAVING_COUNT", len(SCRIPTS)))


@pytest.fixture(scope="module")
def late_gil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library, reason = build_late_gil(tmp_path_factory.mktemp("late_gil"))
    if library is None:
        pytest.skip(reason)
    return library


def test_scripts_leave_in_every_way(
    package_of: PackageOf, late_gil: Path, record_property: pytest.RecordProperty
) -> None:
    runs = list(leave_often(package_of("tiny_math"), COUNT, late_gil, os.cpu_count() or 2))

    record_property("scripts that left", len(runs))
    assert [run for run in runs if run.problem] == []


WAITING = """
import ctypes, os, sys, threading, time, fastdllm
asked = ctypes.CDLL(os.environ["LD_PRELOAD"]).late_gil_asked
engine = fastdllm.Engine(sys.argv[1], threads=1)
held, reached = threading.Event(), threading.Event()
def hold(event):
    reached.set()
    held.wait()
    return False
config = fastdllm.GenerationConfig(max_new_tokens=8, ignore_eos=True)
first = engine.submit([1], config, hold)
reached.wait()
waiting = [threading.Thread(target=engine.generate, args=([1], config)) for _ in range(4)]
waiting += [threading.Thread(target=first.result, args=(60,)) for _ in range(4)]
for thread in waiting:
    thread.start()
time.sleep(0.3)
before = asked()
time.sleep(0.5)
print(asked() - before)
held.set()
for thread in waiting:
    thread.join()
"""


def test_threads_that_get_no_signals_wait_without_asking_for_the_gil(
    package_of: PackageOf, late_gil: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITING, str(package_of("tiny_math"))],
        env={**os.environ, "LD_PRELOAD": str(late_gil)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("0\n", "")  # 8 threads that looked asked 200 times
