"""Refuses unknown keys of config.json: the network might be a different one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastdllm.export.errors import CheckpointError

# Keys that do not change the network: who wrote the file, training, generation, padding,
# other programs. transformers writes many of them into every config.json.
_WORDS = (
    "_attn_implementation _commit_hash _name_or_path add_cross_attention architectures "
    "attention_dropout attn_implementation auto_map aux_loss_alpha bad_words_ids "
    "begin_suppress_tokens block_length bos_token_id chunk_size_feed_forward "
    "compression_config cross_attention_hidden_size decoder_start_token_id diversity_penalty "
    "do_sample dtype early_stopping embd_pdrop embedding_dropout embedding_size "
    "encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty "
    "finetuning_task flash_attention forced_bos_token_id forced_eos_token_id "
    "fuse_cross_entropy gradient_checkpointing hidden_dropout hidden_size id2label "
    "init_cutoff_factor init_device init_fn init_std initializer_cutoff_factor "
    "initializer_range initializer_std is_decoder is_encoder_decoder label2id length_penalty "
    "loss_type mask_token_id max_length max_window_layers min_length model_max_length "
    "model_type moe_backend multi_token_prediction_depth no_repeat_ngram_size "
    "num_attention_heads num_beam_groups num_beams num_return_sequences output_attentions "
    "output_dropout output_hidden_states output_router_logits output_scores pad_token_id "
    "precision prefix problem_type pruned_heads quantization_config remove_invalid_values "
    "repetition_penalty resid_pdrop residual_dropout return_dict return_dict_in_generate "
    "router_aux_loss_coef router_dtype router_jitter_noise router_z_loss_coef sep_token_id "
    "seq_aux sliding_window suppress_tokens task_specific_params temperature tf_legacy_loss "
    "tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript "
    "transformers_version typical_p unsloth_version use_bfloat16 use_cache "
    "use_flash_attention use_mrope vocab_size "
)
HARMLESS = frozenset(_WORDS.split())


class KeysRead(Mapping[str, Any]):
    """A config.json that notes which of its keys were read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self._config[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config)

    def __len__(self) -> int:
        return len(self._config)

    def refuse_unread(self, harmless: frozenset[str], family: str) -> None:
        """Check that each key was read, is harmless, or says nothing. Errors: CheckpointError."""
        left = sorted(
            key
            for key, value in self._config.items()
            if key not in self.read | HARMLESS | harmless and value not in (None, False, [], {})
        )
        if left:
            values = ", ".join(f"{key} is {self._config[key]!r}" for key in left[:5])
            raise CheckpointError(
                f"config.json: {values}: this exporter does not know what that means for the "
                f"family {family!r}. Remove the key where the network does without it"
            )
