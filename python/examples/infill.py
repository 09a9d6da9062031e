"""A text with gaps: python infill.py PACKAGE. What is given never changes."""

from __future__ import annotations

import sys

import fastdllm


def main(package: str) -> None:
    """Fill two gaps; a gap is a number of tokens, which is filled to its end."""
    llm = fastdllm.LLM(package)
    draft = llm.infill(
        ["There are 3 * 4 = ", 2, " apples. ", 8, " are left."],
        prompt="Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?",
    )
    print(draft.text)
    print("filled:", draft.filled, "in", draft.num_passes, "passes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python infill.py PACKAGE")
    main(sys.argv[1])
