"""A look at every pass: python callbacks.py PACKAGE PROMPT [PASSES].

Shows the answer after each pass, masks as dots, and how sure the model was. After PASSES passes the
callback ends the answer.
"""

from __future__ import annotations

import sys

import fastdllm


def main(package: str, prompt: str, max_passes: int) -> None:
    """Print a line per pass, and how the answer ended."""
    llm = fastdllm.LLM(package)
    config = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
    tokens: dict[int, str] = {}

    def show(event: fastdllm.CommitEvent) -> bool:
        """Run on the engine's thread, so return soon. False ends the answer."""
        for position, token in zip(event.positions, event.token_ids, strict=True):
            tokens[int(position)] = llm.codec.decode([int(token)])
        text = "".join(tokens.get(at, "·") for at in range(event.block_end))
        print(f"pass {event.step + 1}, least confidence {event.confidences.min():.2f}: {text!r}")
        return event.step + 1 < max_passes

    answer = llm.generate(prompt, config, on_commit=show)
    print(answer.finish_reason, repr(answer.text))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python callbacks.py PACKAGE PROMPT [PASSES]")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 1000)
