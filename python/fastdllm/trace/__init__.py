"""What each pass of an answer did, as data, as an HTML file (`html`) and as a picture (`png`)."""

from __future__ import annotations

from fastdllm.trace.document import (
    MASK,
    AnswerCost,
    Canvas,
    CompletionFacts,
    PassFacts,
    TraceDocument,
    current_text,
    describe_completion,
    make_trace,
)

__all__ = [
    "MASK",
    "AnswerCost",
    "Canvas",
    "CompletionFacts",
    "PassFacts",
    "TraceDocument",
    "current_text",
    "describe_completion",
    "make_trace",
]
