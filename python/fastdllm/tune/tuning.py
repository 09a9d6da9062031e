"""Sweeps decoding rules over the user's prompts: quality against passes.

A setting is a rule with its number (threshold 0.9) and a cache. All of them answer the same
problems, many at once, beside the most careful setting: one token per pass without a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastdllm._core import ConfigError, Error, GenerationConfig
from fastdllm.bench import table
from fastdllm.problems import Problem, agreement, is_right

if TYPE_CHECKING:
    from fastdllm.answer import Completion
    from fastdllm.llm import LLM

CAREFUL = "one token per pass"
POLICIES: Mapping[str, tuple[float, ...]] = {
    "threshold": (0.5, 0.7, 0.8, 0.9, 0.95),
    "factor": (0.5, 0.75, 1.0, 1.5),
    "frechet": (0.05, 0.1, 0.25, 0.5),
    "entropy_bound": (0.01, 0.1, 0.5, 1.0),
    "steps_per_block": (),  # by the block's length, see policy_values()
}
CACHES = ("none", "prefix", "dual")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A rule (a field of GenerationConfig, or CAREFUL), its number, a cache; all as a config."""

    policy: str
    value: float | None
    cache: str
    config: GenerationConfig

    @property
    def name(self) -> str:
        """For people."""
        rule = self.policy if self.value is None else f"{self.policy} {self.value:g}"
        return f"{rule}, {self.cache}"

    @property
    def options(self) -> str:
        """The command-line options of `fastdllm generate` that ask for it, but the lengths."""
        rule = "" if self.value is None else f"--{self.policy.replace('_', '-')} {self.value:g} "
        return f"{rule}--cache {self.cache}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of a setting. quality: in [0, 1]. tokens: up to the ends of the answers."""

    setting: Setting
    quality: float
    answers: int
    tokens: int
    passes: int
    seconds: float

    @property
    def passes_per_answer(self) -> float:
        """Graph runs an answer would take alone."""
        return self.passes / self.answers

    @property
    def tokens_per_forward(self) -> float:
        """Tokens per pass."""
        return self.tokens / self.passes

    @property
    def tokens_per_second(self) -> float:
        """Of all requests together, which share graph runs."""
        return self.tokens / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.setting.name,
            "policy": self.setting.policy,
            "value": self.setting.value,
            "cache": self.setting.cache,
            "quality": self.quality,
            "passes_per_answer": self.passes_per_answer,
            "tokens_per_forward": self.tokens_per_forward,
            "tokens_per_second": self.tokens_per_second,
            "answers": self.answers,
            "tokens": self.tokens,
            "passes": self.passes,
            "seconds": self.seconds,
            "config": self.setting.config.to_dict(),
        }


def policy_values(policy: str, block_length: int) -> tuple[float, ...]:
    """Return the numbers that are tried of a policy when the user names none."""
    if policy == "steps_per_block":
        return tuple(block_length // part for part in (8, 4, 2) if block_length >= part)
    return POLICIES[policy]


def grid(
    policies: Mapping[str, Sequence[float]],
    caches: Sequence[str],
    *,
    max_new_tokens: int,
    block_length: int,
) -> list[Setting]:
    """Return the settings of a sweep, the most careful one first.

    policies: numbers by name of the rule; none = policy_values(). Errors: ConfigError for an
    unknown policy or cache, or a number that is not allowed.
    """

    def setting(policy: str, value: float | None, cache: str) -> Setting:
        rule: dict[str, Any] = {} if value is None else {policy: value}
        if policy == "steps_per_block" and value is not None:
            if value != int(value):
                raise ConfigError(f"steps_per_block is {value:g}; expected a whole number")
            rule = {policy: int(value)}
        config = GenerationConfig(
            max_new_tokens=max_new_tokens, block_length=block_length, cache=cache, **rule
        )
        return Setting(policy=policy, value=value, cache=cache, config=config)

    settings = [setting(CAREFUL, None, "none")]
    for policy, values in policies.items():
        if policy not in POLICIES:
            raise ConfigError(f"policy is {policy!r}; expected one of {', '.join(POLICIES)}")
        for value in values or policy_values(policy, block_length):
            settings += [setting(policy, value, cache) for cache in caches]
    return settings


def sweep(
    llm: LLM,
    problems: Sequence[Problem],
    settings: Sequence[Setting],
    *,
    raw: bool = False,
    on_progress: Callable[[int, int], None] = lambda setting, answers: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Answer all problems in every setting; the first setting is the reference.

    The quality of a setting is the mean of its answers': 1 or 0 where the problem's answer is known
    (is_right), else the agreement of the tokens with the reference's. on_progress: the setting's
    index and the number of its answers so far. Errors: Error naming the problem or the setting.
    """
    prompts = _encode(llm, problems, settings[0].config.max_new_tokens, raw)
    _answer(llm, prompts[:1], settings[0].config, lambda answers: None)  # warms up
    outcomes: list[Outcome] = []
    reference: list[Completion] = []
    for index, setting in enumerate(settings):
        on_progress(index, 0)
        start = time.perf_counter()
        try:
            answers = _answer(llm, prompts, setting.config, partial(on_progress, index))
        except Error as problem:
            raise Error(f"{setting.name}: {problem}") from problem
        seconds = time.perf_counter() - start
        reference = reference or answers
        scores = map(_score, problems, answers, reference)
        outcomes.append(
            Outcome(
                setting=setting,
                quality=sum(scores) / len(problems),
                answers=len(answers),
                tokens=sum(answer.completion_tokens for answer in answers),
                passes=sum(answer.num_passes for answer in answers),
                seconds=seconds,
            )
        )
        on_outcome(outcomes[-1])
    return outcomes


def pareto_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those that no other beats in quality or passes without losing in the other."""

    def beaten(one: Outcome) -> bool:
        return any(
            other.passes <= one.passes
            and other.quality >= one.quality
            and (other.passes < one.passes or other.quality > one.quality)
            for other in outcomes
        )

    return sorted((one for one in outcomes if not beaten(one)), key=lambda one: one.passes)


def within(outcomes: Sequence[Outcome], tolerance: float) -> list[Outcome]:
    """Return those whose quality is at most `tolerance` points (hundredths) below the best."""
    best = max(outcome.quality for outcome in outcomes)
    return [one for one in outcomes if one.quality >= best - tolerance / 100 - 1e-9]


def recommended(outcomes: Sequence[Outcome], tolerance: float) -> Outcome:
    """Return the one of fewest passes within the tolerance; of equals the better, the faster."""
    return min(within(outcomes, tolerance), key=lambda one: (one.passes, -one.quality, one.seconds))


def report(outcomes: Sequence[Outcome], tolerance: float) -> str:
    """Lay the outcomes out as a table: * is on the Pareto front, > recommended."""
    front = pareto_front(outcomes)
    chosen = recommended(outcomes, tolerance)
    rows = [["policy", "cache", "quality", "passes", "tokens/forward", "tokens/s", ""]]
    for one in outcomes:
        setting = one.setting
        rows.append(
            [
                setting.policy if setting.value is None else f"{setting.policy} {setting.value:g}",
                setting.cache,
                f"{100 * one.quality:.1f} %",
                f"{one.passes_per_answer:.2f}",
                f"{one.tokens_per_forward:.1f}",
                f"{one.tokens_per_second:.0f}",
                "*" * (one in front) + ">" * (one is chosen),
            ]
        )
    return table(rows)


def _encode(
    llm: LLM, problems: Sequence[Problem], max_new_tokens: int, raw: bool
) -> list[list[int]]:
    package = llm.engine.package
    prompts = []
    for problem in problems:
        where = f"the problem in line {problem.line}"
        try:
            ids = llm.encode(problem.prompt, raw=raw)
        except Error as error:
            raise Error(f"{where}: {error}") from error
        if not all(0 <= one < package.vocab_size and one != package.mask_token_id for one in ids):
            raise Error(
                f"{where}: expected token ids in [0, {package.vocab_size}) without the mask token"
                f" {package.mask_token_id}"
            )
        if len(ids) + max_new_tokens > package.max_context_length:
            raise Error(
                f"{where}: {len(ids)} tokens and {max_new_tokens} new ones; expected at most"
                f" {package.max_context_length} together"
            )
        prompts.append(ids)
    return prompts


def _answer(
    llm: LLM,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    on_answer: Callable[[int], None],
) -> list[Completion]:
    """Answer all prompts together, as LLM.generate does, and report progress."""
    from fastdllm.answer import Answer, start_all

    answers = [Answer(llm.engine, llm.codec, ids, config) for ids in prompts]
    completions: list[Completion] = []
    try:
        for number in start_all(answers, [None] * len(answers)):
            answers[number].wait()
        for answer in answers:
            completions.append(answer.completion())
            on_answer(len(completions))
    finally:
        for answer in answers:
            answer.cancel()
    return completions


def _score(problem: Problem, answer: Completion, reference: Completion) -> float:
    if problem.answer is not None:
        return float(is_right(answer.text, problem.answer))
    return agreement(answer.token_ids.tolist(), reference.token_ids.tolist())
