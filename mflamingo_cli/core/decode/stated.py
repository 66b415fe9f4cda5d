"""What a header states of rate and channels where no decoder opens the file, so that an absurd number is named and not called damage."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable

from mflamingo_cli.core.limits import StreamHeader

BEYOND = 1 << 63  # stands for what is larger, or infinite
Number = Callable[[bytes], float]


def _little(field: bytes) -> int:
    return int.from_bytes(field, "little")


def _big(field: bytes) -> int:
    return int.from_bytes(field, "big")


def _double(field: bytes) -> float:
    """An IEEE 754 number of 64 bits, most significant byte first."""
    (value,) = struct.unpack(">d", field)
    return float(value)


def _extended(field: bytes) -> float:
    """One of 80 bits (AIFF 1.3, COMM chunk)."""
    exponent = (_big(field[:2]) & 0x7FFF) - 16_383 - 63
    size = math.ldexp(_big(field[2:]), exponent) if exponent < 0 else math.inf
    return -size if field[0] & 0x80 else size


STATED: dict[str, tuple[bytes, Number, Number]] = {  # by demuxer: where channels and rate stand, and how they are read
    "wav": (rb"fmt .{6}(?P<channels>..)(?P<rate>....)", _little, _little),
    "w64": (rb"fmt \xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a.{10}(?P<channels>..)(?P<rate>....)", _little, _little),
    "au": (rb"\.snd.{12}(?P<rate>....)(?P<channels>....)", _big, _big),
    "aiff": (rb"COMM.{4}(?P<channels>..).{6}(?P<rate>.{10})", _big, _extended),
    "caf": (rb"desc.{8}(?P<rate>.{8}).{16}(?P<channels>....)", _big, _double),
    "flac": (rb"fLaC.{14}(?P<rate>...)(?<=(?P<channels>.))", lambda field: (_big(field) >> 1 & 7) + 1, lambda field: _big(field) >> 4),
    "nistsphere": (rb"channel_count -i (?P<channels>\d{1,20}).*sample_rate -i (?P<rate>-?\d{1,20})", int, int),
}


def header(demuxer: str, head: bytes) -> StreamHeader | None:
    """What the first bytes of a file of a demuxer state; None where that is not known."""
    if demuxer not in STATED:
        return None
    pattern, channels, rate = STATED[demuxer]
    found = re.search(pattern, head, re.DOTALL)
    if found is None:
        return None
    rate_hz = rate(found["rate"])
    return StreamHeader(0 if math.isnan(rate_hz) else int(max(-BEYOND, min(rate_hz, BEYOND))), int(channels(found["channels"])))
