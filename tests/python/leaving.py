"""Scripts that leave Python in every way while requests run, and how often they may fail: never.

`python tests/python/leaving.py PACKAGE --count 500` runs each in turn, several at a time, half of
them with a library that hands the GIL to other threads late, and prints what failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

PATIENCE = 60  # seconds, for a script that takes one

BEGIN = """
import asyncio, atexit, os, signal, sys, threading, time
import fastdllm
engine = fastdllm.Engine(sys.argv[1], threads=1)
short = fastdllm.GenerationConfig(max_new_tokens=4, ignore_eos=True)
long = fastdllm.GenerationConfig(max_new_tokens=400, ignore_eos=True)
started = threading.Event()
def note(event):
    started.set()
"""

# A value whose conversion is Python code that goes on while the interpreter shuts down.
SLOW = """
def wait(*_):
    started.set()
    while True: time.sleep(0.001)
class Slow:
    __index__ = __float__ = __fspath__ = __repr__ = __getitem__ = wait
class SlowText(str):
    __int__ = wait
class SlowName:
    @property
    def keys(self): wait()
    __getitem__ = __len__ = wait
class Odd:
    __repr__ = wait
Config = fastdllm.GenerationConfig
def ask(call):
    threading.Thread(target=call, daemon=True).start()
    started.wait()
"""
# By name: what is asked of it.
CONVERSIONS = {
    "seed": "Config(seed=Slow())",
    "integer": "Config(max_new_tokens=Slow())",
    "number": "Config(threshold=Slow())",
    "set_integer": "setattr(short, 'steps', Slow())",
    "biases": "Config(logit_bias={1: Slow()})",
    "bias_ids": "Config(logit_bias={SlowText('1'): 1.0})",
    "bias_keys": "Config(logit_bias=SlowName())",
    "words": "Config(threshold=Odd())",
    "package": "fastdllm.Engine(Slow())",
    "path": "fastdllm.Engine(sys.argv[1], onnxruntime_library=Slow())",
    "words_of_package": "fastdllm.Engine(Odd())",
    "words_of_option": "fastdllm.Engine(sys.argv[1], threads=Odd())",
    "id": "engine.submit([Slow()], short)",
    "positions": "engine.logits([1], [Slow()])",
    "block_length": "engine.logits([1], [0], Slow())",
    "timeout": "engine.submit([1], long).result(Slow())",
}

# By name: what follows BEGIN, and the exit status.
SCRIPTS: dict[str, tuple[str, int]] = {
    **{
        f"daemon_in_{name}": (f"{SLOW}ask(lambda: {asked})", 0)
        for name, asked in CONVERSIONS.items()
    },
    "answered": ("engine.generate([1], short)", 0),
    "answered_with_callback": ("engine.generate([1], short, note)", 0),
    "submitted": ("engine.submit([1], short)", 0),
    "done_callback": ("engine.submit([1], short, on_done=started.set).result()", 0),
    "told": ("engine.submit([1], short, None, started.set); started.wait()", 0),
    "outstanding": (
        "requests = [engine.submit([n], long, note, started.set) for n in range(12)]\n"
        "started.wait()",
        0,
    ),
    "outstanding_unwatched": ("requests = [engine.submit([n], long) for n in range(12)]", 0),
    "last_owner_is_the_engine": (
        "def keep(event, engine=engine):\n    return False\n"
        "engine.submit([1], long, keep)\ndel engine",
        0,
    ),
    "callback_that_holds_much": (
        "class Held:\n    def __del__(self): sum(range(1000))\n"
        "for n in range(8):\n    engine.submit([n], short, None, lambda held=Held(): None)",
        0,
    ),
    "open_stream": (
        "llm = fastdllm.LLM(sys.argv[1], threads=1)\n"
        "stream = llm.stream('How many?', fastdllm.GenerationConfig(max_new_tokens=400,"
        " block_length=8))\nnext(stream)",
        0,
    ),
    "daemon_threads": (
        "for n in range(4):\n"
        "    threading.Thread(target=engine.generate, args=([n], long, note), daemon=True)"
        ".start()\nstarted.wait()",
        0,
    ),
    "daemon_that_goes_on": (
        "def ask():\n    while True: engine.generate([1], short)\n"
        "for n in range(3): threading.Thread(target=ask, daemon=True).start()\ntime.sleep(0.05)",
        0,
    ),
    "daemon_in_logits": (
        "def ask():\n    while True: engine.logits([1] * 40, [0])\n"
        "threading.Thread(target=ask, daemon=True).start()\ntime.sleep(0.05)",
        0,
    ),
    "daemon_that_loads": (
        "threading.Thread(target=fastdllm.Engine, args=(sys.argv[1],), daemon=True).start()\n"
        "time.sleep(0.005)",
        0,
    ),
    "daemon_in_its_ids": (
        "def ids():\n    started.set()\n    while True:\n"
        "        time.sleep(0.001)\n        yield 1\n"
        "threading.Thread(target=engine.generate, args=(ids(), long), daemon=True).start()\n"
        "started.wait()",
        0,
    ),
    "daemon_with_timeout": (
        "request = engine.submit([1], long, note)\n"
        "threading.Thread(target=request.result, args=(60,), daemon=True).start()\nstarted.wait()",
        0,
    ),
    "thread": ("threading.Thread(target=engine.generate, args=([1], short, note)).start()", 0),
    "sys_exit": ("engine.submit([1], long, note)\nstarted.wait()\nsys.exit(3)", 3),
    "sys_exit_in_callback": ("engine.generate([1], long, lambda event: sys.exit(3))", 3),
    "sys_exit_in_thread": (
        "def ask():\n    engine.submit([1], long, note)\n    sys.exit(3)\n"
        "thread = threading.Thread(target=ask)\nthread.start()\nthread.join()",
        0,
    ),
    "os_exit": ("engine.submit([1], long, note)\nstarted.wait()\nos._exit(4)", 4),
    "os_exit_in_callback": ("engine.generate([1], long, lambda event: os._exit(4))", 4),
    "exception": (
        "engine.submit([1], long, note)\nstarted.wait()\nsys.excepthook = lambda *_: None\n1 / 0",
        1,
    ),
    "exception_in_callback": (
        "def fail(event): raise KeyError('mine')\nrequest = engine.submit([1], long, fail)\n"
        "try:\n    request.result()\nexcept KeyError:\n    pass",
        0,
    ),
    "exception_in_callback_unseen": (
        "def fail(event): raise KeyError('mine')\nengine.submit([1], long, fail)",
        0,
    ),
    "exception_in_done": (
        "def fail(): raise KeyError('mine')\nsys.unraisablehook = lambda *_: None\n"
        "engine.submit([1], short, None, fail)",
        0,
    ),
    "sigint": (
        "threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()\n"
        "try:\n    while True: engine.generate([1], long, note)\n"
        "except KeyboardInterrupt:\n    pass",
        0,
    ),
    "atexit_first": (
        "atexit.register(lambda: engine.submit([1], long, note))\n"
        "atexit.register(engine.generate, [1], short)",
        0,
    ),
    "asyncio_cancelled": (
        "llm = fastdllm.LLM(sys.argv[1], threads=1)\n"
        "async def read():\n"
        "    async for event in llm.astream_events('How many?', long): pass\n"
        "async def main():\n"
        "    task = asyncio.create_task(read())\n    await asyncio.sleep(0.02)\n"
        "asyncio.run(main())",
        0,
    ),
    "loop_closed": (
        "llm = fastdllm.LLM(sys.argv[1], threads=1)\nloop = asyncio.new_event_loop()\n"
        "async def begin():\n    global events\n"
        "    events = llm.astream_events('How many?', long)\n"
        "    await anext(events)\n"
        "loop.run_until_complete(begin())\nloop.close()",
        0,
    ),
    "fork_then_leave": (
        "engine.submit([1], long, note)\nstarted.wait()\nchild = os.fork()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0",
        0,
    ),
    "fork_that_decodes": (
        "child = os.fork()\nengine.submit([1], long, note)\nstarted.wait()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0",
        0,
    ),
    "fork_with_an_engine_of_its_own": (
        "engine.submit([1], long, note)\nstarted.wait()\nchild = os.fork()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "else:\n    own = fastdllm.Engine(sys.argv[1], threads=1)\n"
        "    begun = threading.Event()\n"
        "    request = own.submit([1], long, lambda event: begun.set())\n    begun.wait()",
        0,
    ),
    "multiprocessing_fork": (
        "import multiprocessing\nengine.submit([1], long, note)\nstarted.wait()\n"
        "child = multiprocessing.get_context('fork').Process(target=int)\n"
        "child.start()\nchild.join()\nassert child.exitcode == 0",
        0,
    ),
    "multiprocessing_spawn": (
        "import multiprocessing\nengine.submit([1], long, note)\nstarted.wait()\n"
        "context = multiprocessing.get_context('spawn')\n"
        "child = context.Process(target=fastdllm.Engine, args=(sys.argv[1],))\n"
        "child.start()\nchild.join()\nassert child.exitcode == 0",
        0,
    ),
    "subprocess": (
        "import subprocess\nengine.submit([1], long, note)\nstarted.wait()\n"
        "subprocess.run([sys.executable, '-c', 'import fastdllm'], check=True)",
        0,
    ),
    "fork_in_callback": (
        "def split(event):\n    child = os.fork()\n    if child == 0: os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "assert len(engine.generate([1], short, split).token_ids) == 4",
        0,
    ),
    "fork_in_callback_that_leaves": (
        "def split(event):\n    child = os.fork()\n    if child == 0: sys.exit(3)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "assert len(engine.generate([1], short, split).token_ids) == 4",
        0,
    ),
    "fork_in_callback_that_returns": (
        "def split(event):\n    child = os.fork()\n"
        "    if child: assert os.waitpid(child, 0)[1] == 0\n"
        "assert len(engine.generate([1], short, split).token_ids) == 4",
        0,
    ),
    "fork_in_done": (
        "def split():\n    child = os.fork()\n    if child == 0: os._exit(0)\n"
        "    os.waitpid(child, 0)\nengine.submit([1], short, None, split).result()",
        0,
    ),
    "engine_deleted": (
        "request = engine.submit([1], long, note)\nstarted.wait()\ndel engine, request",
        0,
    ),
    "cancelled": (
        "request = engine.submit([1], long, note, started.set)\nrequest.cancel()",
        0,
    ),
    "cycle": (
        "request = None\nclass Cycle:\n    def __call__(self, event): self.request = request\n"
        "cycle = Cycle()\nrequest = cycle.request = engine.submit([1], long, cycle)\ndel cycle",
        0,
    ),
}


class Run(NamedTuple):
    """One script's end. problem: what was not as it should be, or ""."""

    name: str
    late: bool
    problem: str


def build_late_gil(folder: Path) -> tuple[Path | None, str]:
    """Build the library to preload; (None, the reason) where that cannot work here."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None, "no C compiler builds the library that makes the GIL late"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return None, "this Python is linked statically: a preloaded library is not asked"
    library = folder / "liblate_gil.so"
    source = Path(__file__).with_name("late_gil.c")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
    )
    return library, ""


def leave(name: str, package: Path, library: Path | None = None) -> Run:
    """Run a script by its name to its end."""
    program, status = SCRIPTS[name]
    preload = {} if library is None else {"LD_PRELOAD": str(library)}
    late = library is not None
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + program, str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **preload},
        start_new_session=True,
    ) as child:
        try:
            said, _ = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            said, _ = child.communicate()
            return Run(name, late, f"still there after {PATIENCE} s: {said}")
    if child.returncode != status or said:
        return Run(name, late, f"exit status {child.returncode}, expected {status}: {said}")
    return Run(name, late, "")


def leave_often(package: Path, count: int, library: Path | None, jobs: int) -> Iterator[Run]:
    """Run `count` scripts in turn, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        names = itertools.islice(itertools.cycle(SCRIPTS), count)
        yield from pool.map(
            lambda numbered: leave(
                numbered[1], package, library if numbered[0] // len(SCRIPTS) % 2 == 0 else None
            ),
            enumerate(names),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=4, help="scripts at a time")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="for the library")
    args = parser.parse_args()
    library, reason = build_late_gil(args.folder)
    if library is None:
        print(f"without the late GIL: {reason}")
    failed = 0
    for run in leave_often(args.package, args.count, library, args.jobs):
        if run.problem:
            failed += 1
            print(f"{run.name}{' (late GIL)' if run.late else ''}: {run.problem}", flush=True)
    print(f"{args.count} runs of {len(SCRIPTS)} scripts: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
