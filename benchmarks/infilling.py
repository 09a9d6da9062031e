"""Blanks a part of the model's own answers and has it filled in again, with every cache.

    python benchmarks/infilling.py PACKAGE PROBLEMS [--count 200 --threads 2 --output FILE]

An answer is what the model says to a problem (dual cache, threshold 0.9), its end-of-text token
included. Blanked are the middle third of its tokens, or that and the final number behind ####: two
gaps, of which the second follows from the first. Prompt, rest and gaps go to Engine.infill with
threshold 0.9. An answer is right if its final number is and every equation in it holds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from fastdllm import LLM, GenerationConfig
from fastdllm.bench import table
from fastdllm.problems import Problem, is_right, read_problems

CACHES = ("none", "prefix", "dual", "auto")
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else None,
}


def holds(text: str) -> bool:
    """Tell whether every equation is true, and whether there is one at all."""
    found = EQUATION.findall(text)
    return bool(found) and all(OPERATIONS[op](int(a), int(b)) == int(c) for a, op, b, c in found)


def blanked(ids: list[int], mark: int) -> dict[str, set[int]]:
    """Return the indices that are blanked, by the name of the gap. mark: the token ####."""
    middle = set(range(len(ids) // 3, 2 * len(ids) // 3))
    number = set(range(ids.index(mark) + 1, len(ids) - 1)) if mark in ids else set()
    return {"middle third": middle, "middle third and final number": middle | number}


def measure(llm: LLM, problems: list[Problem]) -> list[dict[str, Any]]:
    mask = llm.engine.package.mask_token_id
    (mark,) = llm.codec.encode("####")
    config = GenerationConfig(max_new_tokens=64, threshold=0.9, cache="dual")
    answers = llm.generate([problem.prompt for problem in problems], config)
    before = [is_right(a.text, p.answer or "") for a, p in zip(answers, problems, strict=True)]
    rows = [{"gap": "none: the answers themselves", "right": sum(before)}]
    gaps = [blanked(answer.token_ids.tolist(), mark) for answer in answers]
    for name in gaps[0]:
        for cache in CACHES:
            config = GenerationConfig(threshold=0.9, cache=cache)
            prompts = [llm.encode(problem.prompt) for problem in problems]
            requests = []
            for prompt, answer, gap in zip(prompts, answers, gaps, strict=True):
                ids = enumerate(answer.token_ids.tolist())
                canvas = prompt + [mask if i in gap[name] else one for i, one in ids]
                requests.append(llm.engine.submit_infill(canvas, config))
            row = {"gap": name, "cache": cache, "right": 0, "same": 0, "passes": 0, "blanked": 0}
            for i, request in enumerate(requests):
                result = request.result()
                text = llm.codec.decode(result.token_ids[len(prompts[i]) :])
                row["right"] += is_right(text, problems[i].answer or "") and holds(text)
                row["same"] += text == answers[i].text
                row["passes"] += result.num_passes
                row["blanked"] += len(gaps[i][name])
            rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the counts as JSON")
    options = parser.parse_args()
    problems = read_problems(options.problems)[: options.count]
    rows = measure(LLM(options.package, threads=options.threads), problems)
    count = len(problems)
    print(f"{count} answers, {rows[0]['right'] / count:.1%} of them right before\n")
    shown = [["gap", "cache", "right again", "same text", "tokens blanked", "passes"]]
    for row in rows[1:]:
        shares = [f"{row[key] / count:.1%}" for key in ("right", "same")]
        means = [f"{row['blanked'] / count:.1f}", f"{row['passes'] / count:.2f}"]
        shown.append([row["gap"], row["cache"], *shares, *means])
    print(table(shown))
    if options.output is not None:
        content = {"problems": count, "rows": rows}
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
