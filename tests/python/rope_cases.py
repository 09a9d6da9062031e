"""Ways of stretching the rotation, and how transformers computes their frequencies.

    python tests/python/rope_cases.py > tests/python/rope_values.json

writes what the tests compare with, where transformers is installed (5.24.0 made the file).
"""

from __future__ import annotations

import json
from typing import Any

# name: (heads' rotated dimensions, max_position_embeddings, rope_parameters, lengths)
Case = tuple[int, int, dict[str, Any], tuple[int, ...]]
CASES: dict[str, Case] = {
    "default": (64, 4096, {"rope_type": "default", "rope_theta": 5e5}, (16,)),
    "linear": (64, 4096, {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, (16,)),
    "dynamic": (
        32,
        64,
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0},
        (16, 64, 65, 130, 192),
    ),
    "yarn_qwen": (
        128,
        40960,
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
        | {"original_max_position_embeddings": 32768},
        (16,),
    ),
    "yarn_ministral": (
        128,
        262144,
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "beta_fast": 32.0}
        | {"beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
        | {"original_max_position_embeddings": 16384, "llama_4_scaling_beta": 0.1},
        (16,),
    ),
    "yarn_untruncated": (
        64,
        131072,
        {"rope_type": "yarn", "rope_theta": 1.5e5, "factor": 32.0, "truncate": False}
        | {"original_max_position_embeddings": 4096, "mscale": 0.7, "mscale_all_dim": 1.2},
        (16,),
    ),
    "yarn_stated_attention": (
        64,
        8192,
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "attention_factor": 0.8}
        | {"original_max_position_embeddings": 4096},
        (16,),
    ),
    "llama3": (
        128,
        131072,
        {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
        | {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        (16,),
    ),
    "longrope": (
        16,
        256,
        {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64}
        | {"short_factor": [1.0, 1.02, 1.1, 1.2, 1.4, 1.9, 2.5, 3.0]}
        | {"long_factor": [1.1, 1.3, 1.9, 2.8, 5.0, 9.0, 20.0, 33.0]},
        (16, 64, 65, 200),
    ),
}


def transformers_values(case: Case) -> list[dict[str, Any]]:
    """Return the frequencies and the attention factor of each length."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size, context, parameters, lengths = case
    config = LlamaConfig(
        hidden_size=size,
        num_attention_heads=1,
        head_dim=size,
        max_position_embeddings=context,
        rope_parameters=dict(parameters),
    )
    kind = parameters["rope_type"]
    found = []
    for length in lengths:
        if kind == "default":
            from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding as Rotary

            frequencies, factor = Rotary.compute_default_rope_parameters(config)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=length)
        found.append(
            {
                "length": length,
                "frequencies": [float(x) for x in frequencies],
                "attention_factor": float(factor),
            }
        )
    return found


if __name__ == "__main__":
    print(json.dumps({name: transformers_values(case) for name, case in CASES.items()}))
