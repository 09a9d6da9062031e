"""The released checkpoints of the known families: one row each, with the keys of its config.json.

A row's `source` says where its numbers come from, and `is_certain` whether its own config.json, or
a document with its values, was read. Otherwise the sizes are those of the model it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastdllm.hub.released_configs import (
    DREAM,
    FAST_DLLM_V2,
    ILLADA,
    LLADA,
    LLADA2_MINI,
    LLADA_MOE,
    OPEN_DLLM,
    QWEN3_4B,
    QWEN3_8B,
    QWEN3_MOE,
    RND1,
    SDAR,
    Config,
    config_of,
)


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """A checkpoint on the Hub.

    config: what decides the graph in its config.json, under the file's own keys; a file has more
    that fastdllm does not read. mask_token_id: where the config does not state it, the tokenizer
    or the family's code does; None = not known here. stop_ids: that end a text or a chat's turn.
    block_length: of its training; None = no blocks. tokenizer: the form it is published in.
    """

    repository: str
    family: str
    config: Config
    tokenizer: str
    source: str
    is_certain: bool = False
    mask_token_id: int | None = None
    stop_ids: tuple[int, ...] = ()
    block_length: int | None = None

    @property
    def full_config(self) -> Config:
        """The config with the mask token's id, which an adapter asks for."""
        if self.mask_token_id is None:
            return self.config
        return {**self.config, "mask_token_id": self.mask_token_id}


# Tokenizers, by the files they come in.
_ONE_FILE = "tokenizer.json"
_QWEN_FILES = "vocab.json, merges.txt"
_READ = "a public copy of its config.json"
_TRAINED = "the config of its training code; the released context may be longer"
_LISTED = "its family's code and papers"
_LLADA_STOPS = (126081, 126348)
_QWEN_STOPS = (151643, 151645)


def _dream(repository: str, *, is_certain: bool = False) -> ReleasedModel:
    return ReleasedModel(
        repository=repository,
        family="dream",
        config=DREAM,
        tokenizer=_QWEN_FILES,
        source=_LISTED if is_certain else "Dream-7B's values, whose layout it has",
        is_certain=is_certain,
        stop_ids=_QWEN_STOPS,
    )


def _sdar(repository: str, config: Config, base: str, family: str = "sdar") -> ReleasedModel:
    return ReleasedModel(
        repository=repository,
        family=family,
        config=config_of(SDAR, config),
        tokenizer=_ONE_FILE,
        source=f"SDAR-1.7B's keys with the sizes of {base}" if base else _READ,
        is_certain=not base,
        stop_ids=_QWEN_STOPS,
        block_length=4,
    )


def _llada2(repository: str, config: Config, source: str) -> ReleasedModel:
    return ReleasedModel(
        repository=repository,
        family="llada2",
        config=config,
        tokenizer=_ONE_FILE,
        source=source,
        mask_token_id=156895,
        stop_ids=(156892,),
        block_length=32,
    )


RELEASED: tuple[ReleasedModel, ...] = (
    *(
        ReleasedModel(
            repository=f"GSAI-ML/{name}",
            family="llada",
            config=LLADA,
            tokenizer=_ONE_FILE,
            source=_READ if name == "LLaDA-8B-Instruct" else _LISTED,
            is_certain=True,
            stop_ids=stops,
        )
        for name, stops in (
            ("LLaDA-8B-Base", (126081,)),
            ("LLaDA-8B-Instruct", _LLADA_STOPS),
            ("LLaDA-1.5", _LLADA_STOPS),
        )
    ),
    ReleasedModel(
        repository="GSAI-ML/iLLaDA-8B",
        family="illada",
        config=ILLADA,
        tokenizer=_ONE_FILE,
        source=f"{_LISTED}; its rope_theta and rms_norm_eps are not known here",
        mask_token_id=5,
        stop_ids=(2,),
    ),
    ReleasedModel(
        repository="inclusionAI/LLaDA-MoE-7B-A1B-Instruct",
        family="llada-moe",
        config=LLADA_MOE,
        tokenizer=_ONE_FILE,
        source="keys of its code; the sizes were not read, they give its 7 billion weights",
        mask_token_id=156895,
        stop_ids=(156892,),
    ),
    _llada2("inclusionAI/LLaDA2.0-mini", LLADA2_MINI, _TRAINED),
    _llada2(
        "inclusionAI/LLaDA2.0-flash",
        config_of(
            LLADA2_MINI,
            hidden_size=4096,
            intermediate_size=9216,
            moe_intermediate_size=1024,
            num_attention_heads=32,
            num_hidden_layers=32,
        ),
        _TRAINED,
    ),
    _llada2("inclusionAI/LLaDA2.1-mini", LLADA2_MINI, "LLaDA2.0-mini's values"),
    _dream("Dream-org/Dream-v0-Instruct-7B", is_certain=True),
    _dream("apple/DiffuCoder-7B-Instruct"),
    _dream("Dream-org/Dream-Coder-v0-Instruct-7B"),
    ReleasedModel(
        repository="Efficient-Large-Model/Fast_dLLM_v2_1.5B",
        family="fast-dllm-v2",
        config=config_of(
            FAST_DLLM_V2,
            hidden_size=1536,
            intermediate_size=8960,
            num_attention_heads=12,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            vocab_size=151936,
        ),
        tokenizer=_ONE_FILE,
        source="Fast_dLLM_v2_7B's keys with the sizes of Qwen2.5-1.5B",
        mask_token_id=151665,
        stop_ids=(151645,),
        block_length=32,
    ),
    ReleasedModel(
        repository="Efficient-Large-Model/Fast_dLLM_v2_7B",
        family="fast-dllm-v2",
        config=FAST_DLLM_V2,
        tokenizer=_ONE_FILE,
        source=_LISTED,
        is_certain=True,
        mask_token_id=151665,
        stop_ids=(151645,),
        block_length=32,
    ),
    _sdar("JetLM/SDAR-1.7B-Chat", {}, ""),
    _sdar("JetLM/SDAR-4B-Chat", QWEN3_4B, "Qwen3-4B"),
    _sdar("JetLM/SDAR-8B-Chat", QWEN3_8B, "Qwen3-8B"),
    _sdar(
        "JetLM/SDAR-30B-A3B-Chat",
        config_of(QWEN3_MOE, architectures=["SDARMoeForCausalLM"], model_type="sdar_moe"),
        "Qwen3-30B-A3B",
        family="sdar-moe",
    ),
    _sdar("Gen-Verse/TraDo-4B-Instruct", QWEN3_4B, "Qwen3-4B"),
    _sdar("Gen-Verse/TraDo-8B-Instruct", QWEN3_8B, "Qwen3-8B"),
    ReleasedModel(
        repository="Dream-org/DreamReasoner-8B",
        family="dream-reasoner",
        config=config_of(
            SDAR, QWEN3_8B, architectures=["DreamForCausalLM"], model_type="Dream", block_size=32
        ),
        tokenizer=_ONE_FILE,
        source="SDAR's keys with the sizes of Qwen3-8B",
        stop_ids=_QWEN_STOPS,
        block_length=32,
    ),
    ReleasedModel(
        repository="radicalnumerics/RND1-Base-0910",
        family="rnd1",
        config=RND1,
        tokenizer=_ONE_FILE,
        source="the defaults of its own code",
        is_certain=True,
        mask_token_id=151669,
        stop_ids=(151645,),
    ),
    ReleasedModel(
        repository="fredzzp/open-dcoder-0.5B",
        family="open-dllm",
        config=OPEN_DLLM,
        tokenizer=_ONE_FILE,
        source="the sizes of Qwen2.5-0.5B",
        mask_token_id=151665,
        stop_ids=(151643,),
    ),
)


def released_model(repository: str) -> ReleasedModel | None:
    """Return the row of a name, with or without its organisation; None = no such row."""
    wanted = repository.casefold()
    for model in RELEASED:
        known = model.repository.casefold()
        if wanted in (known, known.split("/")[1]):
            return model
    return None
