"""Errors: a sentence, a code for the record, an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from quant.errors import MFlamingoError as MFlamingoError
from quant.errors import ModelError as ModelError
from quant.errors import QuantError

MOST_CHARACTERS = 200  # of what an unforeseen exception says


class ExitCode(IntEnum):
    """How the command line ends, with the meaning of each code; 64 to 78 are those of sysexits.h, above 128 the shell's for signals."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Keep the words beside the number."""
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    OK = 0, "all done"
    ALL_FAILED = 1, "all failed"
    USAGE = 2, "wrong usage"
    SOME_FAILED = 3, "some failed"
    NO_INPUT = 66, "no input"
    UNAVAILABLE = 69, "model or back end unavailable"
    RESUMABLE = 75, "stopped (run the same command again to resume)"
    CONFIG = 78, "wrong setting"
    INTERRUPTED = 130, "interrupted"
    CLOSED_PIPE = 141, "closed pipe"
    TERMINATED = 143, "terminated"


class AudioError(MFlamingoError):
    """An input that cannot be analysed.

    `decode_failed`, `not_found`, `not_audio`, `too_short`, `silent`, `not_finite`, `too_long`, `rate_out_of_range`, `too_many_channels`,
    `no_room`.
    """

    code = "decode_failed"


class NoRoomError(AudioError):
    """A song that comes as a stream and cannot be kept on the disk while it is decoded; it may when there is room."""

    code = "no_room"
    retryable = True

    @classmethod
    def of(cls, song: str, error: OSError) -> NoRoomError:
        """Say what to do about a song."""
        why = error.strerror or "it is not writable"
        return cls(f"{song}: cannot be stored in the temporary folder: {why}; set TMPDIR to a folder with enough space")


class UsageError(MFlamingoError):
    """A wrong option or argument."""

    code = "usage"
    exit_code = ExitCode.USAGE


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
    exit_code = ExitCode.CONFIG


class OutputError(MFlamingoError):
    """The result of one song could not be written."""

    code = "not_written"


class StoppedError(MFlamingoError):
    """A run that ended early and resumes when it is started again: EX_TEMPFAIL of sysexits.h."""

    code = "stopped"
    exit_code = ExitCode.RESUMABLE


class InternalError(MFlamingoError):
    """A fault of this program, met with one song; `trace` is its traceback, also from another process."""

    code = "internal"

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace

    def __reduce__(self) -> tuple[type[InternalError], tuple[str, str]]:
        """Let it pass from a worker with its traceback."""
        return type(self), (str(self), self.trace)

    @classmethod
    def of(cls, song: str, error: Exception) -> InternalError:
        """Say which exception it was."""
        import traceback

        what = " ".join(str(error).split())[:MOST_CHARACTERS]
        kind = f"{type(error).__name__}{': ' if what else ''}{what}"
        message = f"{song}: this is a bug in mflamingo, not in the file ({kind}); please report it with the traceback that -v shows"
        return cls(message, "".join(traceback.format_exception(error)))


@contextmanager
def as_song_error(song: object, *passing: type[Exception]) -> Iterator[None]:
    """Raise whatever goes wrong with a song as an error of that song: MFlamingoError, and nothing else but what is `passing`.

    This is the border of a song, and the only place on its way that catches everything: what nobody foresaw is its record, not the run's
    end.
    """
    shown = song if isinstance(song, str) else "the song"
    try:
        yield
    except (MFlamingoError, *passing):  # type: ignore[misc]  # a tuple of classes
        raise
    except MemoryError as error:
        raise OutOfMemoryError.of(shown) from error
    except Exception as error:  # the border of a song: an unforeseen fault is its record
        raise InternalError.of(shown, error) from error


@contextmanager
def as_failed_work() -> Iterator[None]:
    """Give an unusable checkpoint or GGUF file the exit code of a failure: a command about files failed, none lacked its model (69)."""
    try:
        yield
    except QuantError as error:
        error.exit_code = MFlamingoError.exit_code
        raise
