"""fastdllm as a model of lm-evaluation-harness, on the shipped model and a few problems."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fastdllm
from fastdllm import ConfigError, GenerationConfig
from fastdllm.likelihood import log_likelihood

from conftest import ROOT

pytest.importorskip("lm_eval", reason="evaluation needs lm-eval")
pytest.importorskip("datasets", reason="lm-eval needs datasets")

from fastdllm.evaluation import FastdllmLM

TASKS = ROOT / "benchmarks" / "tiny_math" / "lm_eval_task"
QUESTION = "Sam has 2 jars of 5 books and gives 4 away. How many books are left?"
Model = Callable[..., FastdllmLM]
PACKAGE = ("--model_args", "package=PACKAGE")  # the tests write its folder for the last word


@pytest.fixture(scope="module")
def package(package_of: Callable[[str], Path]) -> Path:
    return package_of("tiny_math")


@pytest.fixture
def model(package: Path) -> Model:
    def made(**options: Any) -> FastdllmLM:
        return FastdllmLM(str(package), threads=1, **options)

    return made


def request(*args: Any) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def chat(lm: FastdllmLM, question: str = QUESTION) -> str:
    return lm.apply_chat_template([{"role": "user", "content": question}])


def run(model: FastdllmLM, task: str, limit: int) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        limit=limit,
        apply_chat_template=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
    )
    assert isinstance(found, dict)
    return found


def test_the_task_gives_the_answers_that_llm_gives(model: Model, llm: fastdllm.LLM) -> None:
    found = run(model(cache="dual", threshold=0.9), "tiny_math", 6)

    samples = found["samples"]["tiny_math"]
    config = GenerationConfig(max_new_tokens=64, cache="dual", threshold=0.9)
    answers = llm.generate([sample["doc"]["question"] for sample in samples], config)
    assert [sample["resps"][0][0] for sample in samples] == [answer.text for answer in answers]
    assert found["results"]["tiny_math"]["exact_match,none"] == 1.0
    counted = found["config"]["fastdllm"]["throughput"]
    assert counted["answers"] == 6
    assert counted["passes"] == sum(answer.num_passes for answer in answers)
    # The end-of-text token, which is the padding token too, is no token of the answer.
    assert counted["answer_tokens"] == sum(answer.completion_tokens - 1 for answer in answers)
    assert counted["paper_tokens"] == counted["answer_tokens"]


def test_the_choice_task_prefers_right_numbers_and_says_how_sure_it_is(model: Model) -> None:
    found = run(model(likelihood="block"), "tiny_math_choice", 2)

    assert found["results"]["tiny_math_choice"]["acc,none"] == 1.0
    told = found["config"]["fastdllm"]["likelihoods"]
    assert (told["answers"], told["exact"], told["mean_standard_error"]) == (8, 8, 0.0)


def test_a_stop_string_ends_an_answer_and_nothing_of_it_counts(model: Model) -> None:
    lm = model()

    (text,) = lm.generate_until(
        [request(chat(lm), {"until": ["\n####"], "max_gen_toks": 64})], disable_tqdm=True
    )

    assert text == "There are 2 * 5 = 10 books. 10 - 4 = 6 are left."
    assert lm.throughput.answer_tokens == len(lm.tok_encode(text))
    assert lm.throughput.paper_tokens == lm.throughput.answer_tokens


def test_ignore_eos_runs_every_block_and_cuts_afterwards(model: Model) -> None:
    lm = model(ignore_eos=True, max_new_tokens=96)
    early = model(max_new_tokens=96)
    asked = [request(chat(lm), {"until": ["####"]})]

    texts = lm.generate_until(asked, disable_tqdm=True)

    assert texts == early.generate_until(asked, disable_tqdm=True)
    assert lm.throughput.passes > early.throughput.passes
    assert lm.throughput.answer_tokens == early.throughput.answer_tokens


def test_the_papers_count_holds_special_tokens_that_are_no_padding(llm: fastdllm.LLM) -> None:
    from fastdllm.throughput import judged_text, paper_tokens

    codec, info = llm.codec, llm.engine.package
    ids = codec.encode("a b<|eot_id|> c<|endoftext|><|endoftext|>")
    padding = codec.encode("<|endoftext|>")
    completion: Any = SimpleNamespace(token_ids=_Ids(ids), stop=None, text="")

    assert paper_tokens(codec, info, completion, ()) == len(ids) - 2
    assert paper_tokens(codec, info, completion, (" c",)) == len(codec.encode("a b<|eot_id|>"))
    assert judged_text(codec, [*ids, *codec.encode("more")], padding, ())[0] == "a b c"


class _Ids(list[int]):
    def tolist(self) -> list[int]:
        return list(self)


def test_generation_kwargs_win_over_model_args_by_the_same_names(model: Model) -> None:
    lm = model(cache="dual", temperature=0.5, threshold=0.8)

    config, stop = lm.request_config({"until": "x", "max_gen_toks": 7, "do_sample": False})
    sampled, _ = lm.request_config({"do_sample": True, "num_beams": 1, "threshold": 0.7})

    assert stop == ("x",)
    assert (config.max_new_tokens, config.temperature, config.threshold) == (7, 0.0, 0.8)
    assert (sampled.max_new_tokens, sampled.temperature, sampled.threshold) == (256, 0.5, 0.7)
    assert sampled.cache == "dual"


def test_with_no_rule_threshold_is_the_papers(model: Model) -> None:
    assert model().config.threshold == 0.9
    assert model(steps=16).config.threshold is None


def test_a_request_that_comes_again_is_sampled_with_another_seed(model: Model) -> None:
    lm = model(seed=3)
    kwargs = {"temperature": 1.0, "until": []}

    asked = lm._asked([request("a", kwargs), request("b", kwargs), request("a", kwargs)])

    assert [config.seed for _, config, _ in asked] == [3, 3, 4]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_beams": 4}, "generation_kwargs has 'num_beams'"),
        ({"max_gen_toks": 512}, "max_new_tokens is 512; expected less than the context of 512"),
        ({"threshold": "high"}, "threshold is 'high'; expected"),
    ],
)
def test_what_diffusion_cannot_honour_is_refused_by_name(
    model: Model, kwargs: dict[str, Any], message: str
) -> None:
    lm = model()

    with pytest.raises(ConfigError, match=message):
        lm.generate_until([request("a", {}), request("b", kwargs)], disable_tqdm=True)

    assert lm.throughput.answers == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"treshold": 0.9}, "model_args has 'treshold'; expected package"),
        ({"threshold": 2.0}, "threshold is 2; expected"),
        ({"likelihood": "exact"}, "likelihood is 'exact'"),
    ],
)
def test_bad_model_args_are_refused_by_name(
    model: Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(**options)


def test_a_first_token_that_the_package_does_not_name_is_refused(
    package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    shutil.copytree(package, folder)
    metadata = json.loads((folder / "fastdllm.json").read_text("utf-8"))
    metadata["model"]["bos_token_id"] = None
    (folder / "fastdllm.json").write_text(json.dumps(metadata), "utf-8")

    with pytest.raises(ConfigError, match="names no bos_token_id"):
        FastdllmLM(str(folder), threads=1, add_bos_token=True)


def test_lm_evals_torch_device_is_not_the_engines(package: Path) -> None:
    lm = FastdllmLM.create_from_arg_string(
        f"package={package},threads=1,max_new_tokens=32",
        {"device": "cuda:0", "batch_size": "auto", "max_batch_size": 3},
    )

    assert "CPU" in lm.llm.engine.backend
    assert lm.llm.engine.load().max_batch == 3
    assert lm.config.max_new_tokens == 32


def test_a_long_context_loses_its_beginning_with_one_warning(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    lm = model(max_new_tokens=8, likelihood="block")
    long = " book" * 600

    with caplog.at_level(logging.WARNING, "lm_eval"):
        lm.generate_until([request(long, {}), request(long, {})], disable_tqdm=True)
        found = lm.loglikelihood([request(long, " book")], disable_tqdm=True)

    assert sum("lose their beginnings" in record.message for record in caplog.records) == 1
    assert lm.get_model_info()["fastdllm"]["truncated_contexts"] == 3
    ids = lm.tok_encode(long)
    kept = log_likelihood(lm.llm.engine, ids[-511:], ids[-1:], method="block")
    assert found[0][0] == pytest.approx(kept.log_likelihood)


def test_a_continuation_is_scored_as_the_tokens_of_the_whole_text(model: Model) -> None:
    lm = model(mc_samples=64, mc_seed=2)
    context, continuation = QUESTION, " There are"

    (found,) = lm.loglikelihood([request(context, continuation)], disable_tqdm=True)

    one = log_likelihood(
        lm.llm.engine, lm.tok_encode(context), lm.tok_encode(continuation), samples=64, seed=2
    )
    assert found == (one.log_likelihood, one.greedy)


def test_a_rolling_text_is_scored_in_windows_behind_a_first_token(model: Model) -> None:
    lm = model(mc_samples=2)
    text = " book" * 520  # two windows

    (found,) = lm.loglikelihood_rolling([request(text)], disable_tqdm=True)

    assert len(lm.likelihoods) == 2
    assert found == pytest.approx(sum(one.log_likelihood for one in lm.likelihoods))
    assert lm.prefix_token_id == lm.llm.engine.package.bos_token_id


def test_a_chat_that_is_to_be_continued_ends_with_its_last_message(model: Model) -> None:
    lm = model()
    history = [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "There are"},
    ]

    assert lm.apply_chat_template(history, add_generation_prompt=False).endswith(
        "<|end_header_id|>\n\nThere are"
    )
    assert lm.apply_chat_template(history).endswith("assistant<|end_header_id|>\n\n")
    assert "start_header_id" in lm.chat_template(True)
    assert lm.chat_template(False) == ""
    assert lm.tokenizer_name == model().tokenizer_name


def test_finished_answers_are_in_lm_evals_cache_before_all_are(model: Model) -> None:
    lm = model(max_new_tokens=32)
    kept: list[str] = []
    lm.cache_hook = SimpleNamespace(add_partial=lambda kind, args, text: kept.append(text))

    texts = lm.generate_until([request(chat(lm), {})] * 2, disable_tqdm=True)

    assert kept == texts


def test_without_lm_eval_the_command_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from fastdllm.cli import main; sys.exit(main(['eval', '--tasks', 'x']))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 1
    assert "pip install 'fastdllm[eval]'" in ran.stderr
    assert ran.stderr.count("\n") == 1


def at(package: Path, words: list[str]) -> list[str]:
    return [word.replace("PACKAGE", str(package)) for word in words]


@pytest.mark.parametrize(
    ("typed", "run"),
    [
        (["--tasks", "x", *PACKAGE], ["--tasks", "x", *PACKAGE, "--model", "fastdllm"]),
        (["--config", "x.yaml"], ["--config", "x.yaml"]),
        (["run", "--model=hf"], ["run", "--model=hf"]),
        (["ls", "tasks"], ["ls", "tasks"]),
        ([], []),
        (["--help"], ["--help"]),
    ],
)
def test_the_command_is_lm_evals_with_fastdllm_as_its_model(
    typed: list[str], run: list[str], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdllm import cli, evaluation

    seen: list[list[str]] = []
    monkeypatch.setattr(evaluation, "cli_evaluate", lambda: seen.append(sys.argv))

    assert cli.main(["eval", *at(package, typed)]) == 0

    assert seen == [["lm_eval", *at(package, run)]]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([*PACKAGE, "thresold=0.9"], "model_args has 'thresold'; expected package"),
        (["--model_args=package=PACKAGE,threshold=2"], "threshold is 2; expected"),
        (["-a", "package=no-package"], "no-package: no such package folder"),
        (["--model_args", "threshold=0.9"], "model_args has no package"),
        ([], "model_args has no package"),
    ],
)
def test_wrong_model_args_are_refused_before_tasks_load(
    typed: list[str],
    message: str,
    package: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fastdllm import cli, evaluation

    monkeypatch.setattr(evaluation, "cli_evaluate", lambda: pytest.fail("tasks were loaded"))

    assert cli.main(["eval", "--tasks", "x", *at(package, typed)]) == 1

    assert message in capsys.readouterr().err


def test_lm_evals_device_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from fastdllm import cli

    assert cli.main(["eval", "--device", "cuda"]) == 1
    assert "expected --model_args device=" in capsys.readouterr().err
