"""Dream: bidirectional decoding with shifted logits on Qwen2.5's network.

Dream-7B, DiffuCoder and Dream-Coder share the layout.
"""

from __future__ import annotations

from fastdllm.export.adapters.base import Adapter, Config, ModelSpec, TensorNames
from fastdllm.export.adapters.decoder import decoder_names, decoder_spec


class Dream(Adapter):
    """The published Dream checkpoints and their fine-tunes."""

    family = "dream"
    model_types = ("Dream",)
    architectures = ("DreamModel",)
    mask_token = "<|mask|>"
    eos_tokens = ("<|endoftext|>", "<|im_end|>")
    bpe_files = "qwen2"

    def spec(self, config: Config) -> ModelSpec:
        """Read Dream's config.json."""
        return decoder_spec(
            config,
            "Dream-7B's is 151666",
            qkv_bias=True,
            logits_shift=1,
            confidence="processed",
        )

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name Dream's tensors, which are Qwen2.5's."""
        return decoder_names(spec)
