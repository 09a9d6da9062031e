"""fastdllm as a model of lm-evaluation-harness (`lm_eval`), which has the tasks.

Importing this module makes `fastdllm` a model of lm_eval in this process; `fastdllm eval` is
lm_eval's command line with it. docs/evaluation.md has the commands.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdllm._core import ConfigError, Error, GenerationConfig, PackageError
from fastdllm.answer import Answer, Completion, start_all, stop_strings
from fastdllm.check import read_metadata
from fastdllm.cli.config import config_of
from fastdllm.likelihood import Likelihood, check_method, log_likelihood
from fastdllm.llm import LLM
from fastdllm.options import ENGINE_OPTIONS, GENERATION_OPTIONS, OPTIONS
from fastdllm.text import ChatTemplate, TextError
from fastdllm.throughput import Throughput, judged_text, paper_tokens

try:
    import lm_eval.models  # noqa: F401  (the harness's own models register before ours)
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import (
        get_rolling_token_windows,
        make_disjoint_window,
        simple_parse_args_string,
    )
    from tqdm import tqdm
except ImportError as problem:
    raise ImportError(
        f"evaluation needs lm-eval: pip install 'fastdllm[eval]' ({problem})"
    ) from problem

__all__ = ["FastdllmLM", "check_model_args", "cli_evaluate"]

_LOGGER = logging.getLogger("lm_eval.fastdllm")  # shown with the log of the harness
_DEFAULTS = {name: row.default for name, row in GENERATION_OPTIONS.items()}
_MAX_NEW_TOKENS = 256  # lm_eval's, and the paper's
_LENGTHS = ("max_gen_toks", "max_tokens", "max_completion_tokens")  # of max_new_tokens, in lm_eval


@register_model("fastdllm")
class FastdllmLM(TemplateLM):  # type: ignore[misc]
    """A package for lm_eval: `--model_args package=FOLDER,cache=dual,threshold=0.9`.

    package: the folder. All keywords of fastdllm.Engine, such as threads and device. batch_size
    (lm_eval's --batch_size): max_batch, where that is not given; answers do not depend on it.
    likelihood, mc_samples, mc_seed, check_greedy: as in fastdllm.likelihood.log_likelihood.
    add_bos_token: put the package's before every text that does not begin with it. Everything else
    is a field of GenerationConfig by its name; with no rule threshold is 0.9. A task's
    generation_kwargs win over these, and --gen_kwargs over both; they may name any field, too.

    With ignore_eos every block is run, as the papers do, and stop strings cut the text afterwards.
    A context that is too long loses its beginning. Errors: fastdllm.Error before anything runs.
    """

    def __init__(
        self,
        package: str,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        likelihood: str = "auto",
        mc_samples: int = 128,
        mc_seed: int = 0,
        check_greedy: bool = True,
        add_bos_token: bool = False,
        trust_remote_code: bool = False,  # of data sets: lm_eval tells models, too
        **options: Any,
    ) -> None:
        super().__init__()
        engine_options = {name: options[name] for name in options if name in ENGINE_OPTIONS}
        fields = {name: options[name] for name in options if name not in ENGINE_OPTIONS}
        self._fields = _model_fields(fields)
        self.config = _config(self._fields)
        named = max_batch_size if batch_size == "auto" else batch_size
        if named is not None:
            engine_options.setdefault("max_batch", int(named))
        try:
            self.llm = LLM(package, **engine_options)
        except TypeError as problem:
            raise ConfigError(str(problem)) from None
        self._info = self.llm.engine.package
        check_method(self._info.attention, likelihood, mc_samples, mc_seed)
        self._likelihood: dict[str, Any] = {
            "method": likelihood,
            "samples": mc_samples,
            "seed": mc_seed,
            "block_length": fields.get("block_length") if self._causal else None,
            "check_greedy": check_greedy,
        }
        self._bos: list[int] = []
        if add_bos_token:
            if self._info.bos_token_id is None:
                raise ConfigError(f"add_bos_token is true, and {package} names no bos_token_id")
            self._bos = [self._info.bos_token_id]
        self._package = package
        self._truncated = 0
        self.throughput = Throughput()
        self.likelihoods: list[Likelihood] = []

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> FastdllmLM:
        """Make one of model_args and what lm_eval adds, of which the device is no use.

        It names torch's, and is cuda:0 where nobody named one: model_args have ours.
        """
        added = additional_config or {}
        kept = {name: value for name, value in added.items() if name != "device"}
        return cls(**{name: v for name, v in kept.items() if v is not None} | arg_dict)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> FastdllmLM:
        """Do the same from text: "package=FOLDER,threshold=0.9"."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def _causal(self) -> bool:
        return bool(self._info.attention == "block_causal")

    @property
    def max_length(self) -> int:
        """Tokens of the context; of a block-causal model in whole blocks."""
        length: int = self._info.max_context_length
        if self._causal:
            block = self.config.block_length or self._info.block_length or 32
            length = length // block * block or length
        return length

    @property
    def eot_token_id(self) -> int:
        """The first end-of-text token. Errors: Error where the package has none."""
        if not self._info.eos_token_ids:
            raise Error(f"{self._package}: names no end-of-text token")
        token: int = self._info.eos_token_ids[0]
        return token

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: the package's BOS token, else EOS."""
        bos = self._info.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """A name for lm_eval's caches that changes with the tokenizer and the chat template."""
        metadata = read_metadata(Path(self._package))
        named = (metadata["tokenizer"]["file"], metadata["tokenizer"].get("chat_template"))
        parts = [metadata["files"][name]["sha256"][:12] for name in named if name is not None]
        return "-".join(["fastdllm", *parts])

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the package's template in Jinja, '' where none is wanted."""
        return self._template().source if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat; without generation prompt the last message stays open, to be continued.

        Errors: TextError.
        """
        rendered = self._template().render(
            chat_history, add_generation_prompt=add_generation_prompt
        )
        if add_generation_prompt:
            return rendered
        last = chat_history[-1]["content"].strip()
        at = rendered.rfind(last)
        if at < 0:
            raise TextError("the chat template rewrites the last message; it cannot be continued")
        return rendered[: at + len(last)]

    def _template(self) -> ChatTemplate:
        template = self.llm.codec.chat_template
        if template is None:
            raise TextError(f"{self._package}: has no chat template; leave --apply_chat_template")
        return template

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Encode a text; a BOS token comes first only with add_bos_token."""
        ids = self.llm.codec.encode(string)
        if add_special_tokens is False or ids[:1] == self._bos:
            return ids
        return self._bos + ids

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer all requests, in batches of the engine. Errors: the requests' own."""
        start = time.perf_counter()
        asked = list(self._asked(requests))
        answers = [
            Answer(
                self.llm.engine,
                self.llm.codec,
                ids,
                config,
                stop=() if config.ignore_eos else stop,
            )
            for ids, config, stop in asked
        ]
        texts: list[str] = []
        with tqdm(total=len(answers), desc="answers", disable=disable_tqdm) as progress:
            try:
                for number in start_all(answers, [None] * len(answers)):
                    answers[number].wait()
                for request, answer, (_, config, stop) in zip(
                    requests, answers, asked, strict=True
                ):
                    texts.append(self._take(answer.completion(), config, stop))
                    self.cache_hook.add_partial("generate_until", request.args, texts[-1])
                    progress.update()
            finally:
                for answer in answers:
                    answer.cancel()
        self.throughput.seconds += time.perf_counter() - start
        _LOGGER.info("generate_until: %s", self.throughput)
        return texts

    def _asked(
        self, requests: Sequence[Any]
    ) -> Iterator[tuple[list[int], GenerationConfig, tuple[str, ...]]]:
        """Yield the ids, the config and the stop strings of requests."""
        seen: Counter[tuple[str, str]] = Counter()
        for request in requests:
            context, kwargs = request.args
            config, stop = self.request_config(kwargs)
            # A task that samples an answer several times sends the same request again.
            again = seen[context, repr(kwargs)]
            seen[context, repr(kwargs)] += 1
            config.seed = (config.seed + again) % 2**64
            room = self.max_length - config.max_new_tokens
            if room < max(1, self._info.min_prompt_length):
                raise ConfigError(
                    f"max_new_tokens is {config.max_new_tokens}; expected less than the context"
                    f" of {self.max_length}: set max_gen_toks in --gen_kwargs"
                )
            yield self._fit(self.tok_encode(context), room), config, stop

    def request_config(self, kwargs: Mapping[str, Any]) -> tuple[GenerationConfig, tuple[str, ...]]:
        """Return the config and the stop strings of a request's generation_kwargs.

        Errors: ConfigError for what a diffusion model cannot honour, by name.
        """
        fields = dict(kwargs)
        until = fields.pop("until", None)
        stop = stop_strings(until)
        if fields.pop("do_sample", None) is False:
            fields["temperature"] = 0.0
        lengths = [fields.pop(name) for name in _LENGTHS if name in fields]
        if lengths:
            fields["max_new_tokens"] = lengths[0]
        if fields.get("num_beams") == 1:
            del fields["num_beams"]
        _require_fields(fields, "generation_kwargs", "until, do_sample, max_gen_toks")
        return _config(self._fields | fields), stop

    def _take(self, completion: Completion, config: GenerationConfig, stop: tuple[str, ...]) -> str:
        """Count a completion; return its text up to its end."""
        codec, ends = self.llm.codec, config.stop_token_ids
        if ends is None:
            ends = self._info.eos_token_ids
        text, tokens = judged_text(codec, completion.token_ids.tolist(), ends, stop)
        self.throughput.answers += 1
        self.throughput.answer_tokens += tokens
        self.throughput.paper_tokens += paper_tokens(codec, self._info, completion, stop)
        self.throughput.passes += completion.num_passes
        return text

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **options: Any,
    ) -> list[tuple[float, bool]]:
        """Score continuations; greedy is false where check_greedy is."""
        options = self._likelihood | options
        found = []
        for key, context, continuation in tqdm(requests, desc="likelihoods", disable=disable_tqdm):
            room = self.max_length - len(continuation)
            if room < self._info.min_prompt_length:
                raise ConfigError(
                    f"a continuation has {len(continuation)} tokens; the context has room for"
                    f" {self.max_length - self._info.min_prompt_length}"
                )
            one = log_likelihood(self.llm.engine, self._fit(context, room), continuation, **options)
            self.likelihoods.append(one)
            found.append((one.log_likelihood, bool(one.greedy)))
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, found[-1])
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Score whole texts, in windows of the context, the first one behind prefix_token_id."""
        found: list[float] = []
        for request in tqdm(requests, desc="texts", disable=disable_tqdm):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            scores = self._loglikelihood_tokens(pairs, disable_tqdm=True, check_greedy=False)
            found.append(sum(score for score, _ in scores))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def _fit(self, ids: list[int], room: int) -> list[int]:
        """Return the last `room` ids. Warn when the first text is cut."""
        if len(ids) <= room:
            return ids
        if self._truncated == 0:
            _LOGGER.warning(
                "a context has %d tokens, and there is room for %d: it and others lose their"
                " beginnings",
                len(ids),
                room,
            )
        self._truncated += 1
        return ids[len(ids) - room :]

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm_eval writes into the `config` of its results, when all has run."""
        facts: dict[str, Any] = {
            "package": self._package,
            "backend": self.llm.engine.backend,
            "config": self.config.to_dict(),
            "truncated_contexts": self._truncated,
        }
        if self.throughput.answers:
            facts["throughput"] = self.throughput.to_dict()
        if self.likelihoods:
            errors = [one.standard_error for one in self.likelihoods]
            facts["likelihoods"] = {
                **self._likelihood,
                "answers": len(errors),
                "passes": sum(one.num_passes for one in self.likelihoods),
                "exact": sum(error == 0.0 for error in errors),
                "mean_standard_error": sum(errors) / len(errors),
            }
        return {"fastdllm": facts}


def check_model_args(model_args: Mapping[str, Any]) -> None:
    """Refuse what FastdllmLM would, as far as that is known without the model. Errors: Error."""
    own = {*inspect.signature(FastdllmLM).parameters, *ENGINE_OPTIONS}
    _config(_model_fields({name: model_args[name] for name in model_args if name not in own}))
    if "package" not in model_args:
        raise ConfigError("model_args has no package; expected --model_args package=FOLDER")
    package = Path(str(model_args["package"]))
    if not package.is_dir():
        raise PackageError(f"{package}: no such package folder")
    read_metadata(package)


def _model_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    _require_fields(fields, "model_args", "package, an option of the engine or of likelihoods")
    return {"max_new_tokens": _MAX_NEW_TOKENS} | dict(fields)


def _config(fields: Mapping[str, Any]) -> GenerationConfig:
    """Make a config of fields: threshold 0.9 unless they name a rule. Errors: ConfigError."""
    try:
        return config_of(argparse.Namespace(**(_DEFAULTS | dict(fields))))
    except TypeError as problem:
        raise ConfigError(str(problem)) from None


def _require_fields(fields: Mapping[str, Any], where: str, others: str) -> None:
    for name in fields:
        if name in _DEFAULTS:
            continue
        near = difflib.get_close_matches(name, OPTIONS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{where} has {name!r}; expected {others}, or a field of GenerationConfig:"
            f" {', '.join(_DEFAULTS)}{meant}"
        )
