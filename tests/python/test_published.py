"""Checkpoints as they are published: stop ids, tokenizers and templates, from whichever file."""

from __future__ import annotations

import json
import shutil
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tokenizers import Tokenizer

import fastdllm
from fastdllm.demo import is_right
from fastdllm.export import CheckpointError, ExportWarning, export_package
from fastdllm.export.bpe_files import tokenizer_from_bpe_files
from fastdllm.export.published import read_published
from fastdllm.problems import read_problems

from conftest import checkpoint_folder
from cpp_tools import ask
from many_strings import many_strings
from published import CHATML, DREAM, SDAR, dream_form, write_json, write_random
from real_tokenizers import real_tokenizer

pytestmark = pytest.mark.usefixtures("one_trace_per_structure")
DIGIT = 22  # the token "7" of the shipped tokenizer


def metadata_of(package: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((package / "fastdllm.json").read_text("utf-8"))
    return content


def exported(folder: Path, package: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Return fastdllm.json, and what the export warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_package(folder, package, **options)
    said = [str(w.message) for w in caught if issubclass(w.category, ExportWarning)]
    return metadata_of(package), said


# --- stop ids: the shipped checkpoint, with files of other checkpoints' kinds ---------------------


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder("tiny_math"), tmp_path / "checkpoint"))


def change(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), "utf-8")


def right_and_passes(package: Path) -> tuple[int, float]:
    llm = fastdllm.LLM(package, threads=2)
    config = fastdllm.GenerationConfig(max_new_tokens=64, threshold=0.9)
    problems = read_problems(checkpoint_folder("tiny_math") / "problems.jsonl")[:20]
    done = [(p, llm.generate(p.prompt, config)) for p in problems]
    right = sum(is_right(found.text, p.answer or "") for p, found in done)
    return right, sum(found.num_passes for _, found in done) / len(done)


def test_without_eos_in_config_the_tokenizers_ends_answers_as_before(
    shipped: Path, tmp_path: Path, package_of: Any
) -> None:
    change(shipped, "config.json", eos_token_id=None, pad_token_id=None)
    metadata, said = exported(shipped, tmp_path / "package")
    assert 506 in metadata["model"]["eos_token_ids"]
    assert "tokenizer_config.json's eos_token" in metadata["sources"]["eos_token_ids"]
    assert said == []
    assert right_and_passes(tmp_path / "package") == right_and_passes(package_of("tiny_math"))


def test_a_foreign_eos_is_left_out_where_generation_config_has_the_right_one(
    shipped: Path, tmp_path: Path, package_of: Any
) -> None:
    change(shipped, "config.json", eos_token_id=DIGIT)
    change(shipped, "tokenizer_config.json", eos_token=None)
    write_json(shipped, generation_config={"eos_token_id": [506]})
    metadata, said = exported(shipped, tmp_path / "package")
    assert metadata["model"]["eos_token_ids"] == [506, 510]
    assert any("left out" in text and f"config.json says {DIGIT}" in text for text in said)
    assert any("left out" in text for text in metadata["warnings"])
    assert right_and_passes(tmp_path / "package") == right_and_passes(package_of("tiny_math"))


def test_an_eos_that_is_ordinary_text_alone_is_refused(shipped: Path, tmp_path: Path) -> None:
    change(shipped, "config.json", eos_token_id=DIGIT)
    change(shipped, "tokenizer_config.json", eos_token=None, chat_template="{{ messages }}")
    with pytest.raises(CheckpointError, match=rf"config.json says {DIGIT}, which is the text"):
        export_package(shipped, tmp_path / "package")
    export_package(shipped, tmp_path / "given", eos_token_ids=[506])
    assert metadata_of(tmp_path / "given")["model"]["eos_token_ids"] == [506]


def test_nothing_that_ends_an_answer_is_an_error_unless_asked_for(
    shipped: Path, tmp_path: Path
) -> None:
    change(shipped, "config.json", eos_token_id=None)
    with pytest.raises(
        CheckpointError, match=r"no end-of-text token.*--eos-token-id.*allow_no_eos"
    ):
        export_package(shipped, tmp_path / "package", text=False)
    export_package(shipped, tmp_path / "package", text=False, allow_no_eos=True)
    assert metadata_of(tmp_path / "package")["model"]["eos_token_ids"] == []


def test_the_familys_usual_tokens_come_last(shipped: Path, tmp_path: Path) -> None:
    change(shipped, "config.json", eos_token_id=None)
    change(shipped, "tokenizer_config.json", eos_token=None)
    metadata, _ = exported(shipped, tmp_path / "package", chat=False)
    assert metadata["model"]["eos_token_ids"] == [506, 510]
    assert "the family's usual tokens" in metadata["sources"]["eos_token_ids"]


def test_missing_text_and_chat_are_errors_unless_asked_for(shipped: Path, tmp_path: Path) -> None:
    change(shipped, "tokenizer_config.json", chat_template=None)
    with pytest.raises(CheckpointError, match=r"no chat template.*--no-chat"):
        export_package(shipped, tmp_path / "package")
    export_package(shipped, tmp_path / "no_chat", chat=False)
    (shipped / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.json.*--no-text"):
        export_package(shipped, tmp_path / "package", chat=False)
    (shipped / "tekken.json").write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match=r"tekken.json is of a form that is not read"):
        export_package(shipped, tmp_path / "package", chat=False)
    export_package(shipped, tmp_path / "no_text", text=False)
    assert metadata_of(tmp_path / "no_text")["tokenizer"] is None


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_templates_are_read_from_their_other_files(
    name: str, shipped: Path, tmp_path: Path
) -> None:
    source = json.loads((shipped / "tokenizer_config.json").read_text("utf-8"))["chat_template"]
    change(shipped, "tokenizer_config.json", chat_template=None)
    content = source if name.endswith("jinja") else json.dumps({"chat_template": source})
    (shipped / name).write_text(content, "utf-8")
    metadata, _ = exported(shipped, tmp_path / "package")
    assert (tmp_path / "package" / "chat_template.jinja").read_text("utf-8") == source
    assert metadata["sources"]["chat_template"] == name


def test_special_tokens_are_read_from_their_map_and_conflicts_are_said(
    shipped: Path, tmp_path: Path
) -> None:
    change(shipped, "tokenizer_config.json", bos_token=None)
    write_json(
        shipped,
        special_tokens_map={
            "bos_token": {"content": "<|startoftext|>", "lstrip": False},
            "mask_token": "<|eot_id|>",
        },
        generation_config={"eos_token_id": 510, "mask_token_id": 509},
    )
    metadata, said = exported(shipped, tmp_path / "package")
    assert metadata["tokenizer"]["special_tokens"]["bos_token"] == "<|startoftext|>"
    assert metadata["model"]["bos_token_id"] == 507
    assert metadata["sources"]["bos_token_id"] == "special_tokens_map.json"
    assert metadata["model"]["mask_token_id"] == 511
    assert metadata["model"]["eos_token_ids"] == [506, 510]
    assert metadata["warnings"]
    for words in (
        "mask_token is '<|mdm_mask|>' in tokenizer_config.json and '<|eot_id|>'",
        "the mask token is 511 by config.json and 509 by generation_config.json",
        "end-of-text ids differ, each of them ends an answer: config.json 506; "
        "generation_config.json 510",
    ):
        assert any(words in text for text in said), words


@pytest.mark.parametrize("value", [[506, None], "506", 512, True])
def test_a_generation_config_with_wrong_ids_is_refused_by_its_name(
    value: Any, shipped: Path, tmp_path: Path
) -> None:
    write_json(shipped, generation_config={"eos_token_id": value})
    with pytest.raises(
        CheckpointError, match=r"generation_config.json: eos_token_id is .*\[0, 512"
    ):
        export_package(shipped, tmp_path / "package")


def test_named_templates_without_a_default_are_refused_by_name(
    shipped: Path, tmp_path: Path
) -> None:
    named = [{"name": name, "template": CHATML} for name in ("tool_use", "rag")]
    change(shipped, "tokenizer_config.json", chat_template=named)
    with pytest.raises(CheckpointError, match="'tool_use', 'rag' and no 'default'"):
        export_package(shipped, tmp_path / "package")


# --- real published files -------------------------------------------------------------------------


def test_sdars_chat_ends_at_what_generation_config_says(tmp_path: Path) -> None:
    folder = write_random(tmp_path / "checkpoint", SDAR)
    for file in real_tokenizer("qwen3").iterdir():
        shutil.copy(file, folder)
    change(folder, "tokenizer_config.json", eos_token="<|endoftext|>", mask_token="<|MASK|>")
    write_json(
        folder,
        added_tokens={"<|MASK|>": 151669},
        generation_config={"bos_token_id": 151643, "eos_token_id": 151645},
    )
    metadata, said = exported(folder, tmp_path / "package")
    assert metadata["model"]["eos_token_ids"] == [151643, 151645]
    assert metadata["model"]["mask_token_id"] == 151669
    assert metadata["tokenizer"]["chat_template"] is not None
    tokenizer = Tokenizer.from_file(str(tmp_path / "package" / "tokenizer.json"))
    assert tokenizer.token_to_id("<|MASK|>") == 151669
    assert [text for text in said if "end-of-text ids differ" in text]


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_random(tmp_path_factory.mktemp("dream") / "checkpoint", DREAM)
    return dream_form(folder, real_tokenizer("qwen2_5"))


def test_a_dream_form_folder_exports_with_text_and_chat(dream: Path, tmp_path: Path) -> None:
    metadata, said = exported(dream, tmp_path / "package")
    assert metadata["model"]["eos_token_ids"] == [151643, 151645]
    assert metadata["sources"]["tokenizer"] == "vocab.json and merges.txt"
    assert metadata["tokenizer"]["chat_format"] is not None
    assert said == []
    llm = fastdllm.LLM(tmp_path / "package", threads=1)
    assert llm.codec.decode_token(151666) == "<|mask|>"
    ids = llm.encode([{"role": "user", "content": "2 + 2?"}])
    assert (ids[0], ids[-1], ids.count(151644)) == (151644, 198, 2)


def test_vocab_and_merges_give_the_ids_of_the_published_tokenizer(dream: Path) -> None:
    made = tokenizer_from_bpe_files(read_published(dream), "qwen2")
    real = Tokenizer.from_file(str(real_tokenizer("qwen2_5") / "tokenizer.json"))
    strings = [text for text in many_strings() if "<|mask|>" not in text]
    found = [e.ids for e in made.encode_batch(strings, add_special_tokens=False)]
    expected = [e.ids for e in real.encode_batch(strings, add_special_tokens=False)]
    assert len(strings) > 9000
    assert found == expected
    assert made.encode("a<|mask|>b", add_special_tokens=False).ids == [64, 151666, 65]


def test_cpp_gives_a_dream_form_package_the_same_ids(dream: Path, tmp_path: Path) -> None:
    export_package(dream, tmp_path / "package")
    strings = many_strings()
    tokenizer = tmp_path / "package" / "tokenizer.json"
    answers = ask("tokenizer_tool", tokenizer, [{"encode": text} for text in strings])[1:]
    wheel = fastdllm.LLM(tmp_path / "package", threads=1).codec
    assert [answer["ids"] for answer in answers] == [wheel.encode(text) for text in strings]


def test_an_unknown_class_of_vocab_and_merges_is_refused_by_name(
    shipped: Path, tmp_path: Path
) -> None:
    (shipped / "tokenizer.json").unlink()
    write_json(shipped, vocab={"a": 0})
    with pytest.raises(CheckpointError, match=r"vocab.json without merges.txt"):
        export_package(shipped, tmp_path / "package")
    (shipped / "merges.txt").write_text("", "utf-8")
    change(shipped, "tokenizer_config.json", tokenizer_class="OddTokenizer")
    with pytest.raises(CheckpointError, match="tokenizer_class is 'OddTokenizer'"):
        export_package(shipped, tmp_path / "package")


def test_vocab_and_merges_are_checked_by_line_and_token(tmp_path: Path) -> None:
    config = {"tokenizer_class": "Qwen2Tokenizer"}
    vocab = {"a": 0, "b": 1, "ab": 2}
    write_json(tmp_path, vocab=vocab, tokenizer_config=config, added_tokens={"<m>": 9})
    (tmp_path / "merges.txt").write_bytes(b"#version: 0.2\r\na b\r\n")
    tokenizer = tokenizer_from_bpe_files(read_published(tmp_path), None)
    assert tokenizer.encode("abba<m>").ids == [2, 1, 0, 9]  # the id has a gap before it
    (tmp_path / "merges.txt").write_text("a b\na b c\n", "utf-8")
    with pytest.raises(CheckpointError, match=r"merges.txt: line 2 is 'a b c'"):
        tokenizer_from_bpe_files(read_published(tmp_path), None)
    (tmp_path / "merges.txt").write_text("a x\n", "utf-8")
    with pytest.raises(CheckpointError, match=r"does not fit vocab.json"):
        tokenizer_from_bpe_files(read_published(tmp_path), None)
    write_json(tmp_path, added_tokens={"<m>": 1})
    with pytest.raises(CheckpointError, match=r"adds '<m>' as id 1; vocab.json has 'b' there"):
        tokenizer_from_bpe_files(read_published(tmp_path), None)


def test_text_is_normalized_and_digits_are_single_as_qwen2_has_it(dream: Path) -> None:
    made = tokenizer_from_bpe_files(read_published(dream), "qwen2")
    assert made.encode("cafe\u0301").ids == made.encode(unicodedata.normalize("NFC", "café")).ids
    assert len(made.encode("12345").ids) == 5
