"""Likelihoods against sums written straight from their definitions, on other engines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastdllm import ConfigError, GenerationConfig
from fastdllm.likelihood import Likelihood, chain, expectation, log_likelihood, monte_carlo

from oracle import BIDIRECTIONAL, BLOCK_CAUSAL, Pair

PROMPT = [7, 11, 3, 200, 45]
ANSWER = [9, 30, 2, 117]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    return np.asarray(rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True)))


def logs(pair: Pair, ids: list[int], row: int) -> NDArray[np.float64]:
    """The reference engine's log probabilities [V] at a row of a text without cache."""
    sees = None
    positions = np.arange(len(ids))
    if pair.facts.attention == "block_causal":
        blocks = positions // (pair.facts.block_length or 0)
        sees = (blocks[:, None] >= blocks)[None, None]
    asked = np.array([[row]])
    logits, _ = pair.forward(np.array([ids]), positions[None], None, asked, 0, sees)
    return log_softmax(logits[0])[0]


def bound(pair: Pair, prompt: list[int], answer: list[int]) -> float:
    """The expectation over l and the sets of l masked positions, term by term."""
    count = len(answer)
    total = 0.0
    for size in range(1, count + 1):
        sets = list(itertools.combinations(range(count), size))
        for masked in sets:
            canvas = [*prompt, *answer]
            for i in masked:
                canvas[len(prompt) + i] = pair.facts.mask_token_id
            for i in masked:
                row = len(prompt) + i - pair.facts.logits_shift
                log = logs(pair, canvas, row)[answer[i]]
                total += count / size * log / (count * len(sets))
    return total


@pytest.mark.parametrize("name", BIDIRECTIONAL)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_short_answer_has_the_exact_bound(pairs: dict[str, Pair], name: str, length: int) -> None:
    pair, answer = pairs[name], ANSWER[:length]

    found = log_likelihood(pair.engine, PROMPT, answer, samples=15, check_greedy=False)

    assert found.log_likelihood == pytest.approx(bound(pair, PROMPT, answer), abs=1e-4)
    assert found.standard_error == 0
    assert found.num_passes == 2**length - 1


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_an_estimate_is_within_its_standard_error_of_the_expectation(
    pairs: dict[str, Pair], name: str
) -> None:
    engine = pairs[name].engine
    exact = expectation(engine, PROMPT, ANSWER).log_likelihood

    runs = [monte_carlo(engine, PROMPT, ANSWER, samples=64, seed=seed) for seed in range(30)]

    away = [(run.log_likelihood - exact) / run.standard_error for run in runs]
    assert np.mean(np.square(away)) < 1.3  # stratified draws err less than the error says
    assert abs(np.mean(away)) < 3 / math.sqrt(len(runs))
    assert all(run.num_passes <= 15 for run in runs)  # there are no more sets


def test_more_samples_than_sets_are_not_drawn_but_enumerated(pairs: dict[str, Pair]) -> None:
    engine = pairs["llada-mha"].engine

    drawn = log_likelihood(engine, PROMPT, ANSWER, samples=14, check_greedy=False)
    exact = log_likelihood(engine, PROMPT, ANSWER, samples=15, check_greedy=False)

    assert drawn.standard_error > 0
    assert exact == expectation(engine, PROMPT, ANSWER)


def test_the_same_seed_gives_the_same_numbers_whatever_was_scored_before(
    pairs: dict[str, Pair],
) -> None:
    engine = pairs["llada-mha"].engine
    answers = [list(range(20, 20 + count)) for count in (12, 9, 12)]

    def score(answer: list[int], seed: int) -> Likelihood:
        return monte_carlo(engine, PROMPT, answer, samples=8, seed=seed)

    there = [score(answer, seed=5) for answer in answers]
    back = [score(answer, seed=5) for answer in reversed(answers)]

    assert there == back[::-1]
    assert score(answers[0], seed=6).log_likelihood != there[0].log_likelihood


def test_every_size_of_a_set_is_met_as_often_when_the_samples_allow_it(
    pairs: dict[str, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdllm import likelihood

    met: list[NDArray[np.bool_]] = []

    def note(engine: Any, prompt: Any, answer: Any, sets: NDArray[np.bool_]) -> Any:
        met.append(sets)
        return np.zeros(len(sets))

    monkeypatch.setattr(likelihood, "_estimates", note)
    length = 40  # so many that hardly any set comes twice
    monte_carlo(pairs["llada-mha"].engine, PROMPT, [1] * length, samples=2 * length)

    sizes = np.bincount(met[0].sum(axis=1), minlength=length + 1)
    assert sizes[0] == 0
    assert set(sizes[2 : length - 1]) == {2}


@pytest.mark.parametrize("name", BLOCK_CAUSAL)
@pytest.mark.parametrize("prompt_length", [1, 3, 4, 30, 33])
def test_a_block_causal_answer_has_the_likelihood_of_left_to_right_decoding(
    pairs: dict[str, Pair], name: str, prompt_length: int
) -> None:
    pair = pairs[name]
    block, mask = pair.facts.block_length or 0, pair.facts.mask_token_id
    prompt = [(7 * i) % 200 + 1 for i in range(prompt_length)]
    answer = [(11 * i) % 200 + 1 for i in range(9)]

    found = log_likelihood(pair.engine, prompt, answer)

    ids = [*prompt, *answer]
    expected = 0.0
    for i in range(len(prompt), len(ids)):
        end = (i // block + 1) * block
        log = logs(pair, ids[:i] + [mask] * (end - i), i - pair.facts.logits_shift)
        expected += log[ids[i]]
    assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
    assert found.standard_error == 0
    assert found.greedy is False


@pytest.mark.parametrize("name", BLOCK_CAUSAL)
def test_what_a_block_causal_model_decodes_from_left_to_right_is_greedy(
    pairs: dict[str, Pair], name: str
) -> None:
    engine = pairs[name].engine
    config = GenerationConfig(
        max_new_tokens=7, remasking="sequential", ignore_eos=True, cache="prefix"
    )
    decoded = engine.generate(PROMPT, config)

    found = log_likelihood(engine, PROMPT, decoded.token_ids.tolist())

    assert found.greedy is True
    assert found.log_likelihood == pytest.approx(decoded.logprobs.sum(), abs=1e-4)


def test_the_chain_of_a_bidirectional_model_has_masks_up_to_the_answers_end(
    pairs: dict[str, Pair],
) -> None:
    pair = pairs["dream-gqa"]
    ids, mask = [*PROMPT, *ANSWER], pair.facts.mask_token_id

    found = log_likelihood(pair.engine, PROMPT, ANSWER, method="block")

    rows = range(len(PROMPT), len(ids))
    expected = sum(logs(pair, ids[:i] + [mask] * (len(ids) - i), i - 1)[ids[i]] for i in rows)
    assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
    assert found == chain(pair.engine, PROMPT, ANSWER)


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_greedy_is_what_one_token_per_pass_decodes(pairs: dict[str, Pair], name: str) -> None:
    engine = pairs[name].engine
    config = GenerationConfig(max_new_tokens=4, block_length=4, cache="none", ignore_eos=True)
    decoded = engine.generate(PROMPT, config).token_ids.tolist()
    other = [*decoded[:3], decoded[3] - 1 if decoded[3] else 1]

    yes = log_likelihood(engine, PROMPT, decoded)
    no = log_likelihood(engine, PROMPT, other)

    assert yes.greedy is True
    assert yes.num_passes == 15 + 4
    assert no.greedy is False


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("llada-mha", {"method": "x"}, "likelihood is 'x'; expected one of auto, monte_carlo"),
        ("llada-mha", {"samples": 1}, "mc_samples is 1; expected at least 2"),
        ("llada-mha", {"seed": -1}, "mc_seed is -1; expected"),
        ("llada-mha", {"block_length": 8}, "block_length is for block-causal models"),
        ("sdar", {"method": "monte_carlo"}, "expected 'block' or 'auto' for a block-causal"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(
    pairs: dict[str, Pair], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        log_likelihood(pairs[name].engine, PROMPT, ANSWER, **options)


def test_a_text_that_holds_the_mask_token_or_is_too_long_is_refused(
    pairs: dict[str, Pair],
) -> None:
    engine = pairs["llada-mha"].engine
    mask = engine.package.mask_token_id

    with pytest.raises(ConfigError, match=f"the answer holds the mask token {mask}"):
        log_likelihood(engine, PROMPT, [1, mask])
    with pytest.raises(ConfigError, match="the prompt holds the mask token"):
        log_likelihood(engine, [mask], [1])
    with pytest.raises(ConfigError, match="ids; expected 1 to"):
        log_likelihood(engine, PROMPT, [1] * engine.package.max_context_length)


def test_a_prompt_that_a_shifted_model_needs_is_asked_for(pairs: dict[str, Pair]) -> None:
    with pytest.raises(ConfigError, match="the prompt has 0 tokens; expected 1 or more"):
        log_likelihood(pairs["fast-dllm-v2"].engine, [], ANSWER)


def test_an_empty_answer_is_certain(pairs: dict[str, Pair]) -> None:
    found = log_likelihood(pairs["llada-mha"].engine, PROMPT, [])

    assert (found.log_likelihood, found.greedy, found.num_passes) == (0.0, True, 0)
