"""Every error a user can cause: a sentence, a stable code for the record, and the exit code of the command line."""

from __future__ import annotations

from quant.errors import MFlamingoError as MFlamingoError
from quant.errors import ModelError as ModelError


class AudioError(MFlamingoError):
    """An input that cannot be heard: `decode_failed`, `not_found`, `not_audio`, `too_short`, `silent`, `not_finite`, `too_long`."""

    code = "decode_failed"


class UsageError(MFlamingoError):
    """A wrong option or argument."""

    code = "usage"
    exit_code = 2


class OutOfMemoryError(MFlamingoError):
    """A song that does not fit into memory now; it may when other programs have ended."""

    code = "oom"
    retryable = True

    @classmethod
    def of(cls, song: str) -> OutOfMemoryError:
        """Say what to do about a song."""
        return cls(f"{song}: not enough memory; choose a part of it with --start and --end")


class ConfigError(MFlamingoError):
    """A setting in a file or variable that does not exist or does not fit: EX_CONFIG of sysexits.h."""

    code = "config"
    exit_code = 78


class StoppedError(MFlamingoError):
    """A run that ended before its inputs did and goes on when it is started again: EX_TEMPFAIL of sysexits.h."""

    code = "stopped"
    exit_code = 75
