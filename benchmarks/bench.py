"""Runs the benchmark suite: every contender of every scenario, as ratios within one run.

    python benchmarks/bench.py [SCENARIO ...] [--group short|full --repeat 3 --output FILE]

A contender decodes in a process of its own; the contenders of a scenario take turns `repeat` times,
so that whatever else the machine does falls on all alike. Checkpoints and packages are made once in
--folder. The report has every repeat's numbers, and is written after every scenario ("finished":
false, until the last); exit code 1 means that tokens or passes differ where they must not, or that
a contender failed. compare.py shows and compares reports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench_models import Models
from bench_report import Run, all_agree, summarize
from compare import show
from measuring import RESULTS, ROOT, head
from scenarios import CONTENDERS, FILE, Contender, Scenario, chosen, read

from fastdllm.output import check_writable, write_whole

WORKER = Path(__file__).resolve().parent / "bench_worker.py"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def job_of(scenario: Scenario, contender: Contender, models: Models) -> dict[str, Any]:
    """State what a worker needs to know."""
    made: dict[str, Any] = {"checkpoint": str(models.checkpoint(scenario.model))}
    if not contender.torch:
        made["package"] = str(models.package(scenario.model, contender.precision))
    return made | {
        "torch": contender.torch,
        "naive": contender.naive,
        "compiled": contender.compiled,
        "config": scenario.config_for(contender),
        "threads": scenario.threads,
        "batch": scenario.batch,
        "eos_token_ids": models.eos_token_ids(scenario.model),
        "prompts": models.prompts(scenario),
    }


def run_worker(job: dict[str, Any], folder: Path) -> Run:
    """Decode in a process of its own; what goes wrong there is on stderr.

    Errors: CalledProcessError; ValueError, it printed no JSON.
    """
    compiled = str((folder / "inductor").absolute())  # what torch.compile made, for later repeats
    done = subprocess.run(
        [sys.executable, str(WORKER)],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": compiled},
    )
    found = json.loads(done.stdout)
    if not isinstance(found, dict):
        raise ValueError(f"it printed {done.stdout.strip()[:80]}")
    return found


def run_scenario(
    scenario: Scenario, models: Models, repeat: int, folder: Path, failures: list[str]
) -> dict[str, Any]:
    """Let the contenders take turns, every other time the last one first.

    One that fails, or whose model cannot be made, is named in failures and left out.
    """
    jobs: dict[str, dict[str, Any]] = {}
    for name in scenario.contenders:
        try:
            jobs[name] = job_of(scenario, CONTENDERS[name], models)
        except Exception as problem:  # whatever an export may raise: the others go on
            say(f"{scenario.name} {name}: failed: {type(problem).__name__}: {problem}")
            failures.append(f"{scenario.name} {name}")
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for turn in range(repeat):
        order = list(jobs.items())
        for name, job in reversed(order) if turn % 2 else order:
            if name not in runs:
                continue
            start = time.perf_counter()
            try:
                run = run_worker(job, folder)
            except (subprocess.CalledProcessError, ValueError) as problem:
                told = f": {problem}"
                if isinstance(problem, subprocess.CalledProcessError):
                    told = f" with exit code {problem.returncode}"
                say(f"{scenario.name} {name}: failed{told}")
                failures.append(f"{scenario.name} {name}")
                del runs[name]
                continue
            runs[name].append(run)
            say(
                f"{scenario.name} {turn + 1}/{repeat} {name}: {run['tokens_per_second']:.1f}"
                f" tokens/s ({time.perf_counter() - start:.0f} s with loading and warm-up)"
            )
    return summarize(scenario, runs)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help="instead of a group")
    parser.add_argument("--group", default="full", help="short or full (default)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scenarios", type=Path, default=FILE, help="scenarios.json")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "bench", help="of models, made once"
    )
    parser.add_argument(
        "--output", type=Path, help="default: results/bench.json for full, else FOLDER/bench.json"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and groups")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat: at least 1")
    try:
        options.every = read(options.scenarios)
        options.chosen = chosen(options.every, options.names, options.group)
    except (OSError, ValueError, TypeError) as problem:
        parser.error(str(problem))
    if options.output is None:
        whole = options.group == "full" and not options.names and options.scenarios == FILE
        options.output = (RESULTS if whole else options.folder) / "bench.json"
    return options


def write(report: dict[str, Any], path: Path) -> None:
    text = json.dumps(report, indent=1) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, "utf-8"))


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        for one in options.every:
            print(f"{one.name:28}{','.join(one.groups):14}{' '.join(one.contenders)}")
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    check_writable({"--output": options.output})
    load = os.getloadavg()
    models = Models(options.folder, say)
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    what = " ".join(options.names) or f"--group {options.group}"
    report = head(
        command=f"python benchmarks/bench.py {what} --repeat {options.repeat}",
        load_average=[round(value, 2) for value in load],
        repeat=options.repeat,
        finished=False,
        failures=failures,
        scenarios=found,
    )
    for scenario in options.chosen:
        found.append(run_scenario(scenario, models, options.repeat, options.folder, failures))
        report["finished"] = len(found) == len(options.chosen)
        write(report, options.output)
    print(show(report))
    say(f"written: {options.output}")
    return 0 if all_agree(report) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted: the report has the scenarios before, if any, and is unfinished")
        sys.exit(130)
