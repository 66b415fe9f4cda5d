"""The base of all expected failures, and those of models and their files: a sentence, a code for the record, an exit code."""

from __future__ import annotations

# Names and texts out of files stand in messages: what is no character of a line is shown as Python writes it, and moves no terminal
CONTROLS = {
    code: repr(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
MAX_MESSAGE = 2000  # characters


class MFlamingoError(Exception):
    """Base of all expected failures; `str(error)` is one sentence that says what to do next."""

    code = "failed"  # `error.code` of the record
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message.translate(CONTROLS)[:MAX_MESSAGE])
        if code is not None:
            self.code = code


class ModelError(MFlamingoError):
    """A model, back end or device that cannot be used here."""

    code = "model_unavailable"
    exit_code = 69


class QuantError(ModelError):
    """A checkpoint or GGUF file that cannot be used."""
