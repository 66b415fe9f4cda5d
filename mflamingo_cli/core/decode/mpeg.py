"""MPEG audio (MP1 excepted) frame by frame: where frames lie in a file, whatever lies before, between and behind them.

Frames of one stream follow each other without a gap and are alike in version, layer and rate (ISO 11172-3, 2.4.1; ISO 13818-3, 2.4.2.3). A
decoder is given these frames only, so that tags, zeros, text and damage between them neither end the sound nor count as sound.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mflamingo_cli.core.decode import id3
from mflamingo_cli.core.decode.base import Gap, Recording, Structure
from mflamingo_cli.core.decode.containers import container
from mflamingo_cli.core.decode.joined import TAGS, bytes_at
from mflamingo_cli.core.limits import believable

FIRST_BYTES, BLOCK_BYTES = 1 << 16, 1 << 21  # of the file searched at once: at first, and at most
WALK_BYTES = 1 << 13  # of a run read at first: most are longer, but a file may be made of short ones
LONGEST = 1729  # bytes of a frame: layer II, 384 kbit/s, 32 kHz, padded
MOST_RUNS = 20_000  # pieces with something between; damage every second of five hours
DENSEST = 16  # bytes between frames, on average, in any block of sound; the shortest frame has 24
HEADER_BYTES = 4
MONO = 0xC0  # the fourth byte of a header from here on
ROW = 4  # frames that must follow each other where a stream begins: three alike by chance are met once in 100 GB of noise
RATES_HZ = (44_100, 48_000, 32_000)  # MPEG 1; half in MPEG 2, a quarter in 2.5
KBIT_S = {  # by (is MPEG 1, layer code): ISO 11172-3, 2.4.2.3; ISO 13818-3, 2.4.2.3 for all else
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    None: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
COUNTERS = {b"Xing": 0, b"Info": 0, b"VBRI": 10}  # first frame of an encoder's stream: bytes from the name to the flags or the count
COUNTER_OFFSETS = (13, 21, 36)  # header and side information: ISO 11172-3, 2.4.1.7; ISO 13818-3; VBRI: 36 always
COUNTER_BYTES = 64  # from the begin of the frame to the end of a count, at most


def frame_bytes(header: bytes) -> int:
    """Length of the layer III or II frame that a header begins; 0 if it begins none (layer I is not met, but looks like a UTF-16 mark)."""
    return int(_lengths(np.frombuffer(header[:HEADER_BYTES], np.uint8)[:, None])[0]) if len(header) >= HEADER_BYTES else 0


def _table() -> NDArray[np.int32]:
    """Bytes of a frame without padding by its second byte's five low bits and its third byte's six high: (32, 64), 0 where none is."""
    table = np.zeros((32, 64), np.int32)
    for second in range(32):
        version, layer = second >> 3 & 3, second >> 1 & 3
        if version == 1 or layer in (0, 3):
            continue
        first = version == 3  # MPEG 1, else 2 or 2.5
        for bits in range(1, 15):
            for rate in range(3):
                hz = RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
                kbit_s = KBIT_S[(first, layer) if first else None][bits - 1]
                table[second, bits << 2 | rate] = (144 if first or layer == 2 else 72) * 1000 * kbit_s // hz
    return table


TABLE = _table()


def _lengths(headers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Lengths of the frames that headers begin: (4, n) bytes -> (n,), 0 where one begins none."""
    length = TABLE[headers[1] & 0x1F, headers[2] >> 2].astype(np.int64)
    synced = (headers[0] == 0xFF) & (headers[1] >= 0xE0) & (length > 0)
    return np.where(synced, length + (headers[2] >> 1 & 1), 0)


@dataclass(frozen=True)
class FrameRun:
    """Frames in a row without a gap: the bytes they take, how many there are, and what they have in common."""

    begin: int
    end: int
    frames: int
    kind: int
    counters: tuple[int, ...]  # where among them are frames that hold a count and no sound

    @property
    def rate_hz(self) -> int:
        """Frames of sound per second."""
        return RATES_HZ[self.kind >> 4 & 3] >> {3: 0, 2: 1, 0: 2}[self.kind >> 9 & 3]

    @property
    def samples(self) -> int:
        """Frames of sound in one MPEG frame."""
        return 576 if self.kind >> 7 & 3 == 1 and self.kind >> 9 & 3 != 3 else 1152


def read(file: IO[bytes], begin: int, latest: int) -> Structure | None:
    """The structure of a file of MPEG audio that begins behind tags at the byte `begin`; None if no frame does up to the byte `latest`.

    A tag may hold an MP3, which is none of the sound; frames that go on behind a tag show that it states too large a size.
    """
    runs = list(itertools.islice(_runs(file, latest), MOST_RUNS + 1))
    too_many = len(runs) > MOST_RUNS
    runs = [run for run in runs[:MOST_RUNS] if run.end > begin] or runs[:MOST_RUNS]
    if not runs:
        return None
    tag_end, why = _tag_end(file)
    streams: list[list[FrameRun]] = []
    for run in runs:  # another rate or number of channels is another recording: no decoder changes them on the way
        if streams and streams[-1][-1].kind == run.kind:
            streams[-1].append(run)
        else:
            streams.append([run])
    parts, gaps, before_s, cut = [], [], 0.0, False
    for index, stream in enumerate(streams):
        count, place = _count(file, stream[0]) if index == 0 else (None, None)
        part, found, missing = _part(file, stream, count, place, tag_end)
        parts.append(part)
        gaps += [Gap(before_s + gap.at_s, gap.missing_s) for gap in found]
        before_s += sum(run.frames for run in stream) * stream[0].samples / stream[0].rate_hz
        cut |= missing and not found
    ends = [*(run.begin for run in runs[1:]), os.fstat(file.fileno()).st_size]
    rest = tuple((run.end, end) for run, end in zip(runs, ends, strict=True) if run.end < end)
    more = f"the file is made of more than {MOST_RUNS:,} pieces; only the first {MOST_RUNS:,} were analysed"
    notes = (*((id3.unread(why),) if why else ()), *((more,) if too_many else ()))
    if len(parts) == 1 and not gaps and not cut and _is_plain(runs, parts[0], tag_end):
        return Structure(length_s=before_s, notes=notes, rest=rest)
    return Structure(tuple(parts), tuple(gaps), cut, notes=notes, rest=rest)


def begins(data: bytes) -> bool:
    """Whether some bytes begin with frames."""
    return frame_bytes(data) > 0 and 0 in heads(data[: (ROW + 1) * LONGEST])


def _part(
    file: IO[bytes], stream: list[FrameRun], count: int | None, place: int | None, tag_end: int | None
) -> tuple[Recording, list[Gap], bool]:
    """The frames of one stream as a part, gaps between them, and whether frames are missing of those that were counted."""
    kept = stream[0].begin if count is not None else None  # the frame with the count, which tells a decoder the encoder's delay
    ranges = [piece for run in stream for piece in _without(file, run, kept)]
    held = sum(run.frames - sum(at != kept for at in run.counters) for run in stream) - (count is not None)
    seconds = stream[0].samples / stream[0].rate_hz
    lacking = max(0, count - held) if count is not None else None
    gaps, before = [], 0
    for run, follower in itertools.pairwise(stream):
        before += run.frames
        if lacking == 0 or _is_no_sound(file, run.end, follower.begin):
            continue
        mean = (run.end - run.begin) / run.frames
        missing = (follower.begin - run.end) / mean if lacking is None else lacking / max(1, len(stream) - 1)
        gaps.append(Gap(before * seconds, missing * seconds))
    if stream[0].begin == tag_end:  # a decoder reads the tag in front of it
        ranges[0] = (0, ranges[0][1])
    patches: tuple[tuple[int, bytes], ...] = ()
    if count is not None and place is not None and (held > count + 1 or gaps):
        patches = ((place - ranges[0][0], held.to_bytes(4, "big")),)
    uncounted = count is None
    frames = (max(held, count or 0) if not gaps else held + round(sum(gap.missing_s or 0 for gap in gaps) / seconds)) * stream[0].samples
    if place is not None:
        frames = max(0, frames - _trimmed(file, place))
    return (
        Recording(tuple(ranges), patches, frames / stream[0].rate_hz if uncounted or patches else None, uncounted),
        gaps,
        bool(lacking and lacking > 1),
    )


def _is_plain(runs: list[FrameRun], part: Recording, tag_end: int | None) -> bool:
    """Whether libsndfile reads the file as it is: all frames are counted, and at most one tag is in front."""
    return not part.uncounted and not part.patches and len(runs) == len(part.ranges) == 1 and runs[0].begin == tag_end


def _tag_end(file: IO[bytes]) -> tuple[int | None, str | None]:
    """The first byte behind an ID3v2 tag at the begin of the file, 0 if there is none; None and why, if no decoder may read it."""
    header = bytes_at(file, 0, id3.HEADER_BYTES)
    if not header.startswith(b"ID3"):
        return 0, None
    size = id3.size_of(header)
    why = id3.refusal(header, bytes_at(file, id3.HEADER_BYTES, min(size, id3.MOST_BYTES + 1)))
    return (None, why) if why else (id3.HEADER_BYTES + size, None)


def _is_no_sound(file: IO[bytes], begin: int, end: int) -> bool:
    """Whether a tag, another file, or nothing, lies between two runs."""
    head = bytes_at(file, begin, 1 << 12)
    return begin == end or head.startswith(TAGS) or container(head) is not None


def _without(file: IO[bytes], run: FrameRun, kept: int | None) -> Iterator[tuple[int, int]]:
    """The bytes of a run without the frames that hold only a count, save one."""
    at = run.begin
    for counter in run.counters:
        if counter == kept:
            continue
        if counter > at:
            yield at, counter
        file.seek(counter)
        at = counter + frame_bytes(file.read(HEADER_BYTES))
    if at < run.end:
        yield at, run.end


def _count(file: IO[bytes], run: FrameRun) -> tuple[int | None, int | None]:
    """How many frames the first one says there are behind it, and where in the file it says so; (None, None) where it does not."""
    if run.begin not in run.counters:
        return None, None
    file.seek(run.begin)
    head = file.read(COUNTER_BYTES)
    name, at = next((name, head.find(name)) for name in COUNTERS if name in head)
    place = at + 4 + COUNTERS[name]
    if name != b"VBRI":
        if not head[place + 3 : place + 4] or not head[place + 3] & 1:  # LAME's description of Xing: bit 0, a count of frames follows
            return None, None
        place += 4
    count = int.from_bytes(head[place : place + 4], "big")
    is_count = count > 0 and believable(count * run.samples / run.rate_hz, os.fstat(file.fileno()).st_size)
    return (count, run.begin + place) if is_count else (None, None)


def _trimmed(file: IO[bytes], place: int) -> int:
    """Frames of sound that the encoder added at both ends and decoders leave out, as LAME's tag behind the count at a byte says.

    Each a number of 12 bits behind 21 bytes of the tag (LAME, Mp3 Info Tag rev 1), which follows the fields that the flags name.
    """
    head = bytes_at(file, place - 8, 8)
    if not head.startswith((b"Xing", b"Info")):
        return 0
    fields = sum(size for bit, size in enumerate((4, 4, 100, 4)) if head[7] >> bit & 1)
    both = int.from_bytes(bytes_at(file, place + fields + 21, 3), "big")
    return (both >> 12) + (both & 0xFFF)


# --- frames ------------------------------------------------------------------------------------------------------------------


def _kinds(headers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Version, layer, rate and whether it is mono, which frames of one stream share: (4, n) bytes -> (n,)."""
    second, third = headers[1].astype(np.int64), headers[2].astype(np.int64)
    return np.asarray((second & 0x1E) << 6 | (third >> 2 & 3) << 4 | (headers[3] >> 6 == 3))


def heads(data: bytes) -> NDArray[np.int64]:
    """Places in some bytes where ROW frames that are alike follow each other: (n,); none where frames would be denser than in sound."""
    array = np.frombuffer(data, np.uint8)
    places = np.flatnonzero((array[:-3] == 0xFF) & (array[1:-2] >= 0xE0))
    headers = np.stack([array[places + k] for k in range(HEADER_BYTES)])
    lengths = _lengths(headers)
    good = lengths > 0
    places, lengths, kinds = places[good], lengths[good], _kinds(headers)[good]
    if not len(places) or len(places) > len(data) // DENSEST:
        return np.zeros(0, np.int64)
    ends = places + lengths
    inside = np.minimum(np.searchsorted(places, ends), len(places) - 1)
    linked = (places[inside] == ends) & (kinds[inside] == kinds)
    heads = linked.copy()
    for _ in range(ROW - 2):
        heads = linked & heads[inside]
    found: NDArray[np.int64] = places[heads]
    return found


def _runs(file: IO[bytes], latest: int) -> Iterator[FrameRun]:
    """Every run of at least ROW frames; none if the first one begins behind the byte `latest`."""
    at, size, n_bytes, is_found = 0, os.fstat(file.fileno()).st_size, FIRST_BYTES, False
    while at < size and (is_found or at <= latest):
        file.seek(at)
        data = file.read(n_bytes + ROW * LONGEST)
        places = heads(data) + at
        end = at + n_bytes
        while (index := int(np.searchsorted(places, at))) < len(places) and places[index] < end:
            if not is_found and places[index] > latest:
                return
            run = _walk(file, int(places[index]), size)
            is_found, at = True, max(run.end, int(places[index]) + 1)
            yield run
        at, n_bytes = max(at, end), min(2 * n_bytes, BLOCK_BYTES)


def _walk(file: IO[bytes], begin: int, size: int) -> FrameRun:
    """The run that begins at a byte; a frame that the file does not hold whole belongs to none."""
    file.seek(begin)
    head = file.read(HEADER_BYTES)
    kind = int(_kinds(np.frombuffer(head, np.uint8)[:, None])[0])
    second, is_mono, lengths = head[1] | 1, head[3] >= MONO, _lengths_alike(head)  # | 1: whether a frame has a checksum may change
    at = last = begin
    frames, counters, goes_on, n_bytes = 0, list[int](), True, WALK_BYTES
    while goes_on:
        file.seek(at)
        data = file.read(n_bytes)
        is_last, n_bytes = len(data) < n_bytes, min(2 * n_bytes, BLOCK_BYTES)
        until = len(data) - (HEADER_BYTES - 1 if is_last else COUNTER_BYTES)
        places, place = list[int](), 0
        while place < until:  # 0.3 us for a frame
            alike = data[place] == 0xFF and data[place + 1] | 1 == second and (data[place + 3] >= MONO) == is_mono
            length = lengths[data[place + 2]] if alike else 0
            if not length:
                break
            places.append(place)
            place += length
        goes_on = place >= until and not is_last
        frames, counters = frames + len(places), counters + [at + place for place in _counters(data, places)]
        last = at + places[-1] if places else last
        at += place
    if at > size:
        at, frames, counters = last, frames - 1, [counter for counter in counters if counter != last]
    return FrameRun(begin, at, frames, kind, tuple(counters))


def _lengths_alike(head: bytes) -> list[int]:
    """Lengths of frames of a stream by their third byte: 0 where another rate, or no frame, begins."""
    thirds = np.arange(256, dtype=np.uint8)
    headers = np.stack([np.full_like(thirds, head[0]), np.full_like(thirds, head[1]), thirds, np.full_like(thirds, head[3])])
    lengths: list[int] = np.where(thirds >> 2 & 3 == head[2] >> 2 & 3, _lengths(headers), 0).tolist()
    return lengths


def _counters(data: bytes, places: list[int]) -> list[int]:
    """The frames of those that begin at these places that hold a count: its name is where the side information of a silent frame ends."""
    frames = np.array(places, np.int64)
    array = np.frombuffer(data + bytes(COUNTER_BYTES), np.uint8)
    found = np.zeros(len(frames), bool)
    for offset in COUNTER_OFFSETS:
        name = np.ascontiguousarray(array[frames[:, None] + np.arange(offset, offset + 4)]).view("S4").ravel()
        found |= np.isin(name, list(COUNTERS))
    counted: list[int] = frames[found].tolist()
    return counted
