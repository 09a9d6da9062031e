"""Writes what benchmarks/results say into docs/performance.md and README.md, between their marks.

    python benchmarks/readme.py [--check]

--check writes nothing; exit code 1: a page is not what the results give, or bench.json is
unfinished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_report import ratio
from measuring import RESULTS, ROOT
from targets import HEADER, judge, results_beside, rows_of, sources

from fastdllm.output import write_whole

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
NAMES = {
    "fastdllm_naive": "fastdllm, no cache, one token per pass",
    "fastdllm_int8": "fastdllm, int8",
    "fastdllm_int4": "fastdllm, int4",
    "fastdllm_bf16": "fastdllm, bf16",
    "fastdllm_fp16": "fastdllm, fp16",
    "torch_naive": "torch, no cache, one token per pass",
    "torch_eager": "torch",
    "torch_compile": "torch, compiled",
}
BASELINES = {
    "torch_eager": "over torch",
    "torch_compile": "over torch.compile",
    "torch_naive": "over naive torch",
}
MODELS = {
    "tiny_math": "shipped",
    "tiny_math_1024": "shipped, context 1024",
    "100m": "100M",
    "350m": "350M",
}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as Markdown; the first row is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{' --- |' * len(rows[0])}")
    return "\n".join(lines)


def what(config: dict[str, Any], *, naive: bool = False) -> str:
    """State a scenario in a few words. naive: as those decode it who take one token per pass."""
    rules = {
        "threshold": "threshold {:g}",
        "factor": "factor {:g}",
        "steps_per_block": "{} steps per block",
    }
    said = [MODELS.get(config["model"], config["model"])]
    if naive:
        said.append("no cache, one token per pass")
    else:
        said.append("no cache" if config["cache"] == "none" else config["cache"])
        said += [text.format(config[key]) for key, text in rules.items() if key in config]
    said += [f"prompt of {config['prompt_length']}"] if config.get("prompt_length") else []
    said.append(f"{config['max_new_tokens']} new")
    said += [] if config.get("ignore_eos") else ["ends at end-of-text"]
    said += [f"{config['threads']} thread"] if config["threads"] == 1 else []
    said += [f"batch {config['batch']}"] if config["batch"] > 1 else []
    return ", ".join(said)


def rows_of_report(report: dict[str, Any]) -> list[list[str]]:
    """Return a row per scenario and contender of fastdllm's, with its ratios over torch's loops."""
    header = ["scenario", "passes", "tokens/s", *BASELINES.values()]
    rows = [[*header, "TTFT, ms", "memory, MB", "of torch's"]]
    for scenario in report["scenarios"]:
        every = {one["name"]: one for one in scenario["contenders"]}
        there = [every[name] for name in BASELINES if name in every]
        for name, one in every.items():
            if name in BASELINES:
                continue
            label = what(scenario["config"], naive=name == "fastdllm_naive")
            if one["precision"] != "fp32":
                label += f", {one['precision']}"
            if there and not scenario["config"].get("ignore_eos"):
                label += "; the torch loops, as their authors', decode on behind that token"
            over = [
                f"{ratio(one, every[base], 'tokens_per_second'):.1f}" if base in every else ""
                for base in BASELINES
            ]
            rows.append(
                [
                    label,
                    f"{one['passes'] / scenario['config']['prompts']:.1f}",
                    f"{one['tokens_per_second']:.0f}",
                    *over,
                    f"{one['ttft_ms']:.1f}",
                    f"{one['peak_bytes'] / 1e6:.0f}",
                    f"{ratio(one, there[0], 'peak_bytes'):.2f}" if there else "",
                ]
            )
    return rows


def section(folder: Path) -> str:
    """Return what stands between the marks."""
    path = folder / "bench.json"
    if not path.exists():
        return "Against torch loops of the same method: `make bench` measures it."
    results = results_beside(path)
    report = results["bench"]
    machine = report["machine"]
    versions = report["versions"]
    picture = folder / "bench.svg"
    parts = [
        "Against torch loops of the same method, written from the papers, in one run, each"
        " contender in a process of its own\n"
        f"(`{report['command']}`, median of {report['repeat']} turns;\n"
        "passes per answer, tokens/s and how many times the loops' that is, peak memory;\n"
        f"{machine['cores']} cores of an {machine['processor']}, ONNX Runtime"
        f" {versions['onnxruntime']}, torch {versions['torch']}, {report['date']},"
        " [results](../benchmarks/results/bench.json)):",
        markdown(rows_of_report(report)),
    ]
    if picture.exists():
        parts.append("![Tokens/s of every contender](../benchmarks/results/bench.svg)")
    parts.append("What was aimed at (`python benchmarks/targets.py`):")
    parts.append(markdown([HEADER, *rows_of(judge(results))]))
    parts.append("Measured at " + "; ".join(f"`{one}`" for one in sources(results)) + ".")
    return "\n\n".join(parts)


def span(found: Sequence[float]) -> str:
    """Return the least and the largest number, or one where they are the same."""
    least, most = f"{min(found):.1f}", f"{max(found):.1f}"
    return least if least == most else f"{least} to {most}"


def summary(folder: Path) -> str:
    """Return the sentences that README.md has instead of the tables."""
    path = folder / "bench.json"
    if not path.exists():
        return section(folder)
    report = results_beside(path)["bench"]
    machine = report["machine"]
    over: dict[str, dict[str, list[float]]] = {base: {} for base in BASELINES}
    for scenario in report["scenarios"]:
        every = {one["name"]: one for one in scenario["contenders"]}
        model = MODELS.get(scenario["config"]["model"], scenario["config"]["model"])
        for base, found in over.items():
            if base in every and "fastdllm" in every and scenario["config"].get("ignore_eos"):
                one = ratio(every["fastdllm"], every[base], "tokens_per_second")
                found.setdefault(model, []).append(one)
    eager, naive = (
        ", ".join(f"{model}: {span(found)}" for model, found in over[base].items())
        for base in ("torch_eager", "torch_naive")
    )
    return (
        f"Tokens/s over a torch loop of the same method ({eager}),\nand over a torch loop"
        f" without cache, one token per pass ({naive}):"
        f" `{report['command']}`, {machine['cores']} cores of an {machine['processor']},"
        f" {report['date']}."
    )


def rewritten(text: str, folder: Path, said: Callable[[Path], str] = section) -> str:
    """Return a page's text with what the folder's results give. Errors: ValueError."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page needs {BEGIN} and {END}, once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{said(folder)}\n{END}{after}"


PAGES = {ROOT / "docs" / "performance.md": section, ROOT / "README.md": summary}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say if it is right")
    options = parser.parse_args(arguments)
    outdated = 0
    for path, said in PAGES.items():
        text = path.read_text("utf-8")
        try:
            wanted = rewritten(text, RESULTS, said)
        except ValueError as problem:
            print(f"readme: error: {path.name}: {problem}", file=sys.stderr)
            return 1
        if options.check:
            is_right = text == wanted
            outdated += not is_right
            print(f"{path.name} is {'what the results give' if is_right else 'outdated'}")
        else:
            write_whole(path, lambda beside, wanted=wanted: beside.write_text(wanted, "utf-8"))
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
