"""fastdllm tune: what is right, what is swept, what is recommended, what is printed and drawn."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastdllm import LLM, ConfigError, Error, GenerationConfig, cli
from fastdllm.problems import Problem, agreement, is_right, read_problems
from fastdllm.tune import (
    Outcome,
    Setting,
    grid,
    pareto_front,
    recommended,
    report,
    sweep,
    within,
)
from fastdllm.tune.plot import draw

from conftest import PackageOf, checkpoint_folder

SVG = "{http://www.w3.org/2000/svg}"


def outcome(name: str, *, quality: float, passes: int, seconds: float = 1.0) -> Outcome:
    policy, _, value = name.partition(" ")
    setting = Setting(
        policy=policy, value=float(value), cache="dual", config=GenerationConfig(cache="dual")
    )
    return Outcome(
        setting=setting, quality=quality, answers=10, tokens=300, passes=passes, seconds=seconds
    )


@pytest.fixture
def first_problems(tmp_path: Path) -> Path:
    """Write the first of the shipped model's problems."""
    lines = (checkpoint_folder("tiny_math") / "problems.jsonl").read_text("utf-8").splitlines()
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(lines[:4]), "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("2 * 5 = 10.\n#### 10", "5 * 2 = 10.\n#### 10", True),
        ("2 * 5 = 10.\n#### 11", "5 * 2 = 10.\n#### 10", False),
        ("10", "#### 10", False),  # the mark is part of what was asked for
        ("#### 3 or rather #### 10", "#### 10", True),
        ("First 3, then 1,000.", "1000", True),
        ("10 of 12", "10", False),
        ("12 - 2 = 10.0", "10", True),
        ("5-3", "3", True),
        ("it is -3", "-3", True),
        ("no number", "3", False),
        ("Rome ", "Rome", True),
        ("in  Rome", "in Rome", True),
        ("rome, Italy", "Rome", False),
    ],
)
def test_an_answer_is_right_by_its_last_part_number_or_whole(
    text: str, answer: str, right: bool
) -> None:
    assert is_right(text, answer) is right


def test_agreement_counts_equal_positions_of_the_longer() -> None:
    assert agreement([1, 2, 3], [1, 2, 3]) == 1.0
    assert agreement([1, 2, 3], [1, 9, 3, 4]) == 0.5
    assert agreement([1, 2, 3, 4], [1, 2]) == 0.5
    assert agreement([], [5]) == 0.0


def test_prompts_may_be_text_messages_or_ids(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    messages = [{"role": "user", "content": "Hello"}]
    lines: list[dict[str, Any]] = [
        {"prompt": "Hello", "answer": "Hi"},
        {"prompt": messages},
        {"prompt": [5, 6], "answer": 7},
        {"question": "Who?"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n", "utf-8")

    assert read_problems(path) == [
        Problem(prompt="Hello", answer="Hi", line=1),
        Problem(prompt=messages, line=3),
        Problem(prompt=[5, 6], answer="7", line=5),
        Problem(prompt="Who?", line=7),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no problem; expected JSON lines"),
        ("\n\n", "holds no problem; expected JSON lines"),
        ('{"prompt": "a"}\n{"prompt": ', ":2: is not JSON"),
        ('{"prompt": "a"}\n["b"]', ":2: is [\"b\"]; expected an object with 'prompt'"),
        ('{"answer": "a"}', ":1: has no 'prompt'; found 'answer'"),
        ('{"prompt": 3}', ":1: prompt is 3; expected text, messages"),
        ('{"prompt": []}', ":1: prompt is []; expected text, messages"),
        ('{"prompt": [1, "a"]}', ':1: prompt is [1, "a"]; expected text, messages'),
        ('{"prompt": [{"role": "user"}]}', "; expected text, messages with 'role' and 'content'"),
        ('{"prompt": "a", "answer": ["b"]}', ':1: answer is ["b"]; expected text'),
    ],
)
def test_a_broken_file_is_named_with_its_line(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(content, "utf-8")

    with pytest.raises(Error) as problem:
        read_problems(path)

    assert str(problem.value).startswith(str(path))
    assert complaint in str(problem.value)


def test_a_grid_begins_with_the_careful_setting_and_crosses_rules_with_caches() -> None:
    settings = grid(
        {"threshold": (0.8, 0.9), "steps_per_block": ()},
        ["none", "dual"],
        max_new_tokens=40,
        block_length=16,
    )

    assert [setting.name for setting in settings] == [
        "one token per pass, none",
        "threshold 0.8, none",
        "threshold 0.8, dual",
        "threshold 0.9, none",
        "threshold 0.9, dual",
        "steps_per_block 2, none",  # parts of the block
        "steps_per_block 2, dual",
        "steps_per_block 4, none",
        "steps_per_block 4, dual",
        "steps_per_block 8, none",
        "steps_per_block 8, dual",
    ]
    lengths: dict[str, Any] = {"max_new_tokens": 40, "block_length": 16}
    assert settings[0].config == GenerationConfig(cache="none", **lengths)
    assert settings[2].config == GenerationConfig(cache="dual", threshold=0.8, **lengths)
    assert settings[-1].options == "--steps-per-block 8 --cache dual"


@pytest.mark.parametrize(
    ("policies", "complaint"),
    [
        ({"luck": (1.0,)}, "policy is 'luck'; expected one of threshold, factor, frechet"),
        ({"frechet": (2.0,)}, "frechet is 2; expected"),
        ({"steps_per_block": (1.5,)}, "steps_per_block is 1.5; expected a whole number"),
    ],
)
def test_a_grid_refuses_unknown_rules_and_bad_numbers(
    policies: dict[str, tuple[float, ...]], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        grid(policies, ["dual"], max_new_tokens=8, block_length=8)


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    slow = outcome("threshold 0.9", quality=0.99, passes=60)
    fast = outcome("threshold 0.5", quality=0.90, passes=20)
    beaten = outcome("factor 1", quality=0.90, passes=30)
    twin = outcome("factor 2", quality=0.99, passes=60)

    assert pareto_front([slow, beaten, fast, twin]) == [fast, slow, twin]


def test_fewest_passes_within_the_tolerance_are_recommended() -> None:
    best = outcome("threshold 0.9", quality=0.99, passes=60)
    near = outcome("threshold 0.8", quality=0.98, passes=40)
    slower = outcome("factor 1", quality=0.98, passes=40, seconds=2.0)
    far = outcome("threshold 0.5", quality=0.979, passes=20)
    outcomes = [best, slower, near, far]

    assert recommended(outcomes, 0) is best
    assert recommended(outcomes, 1) is near
    assert recommended(outcomes, 2) is far
    assert within(outcomes, 1) == [best, slower, near]


def test_a_sweep_measures_what_the_engine_does(llm: LLM) -> None:
    question = "Tom has 3 boxes of 4 apples. How many apples is that?"
    settings = grid({"threshold": (0.9,)}, ["dual"], max_new_tokens=32, block_length=32)
    problems = [
        Problem(prompt=question),  # scored by agreement
        Problem(prompt=llm.encode(question), answer="no such answer"),
    ]
    told: list[tuple[int, int]] = []

    careful, fast = sweep(
        llm, problems, settings, on_progress=lambda index, count: told.append((index, count))
    )

    slow_answer = llm.generate(question, settings[0].config)
    fast_answer = llm.generate(question, settings[1].config)
    same = agreement(fast_answer.token_ids.tolist(), slow_answer.token_ids.tolist())
    assert careful.quality == 0.5  # agrees with itself, and is not right
    assert fast.quality == pytest.approx(same / 2)
    assert careful.passes == 2 * slow_answer.num_passes
    assert fast.passes == 2 * fast_answer.num_passes < careful.passes
    assert fast.tokens == 2 * fast_answer.completion_tokens
    assert fast.tokens_per_forward == pytest.approx(fast.tokens / fast.passes)
    assert fast.tokens_per_second == pytest.approx(fast.tokens / fast.seconds)
    assert told == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_known_answers_are_scored_by_the_text(llm: LLM) -> None:
    lines = (checkpoint_folder("tiny_math") / "problems.jsonl").read_text("utf-8").splitlines()
    (item,) = map(json.loads, lines[:1])
    settings = grid({"threshold": (0.9,)}, ["dual"], max_new_tokens=32, block_length=32)
    problems = [
        Problem(prompt=item["question"], answer=item["answer"]),
        Problem(prompt=item["question"], answer="#### 12345"),
    ]

    _, fast = sweep(llm, problems, settings)

    assert fast.quality == 0.5


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ([1] * 600, "line 7: 600 tokens and 8 new ones; expected at most 512 together"),
        ([1, 100000], "line 7: expected token ids in"),
        ("mask", "line 7: expected token ids in"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_named_before_the_sweep(
    llm: LLM, prompt: str | list[int], complaint: str
) -> None:
    ids = [llm.engine.package.mask_token_id] if prompt == "mask" else prompt
    settings = grid({}, [], max_new_tokens=8, block_length=8)
    told: list[int] = []

    with pytest.raises(Error, match=complaint):
        sweep(
            llm,
            [Problem(prompt="Hello"), Problem(prompt=ids, line=7)],
            settings,
            on_progress=lambda index, count: told.append(index),
        )

    assert told == []


def test_the_command_prints_writes_and_draws(
    package_of: PackageOf, first_problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    arguments = [str(package_of("tiny_math")), str(first_problems), "--max-new-tokens", "48"]
    arguments += ["--policies", "threshold=0.8,0.9", "frechet=0.25", "--caches", "none", "dual"]

    code = cli.main(["tune", *arguments, "--output", str(written), "--plot", str(plot)])

    told = capsys.readouterr()
    assert code == 0, told.err
    assert told.err.count("\n") == 7  # a line of progress per setting
    assert "[7/7] frechet 0.25, dual: " in told.err
    found = json.loads(written.read_text("utf-8"))
    names = [setting["name"] for setting in found["settings"]]
    assert names[0] == "one token per pass, none"
    assert len(names) == 7
    assert found["problems"] == 4
    assert found["quality"] == "right answers"
    assert found["settings"][0]["quality"] == 1.0
    chosen = next(one for one in found["settings"] if one["name"] == found["recommended"])
    assert chosen["pareto"]
    assert chosen["passes_per_answer"] == min(s["passes_per_answer"] for s in found["settings"])
    assert f"--{chosen['policy']} {chosen['value']:g} --cache {chosen['cache']}" in told.out
    rows = [line for line in told.out.splitlines() if line.startswith(("threshold", "frechet"))]
    assert len(rows) == 6
    assert sum(line.endswith(">") for line in rows) == 1
    drawn = ElementTree.fromstring(plot.read_text("utf-8"))
    tooltips = [title.text or "" for title in drawn.findall(f"{SVG}path/{SVG}title")]
    assert [text.partition(":")[0] for text in tooltips] == names


def test_ctrl_c_ends_the_sweep_with_what_was_measured(
    package_of: PackageOf,
    first_problems: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [str(package_of("tiny_math")), str(first_problems), "--json"]

    def interrupted_after(*measured: Outcome) -> None:
        def sweep(*_: Any, on_outcome: Callable[[Outcome], None], **__: Any) -> None:
            for one in measured:
                on_outcome(one)
            raise KeyboardInterrupt

        monkeypatch.setattr("fastdllm.tune.sweep", sweep)

    interrupted_after(outcome("threshold 0.9", quality=1.0, passes=20))
    assert cli.main(["tune", *arguments]) == 130
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["settings"]] == ["threshold 0.9, dual"]

    interrupted_after()
    assert cli.main(["tune", *arguments]) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--count", "0"], "count is 0; expected at least 1"),
        (["--tolerance", "-1"], "tolerance is -1.0; expected at least 0"),
        (["--tolerance", "inf"], "tolerance is inf; expected a finite number"),
        (["--plot", "plot.png"], "plot.png: expected a name that ends in .svg"),
        (["--output", "nowhere/report.json"], "nowhere/report.json: there is no folder nowhere"),
    ],
)
def test_the_command_refuses_at_once_what_cannot_end_well(
    arguments: list[str], complaint: str, first_problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["tune", "no-package", str(first_problems), *arguments])

    assert code == 1
    assert capsys.readouterr().err == f"fastdllm: error: {complaint}\n"


@pytest.mark.parametrize("policy", ["luck", "threshold=2", "threshold=high", "steps_per_block=0"])
def test_an_unknown_policy_is_wrong_usage(
    policy: str, first_problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["tune", "no-package", str(first_problems), "--policies", policy])

    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_points_lie_where_their_numbers_say() -> None:
    outcomes = [
        outcome("threshold 0.9", quality=1.0, passes=160),
        outcome("threshold 0.5", quality=0.9, passes=40),
        outcome("factor 1", quality=0.95, passes=80),
    ]

    drawn = ElementTree.fromstring(draw(outcomes, title="a < b", tolerance=5))

    assert drawn.findtext(f"{SVG}title") == "a < b"
    places = [
        [float(number) for number in point.attrib["transform"][10:-1].split()]
        for point in drawn.findall(f"{SVG}path")
        if point.find(f"{SVG}title") is not None
    ]
    (x_most, y_best), (x_least, y_worst), (x_middle, y_middle) = places
    assert x_least < x_middle < x_most
    assert x_middle == pytest.approx((x_least + x_most) / 2, abs=0.2)  # a logarithmic axis
    assert y_middle == pytest.approx((y_best + y_worst) / 2, abs=0.2)
    assert y_best < y_worst
    ring = next(c for c in drawn.findall(f"{SVG}circle") if c.attrib["r"] == "9")
    assert [float(ring.attrib["cx"]), float(ring.attrib["cy"])] == [x_middle, y_middle]


def test_a_table_and_a_plot_of_equal_outcomes_are_made() -> None:
    outcomes = [outcome("threshold 0.9", quality=1.0, passes=10)] * 2

    assert report(outcomes, 1).count("100.0 %") == 2
    ElementTree.fromstring(draw(outcomes, title="same", tolerance=1))
