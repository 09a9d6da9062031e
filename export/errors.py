"""Errors of the exporter."""

from __future__ import annotations

from fastdllm import Error


class ExportError(Error):
    """The model cannot be exported: what is wrong, where, what was expected."""


class CheckpointError(ExportError):
    """The checkpoint folder is incomplete, damaged, or of an unknown kind."""


class ValidationError(ExportError):
    """The exported graph does not compute what the model computes."""


class ExportWarning(UserWarning):
    """A checkpoint's files contradict each other: what each says, and which is followed."""
