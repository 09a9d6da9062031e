"""A text with gaps, as ids with mask tokens, and the completion of the filled text."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from fastdllm._core import ConfigError, GenerationResult, PackageInfo
from fastdllm.answer import Completion
from fastdllm.text import TextCodec


def gap_ids(package: PackageInfo, length: int, others: int, name: str) -> list[int]:
    """Return a gap's mask tokens. others: how many tokens stand beside it so far.

    Errors: ConfigError, which begins with `name`, for more than the context or memory can hold.
    """
    room = max(package.max_context_length - others, 0)
    if length > room:
        raise ConfigError(
            f"{name} is a gap of {length} tokens beside {others}; the model's context of"
            f" {package.max_context_length} has room for {room}"
        )
    try:
        return [package.mask_token_id] * length
    except MemoryError:
        raise ConfigError(
            f"{name} is a gap of {length} tokens: there is no memory for it"
        ) from None


class InfillCanvas:
    """What an infill asks the engine for. ids: the prompt's, then the parts', gaps as masks."""

    def __init__(
        self,
        codec: TextCodec,
        prompt_ids: Sequence[int],
        parts: Sequence[str | int],
        package: PackageInfo,
    ) -> None:
        """parts: text, which stays as it is, or a gap of n tokens.

        Errors: TypeError; ConfigError for a text or a prompt that holds the mask token, and for
        gaps that are longer than the model's context or than memory can hold.
        """
        if isinstance(parts, str | bytes) or not isinstance(parts, Sequence):
            raise TypeError(f"parts is {parts!r}; expected a list of str (text) and int (gaps)")
        mask_token_id = package.mask_token_id
        if mask_token_id in prompt_ids:
            raise ConfigError("the prompt holds the mask token; expected gaps in the parts only")
        self.ids = list(prompt_ids)
        self._codec = codec
        self._start = len(prompt_ids)
        self._gaps: list[slice] = []
        for number, part in enumerate(parts):
            if isinstance(part, str):
                added = codec.encode(part)
                if mask_token_id in added:
                    raise ConfigError(f"parts[{number}] is {part!r}; write a gap as a number")
            else:
                length = operator.index(part)
                if length < 1:
                    raise ConfigError(f"parts[{number}] is {part}; expected a gap of 1 or more")
                added = gap_ids(package, length, len(self.ids), f"parts[{number}]")
                self._gaps.append(slice(len(self.ids), len(self.ids) + len(added)))
            try:
                self.ids += added
            except MemoryError:
                raise ConfigError(
                    f"parts[{number}] makes the canvas {len(self.ids) + len(added)} tokens long:"
                    " there is no memory for it"
                ) from None

    def filled(self, result: GenerationResult) -> Completion:
        """Return the whole text, without the prompt, and each gap's."""
        filled = sum(gap.stop - gap.start for gap in self._gaps)
        return Completion(
            text=self._codec.decode(result.token_ids[self._start :]),
            token_ids=result.token_ids[self._start :],
            logprobs=result.logprobs[self._start :],
            finish_reason=result.finish_reason,
            stop=None,
            num_passes=result.num_passes,
            prompt_tokens=len(self.ids) - filled,
            completion_tokens=filled,
            stats=result.stats,
            filled=tuple(self._codec.decode(result.token_ids[gap]) for gap in self._gaps),
        )
