"""The engine against reference.py on random requests: same tokens, passes, commits and counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fastdllm
from fastdllm import GenerationConfig, reference
from fastdllm.testing import package_forward

from oracle import BIDIRECTIONAL, BLOCK_CAUSAL, SMALLEST_VOCABULARY, WITHOUT_SHIFT, Pair

# Derandomized: engine and reference round a confidence differently in the seventh digit, and a
# decision as close as that must not come and go from run to run.
profile = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fits(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what GenerationConfig refuses beside the rest."""
    by_schedule = fields["remasking"] in ("entropy", "sequential", "origin")
    dropped = {"threshold", "threshold_decay", "factor", "frechet"} if by_schedule else set()
    if fields["remasking"] == "origin":
        dropped.add("entropy_bound")
    if "steps_per_block" in fields:
        dropped.add("steps")
    return {key: value for key, value in fields.items() if key not in dropped}


# Without a prompt all rows are alike, and rounding alone decides which is surest: not compared.
prompts = st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), min_size=1, max_size=70)
rules = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"threshold": st.floats(0.05, 1.0)}, optional={"threshold_decay": st.floats(0.0, 1.0)}
    ),
    st.fixed_dictionaries(
        {"factor": st.floats(0.1, 3.0)}, optional={"threshold": st.floats(0.05, 1.0)}
    ),
    st.fixed_dictionaries({"frechet": st.floats(0.0, 0.5)}),
    st.fixed_dictionaries({"entropy_bound": st.floats(0.0, 20.0)}),
)
others = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 70),
        "block_length": st.integers(1, 40),
        "cache": st.sampled_from(["none", "prefix", "dual", "auto"]),
        "remasking": st.sampled_from(
            ["low_confidence"] * 3 + ["random", "margin", "entropy", "sequential", "origin"]
        ),
        "temperature": st.sampled_from([0.0, 0.0, 0.5, 1.0]),
        "top_p": st.sampled_from([1.0, 1.0, 0.7]),
        "top_k": st.sampled_from([0, 0, 20]),
        "min_p": st.sampled_from([0.0, 0.0, 0.6]),
        "alg_temp": st.sampled_from([0.0, 0.0, 0.3]),
        "cfg_scale": st.sampled_from([0.0, 0.0, 0.0, 1.5]),
        "seed": st.sampled_from([0, 1, 2**63 + 11]),
        "stop_at": st.sampled_from(["token", "block"]),
        "ignore_eos": st.booleans(),
    },
    optional={
        "steps": st.integers(1, 100),
        "steps_per_block": st.integers(1, 40),
        "eps": st.sampled_from([1e-3, 0.1]),
        "logit_bias": st.dictionaries(
            st.integers(0, SMALLEST_VOCABULARY - 1), st.floats(-8.0, 8.0), max_size=5
        ),
        "banned_token_ids": st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), max_size=99),
        "stop_token_ids": st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), max_size=40),
    },
)
options = st.builds(lambda fields, rule: fits(fields | rule), others, rules)
block_causal_options = st.builds(
    lambda fields, more: fields | more,
    options,
    st.fixed_dictionaries(
        {"block_length": st.sampled_from([1, 4, 8, 16, 32])},
        optional={"sub_block_length": st.sampled_from([1, 4, 8])},
    ),
)
editing = st.fixed_dictionaries(
    {
        "editing_threshold": st.sampled_from([0.0, 0.2, 0.5, 0.9]),
        "max_post_steps": st.integers(0, 5),
    }
)

refreshes = {"refresh_interval": st.integers(1, 8), "refresh_tokens": st.integers(1, 20)}
windows = st.fixed_dictionaries({}, optional={"suffix_window": st.integers(0, 50), **refreshes})
GAP = -1  # where a canvas has a mask token, whose id is the package's
# Like a prompt, the first block of a canvas holds a given token at least.
canvases = st.builds(
    lambda parts, end: [i for ids, gap in parts for i in [*ids, *[GAP] * gap]] + end,
    st.lists(
        st.tuples(
            st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), min_size=1, max_size=30),
            st.integers(1, 25),
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), max_size=20),
)


@profile
@given(name=st.sampled_from(BIDIRECTIONAL), prompt=prompts, fields=options)
@example(  # the refresh of the first token is the first pass of the schedule
    name="dream-gqa",
    prompt=[68],
    fields={"max_new_tokens": 25, "block_length": 25, "cache": "dual", "steps_per_block": 24},
)
def test_engine_does_what_the_reference_does(
    name: str, prompt: list[int], fields: dict[str, Any], pairs: dict[str, Pair]
) -> None:
    pairs[name].compare(prompt, fields)


@profile
@given(name=st.sampled_from(BLOCK_CAUSAL), prompt=prompts, fields=block_causal_options)
@example(  # the answer ends inside the block that holds the stop token
    name="sdar",
    prompt=[12, 0],
    fields={
        "max_new_tokens": 1,
        "block_length": 4,
        "cache": "prefix",
        "stop_at": "block",
        "stop_token_ids": list(range(SMALLEST_VOCABULARY)),
    },
)
@example(  # steps are those of the block, not of a sub-block
    name="fast-dllm-v2",
    prompt=list(range(16)),
    fields={
        "max_new_tokens": 16,
        "block_length": 16,
        "sub_block_length": 8,
        "cache": "prefix",
        "steps_per_block": 4,
    },
)
def test_a_block_causal_engine_does_what_the_reference_does(
    name: str, prompt: list[int], fields: dict[str, Any], pairs: dict[str, Pair]
) -> None:
    pairs[name].compare(prompt, fields)


@settings(profile, max_examples=60)
@given(name=st.sampled_from(WITHOUT_SHIFT), prompt=prompts, fields=options, edits=editing)
@example(  # a pass without masks may edit, whatever the schedule says
    name="llada-mha",
    prompt=[13],
    fields={"max_new_tokens": 15, "block_length": 15, "cache": "prefix", "eps": 0.1},
    edits={"editing_threshold": 0.0, "max_post_steps": 2},
)
def test_edits_are_the_references(
    name: str,
    prompt: list[int],
    fields: dict[str, Any],
    edits: dict[str, Any],
    pairs: dict[str, Pair],
) -> None:
    pairs[name].compare(prompt, fields | edits)


@settings(profile, max_examples=50)
@given(name=st.sampled_from(BIDIRECTIONAL), prompt=prompts, fields=options, more=windows)
def test_windows_are_the_references(
    name: str,
    prompt: list[int],
    fields: dict[str, Any],
    more: dict[str, Any],
    pairs: dict[str, Pair],
) -> None:
    pairs[name].compare(prompt, fields | more)


@settings(profile, max_examples=50)
@given(
    name=st.sampled_from(BIDIRECTIONAL),
    prompt=prompts,
    # What ranks positions can be compared with a threshold.
    fields=options.filter(lambda f: f["remasking"] in ("low_confidence", "random", "margin")),
    more=windows,
    window=st.integers(1, 70),
)
def test_deferred_windows_are_the_references(
    name: str,
    prompt: list[int],
    fields: dict[str, Any],
    more: dict[str, Any],
    window: int,
    pairs: dict[str, Pair],
) -> None:
    if not {"threshold", "factor", "frechet", "entropy_bound"} & set(fields):
        fields = fields | {"threshold": 0.3}

    pairs[name].compare(prompt, fields | more | {"deferred_window": window, "stop_at": "token"})


@settings(profile, max_examples=50)
@given(name=st.sampled_from(BIDIRECTIONAL), canvas=canvases, fields=options, more=windows)
def test_gaps_are_filled_as_the_reference_does(
    name: str,
    canvas: list[int],
    fields: dict[str, Any],
    more: dict[str, Any],
    pairs: dict[str, Pair],
) -> None:
    ids = with_gaps(canvas, pairs[name])

    pairs[name].compare(ids, fields | more, infills=True)


@settings(profile, max_examples=50)
@given(
    name=st.sampled_from(BLOCK_CAUSAL),
    canvas=canvases,
    fields=block_causal_options,
    more=st.fixed_dictionaries({}, optional=refreshes),
    edits=st.one_of(st.just({}), editing),
)
def test_a_block_causal_engine_fills_gaps_as_the_reference_does(
    name: str,
    canvas: list[int],
    fields: dict[str, Any],
    more: dict[str, Any],
    edits: dict[str, Any],
    pairs: dict[str, Pair],
) -> None:
    if name in WITHOUT_SHIFT and "sub_block_length" not in fields:
        fields = fields | edits
    ids = with_gaps(canvas, pairs[name])

    pairs[name].compare(ids, fields | more, infills=True)


def with_gaps(canvas: list[int], pair: Pair) -> list[int]:
    return [pair.facts.mask_token_id if i == GAP else i for i in canvas]


@settings(profile, max_examples=40)
@given(name=st.sampled_from(BLOCK_CAUSAL), prompt=prompts, fields=block_causal_options)
def test_a_prefix_cache_is_exact_under_block_causal_attention(
    name: str, prompt: list[int], fields: dict[str, Any], pairs: dict[str, Pair]
) -> None:
    fields["temperature"], fields["remasking"] = 0.0, "low_confidence"

    found = [
        pairs[name].engine.generate(prompt, GenerationConfig(**fields | {"cache": cache}))
        for cache in ("none", "prefix")
    ]

    assert found[0].token_ids.tolist() == found[1].token_ids.tolist()
    assert found[0].num_passes == found[1].num_passes


@settings(profile, max_examples=25)
@given(
    name=st.sampled_from(BLOCK_CAUSAL),
    text=st.lists(st.integers(0, SMALLEST_VOCABULARY - 1), min_size=70, max_size=70),
    requests=st.lists(
        st.tuples(st.integers(1, 70), st.lists(st.integers(0, 9), max_size=5), st.integers(1, 40)),
        min_size=2,
        max_size=4,
    ),
    cache=st.sampled_from(["prefix", "dual"]),
)
def test_a_shared_beginning_changes_nothing(
    name: str,
    text: list[int],
    requests: list[tuple[int, list[int], int]],
    cache: str,
    pairs: dict[str, Pair],
) -> None:
    for length, ending, new in requests:
        fields = {"max_new_tokens": new, "threshold": 0.3, "cache": cache}

        pairs[name].compare(text[:length] + ending, fields)


@settings(profile, max_examples=40)
@given(name=st.sampled_from(BIDIRECTIONAL + BLOCK_CAUSAL), prompt=prompts, fields=options)
def test_stopping_gives_a_prefix_of_not_stopping(
    name: str, prompt: list[int], fields: dict[str, Any], pairs: dict[str, Pair]
) -> None:
    stops = fields.setdefault("stop_token_ids", list(range(0, SMALLEST_VOCABULARY, 20)))
    engine = pairs[name].engine
    stopping = engine.generate(prompt, GenerationConfig(**fields | {"ignore_eos": False}))
    whole = engine.generate(prompt, GenerationConfig(**fields | {"ignore_eos": True}))

    ids = stopping.token_ids.tolist()
    assert whole.token_ids.tolist()[: len(ids)] == ids
    assert len(whole.token_ids) == fields["max_new_tokens"]
    assert (stopping.finish_reason == "stop") == bool(set(stops) & set(ids))
    if fields["stop_at"] == "token":
        assert not set(stops) & set(ids[:-1])


@settings(profile, max_examples=40)
@given(name=st.sampled_from(BIDIRECTIONAL + BLOCK_CAUSAL), prompt=prompts, fields=options)
def test_the_same_request_gives_the_same_tokens(
    name: str, prompt: list[int], fields: dict[str, Any], pairs: dict[str, Pair]
) -> None:
    engine = pairs[name].engine
    first, second = (engine.generate(prompt, GenerationConfig(**fields)) for _ in range(2))

    assert first.token_ids.tolist() == second.token_ids.tolist()


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 8},
        {"steps": 16},
        {"threshold": 1.0},
        {"threshold": 1.0, "threshold_decay": 0.01},
        {"factor": 0.3},
        {"frechet": 0.9},
        {"entropy_bound": 0.01},
        {"entropy_bound": 0.05, "remasking": "margin"},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_sure_model_is_decoded_in_the_references_order(
    cache: str, fields: dict[str, Any], llm: fastdllm.LLM
) -> None:
    """Near certainty an f32 confidence is 1 everywhere; what ranks positions must not be lost."""
    config = GenerationConfig(max_new_tokens=64, cache=cache, ignore_eos=True, **fields)
    prompt = llm.encode("Mia buys 5 pens at 2 dollars each and pays 14 dollars. How much is left?")
    package = llm.engine.package
    commits: list[tuple[list[int], list[int]]] = []

    found = llm.engine.generate(
        prompt, config, lambda e: commits.append((e.positions.tolist(), e.token_ids.tolist()))
    )
    expected = reference.generate(package_forward(package.path), prompt, config, package)

    assert found.num_passes == expected.num_passes
    assert commits == expected.commits
