"""Dream: bidirectional decoding with shifted logits on Qwen2.5's network.

Dream-7B, DiffuCoder and Dream-Coder share the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastdllm.export.adapters.base import Adapter, Config, ModelSpec, TensorNames, require
from fastdllm.export.adapters.decoder import decoder_names, decoder_spec


class Dream(Adapter):
    """The published Dream checkpoints and their fine-tunes."""

    family = "dream"
    model_types = ("Dream",)
    architectures = ("DreamModel",)
    mask_token: ClassVar[str | Sequence[str] | None] = "<|mask|>"
    eos_tokens = ("<|endoftext|>", "<|im_end|>")
    bpe_files = "qwen2"

    def spec(self, config: Config) -> ModelSpec:
        """Read Dream's config.json."""
        require(config, {"attention_bias": (True,)})  # its queries, keys and values have biases
        return decoder_spec(
            config,
            "Dream-7B's is 151666",
            qkv_bias=True,
            logits_shift=1,
            confidence="processed",
        )

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return what Dream's authors decode with: one token a pass, the lowest entropy first."""
        return {"remasking": "entropy", "temperature": 0.2, "top_p": 0.95}

    def tensor_names(self, spec: ModelSpec) -> TensorNames:
        """Name Dream's tensors, which are Qwen2.5's."""
        return decoder_names(spec)


class OpenDLLM(Dream):
    """Open-dLLM: Dream's decoding on Qwen2.5's network, under Qwen2's own names.

    An autoregressive Qwen2 has the same config.json, and no mask token.
    """

    family = "open-dllm"
    model_types = ("qwen2",)
    architectures = ("Qwen2ForCausalLM",)
    mask_token = ("<M>", "[MASK]")

    def decoding(self, spec: ModelSpec) -> dict[str, Any]:
        """Return nothing: the runtime does not have its rule (p2)."""
        return {}
