"""Every error a user can cause: a sentence, a stable code for the record, and the exit code of the command line."""

from __future__ import annotations


class MFlamingoError(Exception):
    """Base of all expected failures; `str(error)` is one sentence that says what to do next."""

    code = "failed"  # `error.code` of the record (design, section 5)
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class AudioError(MFlamingoError):
    """An input that cannot be heard: `decode_failed`, `not_found`, `not_audio`, `too_short`, `silent`, `not_finite`, `too_long`."""

    code = "decode_failed"


class ModelError(MFlamingoError):
    """A model, back end or device that cannot be used here."""

    code = "model_unavailable"
    exit_code = 69


class UsageError(MFlamingoError):
    """A wrong option or argument."""

    code = "usage"
    exit_code = 2
