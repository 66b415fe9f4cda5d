"""The road through the ffmpeg program: one audio stream of a file, rate and channels unchanged.

ffmpeg is named the container and allowed nothing but this one local file, so nothing that it reads leads anywhere.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mflamingo_cli.core.decode import layout
from mflamingo_cli.core.decode.base import Damaged, Recording, Structure, block_frames
from mflamingo_cli.errors import AudioError

LOG_BYTES = 1 << 16  # of ffmpeg's complaints
MOST_BYTES = 1 << 28  # in one piece: the index of 66 hours of AAC takes as much, at 24 bytes a frame; what a file claims may be 2 GB
MOST_MEMORY = 3 << 28  # bytes of all pieces: three such indexes, for a file may claim one for each of a thousand tracks
PROBE_S = 5  # of processor time for a header, not by the clock: the machine may be busy; real ones take tenths, a million comments minutes
LACKING_S = 0.5  # of the stated length, before sound is called missing that ffmpeg does not miss: containers round, and count the picture
COUNTED = {"mov", "matroska", "wv", "tta", "ape", "tak", "wav", "caf", "aiff", "flac"}  # demuxers of containers that state a length
GLOBAL = ("-nostdin", "-v", "error", "-max_alloc", str(MOST_BYTES))
HARMLESS = (b"monotonically increasing dts", b"Queue input is backward in time")  # of times where recordings are joined, not of sound
INSTALL_FFMPEG = {"darwin": "brew install ffmpeg", "win32": "winget install ffmpeg"}.get(sys.platform, "apt install ffmpeg")
KINDS = {"mov": "MP4 or M4A", "asf": "WMA", "wv": "WavPack", "matroska": "Matroska", "mpeg": "MPEG"}  # what people call them
ANY_NAME = "file:"  # stands for the file while ffmpeg-python builds a command: it cannot hash names that are not UTF-8


class FfmpegDecoder:
    """A file that the ffmpeg program reads: its default audio stream, else the first."""

    def __init__(self, path: Path, name: str, demuxer: str, refusal: str, part: Recording, structure: Structure) -> None:
        for program in ("ffmpeg", "ffprobe"):
            if shutil.which(program) is None:
                kind = KINDS.get(demuxer, demuxer.upper())
                raise AudioError(
                    f"{name}: this {kind} file needs the program {program}, which is not installed: `{INSTALL_FFMPEG}` ({refusal})"
                )
        # protocol and format lists hold for whatever the demuxer itself would open
        self._limits = {"format_whitelist": demuxer, "protocol_whitelist": "file,subfile", "f": demuxer}
        self._url = f"file:{os.path.abspath(path)}"
        if part.ranges:
            self._url = f"subfile,,start,{part.ranges[0][0]},end,{part.ranges[-1][1]},,:{self._url}"
        report = _probe(self._url, self._limits, name)
        streams = [stream for stream in report["streams"] if stream.get("codec_type") == "audio"]
        if not streams:
            raise AudioError(f"{name}: contains no audio", code="not_audio")
        stream: dict[str, Any] = next((s for s in streams if s.get("disposition", {}).get("default")), streams[0])
        self._map = f"0:{int(stream['index'])}"
        self.rate_hz, self.channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        self.codec = str(stream.get("codec_name", demuxer))
        others = {str(other.get("codec_name")) for other in report["streams"]} - {self.codec}
        self._harmless = (*HARMLESS, *(f"[{codec} @".encode() for codec in sorted(others)))  # such as a damaged cover's
        self.tags = stream.get("tags", {}) | report["format"].get("tags", {})
        if not self.rate_hz or not self.channels:
            raise AudioError(f"{name}: its {self.codec} audio cannot be decoded; the file is cut, damaged or protected")
        named = stream.get("channel_layout")  # a count alone would be mixed into ffmpeg's usual layout for it
        self._form = {"af": f"aformat=channel_layouts={named}"} if named in layout.LAYOUTS else {"ac": self.channels}
        self.roles = layout.named(stream.get("channel_layout"), self.channels)
        self.notes, self._structure = (*structure.notes, *(_others(streams, stream) if demuxer != "ogg" else ())), structure
        self.guess_s = _seconds(stream.get("duration", report["format"].get("duration")))
        own = "duration" in stream or all(s.get("codec_type") == "audio" for s in report["streams"])  # not that of the picture
        stated_s = structure.length_s or (self.guess_s if demuxer in COUNTED and own else 0.0)
        self.frames = round(stated_s * self.rate_hz) or None

    def blocks(self, start: int) -> Generator[NDArray[np.float32], None, None]:
        """Yield from frame `start`, decoding all before it too: seeking is not exact to the sample in most of these containers."""
        import ffmpeg

        wanted = {"f": "f32le", "acodec": "pcm_f32le", "ar": self.rate_hz, "map": self._map, **self._form}
        graph = ffmpeg.input(ANY_NAME, err_detect="crccheck", **self._limits).output("pipe:1", **wanted).global_args(*GLOBAL)
        command = [self._url if part == ANY_NAME else part for part in graph.compile()]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _limit(process, RLIMIT_DATA=MOST_MEMORY)
        assert process.stdout is not None
        assert process.stderr is not None
        log = bytearray()
        listener = threading.Thread(target=_listen, args=(process.stderr, log), daemon=True)
        listener.start()
        try:
            drop, at = start, 0
            while len(block := self._read(process.stdout)):
                at += len(block)
                kept = block[drop:]
                drop -= len(block) - len(kept)
                if len(kept):
                    yield kept
            process.wait()
        finally:
            process.kill()
            process.wait()
            listener.join()
            process.stdout.close()
            process.stderr.close()
        complaints = [line for line in log.splitlines() if not any(word in line for word in self._harmless)]
        if process.returncode:
            raise Damaged(_last_line(b"\n".join(complaints)))
        if complaints or self._structure.gaps:
            raise Damaged("some of its data are invalid", self._structure.gaps, where=False)
        if self._structure.cut or (self.frames is not None and self.frames - at > LACKING_S * self.rate_hz):
            raise Damaged("the file is shorter than its header says")

    def _read(self, stream: IO[bytes]) -> NDArray[np.float32]:
        """Read one block, a short one only at the end: (n, channels)."""
        data = stream.read(block_frames(self.channels) * self.channels * 4)
        frames = len(data) // (4 * self.channels)
        return np.frombuffer(data, "<f4", frames * self.channels).reshape(frames, self.channels)

    def close(self) -> None:
        """Nothing is open between blocks."""


def _probe(url: str, limits: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return what ffprobe reports of a file. Raises AudioError where it fails, or takes longer than for any real header."""
    options = [word for option, value in limits.items() for word in (f"-{option}", value)]
    command = ["ffprobe", *GLOBAL[1:], *options, "-show_format", "-show_streams", "-of", "json", url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _limit(process, RLIMIT_DATA=MOST_MEMORY, RLIMIT_CPU=PROBE_S)
    output, log = process.communicate()
    if process.returncode == 0:
        report: dict[str, Any] = json.loads(output.decode("utf-8", "replace"))
        return report
    too_long = process.returncode in (-signal.SIGKILL, -signal.SIGXCPU)
    complaint = f"its header takes more than {PROBE_S} s to read" if too_long else _last_line(log)
    raise AudioError(f"{name}: cannot be decoded ({complaint}); the file is cut, damaged or protected")


def _limit(process: subprocess.Popen[bytes], **limits: int) -> None:
    """Limit what a process may take, by the names of the resources, where that can be done to another one."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError, ValueError):  # it has ended, or a sandbox or a lower limit forbids it
            for name, most in limits.items():
                resource.prlimit(process.pid, getattr(resource, name), (most, most))


def _seconds(stated: Any) -> float:
    """A duration as ffprobe reports it; 0 for what is none: containers hold negative ones, infinity and NaN."""
    try:
        seconds = float(stated)
    except (TypeError, ValueError):
        return 0.0
    return seconds if 0.0 <= seconds < math.inf else 0.0


def _listen(stream: IO[bytes], log: bytearray) -> None:
    """Read complaints to their end, so that the pipe never fills, and keep the first of them."""
    while data := stream.read1(LOG_BYTES):  # type: ignore[attr-defined]  # a BufferedReader
        log += data[: LOG_BYTES - len(log)]


def _others(streams: list[dict[str, Any]], chosen: dict[str, Any]) -> tuple[str, ...]:
    """A sentence on the audio streams that are not decoded, if there are any."""
    if len(streams) == 1:
        return ()
    others = "; ".join(_described(stream) for stream in streams if stream is not chosen)
    return (f"the file has {len(streams)} audio streams; only one ({_described(chosen)}) was analysed, not: {others}",)


def _described(stream: dict[str, Any]) -> str:
    """Language, title and codec of a stream, as far as they are stated."""
    tags = stream.get("tags", {})
    words = [tags.get("language", ""), tags.get("title", ""), stream.get("codec_name", "unknown codec")]
    return " ".join(word for word in words if word and word != "und")


def _last_line(log: bytes) -> str:
    """The last complaint of ffmpeg without the address of the part that made it."""
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    line = lines[-1] if lines else "no reason given"
    if line.startswith("file:"):  # the path comes first, the reason last
        line = line.rpartition(": ")[2]
    return line.rpartition("] ")[2].strip().rstrip(".")
