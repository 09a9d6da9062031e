"""An engine inside a program with a tokenizer and a queue of its own: python embedding.py PACKAGE.

Token ids in, token ids out. A request is submitted without waiting; the callback that it is done
runs on the engine's thread and hands its number to the program's own queue.
"""

from __future__ import annotations

import queue
import sys
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

import fastdllm

QUESTIONS = [
    "Sam had 27 balls, bought 9 and lost 7. How many are left?",
    "Zoe had 11 shells, bought 3 and lost 3. How many are left?",
]


def main(package: str) -> None:
    """Answer the questions in the order in which they are done."""
    tokenizer = Tokenizer.from_file(str(Path(package) / "tokenizer.json"))
    engine = fastdllm.Engine(package, max_batch=4, max_waiting=16, cache_bytes=2**28)
    config = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    requests = []
    for number, question in enumerate(QUESTIONS):
        # The format of the shipped model's conversations; yours is in PACKAGE/chat_template.jinja.
        text = (
            "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n"
            f"{question}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        )
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        finished = partial(done.put, number)
        try:
            requests.append(engine.submit(ids, config, on_done=finished))
        except fastdllm.OverloadedError as problem:  # the queue is full: ask later
            sys.exit(str(problem))
    for _ in requests:
        number = done.get()
        result = requests[number].result()
        print(QUESTIONS[number], "->", tokenizer.decode(result.token_ids.tolist()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python embedding.py PACKAGE")
    main(sys.argv[1])
