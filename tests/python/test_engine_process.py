"""The engine in a process: inference libraries, threads, Ctrl-C, leaving."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastdllm import Engine, GenerationConfig
from fastdllm.engine import find_onnxruntime

from conftest import PackageOf, run_python


def test_a_missing_library_lists_what_was_tried(package_of: PackageOf) -> None:
    program = (
        "import fastdllm, sys\n"
        "try: fastdllm.Engine(sys.argv[1], onnxruntime_library='/nowhere/libonnxruntime.so')\n"
        "except fastdllm.BackendError as error: print(error)"
    )

    answer = run_python(program, str(package_of("llada-mha")))

    assert "/nowhere/libonnxruntime.so" in answer.stdout


def test_a_process_keeps_its_inference_library(package_of: PackageOf, tmp_path: Path) -> None:
    library = Path(find_onnxruntime())
    (tmp_path / "link.so").symlink_to(library)
    shutil.copy(library, tmp_path / "copy.so")
    program = (
        "import fastdllm, sys\n"
        "package, same, copy = sys.argv[1:]\n"
        "print(repr(fastdllm._core.loaded_onnxruntime()))\n"
        "fastdllm.Engine(package)\n"
        "fastdllm.Engine(package, onnxruntime_library=same)\n"
        "for other in (copy, '/nowhere/libonnxruntime.so', 'libm.so.6'):\n"
        "    try: fastdllm.Engine(package, onnxruntime_library=other)\n"
        "    except fastdllm.BackendError as error: print(error)\n"
        "fastdllm.Engine(package)"
    )
    package = str(package_of("llada-mha"))

    answer = run_python(program, package, str(tmp_path / "link.so"), str(tmp_path / "copy.so"))

    first, *refusals = answer.stdout.splitlines()
    assert first == "''"
    assert len(refusals) == 3
    for name, refusal in zip(("copy.so", "/nowhere", "libm.so.6"), refusals, strict=True):
        assert name in refusal
        assert f"from {library} before" in refusal


def test_the_default_is_the_library_that_is_open(package_of: PackageOf, tmp_path: Path) -> None:
    shutil.copy(find_onnxruntime(), tmp_path / "own.so")
    program = (
        "import fastdllm, sys\n"
        "fastdllm.Engine(sys.argv[1], onnxruntime_library=sys.argv[2])\n"
        "fastdllm.Engine(sys.argv[1])\n"
        "print(fastdllm._core.loaded_onnxruntime())"
    )

    answer = run_python(program, str(package_of("llada-mha")), str(tmp_path / "own.so"))

    assert answer.stdout.strip() == str(tmp_path / "own.so")


def test_other_threads_run_during_a_generation(package_of: PackageOf) -> None:
    engine = Engine(package_of("tiny_math"), threads=1)
    config = GenerationConfig(max_new_tokens=128, cache="none", ignore_eos=True)
    engine.generate([1, 2, 3], config)  # warm up
    seconds: list[float] = []
    worker = threading.Thread(
        target=lambda: seconds.append(engine.generate([1, 2, 3], config).stats.total_seconds)
    )

    worker.start()
    last, longest_pause = time.perf_counter(), 0.0
    while worker.is_alive():
        now = time.perf_counter()
        last, longest_pause = now, max(longest_pause, now - last)
    worker.join()

    # With the GIL held the whole generation would be one pause of this thread.
    assert longest_pause < seconds[0] / 2


def test_two_threads_share_an_engine(mha: Engine) -> None:
    config = GenerationConfig(max_new_tokens=32, ignore_eos=True)
    expected = {n: mha.generate([n], config).token_ids.tolist() for n in range(4)}
    found: dict[int, list[int]] = {}

    def work(n: int) -> None:
        found[n] = mha.generate([n], config).token_ids.tolist()

    workers = [threading.Thread(target=work, args=(n,)) for n in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert found == expected


CTRL_C = """
import sys, fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1)
config = fastdllm.GenerationConfig(max_new_tokens=256, cache="none", ignore_eos=True)
callback = (lambda event: None) if sys.argv[2] == "callback" else None
print("ready", flush=True)
try:
    while True:
        engine.generate([1, 2, 3], config, callback)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("mode", ["callback", "plain"])
def test_ctrl_c_ends_a_generation_within_a_second(mode: str, package_of: PackageOf) -> None:
    command = [sys.executable, "-c", CTRL_C, str(package_of("tiny_math")), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.3)
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            rest, _ = child.communicate(timeout=20)
            seconds = time.monotonic() - start
        finally:
            child.kill()

    assert rest == "interrupted\n"
    assert child.returncode == 0
    assert seconds < 1.0


EXIT_WITH_OPEN_STREAM = """
import sys, threading, fastdllm
llm = fastdllm.LLM(sys.argv[1], threads=1)
stream = llm.stream("How many?", fastdllm.GenerationConfig(max_new_tokens=400, block_length=8))
next(stream)
config = fastdllm.GenerationConfig(max_new_tokens=400, ignore_eos=True)
engine = fastdllm.Engine(sys.argv[1], threads=1)
threading.Thread(target=engine.generate, args=([1], config), daemon=True).start()
print("leaving")
"""


def test_leaving_the_process_ends_what_still_runs(package_of: PackageOf) -> None:
    done = run_python(EXIT_WITH_OPEN_STREAM, package_of("tiny_math"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


WAITING = """
import signal, sys, threading, time, fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1)
config = fastdllm.GenerationConfig(max_new_tokens=400, ignore_eos=True)
stop = threading.Event()
started = threading.Event()
def busy(event):
    started.set()
    time.sleep(0.01)
    return not stop.is_set()
worker = threading.Thread(target=engine.generate, args=([1], config, busy))
worker.start()
started.wait()
threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
begin = time.monotonic()
try:
    engine.generate([2], config)
except KeyboardInterrupt:
    print("interrupted" if time.monotonic() - begin < 2 else "late")
stop.set()
worker.join()
"""


def test_ctrl_c_ends_the_wait_for_a_busy_engine(package_of: PackageOf) -> None:
    done = run_python(WAITING, package_of("tiny_math"))

    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
