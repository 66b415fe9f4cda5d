"""What an audio file may claim to be: its sample rate, channels and length, checked before memory or time is spent on it.

This is the border: `check` sees every stream between the opening of its decoder and the first buffer that its numbers size. A limit is what
real files have, ten times over; what is beyond is a damaged header, no music.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mflamingo_cli.errors import AudioError
from mflamingo_cli.text import clock, number

LEAST_HZ = 800  # a tenth of a telephone's 8 kHz
MOST_HZ = 7_680_000  # the fastest converters for sound have 768 kHz
MOST_CHANNELS = 640  # seventh-order ambisonics has 64
MOST_SAMPLES_PER_S = 12_288_000  # of all channels: 64 of them at 192 kHz, four times what ambisonics is recorded with
MOST_S = 360_000  # a mix of ten hours
MOST_S_PER_BYTE = 0.2  # of a file: digital silence in the largest blocks of FLAC has less; a longer length is no statement about this file
LOUDEST = 2.0**31  # of a sample: 32-bit integers that were stored as floats without scaling; full scale is 1
RESAMPLE = "resample it to 48 kHz first, or get it again if its header is damaged"


@dataclass(frozen=True)
class StreamHeader:
    """What a header states: sample rate in Hz, channels, and the length of the requested part in seconds, 0 where it is not known."""

    rate_hz: int
    channels: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Limit:
    """A limit: the `code` of its error, the headers that it allows, and what is said of the others."""

    code: str
    allows: Callable[[StreamHeader], bool]
    says: Callable[[StreamHeader], str]


LIMITS = (
    Limit(
        "rate_out_of_range",
        lambda header: LEAST_HZ <= header.rate_hz <= MOST_HZ,
        lambda header: f"states a sample rate of {header.rate_hz} Hz, outside the supported range ({LEAST_HZ} to {MOST_HZ} Hz); {RESAMPLE}",
    ),
    Limit(
        "too_many_channels",
        lambda header: header.channels >= 1,
        lambda header: f"states {header.channels} channels; get it again, for its header is damaged",
    ),
    Limit(
        "too_many_channels",
        lambda header: header.channels <= MOST_CHANNELS,
        lambda header: f"states {header.channels} channels, more than {MOST_CHANNELS}; mix it down to stereo first",
    ),
    Limit(
        "too_many_channels",
        lambda header: header.channels * header.rate_hz <= MOST_SAMPLES_PER_S,
        lambda header: f"{header.channels} channels at {number(header.rate_hz / 1000)} kHz are too many; mix it down to stereo first",
    ),
    Limit(
        "too_long",
        lambda header: header.seconds <= MOST_S,
        lambda header: f"lasts {clock(header.seconds)}, more than {MOST_S // 3600} hours; choose a part with --start and --end",
    ),
)


def believable(seconds: float, n_bytes: int) -> bool:
    """Whether a file of so many bytes can last so long; what its header states beyond that is damage, and makes no long song of it."""
    return seconds <= n_bytes * MOST_S_PER_BYTE


def check(header: StreamHeader, shown: str) -> None:
    """Refuse a stream beyond a limit. Raises AudioError with the limit's code; `shown` is what its sentence calls the file."""
    for limit in LIMITS:
        if not limit.allows(header):
            raise AudioError(f"{shown}: {limit.says(header)}", code=limit.code)
