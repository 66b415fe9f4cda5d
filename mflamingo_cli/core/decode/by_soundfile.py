"""The road through libsndfile: one recording of a file, or several one after the other.

Reading is in small steps, so that a failing one loses only itself, and never asks beyond the end: what is behind it is no sound.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mflamingo_cli.core import limits
from mflamingo_cli.core.decode import layout
from mflamingo_cli.core.decode.base import BLOCK_FRAMES, TOLERATED_S, Damaged, Decoder, Gap, Recording, Structure, block_frames
from mflamingo_cli.core.decode.quiet import hushed
from mflamingo_cli.core.decode.view import View
from mflamingo_cli.errors import AudioError

STEPS = {"flac": 1 << 13, "opus": 1 << 10}  # of codecs that can fail midway
SMALL_STEP_FRAMES = 1 << 8  # behind a failure, and where the end comes unannounced, as a failing read (FLAC from a pipe)
SEARCH_FRAMES = 1 << 10  # how far ahead of a damaged place reading is tried again; a block of FLAC has 4096 frames, as a rule
SEARCH_TRIES = 128  # in one recording; from the 32nd at one place on each goes twice as far as the one before
UNRECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's SF_COUNT_MAX: the header states no length
CHANNEL_MAP = 0x1100  # libsndfile's SFC_GET_CHANNEL_MAP_INFO
INEXACT_SEEK = {"vorbis"}  # libsndfile 1.2.2 lands beside the asked frame: decode and drop instead
FILLED = {"opus", "flac"}  # libsndfile goes on in time behind lost packets of Opus; of FLAC we know what we have left out
XIPH_CODECS = {"vorbis", "opus"}
CODEC_NAMES = {"MPEG_LAYER_I": "mp1", "MPEG_LAYER_II": "mp2", "MPEG_LAYER_III": "mp3", "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64"}
CODEC_NAMES |= dict.fromkeys(("ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"), "alac")
MPEG_CODECS = {"mp1", "mp2", "mp3"}
COUNTERS = (b"Xing", b"Info", b"VBRI")  # in the first frame of an MP3 whose frames are not searched: those of a free bit rate
FLAC_MASK = re.compile(rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x([0-9a-fA-F]{1,8})")  # RFC 9639, sec. 8.6.2

APPLE_LAYOUT = re.compile(rb"(?:CHAN\0\0..|chan\0{6}..)(.{12})", re.DOTALL)  # Apple Core Audio Format, Channel Layout Chunk


class SoundFileDecoder:
    """One recording that libsndfile reads. Raises LibsndfileError where it does not.

    `is_mpeg` says whether frames of MPEG audio were found: libsndfile takes eleven set bits for one, as in UTF-16 text.
    """

    def __init__(self, path: Path, head: bytes, part: Recording, structure: Structure, *, is_mpeg: bool) -> None:
        with contextlib.ExitStack() as stack:
            self._raw = stack.enter_context(path.open("rb"))
            stack.enter_context(hushed())
            self._part, self._structure = part, structure
            self._plain = not (part.ranges or part.patches or part.uncounted)
            self._view = None if self._plain and os.name == "posix" else View(self._raw, part)
            self._file = self._open()
            stack.callback(lambda: self._file.close())
            file = self._file
            self.rate_hz, self.channels, self.tags = file.samplerate, file.channels, file.copy_metadata()
            self.codec = "flac" if file.format == "FLAC" else CODEC_NAMES.get(file.subtype, file.subtype.lower())
            if file.format in ("MP3", "MPEG") and not is_mpeg and not any(name in head[:256] for name in COUNTERS):
                raise soundfile.LibsndfileError(UNRECOGNISED)
            self._unknown = file.frames == UNKNOWN_FRAMES
            self.guess_s = 0.0 if self._unknown else file.frames / file.samplerate
            held = _held_share(file.extra_info)
            guessed = part.uncounted or (self.codec in MPEG_CODECS and not is_mpeg)  # from the bit rate of the first frame, also in a WAV
            stated = None if guessed or self._unknown else round(file.frames / held)
            self.frames = stated if part.length_s is None else round(part.length_s * self.rate_hz)
            self._cut = held < 1.0 or structure.cut
            self._seeks = stated is not None and self._plain and self.codec not in INEXACT_SEEK and file.seekable()
            self._step = SMALL_STEP_FRAMES if self._unknown else STEPS.get(self.codec, BLOCK_FRAMES)
            self._end = file.frames if self.codec == "flac" and not self._unknown else UNKNOWN_FRAMES  # others end by themselves
            self._tries, self._failed_at = SEARCH_TRIES, -1
            self.roles, self.notes = _roles(file, self.codec, head), structure.notes
            self.close = stack.pop_all().close

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield from frame `start`, going on behind what is damaged; a header that promises more than the file holds ends in Damaged."""
        at = self._file.seek(start) if self._seeks and 0 < start < self._file.frames else 0
        gaps = [gap for gap in self._structure.gaps if gap.at_s >= start / self.rate_hz]
        while True:
            block, error = self._read(at)
            at += len(block)
            if at > start and len(block):
                yield block[max(0, len(block) - (at - start)) :]
            if error is not None and (behind := self._behind_damage(at)) is not None:
                if behind > at:
                    gaps.append(Gap(at / self.rate_hz, (behind - at) / self.rate_hz))
                at, error = behind, None
            elif error is not None or not len(block):
                break
        if self.frames is not None and self.codec not in FILLED:
            gaps = _summing_to(gaps, (self.frames - at) / self.rate_hz)
        if error is not None and not (self._unknown and self._is_at_end()):
            raise Damaged("the data after that are invalid", tuple(gaps)) from error
        short = self.frames is not None and self.frames - at > TOLERATED_S * self.rate_hz
        if gaps or self._cut or short:
            raise Damaged("the file is shorter than its header says", tuple(gaps))

    def _open(self) -> soundfile.SoundFile:
        """Open it from its beginning."""
        self._raw.seek(0)
        if self._view is None:
            return soundfile.SoundFile(self._raw.fileno(), closefd=False)
        self._view.seek(0)
        return soundfile.SoundFile(self._view)

    def _read(self, at: int) -> tuple[NDArray[np.float32], soundfile.LibsndfileError | None]:
        """Read a block from here on in small steps: (n, channels); the error of a failing step comes along."""
        block = np.empty((max(0, min(block_frames(self.channels), self._end - at)), self.channels), np.float32)
        filled = 0
        try:
            while filled < len(block):
                step = len(self._file.read(self._step, out=block[filled : filled + self._step]))
                filled += step
                if step == 0:
                    break
        except soundfile.LibsndfileError as error:
            return block[:filled], error
        return block[:filled], None

    def _behind_damage(self, at: int) -> int | None:
        """Find the frame where a stream can be read on after a failure at a frame; None where it cannot."""
        if self.codec not in STEPS or self._unknown or not self._file.seekable():
            return None
        if self.codec == "opus" and at != self._failed_at:  # the next read goes on by itself, as a rule
            self._failed_at = at
            return at
        ahead, reach = 0, SEARCH_FRAMES
        if self._step > SMALL_STEP_FRAMES:  # the failing step may have begun well
            self._step = SMALL_STEP_FRAMES
        else:
            ahead = reach
        while self._tries > 0 and at + ahead < self._end:
            self._tries -= 1
            reach *= 2 if ahead >= SEARCH_TRIES // 4 * SEARCH_FRAMES else 1
            try:
                self._file.close()
                self._file = self._open()
                self._file.seek(at + ahead)
                if ahead == 0 or len(self._file.read(1)):
                    return int(self._file.seek(at + ahead))
            except soundfile.LibsndfileError:
                pass
            ahead += reach
        return None

    def _is_at_end(self) -> bool:
        """Whether all bytes have been read: where no length is stated, that is how a stream ends."""
        if self._view is not None:
            return self._view.tell() >= self._view.size
        return os.lseek(self._raw.fileno(), 0, os.SEEK_CUR) >= os.fstat(self._raw.fileno()).st_size


class JoinedDecoder:
    """Recordings that are joined to one file, one after the other, at the rate and with the channels of the first; opened when needed."""

    def __init__(self, open_part: Callable[[Recording, Structure], Decoder], structure: Structure, *, is_mpeg: bool) -> None:
        self._open_part, self._structure = open_part, structure
        first = self._opened(0)
        self.rate_hz, self.channels, self.codec, self.roles = first.rate_hz, first.channels, first.codec, first.roles
        self.tags, self.notes = first.tags, (*structure.notes, *first.notes)
        lengths = [None if first.frames is None else first.frames / first.rate_hz, *(part.length_s for part in structure.parts[1:])]
        total_s = structure.length_s
        if total_s is None and not is_mpeg and None not in lengths:
            total_s = sum(length_s for length_s in lengths if length_s is not None)
        self.guess_s = total_s or first.guess_s
        self.frames = round(total_s * self.rate_hz) if total_s is not None else None
        first.close()

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield all recordings from frame `start`; what is missing in one does not end the others."""
        at, reasons, gaps = 0, list[str](), list(self._structure.gaps)
        for index in range(len(self._structure.parts)):
            began = at
            if self._structure.parts[index].follows_damage:
                gaps.append(Gap(at / self.rate_hz, None))
            try:
                for block in self._part(index):
                    at += len(block)
                    if at > start:
                        yield block[max(0, len(block) - (at - start)) :]
            except Damaged as damage:
                reasons.append(str(damage))
                gaps += [Gap(gap.at_s + began / self.rate_hz, gap.missing_s) for gap in damage.gaps] or [Gap(at / self.rate_hz, None)]
            except (soundfile.LibsndfileError, AudioError):
                reasons.append("one of the recordings that are joined in it cannot be read")
                gaps.append(Gap(at / self.rate_hz, self._structure.parts[index].length_s))
        if self._structure.cut:
            reasons.append("the last recording has no end")
        gaps = [gap for gap in gaps if gap.at_s >= start / self.rate_hz]
        if gaps or self._structure.cut:
            raise Damaged(reasons[-1] if reasons else "some data are missing", tuple(gaps))

    def close(self) -> None:
        """Nothing is open between blocks."""

    def _opened(self, index: int) -> Decoder:
        return self._open_part(self._structure.parts[index], Structure())

    def _part(self, index: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield one recording in the form of the first. Raises Damaged behind its last block, and what opening it raises."""
        with contextlib.closing(self._opened(index)) as decoder:
            limits.check(limits.StreamHeader(decoder.rate_hz, decoder.channels), "a part")
            if decoder.rate_hz == self.rate_hz:
                for block in decoder.blocks(0):
                    yield _in_channels(block, self.channels)
                return
            resampler = soxr.ResampleStream(decoder.rate_hz, self.rate_hz, self.channels, dtype="float32")
            damage = None
            try:
                most = max(1, block_frames(self.channels) * decoder.rate_hz // self.rate_hz)  # which become no more than a block
                for block in decoder.blocks(0):
                    for at in range(0, len(block), most):
                        yield resampler.resample_chunk(_in_channels(block[at : at + most], self.channels)).reshape(-1, self.channels)
            except Damaged as error:
                damage = error
            last = np.empty((0, self.channels) if self.channels > 1 else 0, np.float32)
            yield resampler.resample_chunk(last, last=True).reshape(-1, self.channels)
            if damage is not None:
                raise damage


def _summing_to(gaps: list[Gap], lacking_s: float) -> list[Gap]:
    """Gaps whose lengths were estimated, so that they sum to what is lacking of the stated length."""
    sum_s = sum(gap.missing_s or 0.0 for gap in gaps)
    scale = max(0.0, lacking_s) / sum_s if sum_s else 1.0
    return [Gap(gap.at_s, None if gap.missing_s is None else gap.missing_s * scale) for gap in gaps]


def _in_channels(block: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """(n, c) -> (n, channels): as it is, or its mean in every channel."""
    if block.shape[1] == channels:
        return block
    return np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)


def _held_share(log: str) -> float:
    """Read in libsndfile's log what part of the promised bytes the file holds; a live stream's placeholder of 4 GB is no promise."""
    for line in log.splitlines():
        kind, _, sizes = line.partition(":")
        if kind.strip() in ("data", "SSND", "Data Size", "riff") and "(should be" in sizes:
            stated, _, held = sizes.partition("(should be")
            with contextlib.suppress(ValueError):
                if 0x7FFF_0000 > int(stated) > int(held.strip(" )")) > 0:
                    return int(held.strip(" )")) / int(stated)
    return 1.0


def _roles(file: soundfile.SoundFile, codec: str, head: bytes) -> tuple[str, ...]:
    """Roles of the channels: fixed by the codec, or as the container names them."""
    if codec in XIPH_CODECS:
        return layout.of_xiph(file.channels)
    if codec == "flac":
        mask = FLAC_MASK.search(head)
        return layout.of_flac(file.channels, int(mask[1], 16) if mask else None)
    apple = APPLE_LAYOUT.search(head) if file.format in ("AIFF", "CAF") else None
    if apple is not None:  # libsndfile 1.2.2 gives wrong numbers for those of AIFF, and none for many of CAF
        tag, mask, count = struct.unpack(">III", apple[1])
        told = head[apple.end() : apple.end() + 20 * min(count, file.channels)]
        labels = [label for label, *_ in struct.iter_unpack(">I16s", told[: len(told) // 20 * 20])]  # the file may be cut there
        if (roles := layout.of_apple(tag, mask, labels, file.channels)) is not None:
            return roles
    return layout.of_sndfile(_channel_map(file) if file.format != "AIFF" else [], file.channels)


def _channel_map(file: soundfile.SoundFile) -> Sequence[int]:
    """Numbers of the channels' roles as libsndfile has them, through the library itself: soundfile has no name for the command."""
    numbers = soundfile._ffi.new("int[]", file.channels)
    known = soundfile._snd.sf_command(file._file, CHANNEL_MAP, numbers, soundfile._ffi.sizeof("int") * file.channels)
    return list(numbers) if known == 1 else []
