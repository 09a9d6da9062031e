"""The version, from the installed package's metadata (CMakeLists.txt is its source)."""

from __future__ import annotations

from importlib import metadata

try:
    __version__ = metadata.version("fastdllm")
except metadata.PackageNotFoundError:  # run from a source folder
    __version__ = "0+unknown"
