"""Log-probabilities of an answer's tokens, in OpenAI's two forms."""

from __future__ import annotations

from fastdllm.answer import Completion
from fastdllm.serve.responses import ChatLogprobs, TextLogprobs, TokenLogprob
from fastdllm.text import TextCodec, TextStream

_LEAST = -9999.0  # what OpenAI's API says for a probability of 0: JSON has no infinities


def chat_logprobs(codec: TextCodec, completion: Completion) -> ChatLogprobs:
    """Return them for a chat. bytes: None for a token that is a part of a character."""
    return ChatLogprobs(
        content=[
            TokenLogprob(
                token=text,
                bytes=None if "\ufffd" in text else list(text.encode()),
                logprob=value,
                top_logprobs=[],
            )
            for text, value in _tokens(codec, completion)
        ]
    )


def text_logprobs(codec: TextCodec, completion: Completion) -> TextLogprobs:
    """Return them for a completion. text_offset: where a token begins in the text."""
    tokens = _tokens(codec, completion)
    offsets = []
    text = TextStream(codec, ())  # a special token takes no character of it
    for position, token in enumerate(completion.token_ids.tolist()):
        offsets.append(min(len(text.text), len(completion.text)))
        text.push([position], [token])
    return TextLogprobs(
        tokens=[text for text, _ in tokens],
        token_logprobs=[value for _, value in tokens],
        text_offset=offsets,
    )


def _tokens(codec: TextCodec, completion: Completion) -> list[tuple[str, float]]:
    pairs = zip(completion.token_ids.tolist(), completion.logprobs.tolist(), strict=True)
    return [(codec.decode_token(token), max(value, _LEAST)) for token, value in pairs]
