"""A conversation: python chat.py PACKAGE. Each line of standard input is a turn.

A model that holds conversations sees the earlier turns. The model that ships with the project
answers single questions: `--single` forgets them.
"""

from __future__ import annotations

import argparse
import sys

import fastdllm
from fastdllm.text import Message


def main() -> None:
    """Answer line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package")
    parser.add_argument("--single", action="store_true", help="each line is a new conversation")
    options = parser.parse_args()
    llm = fastdllm.LLM(options.package)
    messages: list[Message] = []
    for line in sys.stdin:
        messages.append({"role": "user", "content": line.strip()})
        answer = ""
        for piece in llm.stream(messages):  # text as it becomes final
            print(piece, end="", flush=True)
            answer += piece
        print()
        messages.append({"role": "assistant", "content": answer})
        if options.single:
            messages.clear()


if __name__ == "__main__":
    main()
