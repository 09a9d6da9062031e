"""Measures a cold start: a process begins, loads a package and runs one pass of a block of 32.

    python benchmarks/cold_start.py PACKAGE [--build build/dev --repeat 15 --output FILE]

In C++ (cold_start.cpp, compiled here against the libraries in the build folder) and in
Python, without text (token ids) and with it (the tokenizer is read and a prompt encoded). Every
number is the median over fresh processes, the ways take turns. process_ms: from spawning the
process to its end; import_ms, engine_ms, text_ms, first_pass_ms: parts of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import ROOT, head

from fastdllm.engine import find_onnxruntime
from fastdllm.output import check_writable, write_whole

PYTHON = """
import json, sys, time
start = time.perf_counter()
package, threads, text = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
if text:
    from fastdllm import LLM, GenerationConfig
else:
    from fastdllm import Engine, GenerationConfig
imported = time.perf_counter()
if text:
    llm = LLM(package, threads=threads)
    engine = llm.engine
else:
    engine = Engine(package, threads=threads)
loaded = time.perf_counter()
ids = list(range(40))
if text:
    ids = llm.encode("Tom has 3 boxes of 4 apples and gives 5 away.", raw=True)
encoded = time.perf_counter()
result = engine.generate(ids, GenerationConfig(max_new_tokens=32, steps=1))
ended = time.perf_counter()
print(json.dumps({
    "import_ms": 1e3 * (imported - start), "engine_ms": 1e3 * (loaded - imported),
    "text_ms": 1e3 * (encoded - loaded), "first_pass_ms": 1e3 * (ended - encoded),
    "passes": result.num_passes, "backend": engine.backend,
}))
"""


def compile_program(build: Path, folder: Path) -> Path:
    program = folder / "cold_start"
    command = ["c++", "-std=c++20", "-O2", str(ROOT / "benchmarks/cold_start.cpp")]
    for include in (ROOT / "cpp/include", build / "cpp/include"):
        command.append(f"-I{include}")
    for library in (build / "cpp/src/text", build / "cpp"):
        command += [f"-L{library}", f"-Wl,-rpath,{library}"]
    libraries = ["-lfastdllm_text", "-lfastdllm", "-lpcre2-8", "-lutf8proc", "-ldl", "-pthread"]
    subprocess.run([*command, "-o", str(program), *libraries], check=True)
    return program


def run(command: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - start
    found: dict[str, Any] = json.loads(output)
    assert found["passes"] == 1
    return found | {"process_ms": 1e3 * seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--build", type=Path, default=ROOT / "build/dev")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    check_writable({"--output": options.output})
    os.environ["FASTDLLM_ONNXRUNTIME"] = find_onnxruntime()
    load = os.getloadavg()
    arguments = [str(options.package), str(options.threads)]
    with tempfile.TemporaryDirectory() as folder:
        program = str(compile_program(options.build.absolute(), Path(folder)))
        python = [sys.executable, "-c", PYTHON]
        ways = {
            "C++, ids": [program, *arguments, "0"],
            "C++, text": [program, *arguments, "1"],
            "Python, ids": [*python, *arguments, "0"],
            "Python, text": [*python, *arguments, "1"],
        }
        for command in ways.values():
            run(command)  # files come into the page cache
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for _ in range(options.repeat):
            for name, command in ways.items():
                found[name].append(run(command))
    parts = ("process_ms", "import_ms", "engine_ms", "text_ms", "first_pass_ms")
    rows = {
        name: {part: statistics.median(run.get(part, 0.0) for run in runs) for part in parts}
        for name, runs in found.items()
    }
    print(f"{'milliseconds':14}" + "".join(f"{part.removesuffix('_ms'):>12}" for part in parts))
    for name, row in rows.items():
        print(f"{name:14}" + "".join(f"{row[part]:12.1f}" for part in parts))
    if options.output is not None:
        report = head(
            command=f"python benchmarks/cold_start.py {options.package}",
            load_average=[round(value, 2) for value in load],
            backend=found["C++, ids"][0]["backend"],
            config={
                "package": options.package.name,
                "repeat": options.repeat,
                "threads": options.threads,
            },
            ways=rows,
        )
        text = json.dumps(report, indent=1) + "\n"
        write_whole(options.output, lambda path: path.write_text(text, "utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
