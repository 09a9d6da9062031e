"""Trains the model that ships with fastdllm, from nothing: python benchmarks/tiny_math/train.py.

A masked diffusion model in the manner of LLaDA (arXiv 2502.09992): the answer is masked at a random
ratio and predicted from what is left; the question is never masked. Matrices are trained with Muon
(orthogonalized momentum), everything else with AdamW; both rates warm up and then fall to zero.
An interrupted run goes on from its state file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from model import Model, ModelConfig, decode
from problems import NAMES, OBJECTS, TEMPLATES, Problem, held_out, is_right, problems, write_jsonl

HERE = Path(__file__).parent
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|startoftext|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|mdm_mask|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
)
RENDER = jinja2.Environment(keep_trailing_newline=True).from_string(CHAT_TEMPLATE).render


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The schedule and the objective; the defaults are what made the shipped model.

    `steps` teach wording and arithmetic; `copy_steps` more, at half the rate and with names and
    objects weighted up, teach to copy them from the question, which else stays at chance.
    """

    steps: int = 8000
    copy_steps: int = 1000
    batch_size: int = 64
    num_problems: int = 60000
    lengths: tuple[int, ...] = (96, 96, 96, 128)  # of the batches, in turn
    muon_rate: float = 0.02
    adam_rate: float = 0.003
    warmup: int = 100
    weight_decay: float = 0.01
    digit_weight: float = 3.0
    padding_weight: float = 0.1
    copied_weight: float = 5.0
    seed: int = 0


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE, digits one by one, the special tokens at the end of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size - len(SPECIAL_TOKENS):
        raise ValueError(f"the texts give only {tokenizer.get_vocab_size()} ids")
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def encode_prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    """Encode a question in the chat format."""
    text = RENDER(messages=[{"role": "user", "content": question}], bos_token="<|startoftext|>")
    ids: list[int] = tokenizer.encode(text).ids
    return ids


class Data:
    """Encoded problems: ids [n, length], padded with end-of-text, and what each position is."""

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe, skip: set[str]) -> None:
        eos = tokenizer.token_to_id("<|endoftext|>")
        length = max(recipe.lengths)
        rows: list[list[int]] = []
        starts: list[int] = []
        ends: list[int] = []
        for problem in problems(seed=1000 + recipe.seed):
            if problem.question in skip:
                continue
            prompt = encode_prompt(tokenizer, problem.question)
            ids = prompt + tokenizer.encode(problem.answer).ids
            if len(ids) >= min(recipe.lengths):
                raise ValueError(f"a problem takes {len(ids)} ids; lengths are {recipe.lengths}")
            starts.append(len(prompt))
            ends.append(len(ids))
            rows.append(ids + [eos] * (length - len(ids)))
            if len(rows) == recipe.num_problems:
                break
        self.ids = torch.tensor(rows)
        position = torch.arange(length)
        self.answer = position >= torch.tensor(starts)[:, None]
        self.padding = position >= torch.tensor(ends)[:, None] + 4
        digits = torch.tensor([tokenizer.token_to_id(str(digit)) for digit in range(10)])
        self.digit = torch.isin(self.ids, digits) & self.answer
        words = [f"{space}{word}" for word in NAMES + OBJECTS for space in ("", " ")]
        copied = torch.tensor(sorted({tokenizer.encode(word).ids[-1] for word in words}))
        self.copied = torch.isin(self.ids, copied) & self.answer


def choose_masked(answer: Tensor, digit: Tensor, generator: torch.Generator) -> Tensor:
    """Choose the positions to mask, bool [batch, length], from what is answer and what digit.

    One ratio per sample; for half of the samples digits have a ratio of their own, since a decode
    commits the easy wording first and meets digits masked among visible words.
    """
    count = (len(answer), 1)
    ratio = torch.rand(count, generator=generator)
    digit_ratio = torch.where(
        torch.rand(count, generator=generator) < 0.5, torch.rand(count, generator=generator), ratio
    )
    ratios = torch.where(digit, digit_ratio, ratio)
    noise = torch.rand(answer.shape, generator=generator)
    masked = (noise < ratios) & answer
    lowest = torch.where(answer, noise, 2.0).argmin(dim=1, keepdim=True)
    return masked.scatter(1, lowest, True)


def orthogonalize(updates: Tensor) -> Tensor:
    """Newton-Schulz iteration of Muon on a stack of matrices [n, rows, columns]."""
    x = updates.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon:
    """Momentum, orthogonalized, for matrices; same-shaped ones are handled in one stack."""

    def __init__(self, parameters: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter in parameters:
            shapes.setdefault(tuple(parameter.shape), []).append(parameter)
        self.groups = list(shapes.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape) for g in self.groups]

    @torch.no_grad()
    def step(self, rate: float, weight_decay: float) -> None:
        """Update the parameters from their gradients."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            buffer.lerp_(gradients, 1 - self.momentum)
            updates = orthogonalize(gradients.lerp(buffer, self.momentum))
            scale = max(1.0, group[0].shape[0] / group[0].shape[1]) ** 0.5
            for parameter, update in zip(group, updates, strict=True):
                parameter.mul_(1 - rate * weight_decay).sub_(update, alpha=rate * scale)


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then linear decay to zero, for either part; a factor in [0, 1]."""
    peak, length = (1.0, recipe.steps) if step < recipe.steps else (0.5, recipe.copy_steps)
    step = step if step < recipe.steps else step - recipe.steps
    return peak * min((step + 1) / recipe.warmup, (length - step) / length)


def write_checkpoint(
    folder: Path, model: Model, tokenizer: Tokenizer, tests: list[Problem]
) -> None:
    """Write a Hugging Face style checkpoint, each file beside and then renamed."""
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, text: str) -> None:
        beside = folder / f".{name}.part"
        beside.write_text(text, encoding="utf-8")
        beside.replace(folder / name)

    save_file(model.checkpoint_tensors(), folder / ".model.part", metadata={"format": "pt"})
    (folder / ".model.part").replace(folder / "model.safetensors")
    write("tokenizer.json", tokenizer.to_str(pretty=True))
    write(
        "tokenizer_config.json",
        json.dumps(
            {
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
                "mask_token": "<|mdm_mask|>",
                "chat_template": CHAT_TEMPLATE,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "add_bos_token": False,
                "add_eos_token": False,
            },
            indent=1,
        ),
    )
    write(
        "config.json",
        json.dumps(
            {
                "architectures": ["LLaDAModelLM"],
                "model_type": "llada",
                "d_model": config.d_model,
                "n_layers": config.n_layers,
                "n_heads": config.n_heads,
                "n_kv_heads": config.n_heads,
                "mlp_hidden_size": config.mlp_hidden_size,
                "vocab_size": config.vocab_size,
                "embedding_size": config.vocab_size,
                "max_sequence_length": config.max_sequence_length,
                "block_type": "llama",
                "activation_type": "silu",
                "layer_norm_type": "rms",
                "rms_norm_eps": config.rms_norm_eps,
                "rope": True,
                "rope_full_precision": True,
                "rope_theta": config.rope_theta,
                "include_bias": False,
                "include_qkv_bias": False,
                "bias_for_layer_norm": False,
                "weight_tying": False,
                "attention_layer_norm": False,
                "alibi": False,
                "input_emb_norm": False,
                "scale_logits": False,
                "mask_token_id": config.mask_token_id,
                "eos_token_id": config.eos_token_id,
                "pad_token_id": config.eos_token_id,
                "torch_dtype": "float16",
            },
            indent=1,
        ),
    )
    write_jsonl(folder / "problems.jsonl", tests)


def evaluate(
    model: Model, tokenizer: Tokenizer, tests: list[Problem], threshold: float | None
) -> tuple[float, float, float, dict[str, float]]:
    """Return accuracy, share of answers right to the word, mean passes, accuracy by template."""
    prompts = [encode_prompt(tokenizer, p.question) for p in tests]
    answers, passes = decode(model, prompts, threshold=threshold)
    right: Counter[str] = Counter()
    verbatim = 0
    eos = model.config.eos_token_id
    for problem, ids in zip(tests, answers, strict=True):
        text = tokenizer.decode(ids[: ids.index(eos)] if eos in ids else ids)
        right[problem.template] += is_right(text, problem.answer)
        verbatim += text == problem.answer
    seen = Counter(p.template for p in tests)
    by_template = {name: right[name] / seen[name] for name in TEMPLATES if seen[name]}
    return sum(right.values()) / len(tests), verbatim / len(tests), passes, by_template


def weights_of(
    recipe: Recipe, data: Data, rows: torch.Tensor, masked: torch.Tensor, *, copying: bool
) -> torch.Tensor:
    """Return the weight of each masked position's loss. masked: bool [len(rows), length]."""
    length = masked.shape[1]
    weights = torch.ones(int(masked.sum()))
    weights[data.digit[rows, :length][masked]] = recipe.digit_weight
    weights[data.padding[rows, :length][masked]] = recipe.padding_weight
    if copying:
        weights[data.copied[rows, :length][masked]] = recipe.copied_weight
    return weights


def texts_for_tokenizer(count: int) -> list[str]:
    """Return problems with their answers, of a seed that only the tokenizer uses."""
    return [f"{one.question}\n{one.answer}" for one in itertools.islice(problems(seed=999), count)]


def save_whole(state: dict[str, object], path: Path) -> None:
    """Save beside the file, then replace it, so that an interruption leaves the old file."""
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    beside.replace(path)


def train(recipe: Recipe, config: ModelConfig, checkpoint: Path, state_file: Path) -> None:
    """Run the recipe, or go on with it from the state file."""
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)
    tests = held_out(500, seed=1)
    validation = held_out(100, seed=2)
    tokenizer = train_tokenizer(texts_for_tokenizer(20000), config.vocab_size)
    data = Data(tokenizer, recipe, {p.question for p in tests + validation})
    print(f"{recipe.num_problems} problems of up to {int((~data.padding).sum(1).max())} ids")

    model = Model(config)
    compiled = torch.compile(model, dynamic=False)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blocks")]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator().manual_seed(recipe.seed)
    first, best = 0, -1.0
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        muon.buffers = state["muon"]
        adam.load_state_dict(state["adam"])
        generator.set_state(state["generator"])
        first, best = state["step"], state["best"]
        print(f"going on from step {first}")

    total = recipe.steps + recipe.copy_steps
    loss_sum, digit_sum, logged, started = 0.0, 0.0, 0, time.monotonic()
    for step in range(first, total):
        rows = torch.randint(len(data.ids), (recipe.batch_size,), generator=generator)
        length = recipe.lengths[step % len(recipe.lengths)]
        ids, digits = data.ids[rows, :length], data.digit[rows, :length]
        masked = choose_masked(data.answer[rows, :length], digits, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = compiled(torch.where(masked, config.mask_token_id, ids))
        losses = F.cross_entropy(logits[masked].float(), ids[masked], reduction="none")
        digit = digits[masked]
        weights = weights_of(recipe, data, rows, masked, copying=step >= recipe.steps)
        loss = (losses * weights).sum() / weights.sum()
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        rate = rate_at(step, recipe)
        muon.step(recipe.muon_rate * rate, recipe.weight_decay)
        for group in adam.param_groups:
            group["lr"] = recipe.adam_rate * rate
        adam.step()

        loss_sum += float(loss.detach())
        digit_sum += float(losses[digit].mean().detach()) if digit.any() else 0.0
        logged += 1
        done = step + 1
        if done % 50 == 0:
            pace = (time.monotonic() - started) / (done - first)
            print(
                f"step {done}/{total} loss {loss_sum / logged:.3f} "
                f"digits {digit_sum / logged:.3f} {pace:.2f} s/step, "
                f"{pace * (total - done) / 60:.0f} min left",
                flush=True,
            )
            loss_sum, digit_sum, logged = 0.0, 0.0, 0
        if done % 500 == 0 or done == total:
            accuracy, verbatim, passes, by_template = evaluate(model, tokenizer, validation, 0.9)
            templates = " ".join(f"{name} {value:.2f}" for name, value in by_template.items())
            found = f"accuracy {accuracy:.3f} verbatim {verbatim:.3f} passes {passes:.1f}"
            print(f"step {done} {found} {templates}", flush=True)
            if accuracy + verbatim >= best:
                best = accuracy + verbatim
                write_checkpoint(checkpoint, model, tokenizer, tests)
            state = {
                "model": model.state_dict(),
                "muon": muon.buffers,
                "adam": adam.state_dict(),
                "generator": generator.get_state(),
                "step": done,
                "best": best,
            }
            save_whole(state, state_file)


def main() -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--state", type=Path, default=Path("tiny_math_state.pt"))
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--copy-steps", type=int, default=Recipe.copy_steps)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.steps < 1 or arguments.copy_steps < 0:
        parser.error("--steps must be at least 1 and --copy-steps at least 0")
    recipe = Recipe(steps=arguments.steps, copy_steps=arguments.copy_steps)
    train(recipe, ModelConfig(), arguments.checkpoint, arguments.state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
