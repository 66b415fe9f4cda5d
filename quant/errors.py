"""The base of all expected failures, and those of models and their files: a sentence, a code for the record, an exit code."""

from __future__ import annotations


class MFlamingoError(Exception):
    """Base of all expected failures; `str(error)` is one sentence that says what to do next."""

    code = "failed"  # `error.code` of the record
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ModelError(MFlamingoError):
    """A model, back end or device that cannot be used here."""

    code = "model_unavailable"
    exit_code = 69


class QuantError(ModelError):
    """A checkpoint or GGUF file that cannot be used."""
