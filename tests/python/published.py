"""Checkpoint folders in the forms in which families publish them, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fastdllm.export.adapters import adapter_for
from fastdllm.export.graphs import Transformer
from fastdllm.export.pipeline import expected_shapes

QWEN_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 151936,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
# With the keys of the published config.json files that say tokens, and their values.
SDAR = QWEN_SIZES | {
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "head_dim": 8,
    "attention_bias": False,
    "block_size": 4,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "mask_token_id": 151669,
}
DREAM = QWEN_SIZES | {
    "architectures": ["DreamModel"],
    "model_type": "Dream",
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "pad_token_id": 151643,
    "mask_token_id": 151666,
}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_json(folder: Path, **contents: Any) -> Path:
    """Write JSON files by name (without .json); None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        file = folder / f"{name}.json"
        if content is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return folder


def write_random(folder: Path, config: dict[str, Any]) -> Path:
    """Write config.json and weights that fit it."""
    adapter = adapter_for(config)
    spec = adapter.spec({"mask_token_id": 3, **config})
    with torch.device("meta"):
        model = Transformer(spec, 23)
    generator = torch.Generator().manual_seed(1)
    shapes = expected_shapes(model, adapter.tensor_names(spec))
    write_json(folder, config=config)
    tensors = {name: torch.randn(s, generator=generator) * 0.1 for name, s in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def dream_form(folder: Path, real: Path) -> Path:
    """Write what Dream publishes, from Qwen2.5's tokenizer: vocab.json, merges.txt and so on."""
    published = json.loads((real / "tokenizer.json").read_text("utf-8"))
    model = published["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    added = {token["content"]: token["id"] for token in published["added_tokens"]}
    added |= {"<|beginoftext|>": 151665, "<|mask|>": 151666}
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        str(token_id): {"content": content, **flags, "special": content in special}
        for content, token_id in added.items()
    }
    roles = {
        "bos_token": "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "pad_token": "<|endoftext|>",
    }
    write_json(
        folder,
        vocab=model["vocab"],
        added_tokens=added,
        special_tokens_map=roles,
        tokenizer_config={
            "added_tokens_decoder": decoder,
            "chat_template": CHATML,
            "tokenizer_class": "DreamTokenizer",
            "errors": "replace",
            **roles,
        },
        generation_config={"bos_token_id": 151643, "eos_token_id": 151643, "pad_token_id": 151643},
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    return folder
