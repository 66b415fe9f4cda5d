"""Decoding a file, an address, stdin or a stream once, to mono float32 at 16 kHz, for measurement and, in windows, for the model.

Times are seconds from the start of the file; samples lie in -1 … 1 (lossy codecs and float files may exceed it a little).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from mflamingo_cli.core import limits, remote, tags
from mflamingo_cli.core.decode import Damaged, Decoder, damage_report, open_decoder
from mflamingo_cli.core.mel import n_audio_tokens, valid_frames
from mflamingo_cli.errors import AudioError, NoRoomError, UsageError
from mflamingo_cli.schema import SongTags
from mflamingo_cli.text import clock, safe
from quant.geometry import Geometry, MelConfig

SAMPLE_RATE = MelConfig.sample_rate
MIN_S = 0.5  # less is no music, and a single beat at 120 BPM
SILENT_PEAK = 1e-4  # -80 dBFS: above the dither of 16-bit files, below any music
GROW_SAMPLES = 1 << 22  # 16 MiB: how a buffer grows whose length was not known, so that little is allocated beyond the sound
SPOOL_BYTES = 1 << 20
NO_ADDRESS = "playlists may list only files, not URLs; download the songs first"
TRUSTED_S = 4 * 3600  # a longer length in a header is not believed before the sound has come
LONG_S = 10 * 60  # from here on a song is handed over in parts, so that the memory of a mix of ten hours is that of ten minutes,
PART_S = 5 * 60  # of this length; the last one is up to twice as long
BLOCKS_BEHIND = 8  # that listeners on a thread of their own may be, 2 MB of stereo sound

OnPart = Callable[[NDArray[np.float32], float], None]  # (n,) samples, not to be kept, and where in the file they begin


@dataclass(frozen=True)
class Source:
    """The whole file that a sound came from; `path` is "-" for stdin and streams."""

    path: str
    duration_s: float
    sample_rate: int
    channels: int
    codec: str
    tags: SongTags | None = None


@dataclass(frozen=True)
class Audio:
    """Mono sound (n,) float32 that begins `start_s` into its file; `warnings` say what is not as it should be.

    Of a `damaged` file a part is missing; `share` is how much of what should be there was decoded, as far as that is known.
    `n_before` samples of a long song were handed over in parts.
    """

    samples: NDArray[np.float32]
    source: Source
    start_s: float = 0.0
    rate_hz: int = SAMPLE_RATE
    warnings: tuple[str, ...] = ()
    damaged: bool = False
    share: float = 1.0
    n_before: int = 0

    @property
    def duration_s(self) -> float:
        """Length of what is here, which may be a part of the file."""
        return len(self.samples) / self.rate_hz

    def described(self, name: str, sounding: tuple[tuple[float, float], ...] = ()) -> Sound:
        """What is known of it and of the parts before besides the samples: the name that its fingerprint gives, and where it sounds."""
        start_s = self.start_s - self.n_before / self.rate_hz
        n_samples = self.n_before + len(self.samples)
        return Sound(name, n_samples, self.source, start_s, self.rate_hz, self.warnings, self.damaged, sounding)


@dataclass(frozen=True)
class Sound:
    """A description of audio without its samples. `id` identifies the sound itself, so that tags and copies do not change it.

    It is `sounding` between these seconds of the file, and silent elsewhere.
    """

    id: str
    n_samples: int
    source: Source
    start_s: float
    rate_hz: int
    warnings: tuple[str, ...]
    damaged: bool = False
    sounding: tuple[tuple[float, float], ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the part that was asked for."""
        return self.n_samples / self.rate_hz

    @property
    def end_s(self) -> float:
        """Where it ends in the file."""
        return self.start_s + self.duration_s


class Listener(Protocol):
    """Takes every block of the requested part once, while it is decoded, at the file's own rate and with all channels, by their roles."""

    def open(self, rate_hz: int, channels: int, roles: Sequence[str]) -> None:
        """Begin."""

    def add(self, block: NDArray[np.float32]) -> None:
        """Take (n, channels) samples; the block may be kept but not written to."""


class Fingerprint:
    """A listener that names a stream: SHA-256 of its rate, its channels and every sample (little-endian float32)."""

    def open(self, rate_hz: int, channels: int, roles: Sequence[str]) -> None:
        """Begin."""
        self._hash = hashlib.sha256(f"{rate_hz} {channels}:".encode())

    def add(self, block: NDArray[np.float32]) -> None:
        """Take (n, channels) samples."""
        self._hash.update(np.ascontiguousarray(block, "<f4").data)

    def result(self) -> str:
        """The name, "sha256:…"."""
        return f"sha256:{self._hash.hexdigest()}"


class Aside:
    """A listener that hands every block to others on a thread of its own, so that decoding need not wait for them; to be closed."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._thread, self._waiting = ThreadPoolExecutor(1), deque[Future[None]]()

    def open(self, rate_hz: int, channels: int, roles: Sequence[str]) -> None:
        """Begin."""
        for listener in self._listeners:
            listener.open(rate_hz, channels, roles)

    def add(self, block: NDArray[np.float32]) -> None:
        """Take (n, channels) samples. Raises what a listener raised at a block before."""
        self._waiting.append(self._thread.submit(self._hand_over, block))
        if len(self._waiting) > BLOCKS_BEHIND:
            self._waiting.popleft().result()

    def _hand_over(self, block: NDArray[np.float32]) -> None:
        for listener in self._listeners:
            listener.add(block)

    def finish(self) -> None:
        """Wait until the listeners have taken all. Raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread; what is waiting is not handed over."""
        self._thread.shutdown(cancel_futures=True)


def load(
    path: str | os.PathLike[str] | BinaryIO, *, start_s: float = 0.0, end_s: float | None = None, listeners: Sequence[Listener] = (),
    on_part: OnPart | None = None,
) -> Audio:  # fmt: skip
    """Decode a file, an address, `-` (stdin) or an open binary stream, or the part of it between two times.

    Sound of more than `LONG_S` is given to `on_part`, where there is one, in parts as it comes; what is returned is the last part.
    A damaged file gives what could be decoded and a warning. Raises AudioError with code `not_found`, `not_audio`, `decode_failed`,
    `too_short`, `silent` or `not_finite`, or that of a limit (`core/limits.py`).
    """
    if not 0.0 <= start_s < (np.inf if end_s is None else end_s):
        raise UsageError(f"a part must start at 0 s or later and end after its start; {start_s} s to {end_s} s does not")
    shown = _shown(path)
    try:
        with _on_disk(path) as (local, name), contextlib.closing(open_decoder(local, shown)) as decoder:
            audio = _decode(decoder, name, shown, start_s, end_s, listeners, on_part)
            found, notes = tags.read(local, decoder.tags)
            warnings = tuple(dict.fromkeys((*audio.warnings, *notes)))  # the decoder may have said it already
            return replace(audio, source=replace(audio.source, tags=found), warnings=warnings)
    except OSError as error:
        raise AudioError(f"{shown}: {_unread(shown, error)}", code="not_found") from error


def split_windows(samples: NDArray[np.float32], window_s: int = MelConfig.window_s) -> list[NDArray[np.float32]]:
    """Cut mono 16 kHz sound into encoder windows, the last one short: (n,) -> views (<= window_s * 16000,).

    A last window too short for one audio token (20 ms) is left out: the encoder would make nothing of it.
    """
    size = window_s * SAMPLE_RATE
    return [samples[at : at + size] for at in range(0, count_windows(len(samples), window_s) * size, size)]


@dataclass(frozen=True)
class Window:
    """Up to 30 s of samples (n,) float32, `n_frames` valid mel frames, `n_tokens` audio tokens."""

    samples: NDArray[np.float32]
    n_frames: int
    n_tokens: int


def checked_windows(audio: Audio, geometry: Geometry) -> Iterator[Window]:
    """Cut a song for the encoder. Raises AudioError(code="too_long") beyond the checkpoint's limit: nothing is cut silently."""
    if audio.samples.size > geometry.max_audio_s * geometry.mel.sample_rate:
        lengths = f"{audio.duration_s:.0f} s of audio, but the model takes at most {geometry.max_audio_s:.0f} s"
        raise AudioError(f"{audio.source.path}: {lengths}; choose a part with --start and --end", code="too_long")
    for samples in split_windows(audio.samples, geometry.mel.window_s):
        n_frames = valid_frames(samples.size, geometry.mel.hop_length)
        yield Window(samples, n_frames, n_audio_tokens(n_frames))


def count_windows(n_samples: int, window_s: int = MelConfig.window_s) -> int:
    """Encoder windows of so much 16 kHz sound."""
    whole, rest = divmod(n_samples, window_s * SAMPLE_RATE)
    return whole + (n_audio_tokens(valid_frames(rest, MelConfig.hop_length)) > 0)


def _decode(
    decoder: Decoder, name: str, shown: str, start_s: float, end_s: float | None, listeners: Sequence[Listener], on_part: OnPart | None
) -> Audio:
    """Drain a decoder between two times into mono 16 kHz, judging what comes."""
    rate = decoder.rate_hz
    limits.check(limits.StreamHeader(rate, decoder.channels), shown)
    start = round(start_s * rate)
    end = None if end_s is None else round(end_s * rate)
    if decoder.frames is not None and start >= decoder.frames > 0:
        ends_s = decoder.frames / rate
        lasts = f"the file lasts only {clock(ends_s)}"
        raise AudioError(f"{shown}: the requested part starts at {clock(start_s)}, but {lasts}", code="too_short")
    expected = (min(end or decoder.frames, decoder.frames) - start) if decoder.frames else 0
    limits.check(limits.StreamHeader(rate, decoder.channels, expected / rate), shown)
    mixer = _Mixer(rate, decoder.channels, expected, shown, start / rate, on_part)
    for listener in listeners:
        listener.open(rate, decoder.channels, decoder.roles)
    damage: Damaged | None = None
    try:
        for block in _until(decoder.blocks(start), None if end is None else end - start):
            mixer.add(block)
            limits.check(limits.StreamHeader(rate, decoder.channels, mixer.frames / rate), shown)
            for listener in listeners:
                listener.add(block)
    except Damaged as error:
        damage = error
    samples = mixer.finish()
    _check(mixer, damage, shown)
    decoded = start + mixer.frames
    to_the_end = damage is not None or end is None or decoded < end
    duration_s = decoded / rate if to_the_end else max(decoded / rate, decoder.frames / rate if decoder.frames else decoder.guess_s)
    warnings = (*((damage_report(damage, decoded, decoder),) if damage else ()), *decoder.notes)
    source = Source(name, duration_s, rate, decoder.channels, decoder.codec)
    share = min(1.0, mixer.frames / expected) if damage and expected > 0 else 1.0
    start_s = start / rate + mixer.n_before / SAMPLE_RATE
    return Audio(samples, source, start_s, warnings=warnings, damaged=damage is not None, share=share, n_before=mixer.n_before)


def _check(mixer: _Mixer, damage: Damaged | None, shown: str) -> None:
    """Refuse what cannot be analysed."""
    seconds = mixer.frames / mixer.rate_hz
    if damage is not None and seconds < MIN_S:
        raise AudioError(f"{shown}: cannot be decoded ({damage}): the file is cut or damaged; get it again from its source") from damage
    if seconds < MIN_S:
        raise AudioError(f"{shown}: {seconds:.2f} s of audio is too short to analyse; at least {MIN_S} s is needed", code="too_short")
    if not mixer.audible and mixer.native_peak > SILENT_PEAK:
        raise AudioError(f"{shown}: its channels cancel each other out in mono; invert the phase of one of them", code="silent")
    if not mixer.audible:
        raise AudioError(f"{shown}: the audio is silent; there is nothing to analyse", code="silent")


class _Mixer:
    """Native blocks in, one mono 16 kHz signal out; holds no more than that signal, or its last parts, and one block."""

    def __init__(self, rate_hz: int, channels: int, expected_frames: int, shown: str, start_s: float, on_part: OnPart | None) -> None:
        self.rate_hz, self.frames, self.native_peak, self.audible, self.n_before = rate_hz, 0, 0.0, False, 0
        self._on_part = on_part
        self._shown, self._start_s = shown, start_s
        self._weights = np.full(channels, 1.0 / channels, np.float32)
        self._resampler = None if rate_hz == SAMPLE_RATE else soxr.ResampleStream(rate_hz, SAMPLE_RATE, 1, dtype="float32")
        expected = min(expected_frames, (TRUSTED_S if on_part is None else LONG_S) * rate_hz) * SAMPLE_RATE // rate_hz
        self._samples = np.empty(expected + 1, np.float32)  # pages are taken only when written
        self._size = 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Mix and resample (n, channels)."""
        mono = block[:, 0] if block.shape[1] == 1 else block @ self._weights
        if not _peak(block) <= limits.LOUDEST:  # also where it is not a number
            sound = (np.abs(block) <= limits.LOUDEST).all(axis=1)
            at = self._start_s + (self.frames + int(np.argmin(sound))) / self.rate_hz
            what = "is not a number" if np.isnan(block).any() else "is beyond any level"
            raise AudioError(f"{self._shown}: contains a sample that {what} at {at:.2f} s; export the file again", code="not_finite")
        self.frames += len(block)
        if not self.audible:
            self.audible = _peak(mono) > SILENT_PEAK
            self.native_peak = max(self.native_peak, _peak(block))
        self._keep(mono if self._resampler is None else self._resampler.resample_chunk(np.ascontiguousarray(mono)))

    def finish(self) -> NDArray[np.float32]:
        """Flush the resampler and hand over the signal."""
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        self._samples.resize(self._size, refcheck=False)
        return self._samples

    def _keep(self, part: NDArray[np.float32]) -> None:
        if self._size + len(part) > len(self._samples):
            self._samples.resize(self._size + len(part) + GROW_SAMPLES, refcheck=False)  # in place where the system can
        self._samples[self._size : self._size + len(part)] = part
        self._size += len(part)
        while self._on_part is not None and self._size > LONG_S * SAMPLE_RATE:
            size = PART_S * SAMPLE_RATE
            self._on_part(self._samples[:size], self._start_s + self.n_before / SAMPLE_RATE)
            self._samples[: self._size - size] = self._samples[size : self._size]
            self._size -= size
            self.n_before += size


def _until(blocks: Generator[NDArray[np.float32], None, None], frames: int | None) -> Iterator[NDArray[np.float32]]:
    """Pass on `frames` frames and close the source."""
    left = frames
    with contextlib.closing(blocks):
        for block in blocks:
            if left is not None:
                block = block[:left]
                left -= len(block)
            yield block
            if left == 0:
                return


def _peak(samples: NDArray[np.float32]) -> float:
    return max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))


@contextlib.contextmanager
def _on_disk(path: str | os.PathLike[str] | BinaryIO) -> Iterator[tuple[Path, str]]:
    """Give a regular file for whatever was named, spooling streams into a temporary one: (file, name for the record)."""
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else "-"
    if name == "-":
        stream = sys.stdin.buffer if isinstance(path, str | os.PathLike) else path
        if stream is sys.stdin.buffer and stream.isatty():
            raise AudioError("standard input is a terminal; pipe a file into it: `mflamingo analyze - < song.flac`", code="not_found")
    elif not remote.is_address(name):
        mode = os.stat(name).st_mode
        if stat.S_ISREG(mode):
            yield Path(name), name
            return
        if not stat.S_ISFIFO(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a device"
            raise AudioError(f"{_shown(path)}: is {what}, not an audio file", code="not_audio")
    with _temporary_folder(_shown(path)) as folder:
        local = folder / "song"
        if remote.is_address(name):
            remote.fetch(name, str(local))
        else:
            with contextlib.nullcontext(stream) if name == "-" else open(name, "rb") as source:
                _spool(source, local, _shown(path))
        yield local, name


@contextlib.contextmanager
def _temporary_folder(shown: str) -> Iterator[Path]:
    """A folder for what is not a file yet, gone behind it. Raises NoRoomError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="mflamingo-")
    except OSError as error:  # also that no folder takes a file
        raise NoRoomError.of(shown, error) from error
    with folder:
        yield Path(folder.name)


def _spool(source: BinaryIO, local: Path, shown: str) -> None:
    """Copy a stream into a file. Raises NoRoomError where that cannot be written, OSError where the stream cannot be read."""
    with local.open("wb", buffering=0) as file:
        while block := source.read(SPOOL_BYTES):
            try:
                while block:
                    block = block[file.write(block) :]
            except OSError as error:
                raise NoRoomError.of(shown, error) from error


def _unread(shown: str, error: OSError) -> str:
    """Why a file cannot be opened; an address of a playlist stands in the playlist's folder, where no file has its name."""
    if not isinstance(error, FileNotFoundError):
        return f"cannot be read: {error.strerror or error}"
    return NO_ADDRESS if "://" in shown and not remote.is_address(shown) else "there is no such file"


def _shown(path: str | os.PathLike[str] | BinaryIO) -> str:
    """A name that can be printed: control characters and broken bytes escaped."""
    if path == "-" or path is sys.stdin.buffer:
        return "standard input"
    if not isinstance(path, str | os.PathLike):
        return "the stream"
    return safe(os.fsdecode(path))
