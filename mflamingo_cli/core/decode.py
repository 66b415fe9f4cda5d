"""Local audio files as streams of blocks at their own rate: soundfile for what it reads, ffmpeg for the rest.

Positions and lengths are frames (one sample of every channel) at the file's rate; blocks are (n, channels) float32. Only the named local
file is ever opened: the container is recognised by its first bytes and named to ffmpeg, so playlists and scripts cannot lead anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from mflamingo_cli.errors import AudioError

BLOCK_FRAMES = 1 << 15  # 0.7 s at 44.1 kHz; fewer where there are many channels:
BLOCK_SAMPLES = 1 << 18  # of all channels, 1 MiB
FLAC_STEP_FRAMES = 1 << 13  # read at once: a damaged FLAC loses at most that much, 0.2 s, of its good part; other codecs never fail midway
UNKNOWN_STEP_FRAMES = 1 << 8  # where the end comes unannounced, as a failing read (FLAC from a pipe)
UNRECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's SF_COUNT_MAX: the header states no length
HEAD_BYTES = 1 << 16  # read to recognise the container
INEXACT_SEEK = {"vorbis"}  # libsndfile 1.2.2 lands beside the asked frame: decode and drop instead
CODEC_NAMES = {"MPEG_LAYER_I": "mp1", "MPEG_LAYER_II": "mp2", "MPEG_LAYER_III": "mp3", "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64"}
CODEC_NAMES |= dict.fromkeys(("ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"), "alac")
MP3_COUNTERS = (b"Xing", b"Info", b"VBRI")  # a first frame of these states how many follow; else libsndfile guesses from the bit rate
OGG_END = 4  # header type flag of the last page (RFC 3533, sec. 6)
OGG_FIRST_PAGE = 480_000  # frames; a first page that ends later belongs to a stream whose beginning was not recorded
MPEG_RATES_HZ = (44_100, 48_000, 32_000)  # MPEG 1; half in MPEG 2, a quarter in 2.5
MPEG_KBIT_S = {  # by (is MPEG 1, layer code): ISO 11172-3, 2.4.2.3; ISO 13818-3, 2.4.2.3 for all else
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    None: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

# offset, bytes there, ffmpeg's demuxer. Those that name other files (hls, concat, dash, image2, …) are left out on purpose.
CONTAINERS = [
    (4, b"ftyp", "mov"),  # m4a, mp4, 3gp
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),  # mkv, mka, webm
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),  # wma, wmv
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b".RMF", "rm"),
    (0, b"\x06\x0e\x2b\x34", "mxf"),
    (0, b"wvpk", "wv"),
    (0, b"MAC ", "ape"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "mpc8"),
    (0, b"MP+", "mpc"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "iff"),  # DSDIFF
    (0, b"#!AMR", "amr"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (8, b"WAVE", "wav"),  # codings in known containers that libsndfile lacks
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"caff", "caf"),
    (0, b"FORM", "aiff"),
]
NOT_SOUND = [  # what people do hand over, and what to do about it
    (b"MThd", "a MIDI file, which contains notes and no audio; render it with a synthesizer first"),
    (b"#EXTM3U", "a playlist; name its songs, or give it a name that ends with .m3u"),
    (b"ffconcat", "a list of files; name the files"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
]
INSTALL_FFMPEG = {"darwin": "brew install ffmpeg", "win32": "winget install ffmpeg"}.get(sys.platform, "apt install ffmpeg")
KINDS = {"mov": "MP4 or M4A", "asf": "WMA", "wv": "WavPack", "matroska": "Matroska", "mpeg": "MPEG"}  # what people call them
ANY_NAME = "file:"  # stands for the file while ffmpeg-python builds a command: it cannot hash names that are not UTF-8


class Damaged(Exception):
    """The stream broke off; blocks that came before it are good."""


class Decoder(Protocol):
    """An open audio stream."""

    rate_hz: int
    channels: int
    codec: str
    frames: int | None  # as the header states; None where it does not, or only as a guess
    guess_s: float  # length in seconds for want of anything better
    tags: Mapping[str, str]  # as the file names them

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield (n, channels) from frame `start` to the end; raises Damaged where the stream breaks off. To be called once."""

    def close(self) -> None:
        """Let go of the file."""


def open_decoder(path: Path, name: str) -> Decoder:
    """Open a regular file with the first decoder that knows it; `name` is what messages call it."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        tagged = _id3_size(head)
        if tagged:
            file.seek(tagged)
            head = file.read(HEAD_BYTES)
    if not head:
        raise AudioError(f"{name}: the file is empty", code="not_audio")
    try:
        return SoundFileDecoder(path, head)
    except soundfile.LibsndfileError as error:
        demuxer = container(head) or ("mp3" if tagged else None)  # junk between the tag and the first frame
        if demuxer is None:
            kinds = (f"this is {kind}" for magic, kind in NOT_SOUND if head.startswith(magic))
            what = next(kinds, "not a recognised audio file, despite its name")
            raise AudioError(f"{name}: {what}", code="not_audio") from error
        return FfmpegDecoder(path, name, demuxer, error.error_string)


def block_frames(channels: int) -> int:
    """How many frames are decoded at a time, so that the memory of a block is bounded whatever the channels."""
    return max(1, min(BLOCK_FRAMES, BLOCK_SAMPLES // channels))


def container(head: bytes) -> str | None:
    """Choose ffmpeg's demuxer by a file's first bytes (after any ID3 tag)."""
    for offset, magic, demuxer in CONTAINERS:
        if head.startswith(magic, offset):
            return demuxer
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return "mpegts"
    if head[:2] == b"\x0b\x77":
        return "eac3" if len(head) > 5 and head[5] >> 3 > 10 else "ac3"  # bsid (ETSI TS 102 366, E.2.1)
    if len(head) > 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS, layer 0 (ISO 14496-3, 1.A.3.2)
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return "aac" if length > 7 and head[length : length + 2] in (head[:2], b"") else None
    return None


class SoundFileDecoder:
    """A file that libsndfile reads."""

    def __init__(self, path: Path, head: bytes) -> None:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            stack.enter_context(_hushed())
            self._file = soundfile.SoundFile(raw.fileno() if os.name == "posix" else raw, closefd=False)
            guessed = self._file.format == "MP3" and not any(tag in head[:256] for tag in MP3_COUNTERS)
            unknown = self._file.frames == UNKNOWN_FRAMES
            self.guess_s = 0.0 if unknown else self._file.frames / self._file.samplerate
            if guessed:
                self._file.close()
                if not _is_mpeg(head):
                    raise soundfile.LibsndfileError(UNRECOGNISED)
                self._file = soundfile.SoundFile(_Stretched(raw))
            stack.enter_context(self._file)
            self.rate_hz, self.channels = self._file.samplerate, self._file.channels
            self.tags = self._file.copy_metadata()
            coding = self._file.subtype
            self.codec = "flac" if self._file.format == "FLAC" else CODEC_NAMES.get(coding, coding.lower())
            held = _held_share(self._file.extra_info)
            self.frames = None if guessed or unknown else round(self._file.frames / held)
            self._seeks = self.frames is not None and self.codec not in INEXACT_SEEK and self._file.seekable()
            self._step = UNKNOWN_STEP_FRAMES if unknown else FLAC_STEP_FRAMES if self.codec == "flac" else BLOCK_FRAMES
            self._cut = held < 1.0
            if self._file.format == "OGG":
                stated = _ogg_frames(path, head)
                self._cut |= stated is None
                self.frames = max(self._file.frames, stated or 0)
            self._raw, self._unknown = raw, unknown
            self.close = stack.pop_all().close

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield from frame `start`; a header that promises more than the file holds ends in Damaged."""
        at = 0
        if self._seeks and 0 < start < self._file.frames:
            at = self._file.seek(start)
        error = None
        while error is None:
            block, error = self._read()
            if not len(block):
                break
            at += len(block)
            if at > start:
                yield block[max(0, len(block) - (at - start)) :]
        file = self._raw.fileno()
        at_end = os.lseek(file, 0, os.SEEK_CUR) >= os.fstat(file).st_size  # where no length is stated, that is how a stream ends
        if error is not None and not (self._unknown and at_end):
            raise Damaged("the data after that are invalid") from error
        if self._cut or (self.frames is not None and self.frames - at > self.rate_hz // 2):
            raise Damaged("the file is shorter than its header says")

    def _read(self) -> tuple[NDArray[np.float32], soundfile.LibsndfileError | None]:
        """Read a block in small steps: (n, channels); a failing step loses only itself, and its error comes along."""
        block = np.empty((block_frames(self.channels), self.channels), np.float32)
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


class FfmpegDecoder:
    """A file that the ffmpeg program reads: its first audio stream, rate and channels unchanged."""

    def __init__(self, path: Path, name: str, demuxer: str, refusal: str) -> None:
        import ffmpeg

        for program in ("ffmpeg", "ffprobe"):
            if shutil.which(program) is None:
                kind = KINDS.get(demuxer, demuxer.upper())
                raise AudioError(
                    f"{name}: this {kind} file needs the program {program}, which is not installed: `{INSTALL_FFMPEG}` ({refusal})"
                )
        # protocol and format lists hold for whatever the demuxer itself would open
        self._limits = {"format_whitelist": demuxer, "protocol_whitelist": "file", "f": demuxer}
        self._url = f"file:{os.path.abspath(path)}"
        try:
            report = ffmpeg.probe(self._url, select_streams="a", v="error", **self._limits)
        except ffmpeg.Error as error:
            raise AudioError(f"{name}: cannot be decoded ({_last_line(error.stderr)}); the file is cut, damaged or protected") from error
        if not report["streams"]:
            raise AudioError(f"{name}: contains no audio", code="not_audio")
        stream: dict[str, Any] = report["streams"][0]
        self.rate_hz, self.channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        self.codec = str(stream.get("codec_name", demuxer))
        self.tags = stream.get("tags", {}) | report["format"].get("tags", {})
        if not self.rate_hz or not self.channels:
            raise AudioError(f"{name}: its {self.codec} audio cannot be decoded; the file is cut, damaged or protected")
        self.guess_s = float(stream.get("duration", report["format"].get("duration", 0.0)))
        self.frames = round(self.guess_s * self.rate_hz) or None if demuxer == "mov" else None  # elsewhere a guess, or that of the picture

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield from frame `start`, decoding all before it too: seeking is not exact to the sample in most of these containers."""
        import ffmpeg

        wanted = {"f": "f32le", "acodec": "pcm_f32le", "ar": self.rate_hz, "ac": self.channels, "map": "0:a:0"}
        graph = ffmpeg.input(ANY_NAME, **self._limits).output("pipe:1", **wanted).global_args("-nostdin", "-v", "error")
        command = [self._url if part == ANY_NAME else part for part in graph.compile()]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
            try:
                assert process.stdout is not None
                drop = start
                while len(block := self._read(process.stdout)):
                    kept = block[drop:]
                    drop -= len(block) - len(kept)
                    if len(kept):
                        yield kept
                process.wait()
            finally:
                process.kill()
                process.communicate()
            log.seek(0)
            complaint = log.read(HEAD_BYTES)
            if process.returncode or complaint:
                raise Damaged(_last_line(complaint))

    def _read(self, stream: IO[bytes]) -> NDArray[np.float32]:
        """Read one block, a short one only at the end: (n, channels)."""
        data = stream.read(block_frames(self.channels) * self.channels * 4)
        frames = len(data) // (4 * self.channels)
        return np.frombuffer(data, "<f4", frames * self.channels).reshape(frames, self.channels)

    def close(self) -> None:
        """Nothing is open between blocks."""


class _Stretched:
    """An MP3 that claims to be far longer than it is: libsndfile stops at the length it guessed from the first frame, now after the end."""

    FACTOR = 64  # more than the ratio of the highest bit rate to the lowest, 320 to 8 kbit/s
    TAG_BYTES = 128  # an ID3v1 tag is looked for at the claimed end

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._size = self.FACTOR * raw.seek(0, os.SEEK_END)
        raw.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(self._size + offset) if whence == os.SEEK_END else self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int) -> bytes:
        if self._raw.tell() >= self._size - self.TAG_BYTES:
            return bytes(max(0, min(size, self._size - self._raw.tell())))
        return self._raw.read(size)


def _is_mpeg(head: bytes) -> bool:
    """Find two alike MPEG audio frames in a row (ISO 11172-3, 2.4.1.3): libsndfile is content with eleven set bits, as in UTF-16 text."""
    at = head.find(b"\xff")
    while 0 <= at < len(head) - 3:
        length = _mpeg_frame_bytes(head[at : at + 4])
        follower = head[at + length : at + length + 4]
        if length and _mpeg_frame_bytes(follower) and follower[1] == head[at + 1] and (follower[2] ^ head[at + 2]) & 0x0C == 0:
            return True
        at = head.find(b"\xff", at + 1)
    return False


def _mpeg_frame_bytes(header: bytes) -> int:
    """Length of the layer III or II frame that a header begins; 0 if it begins none (layer I is not met, but looks like a UTF-16 mark)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer, bits, rate = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer in (0, 3) or bits in (0, 15) or rate == 3:
        return 0
    first = version == 3  # MPEG 1, else 2 or 2.5
    hz = MPEG_RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits_per_s, padding = 1000 * MPEG_KBIT_S[(first, layer) if first else None][bits - 1], header[2] >> 1 & 1
    return (144 if first or layer == 2 else 72) * bits_per_s // hz + padding


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


def _ogg_frames(path: Path, head: bytes) -> int | None:
    """Read the length that the last page of an Ogg stream states (RFC 3533, sec. 6); None if that page does not end the stream.

    0 if the count did not start at 0, as in recordings of live streams.
    """
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - HEAD_BYTES))
        tail = file.read()
    last = tail.rfind(b"OggS")
    if last < 0 or last + 14 > len(tail) or not tail[last + 5] & OGG_END:
        return None
    counts = [int.from_bytes(head[at + 6 : at + 14], "little", signed=True) for at in range(len(head)) if head.startswith(b"OggS", at)]
    begun = next((count for count in counts if count > 0), 0)
    return int.from_bytes(tail[last + 6 : last + 14], "little", signed=True) if begun < OGG_FIRST_PAGE else 0


def _id3_size(head: bytes) -> int:
    """Length of the ID3v2 tag in front of the sound (id3.org, 2.4.0, sec. 3.1)."""
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _last_line(log: bytes) -> str:
    """The last complaint of ffmpeg without the address of the part that made it."""
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    line = lines[-1] if lines else "no reason given"
    if line.startswith("file:"):  # the path comes first, the reason last
        line = line.rpartition(": ")[2]
    return line.rpartition("] ")[2].strip().rstrip(".")


_hush_lock = threading.Lock()
_hush_depth = 0
_hush_saved: int | None = None
_hush_sink: int | None = None


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Send what C libraries write to stderr nowhere, while Python's own stderr stays as it is.

    mpg123 inside libsndfile comments on every flaw of an MP3. Swapping the C library's `stderr` (not file descriptor 2) keeps the lines of
    other threads; where the pointer cannot be swapped the comments stay.
    """
    global _hush_depth, _hush_saved, _hush_sink
    pointer = _c_stderr()
    if pointer is None:
        yield
        return
    with _hush_lock:
        if _hush_depth == 0:
            if _hush_sink is None:
                fopen = ctypes.CDLL(None).fopen
                fopen.restype = ctypes.c_void_p
                _hush_sink = fopen(os.fsencode(os.devnull), b"w")
            _hush_saved = pointer.value
            pointer.value = _hush_sink
        _hush_depth += 1
    try:
        yield
    finally:
        with _hush_lock:
            _hush_depth -= 1
            if _hush_depth == 0:
                pointer.value = _hush_saved


def _c_stderr() -> ctypes.c_void_p | None:
    """The C library's variable `stderr` where it is known to be writable: glibc and macOS (musl keeps it in read-only memory)."""
    if sys.platform == "darwin":
        symbol = "__stderrp"
    else:
        try:
            symbol = "stderr" if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else ""
        except (AttributeError, ValueError, OSError):  # not Unix; not glibc
            symbol = ""
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), symbol) if symbol else None
