"""A file of prompts, answered together: python batch.py PACKAGE PROMPTS, one prompt a line.

Prints a line of JSON for each, in their order. For data sets that outlive a process see
fastdllm.ray.batch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fastdllm


def main(package: str, prompts: Path) -> None:
    """Answer all; `max_batch` of them are decoded at the same time, the others wait."""
    llm = fastdllm.LLM(package, max_batch=16)
    config = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
    lines = prompts.read_text("utf-8").splitlines()
    for prompt, answer in zip(lines, llm.generate(lines, config), strict=True):
        row = {"prompt": prompt, "text": answer.text, "passes": answer.num_passes}
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python batch.py PACKAGE PROMPTS")
    main(sys.argv[1], Path(sys.argv[2]))
