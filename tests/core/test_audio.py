"""Whatever the container, rate, channels and depth, the same 16 kHz mono arrives; what cannot be heard is named."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from mflamingo_cli.core import decode
from mflamingo_cli.core.audio import MIN_S, SAMPLE_RATE, Aside, Audio, Fingerprint, Source, load, split_windows
from mflamingo_cli.core.decode import mpeg
from mflamingo_cli.errors import AudioError, MFlamingoError, ModelError, UsageError

ROUNDING = 1e-6  # float32 sums in another order
LENGTH_AT_THE_END = ("a.ogg", "a.opus")  # of such a file nobody knows how much is missing
LOSSY = 0.2  # correlation may fall this far below 1 through the worst codec here, at the rates it is used with
SIXTEEN_BIT = 2.0**-15  # one step of 16-bit samples
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="the ffmpeg program is not installed"
)


def music(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    """A rising tone per channel below 3 kHz, each channel another octave, with some noise: (n, channels)."""
    t = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(0).standard_normal((t.size, channels))
    tones = [0.4 * np.sin(2 * np.pi * (150.0 * 2 ** (c % 3) + 20.0 * t) * t) for c in range(channels)]
    return (np.stack(tones, 1) + noise).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def reference(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Mono by the mean, resampled at once: what librosa's loader, and so transformers' own, does."""
    mono = samples.mean(axis=1)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)


def agree(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    """Correlation over the common length."""
    n = min(len(got), len(want))
    return float(np.corrcoef(got[:n], want[:n])[0, 1])


# ------------------------------------------------------------------------------------------------------------ what can be read


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000])
def test_any_rate_streams_to_what_resampling_at_once_gives(tmp_path: Path, rate: int) -> None:
    samples = music(3.3, rate, 2)
    audio = load(write(tmp_path / "a.wav", samples, rate, "FLOAT"))
    want = reference(samples, rate)
    assert audio.rate_hz == SAMPLE_RATE
    assert abs(len(audio.samples) - len(want)) <= 1
    n = min(len(audio.samples), len(want))
    assert np.abs(audio.samples[:n] - want[:n]).max() <= ROUNDING
    assert audio.source.sample_rate == rate
    assert audio.source.duration_s == pytest.approx(3.3, abs=1 / rate)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 17])
def test_any_number_of_channels_is_averaged(tmp_path: Path, channels: int) -> None:
    samples = music(1.0, SAMPLE_RATE, channels)
    audio = load(write(tmp_path / "a.wav", samples, SAMPLE_RATE, "FLOAT"))
    assert audio.source.channels == channels
    assert np.abs(audio.samples - samples.mean(axis=1)).max() <= ROUNDING


@pytest.mark.parametrize(
    ("name", "subtype", "codec", "step"),
    [
        ("a.wav", "PCM_U8", "pcm_u8", 2.0**-6),
        ("a.wav", "PCM_16", "pcm_16", SIXTEEN_BIT),
        ("a.wav", "PCM_24", "pcm_24", 2.0**-22),
        ("a.wav", "PCM_32", "pcm_32", ROUNDING),
        ("a.wav", "FLOAT", "pcm_f32", ROUNDING),
        ("a.wav", "DOUBLE", "pcm_f64", ROUNDING),
        ("a.wav", "ULAW", "ulaw", 2.0**-4),
        ("a.wav", "ALAW", "alaw", 2.0**-4),
        ("a.flac", "PCM_S8", "flac", 2.0**-6),
        ("a.flac", "PCM_24", "flac", 2.0**-22),
        ("a.aiff", "PCM_24", "pcm_24", 2.0**-22),
        ("a.w64", "PCM_16", "pcm_16", SIXTEEN_BIT),
        ("a.caf", "ALAC_16", "alac", SIXTEEN_BIT),
        ("a.rf64", "PCM_16", "pcm_16", SIXTEEN_BIT),
    ],
)
def test_any_depth_keeps_every_sample(tmp_path: Path, name: str, subtype: str, codec: str, step: float) -> None:
    samples = music(1.0, SAMPLE_RATE, 2)
    audio = load(write(tmp_path / name, samples, SAMPLE_RATE, subtype))
    assert audio.source.codec == codec
    assert len(audio.samples) == SAMPLE_RATE
    assert np.abs(audio.samples - samples.mean(axis=1)).max() <= step


@pytest.mark.parametrize(
    ("name", "subtype", "codec"), [("a.mp3", "MPEG_LAYER_III", "mp3"), ("a.ogg", "VORBIS", "vorbis"), ("a.opus", "OPUS", "opus")]
)
def test_lossy_codecs_keep_length_and_place(tmp_path: Path, name: str, subtype: str, codec: str) -> None:
    samples = music(5.0, 48_000, 2)
    with soundfile.SoundFile(tmp_path / name, "w", 48_000, 2, subtype, format="MP3" if codec == "mp3" else "OGG") as file:
        file.write(samples)
    audio = load(tmp_path / name)
    assert audio.source.codec == codec
    assert audio.duration_s == pytest.approx(5.0, abs=1e-3)
    assert agree(audio.samples, reference(samples, 48_000)) > 1 - LOSSY
    assert audio.warnings == ()


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "coder", "codec"),
    [
        ("a.m4a", "aac", "aac"),
        ("a.m4a", "alac", "alac"),
        ("a.aac", "aac", "aac"),
        ("a.wma", "wmav2", "wmav2"),
        ("a.mkv", "flac", "flac"),
        ("a.webm", "libopus", "opus"),
        ("a.ac3", "ac3", "ac3"),
        ("a.ts", "aac", "aac"),
        ("a.wv", "wavpack", "wavpack"),
        ("a.avi", "mp3", "mp3"),
    ],
)
def test_ffmpeg_reads_what_soundfile_cannot(tmp_path: Path, name: str, coder: str, codec: str) -> None:
    samples = music(3.0, 48_000, 2)
    wav = write(tmp_path / "in.wav", samples, 48_000)
    subprocess.run(["ffmpeg", "-v", "error", "-i", wav, "-c:a", coder, tmp_path / name], check=True, stdin=subprocess.DEVNULL)
    audio = load(tmp_path / name)
    assert (audio.source.codec, audio.source.sample_rate, audio.source.channels) == (codec, 48_000, 2)
    assert audio.duration_s == pytest.approx(3.0, abs=0.1)
    want = reference(samples, 48_000)[8_000:24_000]
    lag = int(np.argmax(np.correlate(audio.samples[6_000:26_000], want))) - 2_000  # what the coder put in front
    assert agree(audio.samples[8_000 + lag :], want) > 1 - LOSSY
    assert audio.warnings == ()


def test_an_mp3_that_does_not_state_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = music(10.0, 44_100, 2)
    samples[:4410] = np.random.default_rng(1).uniform(-1, 1, (4410, 2))  # a dear first frame misleads a guess from the bit rate
    path = write(tmp_path / "a.mp3", samples, 44_100)
    data = path.read_bytes()
    length = 144 * 1000 * [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320][data[2] >> 4] // 44_100 + (data[2] >> 1 & 1)
    assert b"Xing" in data[:length] or b"Info" in data[:length]
    path.write_bytes(data[length:])
    audio = load(path)
    assert audio.duration_s == pytest.approx(10.0, abs=0.1)
    part = load(path, start_s=6.0, end_s=7.0)
    assert np.abs(part.samples[800:-800] - audio.samples[6 * SAMPLE_RATE :][800 : SAMPLE_RATE - 800]).max() < 1e-3


@pytest.mark.parametrize("rate", [11_025, 22_050, 24_000, 44_100, 48_000])
def test_frames_of_every_mpeg_version_are_known(tmp_path: Path, rate: int) -> None:
    data = write(tmp_path / "a.mp3", music(2.0, rate, 2), rate).read_bytes()
    frames, at = 0, 0
    while at < len(data):
        length = mpeg.frame_bytes(data[at : at + 4])
        assert length
        at, frames = at + length, frames + 1
    assert at == len(data)
    assert frames >= 2 * rate / 1152


@needs_ffmpeg
@pytest.mark.parametrize(
    ("container", "coder"), [("flac", "flac"), ("wav", "pcm_s16le"), ("ogg", "libvorbis"), ("au", "pcm_s16be"), ("w64", "pcm_s16le")]
)
def test_what_was_written_to_a_pipe_without_its_length_is_whole(tmp_path: Path, container: str, coder: str) -> None:
    wav = write(tmp_path / "in.wav", music(3.21, SAMPLE_RATE), SAMPLE_RATE)
    command = ["ffmpeg", "-v", "error", "-i", wav, "-c:a", coder, "-f", container, "-"]
    data = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
    (tmp_path / "a").write_bytes(data)
    audio = load(tmp_path / "a")
    assert audio.duration_s == pytest.approx(3.21, abs=256 / SAMPLE_RATE)  # the last step that libsndfile reads of such a FLAC
    assert audio.warnings == ()


def test_an_id3_tag_before_a_flac_is_stepped_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(1.0, SAMPLE_RATE), SAMPLE_RATE)
    path.write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + path.read_bytes())
    assert load(path).duration_s == 1.0


def test_a_raw_suffix_and_no_suffix_are_told_by_content(tmp_path: Path) -> None:
    for name in ("a.raw", "a", "a.txt"):
        path = tmp_path / "a.wav"
        write(path, music(1.0, SAMPLE_RATE), SAMPLE_RATE).rename(tmp_path / name)
        assert load(tmp_path / name).source.codec == "pcm_16"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux only")
@pytest.mark.parametrize("suffix", ["wav", pytest.param("mkv", marks=needs_ffmpeg)])
def test_a_name_that_is_not_utf8_opens_and_is_shown_safely(tmp_path: Path, suffix: str) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9 [red]\x1b." + suffix.encode())
    wav = write(tmp_path / "a.wav", music(1.0, SAMPLE_RATE), SAMPLE_RATE)
    if suffix == "mkv":
        subprocess.run(["ffmpeg", "-v", "error", "-i", wav, tmp_path / "a.mkv"], check=True, stdin=subprocess.DEVNULL)
    os.rename(tmp_path / f"a.{suffix}", odd)
    audio = load(os.fsdecode(odd))
    assert os.fsencode(audio.source.path) == odd
    os.truncate(odd, 0)
    with pytest.raises(AudioError) as caught:
        load(os.fsdecode(odd))
    assert str(caught.value).isprintable()
    str(caught.value).encode("utf-8")


# ------------------------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.mp3", None), ("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.caf", "ALAC_16")],
)
def test_a_part_is_exactly_that_part_of_the_whole(tmp_path: Path, name: str, subtype: str | None) -> None:
    rate = 48_000
    with soundfile.SoundFile(tmp_path / name, "w", rate, 2, subtype, format="OGG" if name.endswith("opus") else None) as file:
        file.write(music(12.0, rate, 2))
    whole = load(tmp_path / name)
    edge = SAMPLE_RATE // 20  # the resampler's filter does not see beyond the part
    for start, end in ((0.0, 3.0), (2.5, 4.0), (5.125, 11.0), (11.0, None)):
        part = load(tmp_path / name, start_s=start, end_s=end)
        want = whole.samples[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]
        assert part.start_s == start
        assert abs(len(part.samples) - len(want)) <= 1
        assert np.abs(part.samples[edge : len(want) - edge] - want[edge:-edge]).max() <= 1e-4, (start, end)
        assert part.source.duration_s == pytest.approx(12.0, abs=0.01)
        assert part.warnings == ()


def test_a_part_without_resampling_is_bit_identical(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", music(5.0, SAMPLE_RATE), SAMPLE_RATE)
    part = load(path, start_s=1.23, end_s=3.21)
    assert (part.samples == load(path).samples[19_680:51_360]).all()
    assert (part.start_s + part.duration_s, part.duration_s) == (3.21, 1.98)


def test_an_end_beyond_the_file_is_the_end_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(2.0, SAMPLE_RATE), SAMPLE_RATE)
    audio = load(path, end_s=99.0)
    assert (audio.start_s + audio.duration_s, audio.source.duration_s, audio.warnings) == (2.0, 2.0, ())


def test_parts_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(2.0, SAMPLE_RATE), SAMPLE_RATE)
    for start, end in ((-1.0, None), (1.0, 1.0), (2.0, 1.0), (float("nan"), None)):
        with pytest.raises(UsageError, match=r"start|end"):
            load(path, start_s=start, end_s=end)
    with pytest.raises(AudioError, match=r"starts at 0:03, but the file lasts only 0:02") as caught:
        load(path, start_s=3.0)
    assert caught.value.code == "too_short"


# ------------------------------------------------------------------------------------------------------------ listeners, streams


class Recorder:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int]] = []
        self.blocks: list[NDArray[np.float32]] = []

    def open(self, rate_hz: int, channels: int, roles: Sequence[str]) -> None:
        self.opened.append((rate_hz, channels))

    def add(self, block: NDArray[np.float32]) -> None:
        self.blocks.append(block)


def test_listeners_hear_all_channels_of_just_the_part_at_the_native_rate(tmp_path: Path) -> None:
    samples = music(4.0, 44_100, 3)
    path = write(tmp_path / "a.wav", samples, 44_100, "FLOAT")
    first, second = Recorder(), Recorder()
    load(path, start_s=1.0, end_s=3.5, listeners=[first, second])
    for recorder in (first, second):
        assert recorder.opened == [(44_100, 3)]
        assert (np.concatenate(recorder.blocks) == samples[44_100:154_350]).all()


def wav_bytes(seconds: float = 2.0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, music(seconds, SAMPLE_RATE), SAMPLE_RATE, format="WAV")
    return buffer.getvalue()


def test_an_open_stream_is_read(tmp_path: Path) -> None:
    audio = load(io.BytesIO(wav_bytes()))
    assert (audio.source.path, audio.duration_s) == ("-", 2.0)


@pytest.mark.parametrize("piped", [True, False], ids=["pipe", "redirected file"])
def test_a_dash_is_stdin(tmp_path: Path, piped: bool) -> None:
    program = "from mflamingo_cli.core.audio import load; a = load('-'); print(a.source.path, a.duration_s)"
    (tmp_path / "a.wav").write_bytes(wav_bytes())
    with (tmp_path / "a.wav").open("rb") as file:
        feed = {"input": wav_bytes()} if piped else {"stdin": file}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, **feed)  # type: ignore[call-overload]
    assert done.stdout.split() == [b"-", b"2.0"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(wav_bytes(),))
    writer.start()
    assert load(tmp_path / "pipe").duration_s == 2.0
    writer.join()


# ------------------------------------------------------------------------------------------------------------ what cannot be analysed


def noise(seconds: float) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def bad_sample(value: float) -> NDArray[np.float32]:
    samples = noise(2.0)
    samples[8_000] = value
    return samples


def cancelling() -> NDArray[np.float32]:
    return np.stack([noise(2.0), -noise(2.0)], 1)


BAD_SOUND = {
    "not a number": (lambda: bad_sample(float("nan")), "not_finite", r"at 0\.50 s"),
    "infinite": (lambda: bad_sample(float("inf")), "not_finite", r"at 0\.50 s"),
    "digital silence": (lambda: np.zeros(32_000, np.float32), "silent", "the audio is silent"),
    "dither only": (lambda: np.sign(noise(2.0)) * np.float32(SIXTEEN_BIT), "silent", "the audio is silent"),
    "channels that cancel": (cancelling, "silent", "cancel each other"),
    "a moment": (lambda: noise(MIN_S - 0.01), "too_short", r"0\.49 s"),
    "nothing": (lambda: noise(0.0), "too_short", r"0\.00 s"),
}


@pytest.mark.parametrize("case", BAD_SOUND)
def test_sound_that_cannot_be_analysed_is_named(tmp_path: Path, case: str) -> None:
    make, code, words = BAD_SOUND[case]
    path = write(tmp_path / "a.wav", make(), SAMPLE_RATE, "FLOAT")
    with pytest.raises(AudioError, match=words) as caught:
        load(path)
    assert caught.value.code == code


def test_half_a_second_is_enough(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.wav", noise(MIN_S), SAMPLE_RATE)).duration_s == MIN_S


def test_faint_music_is_not_silent(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.wav", 1e-2 * noise(1.0), SAMPLE_RATE)).duration_s == 1.0


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "text": (b"this is a shopping list, not music\n" * 1000, "not a recognised audio file"),
    "text in UTF-16": ("this is a shopping list, not music\n".encode("utf-16") * 1000, "not a recognised audio file"),
    "longer text in UTF-16": ("Hello this is text, not music. ".encode("utf-16") * 3000, "not a recognised audio file"),
    "random bytes": (np.random.default_rng(1).bytes(200_000), "not a recognised audio file"),
    "zeros": (bytes(100_000), "not a recognised audio file"),
    "MIDI": (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk", "MIDI"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "not a recognised audio file"),
}


@pytest.mark.parametrize("suffix", ["flac", "mp3", "m4a", "wav"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_not_audio_are_named(tmp_path: Path, case: str, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, words = BAD_FILES[case]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=words) as caught:
        load(path)
    assert caught.value.code == "not_audio"
    assert str(caught.value).startswith(str(path))
    assert capfd.readouterr() == ("", "")


def test_places_that_are_not_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file") as missing:
        load(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="is a folder") as folder:
        load(tmp_path)
    assert (missing.value.code, folder.value.code) == ("not_found", "not_audio")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
def test_a_device_is_not_read_forever() -> None:
    with pytest.raises(AudioError, match="is a device"):
        load("/dev/zero")


@needs_ffmpeg
def test_a_video_without_sound_is_named(tmp_path: Path) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=size=32x32:duration=1", tmp_path / "a.mp4"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    with pytest.raises(AudioError, match="contains no audio") as caught:
        load(tmp_path / "a.mp4")
    assert caught.value.code == "not_audio"


def test_without_ffmpeg_one_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"needs the program ffmpeg, which is not installed: `.* install ffmpeg`") as caught:
        load(tmp_path / "a.m4a")
    assert caught.value.code == "decode_failed"


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.mp3", "a.ogg", "a.opus", "a.w64"])
def test_a_file_cut_in_the_middle_gives_its_good_part_and_says_so(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with soundfile.SoundFile(
        tmp_path / name, "w", 48_000, 1, "OPUS" if name == "a.opus" else None, format="OGG" if name == "a.opus" else None
    ) as file:
        file.write(music(10.0, 48_000))
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
    audio = load(tmp_path / name)
    assert 3.0 < audio.duration_s < 7.0
    assert audio.source.duration_s == pytest.approx(audio.duration_s, abs=1e-3)
    assert len(audio.warnings) == 1
    assert "cut or damaged" in audio.warnings[0]
    assert audio.damaged
    assert 0.3 < audio.share < 0.7 or name in LENGTH_AT_THE_END
    assert audio.described("sha256:…").damaged
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg"])
def test_a_file_cut_before_half_a_second_cannot_be_decoded(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / name, music(10.0, 48_000), 48_000)
    os.truncate(path, path.stat().st_size // 40)
    with pytest.raises(AudioError) as caught:
        load(path)
    assert caught.value.code in ("decode_failed", "not_audio")
    assert capfd.readouterr() == ("", "")


@needs_ffmpeg
def test_an_m4a_cut_in_the_middle(tmp_path: Path) -> None:
    wav = write(tmp_path / "in.wav", music(10.0, 48_000), 48_000)
    for flags, name in ((["-movflags", "+faststart"], "index first.m4a"), ([], "index last.m4a")):
        subprocess.run(["ffmpeg", "-v", "error", "-i", wav, *flags, tmp_path / name], check=True, stdin=subprocess.DEVNULL)
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
    audio = load(tmp_path / "index first.m4a")
    assert audio.duration_s < 7.0
    assert "of 10.0 s could be decoded" in audio.warnings[0]
    with pytest.raises(AudioError, match="cut, damaged or protected") as caught:
        load(tmp_path / "index last.m4a")
    assert caught.value.code == "decode_failed"


def test_flaws_of_an_mp3_are_not_commented_on_by_the_library_while_python_still_speaks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.mp3", music(5.0, 44_100), 44_100)
    data = bytearray(path.read_bytes())
    for at in np.random.default_rng(0).integers(len(data) // 3, len(data), 100):
        data[at] ^= 255
    path.write_bytes(data)

    class Speaker(Recorder):
        def open(self, rate_hz: int, channels: int, roles: Sequence[str]) -> None:
            sys.stderr.write("python speaks\n")

    assert load(path, listeners=[Speaker()]).duration_s > 4.0
    assert capfd.readouterr() == ("", "python speaks\n")


# ------------------------------------------------------------------------------------------------------------ nothing else is opened


@pytest.fixture
def visits() -> tuple[int, list[object]]:
    """A local port that notes who knocks."""
    server = socket.create_server(("127.0.0.1", 0))
    seen: list[object] = []

    def listen() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            seen.append(address)
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    yield server.getsockname()[1], seen  # type: ignore[misc]
    server.close()


LURES: dict[str, Callable[[str, int], str]] = {
    "hls": lambda secret, port: (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    ),
    "concat": lambda secret, port: f"ffconcat version 1.0\nfile '{secret}'\nfile 'http://127.0.0.1:{port}/a.wav'\n",
    "dash": lambda secret, port: f'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
    "asx": lambda secret, port: f'<asx version="3.0"><entry><ref href="http://127.0.0.1:{port}/a.wma"/></entry></asx>',
    "sdp": lambda secret, port: f"v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
}


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m3u8", "m4a", "mp3", "wma", "ts", "mp4"])
@pytest.mark.parametrize("lure", LURES)
def test_playlists_and_scripts_lead_nowhere(tmp_path: Path, lure: str, suffix: str, visits: tuple[int, list[object]]) -> None:
    secret = write(tmp_path / "secret.wav", music(2.0, SAMPLE_RATE), SAMPLE_RATE)
    port, seen = visits
    path = tmp_path / f"lure.{suffix}"
    for prefix in (b"", b"ID3\x04\0\0\0\0\0\0"):
        path.write_bytes(prefix + LURES[lure](str(secret), port).encode())
        with pytest.raises(AudioError, match=f"lure.{suffix}"):
            load(path)
    assert not seen


@needs_ffmpeg
def test_a_name_that_looks_like_an_address_or_an_option_is_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in.wav"), music(1.0, SAMPLE_RATE), SAMPLE_RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", "in.wav", "out.mkv"], check=True, stdin=subprocess.DEVNULL)
    for name in ("concat:in.wav|in.wav", "-i", "pipe:0", "%d.mkv", "http:x"):
        shutil.copy("out.mkv", f"./{name}")
        assert load(name).source.codec == "vorbis"


def test_an_address_is_fetched_by_what_is_installed_or_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.wav", music(1.0, SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(MFlamingoError, match=r"a\.mp3: (cannot be|this is a URL)"):
        load("http://127.0.0.1:1/a.mp3")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="--offline forbids the network"):
        load("http://127.0.0.1:1/a.mp3")
    pytest.importorskip("fsspec")
    assert load(f"file://{tmp_path}/in.wav").source.codec == load(tmp_path / "in.wav").source.codec


def test_every_container_is_told_apart() -> None:
    for offset, magic, demuxer in decode.CONTAINERS:
        assert decode.container(bytes(offset) + magic + bytes(600)) == demuxer
    assert not {"hls", "concat", "dash", "image2", "sdp", "rtsp"} & {demuxer for _, _, demuxer in decode.CONTAINERS}


# ------------------------------------------------------------------------------------------------------------ memory, windows


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured in KiB on Linux")
def test_decoding_needs_the_memory_of_its_samples(tmp_path: Path) -> None:
    minutes = 20
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 44_100, 2, "PCM_16") as file:
        block = music(10.0, 44_100, 2)
        for _ in range(6 * minutes):
            file.write(block)
    program = textwrap.dedent(f"""
        import resource
        from mflamingo_cli.core.audio import load
        load({str(tmp_path / "a.wav")!r}, end_s=1.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        audio = load({str(tmp_path / "a.wav")!r})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, audio.samples.nbytes // 1024)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    grown, needed = map(int, done.stdout.split())
    assert grown < needed + 16 * 1024  # blocks and allocator slack (seen: 2 MiB more than the samples, 2 h long)


@pytest.mark.parametrize(
    ("samples", "lengths"),
    [
        (0, []),
        (320, []),
        (321, [321]),
        (479_840, [479_840]),  # 29.99 s
        (480_000, [480_000]),
        (480_160, [480_000]),  # 30.01 s: one frame beyond makes no token
        (480_320, [480_000]),
        (480_321, [480_000, 321]),
        (960_000, [480_000, 480_000]),
        (976_000, [480_000, 480_000, 16_000]),
    ],
)
def test_windows_are_views_and_none_is_too_short_for_a_token(samples: int, lengths: list[int]) -> None:
    sound = np.arange(samples, dtype=np.float32)
    windows = split_windows(sound)
    assert [len(w) for w in windows] == lengths
    assert all(np.shares_memory(w, sound) for w in windows)
    assert all(w[0] == 480_000 * i for i, w in enumerate(windows))


def test_an_audio_knows_where_it_is() -> None:
    audio = Audio(np.zeros(32_000, np.float32), Source("a.wav", 10.0, 44_100, 2, "pcm_16"), start_s=1.5)
    assert (audio.duration_s, audio.start_s + audio.duration_s) == (2.0, 3.5)


@pytest.mark.parametrize(("name", "seconds"), [("ocean.opus", 60.48), ("rlyeh.opus", 128.0)])
def test_the_songs_of_the_repository_are_whole_and_small(name: str, seconds: float) -> None:
    path = Path(__file__).parents[1] / "data" / name
    assert path.stat().st_size < 1_000_000
    audio = load(path)
    assert audio.duration_s == pytest.approx(seconds, abs=0.01)
    assert audio.warnings == ()


def test_listeners_on_a_thread_of_their_own_take_every_block_in_order():
    direct, aside = Fingerprint(), Fingerprint()
    with contextlib.closing(Aside(aside)) as thread:
        for listener in (direct, thread):
            listener.open(44_100, 2, ())
            for block in np.array_split(music(3.0, 44_100, 2), 99):
                listener.add(block)
        thread.finish()
    assert aside.result() == direct.result()


def test_what_a_listener_on_a_thread_raises_ends_the_decoding(tmp_path):
    class Fails(Fingerprint):
        def add(self, block):
            raise MemoryError

    path = write(tmp_path / "a.wav", music(60.0, 44_100), 44_100)
    with contextlib.closing(Aside(Fails())) as thread, pytest.raises(MemoryError):
        load(path, listeners=(thread,))
