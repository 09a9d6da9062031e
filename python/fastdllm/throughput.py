"""Tokens and passes of an evaluation: up to the answer's end, and as Fast-dLLM's paper counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastdllm._core import PackageInfo
from fastdllm.answer import Completion
from fastdllm.text import TextCodec, TextStream


@dataclass(kw_only=True)
class Throughput:
    """Sums over answers.

    answer_tokens: new tokens of the answers as they are judged: no end-of-text token, no padding,
    nothing from a stop string on. paper_tokens: the answer's text with its special tokens, cut at
    the stop strings and tokenized again, without padding tokens (Fast-dLLM, arXiv 2505.22618, and
    its evaluation code): other special tokens, and what a model wrote behind its end, count.
    seconds: wall time of generate_until, texts and tokens included; loading is not.
    """

    answers: int = 0
    answer_tokens: int = 0
    paper_tokens: int = 0
    passes: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, with rates; those that nothing was measured for are null."""
        return {
            "answers": self.answers,
            "answer_tokens": self.answer_tokens,
            "paper_tokens": self.paper_tokens,
            "passes": self.passes,
            "seconds": self.seconds,
            "tokens_per_second": _rate(self.answer_tokens, self.seconds),
            "paper_tokens_per_second": _rate(self.paper_tokens, self.seconds),
            "tokens_per_forward": _rate(self.answer_tokens, self.passes),
            "passes_per_answer": _rate(self.passes, self.answers),
        }

    def __str__(self) -> str:
        facts = self.to_dict()
        if not self.answers or not self.seconds:
            return "nothing generated"
        return (
            f"{self.answers} answers in {self.seconds:.1f} s: {self.answer_tokens} new tokens up to"
            f" their ends, {facts['tokens_per_second']:.1f} tokens/s; as the paper counts"
            f" {self.paper_tokens} tokens, {facts['paper_tokens_per_second']:.1f} tokens/s;"
            f" {facts['passes_per_answer']:.2f} passes per answer,"
            f" {facts['tokens_per_forward']:.2f} tokens per forward"
        )


def judged_text(
    codec: TextCodec, ids: Sequence[int], stop_ids: Sequence[int], stop: Sequence[str]
) -> tuple[str, int]:
    """Return an answer's text up to its end-of-text token or stop string, and its tokens' number.

    It ends there whatever the engine computed behind it (ignore_eos).
    """
    stream = TextStream(codec, stop_ids, stop)
    stream.push(range(len(ids)), ids)
    stream.finish()
    return stream.text, stream.tokens_of(stream.text)


def paper_tokens(
    codec: TextCodec, info: PackageInfo, completion: Completion, stop: Sequence[str]
) -> int:
    """Count a completion's tokens as the paper's evaluation does."""
    text = completion.text
    if completion.stop is None:
        text = codec.tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=False)
        for string in stop:
            text = text.split(string, 1)[0]
    padding = info.pad_token_id
    if padding is None:
        padding = next(iter(info.eos_token_ids), None)
    return sum(token != padding for token in codec.encode(text))


def _rate(amount: int, over: float) -> float | None:
    return amount / over if over else None
