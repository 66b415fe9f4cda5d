"""What a file claims is checked before it costs memory or time; what it may claim is analysed in bounded memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli.core.audio import load
from mflamingo_cli.core.decode import by_ffmpeg
from mflamingo_cli.core.decode.base import block_frames
from mflamingo_cli.core.limits import LEAST_HZ, LIMITS, LOUDEST, MOST_CHANNELS, MOST_HZ, MOST_S, MOST_SAMPLES_PER_S, StreamHeader, check
from mflamingo_cli.errors import AudioError
from tests.core.test_audio import needs_ffmpeg

MEMORY_BYTES = 500_000_000  # of one song, all included
DEADLINE_S = 20


def wav(path: Path, rate_hz: int, channels: int = 1, frames: int = 4) -> Path:
    """A WAV of 16-bit noise whose header says what it is told to (Multimedia Programming Interface 1.0, Microsoft and IBM 1991)."""
    data = np.random.default_rng(0).bytes(2 * channels * frames)
    header = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * 2 * channels & 0xFFFF_FFFF, 2 * channels, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


CLAIMS = {
    "a record player": (StreamHeader(44_100, 2, 2_700.0), None),
    "a telephone": (StreamHeader(8_000, 1, 60.0), None),
    "DSD as ffmpeg decodes it": (StreamHeader(352_800, 2, 600.0), None),
    "the fastest converter": (StreamHeader(768_000, 2, 600.0), None),
    "seventh-order ambisonics": (StreamHeader(48_000, 64, 600.0), None),
    "a day of a radio station": (StreamHeader(44_100, 2, 86_400.0), None),
    "the slowest": (StreamHeader(LEAST_HZ, 1), None),
    "too slow": (StreamHeader(LEAST_HZ - 1, 1), "rate_out_of_range"),
    "one a second": (StreamHeader(1, 1), "rate_out_of_range"),
    "no rate": (StreamHeader(0, 1), "rate_out_of_range"),
    "a negative rate": (StreamHeader(-(1 << 31), 2), "rate_out_of_range"),
    "the fastest": (StreamHeader(MOST_HZ, 1), None),
    "too fast": (StreamHeader(MOST_HZ + 1, 1), "rate_out_of_range"),
    "a rate of 2**31": (StreamHeader(1 << 31, 1), "rate_out_of_range"),
    "the most channels": (StreamHeader(8_000, MOST_CHANNELS), None),
    "too many channels": (StreamHeader(8_000, MOST_CHANNELS + 1), "too_many_channels"),
    "no channel": (StreamHeader(44_100, 0), "too_many_channels"),
    "too many of both": (StreamHeader(MOST_SAMPLES_PER_S // 128 + 1, 128), "too_many_channels"),
    "the longest": (StreamHeader(44_100, 2, float(MOST_S)), None),
    "too long": (StreamHeader(44_100, 2, MOST_S + 1.0), "too_long"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_real_files_have_is_allowed_and_what_none_has_is_refused(name: str) -> None:
    claim, code = CLAIMS[name]
    if code is None:
        check(claim, "a.wav")
        assert all(limit.allows(claim) for limit in LIMITS)
        return
    with pytest.raises(AudioError, match=r"a\.wav: .*; ") as caught:  # the sentence, and what helps
        check(claim, "a.wav")
    assert (caught.value.code, caught.value.retryable) == (code, False)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "code", "words"),
    [
        (1, 1, "rate_out_of_range", "sample rate of 1 Hz"),
        (10_000_000, 1, "rate_out_of_range", "sample rate of 10000000 Hz"),
        ((1 << 31) - 1, 1, "rate_out_of_range", "sample rate of 2147483647 Hz"),
        (44_100, 1_000, "too_many_channels", "1000 channels"),
        (48_000, 512, "too_many_channels", "512 channels at 48 kHz"),
    ],
)
def test_a_header_beyond_a_limit_is_refused_before_the_sound_is_read(
    tmp_path: Path, rate_hz: int, channels: int, code: str, words: str
) -> None:
    opened: list[int] = []

    class Watch:
        def open(self, rate_hz: int, channels: int, roles: object) -> None:
            opened.append(rate_hz)

        def add(self, block: np.ndarray) -> None:
            opened.append(len(block))

    with pytest.raises(AudioError, match=words) as caught:
        load(wav(tmp_path / "a.wav", rate_hz, channels), listeners=(Watch(),))
    assert (caught.value.code, opened) == (code, [])


def stated_as(form: str, rate_hz: float, channels: int = 1) -> bytes:
    """The file of a header that states a rate and channels, behind which is noise."""
    noise = np.random.default_rng(0).bytes(40_000)
    exponent = 16_383 + 63 - (64 - int(rate_hz).bit_length())
    extended = struct.pack(">HQ", exponent, int(rate_hz) << 64 - int(rate_hz).bit_length()) if rate_hz else bytes(10)
    match form:
        case "wav" | "rf64":
            name, large = (b"RF64", b"ds64" + struct.pack("<IQQQI", 28, 40_072, 40_000, 20_000, 0)) if form == "rf64" else (b"RIFF", b"")
            header = struct.pack("<HHIIHH", 1, channels, int(rate_hz), 2 * int(rate_hz) & 0xFFFF_FFFF, 2, 16)
            return (
                name
                + struct.pack("<I", 40_036)
                + b"WAVE"
                + large
                + b"fmt \x10\0\0\0"
                + header
                + b"data"
                + struct.pack("<I", 40_000)
                + noise
            )
        case "au":
            return b".snd" + struct.pack(">IIIII", 24, 40_000, 3, int(rate_hz), channels) + noise
        case "aiff":
            common = struct.pack(">HIH", channels, 20_000, 16) + extended
            return (
                b"FORM"
                + struct.pack(">I", 40_046)
                + b"AIFFCOMM"
                + struct.pack(">I", 18)
                + common
                + b"SSND"
                + struct.pack(">III", 40_008, 0, 0)
                + noise
            )
        case _:
            described = struct.pack(">d4sIIIII", rate_hz, b"lpcm", 0, 2, 1, channels, 16)
            return b"caff\0\1\0\0desc" + struct.pack(">Q", 32) + described + b"data" + struct.pack(">QI", 40_004, 0) + noise


@pytest.mark.parametrize("rate_hz", [0, 1 << 31, (1 << 31) + 44_100, (1 << 32) - 1])
@pytest.mark.parametrize("form", ["wav", "rf64", "au", "aiff", "caf"])
def test_a_rate_that_no_decoder_takes_is_named_and_no_damage(tmp_path: Path, form: str, rate_hz: int) -> None:
    """libsndfile and ffmpeg have it as a negative number, and said invalid data."""
    (tmp_path / "a").write_bytes(stated_as(form, rate_hz))
    with pytest.raises(AudioError, match=r"states a sample rate of \d+ Hz, outside the supported range") as caught:
        load(tmp_path / "a")
    assert (caught.value.code, caught.value.retryable) == ("rate_out_of_range", False)
    (tmp_path / "a").write_bytes(stated_as(form, 22_050))
    assert load(tmp_path / "a").source.sample_rate == 22_050


@pytest.mark.parametrize("rate_hz", [float("nan"), float("inf"), -44_100.0, 1e300])
def test_a_rate_that_is_no_number_is_out_of_range(tmp_path: Path, rate_hz: float) -> None:
    data = stated_as("caf", 44_100)
    (tmp_path / "a").write_bytes(data.replace(struct.pack(">d", 44_100), struct.pack(">d", rate_hz)))
    with pytest.raises(AudioError, match="states a sample rate") as caught:
        load(tmp_path / "a")
    assert caught.value.code == "rate_out_of_range"


@pytest.mark.parametrize("form", ["wav", "aiff", "au", "caf"])
@pytest.mark.parametrize(("channels", "words"), [(0, "states 0 channels; get it again"), (65_535, "65535 channels, more than 640")])
def test_channels_that_no_decoder_takes_are_named_and_no_damage(tmp_path: Path, form: str, channels: int, words: str) -> None:
    (tmp_path / "a").write_bytes(stated_as(form, 44_100, channels))
    with pytest.raises(AudioError, match=words) as caught:
        load(tmp_path / "a")
    assert caught.value.code == "too_many_channels"


def test_blocks_of_many_channels_are_shorter() -> None:
    assert block_frames(2) == block_frames(8) > block_frames(9)
    assert block_frames(MOST_CHANNELS) * MOST_CHANNELS <= block_frames(8) * 8
    assert block_frames(10**9) == 1


@pytest.mark.parametrize("level", [2 * LOUDEST, 1e30, -1e38])
def test_a_sample_beyond_any_level_is_refused_and_integers_stored_as_floats_are_not(tmp_path: Path, level: float) -> None:
    soundfile = pytest.importorskip("soundfile")
    samples = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "loud.wav", 2.0**30 * samples, 16_000, "FLOAT")
    assert load(tmp_path / "loud.wav").duration_s == 1.0
    samples[8_000] = level
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    with pytest.raises(AudioError, match=r"beyond any level at 0\.50 s") as caught:
        load(tmp_path / "a.wav")
    assert caught.value.code == "not_finite"


@pytest.mark.parametrize(
    "content",
    [b"ID3\x04" + bytes(6), b"fLaC\0\0\0\x22", b"RIFF\0\0\0\0WAVEfmt ", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", b"OggS\0\x02"],
    ids=["tags", "FLAC", "WAV", "W64", "Ogg"],
)  # fmt: skip
def test_beginnings_without_an_end_take_no_time(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content * (4_000_000 // len(content)))
    begun = time.process_time()
    with pytest.raises(AudioError):
        load(tmp_path / "a")
    assert time.process_time() - begun < DEADLINE_S / 4


def test_a_file_of_zeros_is_given_up(tmp_path: Path) -> None:
    """The sparse one of 20 GB that a download leaves which has just begun."""
    with (tmp_path / "a.wav").open("wb") as file:
        file.truncate(20_000_000_000)
    begun = time.process_time()
    with pytest.raises(AudioError, match="not a recognised audio file"):
        load(tmp_path / "a.wav")
    assert time.process_time() - begun < DEADLINE_S / 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured in KiB on Linux")
@pytest.mark.parametrize(
    ("rate_hz", "channels", "frames"), [(MOST_HZ, 1, MOST_HZ), (48_000, 256, 48_000), (8_000, MOST_CHANNELS, 8_000), (LEAST_HZ, 2, 800)]
)
def test_what_is_within_the_limits_is_analysed_in_little_memory(tmp_path: Path, rate_hz: int, channels: int, frames: int) -> None:
    program = textwrap.dedent(f"""
        import json, re, warnings
        from pathlib import Path
        warnings.simplefilter("error")
        from mflamingo_cli.core.audio import load
        from mflamingo_cli.measure import measure
        from mflamingo_cli.measure.loudness import LoudnessMeter
        meter = LoudnessMeter()
        facts = measure(load({str(wav(tmp_path / "a.wav", rate_hz, channels, frames))!r}, listeners=(meter,)), meter)
        peak_kib = int(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().expandtabs())[1])  # of this program alone
        print(json.dumps([peak_kib, facts.loudness.true_peak_dbtp]))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=DEADLINE_S)
    kilobytes, peak = map(float, done.stdout.strip("[]\n").split(", "))
    assert 1024 * kilobytes < MEMORY_BYTES
    assert 0.0 < peak < 7.0  # 16-bit noise, between its samples too


SAMPLES = 0x500_0000  # that a file of 24 kB claims: ffmpeg took 2 GB for their index
CLAIMING = """
import resource, sys
from mflamingo_cli.core.audio import load
from mflamingo_cli.errors import AudioError
try:
    load(sys.argv[1])
except AudioError as error:
    print(error.code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_the_index_that_an_m4a_claims_takes_no_memory_of_ffmpeg(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(44_100, np.float32), 44_100)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "in.wav", "-c:a", "aac", tmp_path / "a.m4a"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    data = bytearray((tmp_path / "a.m4a").read_bytes())
    claims = ((b"stsz", 8, 1), (b"stsz", 12, SAMPLES), (b"stsc", 16, SAMPLES), (b"stts", 12, SAMPLES))  # ISO 14496-12, 8.6 and 8.7
    for box, place, value in claims:
        at = data.index(box) + place
        data[at : at + 4] = struct.pack(">I", value)
    (tmp_path / "a.m4a").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", CLAIMING, tmp_path / "a.m4a"], capture_output=True, text=True, check=True)
    code, kilobytes = done.stdout.split()
    assert code == "decode_failed"
    assert 1024 * int(kilobytes) < MEMORY_BYTES


@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process")
def test_what_many_tracks_of_an_m4a_claim_together_is_limited(tmp_path: Path) -> None:
    """Each of four tracks claims an index of 240 MB, which is below the limit of one."""
    soundfile.write(tmp_path / "in.wav", np.zeros(44_100, np.float32), 44_100)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "in.wav", "-c:a", "aac", tmp_path / "a.m4a"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    data = (tmp_path / "a.m4a").read_bytes()
    track_at, movie_at = data.index(b"trak") - 4, data.index(b"moov") - 4
    movie, track = (data[at : at + int.from_bytes(data[at : at + 4], "big")] for at in (movie_at, track_at))
    claiming = bytearray(track)
    for box, place, value in ((b"stsz", 8, 1), (b"stsz", 12, 10_000_000), (b"stsc", 16, 10_000_000), (b"stts", 12, 10_000_000)):
        at = claiming.index(box) + place
        claiming[at : at + 4] = struct.pack(">I", value)
    movie = struct.pack(">I", len(movie) - len(track) + 4 * len(track)) + movie[4:].replace(track, 4 * bytes(claiming))
    (tmp_path / "a.m4a").write_bytes(data[:movie_at] + movie)
    done = subprocess.run([sys.executable, "-c", CLAIMING, tmp_path / "a.m4a"], capture_output=True, text=True, check=True)
    code, kilobytes = done.stdout.split()
    assert (code, 1024 * int(kilobytes) < 1_000_000_000) == ("decode_failed", True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process")
def test_a_process_takes_no_more_memory_than_it_may() -> None:
    command = [sys.executable, "-c", "input(); bytearray(1 << 28)"]
    for most, refused in ((1 << 27, True), (1 << 30, False)):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        by_ffmpeg._limit(process, RLIMIT_DATA=most)
        _, log = process.communicate(b"\n")
        assert (b"MemoryError" in log) == refused


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the time of another process")
def test_a_header_that_keeps_ffprobe_busy_is_given_up(tmp_path: Path) -> None:
    """A million comments of one name, which libFLAC refuses and ffprobe joins one by one for minutes."""
    soundfile.write(tmp_path / "a.flac", np.zeros(44_100, np.float32), 44_100)
    data = (tmp_path / "a.flac").read_bytes()
    comments = struct.pack("<II", 0, 1_000_000) + 1_000_000 * b"\3\0\0\0A=b"
    head = data[:4] + b"\0" + data[5:42] + b"\x84" + len(comments).to_bytes(3, "big")  # streaminfo, and comments as the last block
    (tmp_path / "a.flac").write_bytes(head + comments + data[data.index(b"\xff\xf8") :])
    with pytest.raises(AudioError, match="its header takes more than 5 s to read"):
        load(tmp_path / "a.flac")
