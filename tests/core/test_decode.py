"""The end of a decoder is not the end of a file: all of the sound arrives, or one true sentence says what is missing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from mflamingo_cli.core.audio import Audio, load
from mflamingo_cli.core.decode import MOST_PROCESSES, by_soundfile, container, layout, mp4, mpeg, ogg, open_decoder, structure_of
from mflamingo_cli.core.decode.base import BLOCK_FRAMES, Structure
from mflamingo_cli.errors import AudioError
from mflamingo_cli.measure.loudness import LoudnessMeter
from tests.core.test_audio import agree, music, needs_ffmpeg

SONG = Path(__file__).parents[1] / "data" / "ocean.opus"
RATE = 44_100
SECONDS = 10.0
STEPS_LIMIT_S = 10.0  # of processor time, as the fuzzers have it; 100,000 steps take half a second to one
NEAR_S = 0.05  # of ffmpeg's duration
LU = 0.2
ID3V1 = b"TAG" + b"x" * 125
ID3V2 = b"ID3\x04\0\0\0\0\x08\0" + bytes(1024)
LYRICS = b"LYRICSBEGIN" + b"la " * 600 + b"001811LYRICS200"
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0x8000_0000) + bytes(8)
FORMS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "avr": ("AVR", "PCM_16"),
    "ircam": ("IRCAM", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "paf": ("PAF", "PCM_16"),
    "pvf": ("PVF", "PCM_16"),
    "sds": ("SDS", "PCM_16"),
    "svx": ("SVX", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
}
MONO = ("sds", "svx")  # hold no more
ARTIST = (b"LIST", b"INFOIART\5\0\0\0hello")  # 17 bytes
TEXT = b"this is a text and no music. " * 100


def coded(folder: Path, name: str, seconds: float = SECONDS, rate: int = RATE, channels: int = 2, **options: object) -> bytes:
    form, subtype = FORMS[name]
    soundfile.write(folder / "made", music(seconds, rate, 1 if name in MONO else channels), rate, format=form, subtype=subtype, **options)
    return (folder / "made").read_bytes()


def bare(data: bytes) -> bytes:
    """An MP3 without the frame that counts the others."""
    begin = data.find(b"\xff\xfb")
    return data[begin + mpeg.frame_bytes(data[begin : begin + 4]) :]


def hurt(data: bytes, size: int = 3000) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(size) + data[half + size :]


def died(data: bytes) -> bytes:
    """A WAV whose writer never set the sizes."""
    at = data.find(b"data")
    return data[:4] + bytes(4) + data[8 : at + 4] + bytes(4) + data[at + 8 :]


def sized(data: bytes, name: bytes, size: int, content: bytes = b"") -> bytes:
    """A file of chunks with another size, and other content, of one of them."""
    at = data.find(name) + 4
    return data[:at] + struct.pack(">I" if data.startswith(b"FORM") else "<I", size) + content + data[at + 4 + len(content) :]


def total(data: bytes, frames: int) -> bytes:
    """A FLAC file that states another length."""
    return data[:21] + bytes([data[21] & 0xF0]) + struct.pack(">I", frames) + data[26:]


def chunked(folder: Path, *chunks: tuple[bytes, bytes], bits: int = 16, pad: bool = False, seconds: float = SECONDS) -> bytes:
    """A mono WAV with other chunks around its sound (b"data" stands for it), those of odd size without their byte of padding."""
    samples = (music(seconds, RATE)[:, 0] * 0.5 * (1 << bits - 1)).round().astype("<i2" if bits == 16 else "i1")
    sound = samples.tobytes() if bits == 16 else (samples[1:].astype("i2") + 128).astype("u1").tobytes()  # of odd size
    header = struct.pack("<HHIIHH", 1, 1, RATE, RATE * bits // 8, bits // 8, bits)
    body = b"WAVE"
    for name, content in ((b"fmt ", header), *chunks):
        content = sound if name == b"data" else content
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (pad and len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def first_pages(data: bytes) -> bytes:
    """The pages of a Vorbis file that hold its headers."""
    return data[: [at for at in range(len(data)) if data.startswith(b"OggS", at)][2]]


def in_tag(data: bytes) -> bytes:
    """An ID3v2.4 tag that holds it, and zeros behind it."""
    data += bytes(2000)
    return b"ID3\x04\0\0" + bytes(len(data) >> bits & 0x7F for bits in (21, 14, 7, 0)) + data


def in_wav(data: bytes) -> bytes:
    """MP3 frames as a WAV holds them (RFC 2361: format 0x55)."""
    header = struct.pack("<HHIIHHHHIHHH", 0x55, 2, RATE, 16_000, 1, 0, 12, 1, 2, 1, 1, 0)
    return (
        b"RIFF"
        + struct.pack("<I", 20 + len(header) + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", len(header))
        + header
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )


WHOLE: dict[str, tuple[Callable[[Path], bytes], float]] = {  # what is heard in full, without a word, and how long it is
    "chained Vorbis": (lambda f: coded(f, "ogg") + coded(f, "ogg", 5.0) + coded(f, "ogg"), 25.0),
    "chained Opus": (lambda f: coded(f, "opus", rate=48_000) + coded(f, "opus", rate=48_000), 20.0),
    "a chain of codecs and rates": (
        lambda f: coded(f, "ogg") + coded(f, "opus", rate=48_000) + coded(f, "ogg", rate=22_050, channels=1),
        30.0,
    ),
    "joined MP3": (lambda f: coded(f, "mp3") + coded(f, "mp3"), 20.0),
    "joined MP3 with tags": (lambda f: coded(f, "mp3") + ID3V1 + ID3V2 + coded(f, "mp3"), 20.0),
    "frames behind the counted ones": (lambda f: coded(f, "mp3") + bare(coded(f, "mp3")), 20.0),
    "another rate": (lambda f: coded(f, "mp3") + coded(f, "mp3", rate=22_050), 20.05),  # with the delay of the second one's encoder
    "joined FLAC": (lambda f: coded(f, "flac") + coded(f, "flac", 5.0), 15.0),
    "joined WAV": (lambda f: coded(f, "wav") + coded(f, "wav", 5.0), 15.0),
    **{
        f"joined {kind}": (lambda f, kind=kind: coded(f, kind) + ID3V1 + coded(f, kind, 5.0), 15.0)
        for kind in FORMS
        if kind not in ("mp3", "ogg", "opus", "flac", "rf64")
    },
    "WAV, odd chunks without padding": (lambda f: chunked(f, ARTIST, (b"junk", b"x" * 7), (b"data", b"")), 10.0),
    "WAV, odd chunks without padding, joined": (lambda f: 2 * chunked(f, ARTIST, (b"data", b""), ARTIST, bits=8), 20.0),
    "WAV, odd sound and large tags without padding": (lambda f: chunked(f, (b"data", b""), (b"id3 ", b"x" * 50_000), bits=8), 10.0),
    "WAV, odd sound and large tags with padding": (lambda f: chunked(f, (b"data", b""), (b"id3 ", b"x" * 50_001), bits=8, pad=True), 10.0),
    "MP3, zeros behind": (lambda f: bare(coded(f, "mp3")) + bytes(2000), 10.0),
    "MP3, tags behind": (lambda f: bare(coded(f, "mp3")) + LYRICS + APE + ID3V1, 10.0),
    "MP3, a wiped tag in front": (lambda f: bytes(100_000) + coded(f, "mp3"), 10.0),
    "MP3, two tags in front": (lambda f: ID3V2 + ID3V2 + coded(f, "mp3"), 10.0),
    "MP3, an APE tag in front": (lambda f: APE + coded(f, "mp3"), 10.0),
    "FLAC, a tag behind": (lambda f: coded(f, "flac") + ID3V1, 10.0),
    "FLAC, tags in front": (lambda f: ID3V2 + ID3V2 + coded(f, "flac"), 10.0),
    "FLAC, zeros behind": (lambda f: coded(f, "flac") + bytes(5000), 10.0),
    "WAV, zeros behind": (lambda f: coded(f, "wav") + bytes(3_000_000), 10.0),
    "WAV of size 0": (lambda f: died(coded(f, "wav")), 10.0),
    "WAV of size 1000": (lambda f: (d := coded(f, "wav"))[:40] + struct.pack("<I", 1000) + d[44:], 10.0),
    "WAV, MP3 coded": (lambda f: in_wav(coded(f, "mp3")), 10.0),
    "AIFF of size 8": (lambda f: sized(coded(f, "aiff"), b"SSND", 8), 10.0),
    "RF64 of size -1": (lambda f: sized(coded(f, "rf64"), b"ds64", 28, b"\xff" * 24), 10.0),
    "FLAC of size 0": (lambda f: total(coded(f, "flac"), 0), 10.0),
    "FLAC of one second": (lambda f: total(coded(f, "flac"), RATE), 10.0),
    "Opus at 16 kHz": (lambda f: coded(f, "opus", rate=16_000), 10.0),
    "chained Opus at 24 kHz and 8 kHz": (lambda f: coded(f, "opus", rate=24_000) + coded(f, "opus", rate=8_000), 20.0),
    "Ogg behind a link without sound": (lambda f: first_pages(coded(f, "ogg")) + coded(f, "ogg"), 10.0),
    "Ogg behind a first page that is alone": (lambda f: (d := coded(f, "ogg"))[:58] + d, 10.0),
    "Ogg behind a header of HTTP": (lambda f: b"ICY 200 OK\r\nicy-name: radio\r\n\r\n" + coded(f, "ogg"), 10.0),
    "MP3 with another in its tag": (lambda f: in_tag(coded(f, "mp3", 5.0)) + coded(f, "mp3"), 10.0),
    "MP3 with a tag of false size": (lambda f: b"ID3\x04\0\0\0\x02\0\0" + bytes(1024) + coded(f, "mp3"), 10.0),
    "AU of size 0": (lambda f: (d := coded(f, "au"))[:8] + bytes(4) + d[12:], 10.0),
    "AU of size 1000": (lambda f: (d := coded(f, "au"))[:8] + struct.pack(">I", 1000) + d[12:], 10.0),
    "WAV of size 0xffffffff": (lambda f: (d := coded(f, "wav"))[:4] + b"\xff" * 4 + d[8:40] + b"\xff" * 4 + d[44:], 10.0),
}


@pytest.mark.parametrize("case", WHOLE)
def test_all_the_sound_is_decoded_also_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    make, seconds = WHOLE[case]
    (tmp_path / "a").write_bytes(make(tmp_path))
    audio = load(tmp_path / "a")
    assert audio.source.duration_s == pytest.approx(seconds, abs=NEAR_S)
    assert audio.duration_s == pytest.approx(audio.source.duration_s, abs=1e-3)
    assert (audio.warnings, audio.damaged) == ((), False)


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name in ("mp3", "flac", "ogg", "opus") for place in ("zeros", "lost", "text") if (name, place) != ("mp3", "text")],
)
def test_behind_damage_it_goes_on_and_says_what_is_missing(tmp_path: Path, name: str, place: str) -> None:
    data = coded(tmp_path, name, 20.0, 48_000)
    half = len(data) // 2
    made = {"zeros": hurt(data), "lost": data[:half] + data[half + 3000 :], "text": data[:half] + TEXT + data[half:]}
    (tmp_path / "a").write_bytes(made[place])
    audio = load(tmp_path / "a")
    assert 16.0 < audio.duration_s <= 20.05
    assert audio.damaged
    assert audio.share > 0.8
    (warning,) = audio.warnings
    assert "missing at 0:" in warning
    assert "the rest was decoded" in warning


CLAIMS: dict[str, Callable[[bytes], bytes]] = {  # what no file of its bytes can hold, by the name of the coding
    "flac": lambda data: total(data, 0xFFFF_FFFF)[:21] + bytes([data[21] | 0x0F]) + b"\xff" * 4 + data[26:],
    "mp3": lambda data: (at := max(data.find(b"Xing"), data.find(b"Info")) + 8) and data[:at] + b"\x7f\xff\xff\xff" + data[at + 4 :],
    "ogg": lambda data: late(data, 1 << 60),
}


def late(data: bytes, granule: int) -> bytes:
    """An Ogg file whose last page ends at another time."""
    at = data.rfind(b"OggS")
    page = data[at : at + 6] + struct.pack("<q", granule) + data[at + 14 :]
    return data[:at] + page[:22] + struct.pack("<I", ogg._checksum(page[:22] + bytes(4) + page[26:])) + page[26:]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_length_that_the_file_cannot_hold_is_not_believed(tmp_path: Path, name: str) -> None:
    """They were refused as longer than 100 hours."""
    (tmp_path / "a").write_bytes(CLAIMS[name](coded(tmp_path, name, 3.0)))
    assert load(tmp_path / "a").source.duration_s == pytest.approx(3.0, abs=NEAR_S)


@needs_ffmpeg
@pytest.mark.parametrize("seconds", [-5.0, 1e15, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_not_believed(tmp_path: Path, seconds: float) -> None:
    """A negative one was a traceback."""
    data = made_by_ffmpeg(tmp_path, "a.mka")
    at = data.find(b"\x44\x89\x88") + 3  # Matroska's Duration, a double
    (tmp_path / "a.mka").write_bytes(data[:at] + struct.pack(">d", seconds * 1000) + data[at + 8 :])
    audio = load(tmp_path / "a.mka")
    assert audio.source.duration_s == pytest.approx(3.0, abs=NEAR_S)
    assert audio.warnings == ()


def test_a_text_between_frames_is_stepped_over(tmp_path: Path) -> None:
    data = coded(tmp_path, "mp3")
    (tmp_path / "a").write_bytes(data[: len(data) // 2] + TEXT + data[len(data) // 2 :])
    assert load(tmp_path / "a").duration_s == pytest.approx(SECONDS, abs=NEAR_S)


def test_what_is_before_the_damage_and_far_behind_it_is_as_it_was(tmp_path: Path) -> None:
    data = coded(tmp_path, "flac", 20.0)
    (tmp_path / "a").write_bytes(data)
    whole = load(tmp_path / "a")
    (tmp_path / "a").write_bytes(hurt(data))
    audio = load(tmp_path / "a")
    assert (audio.samples[: 9 * 16_000] == whole.samples[: 9 * 16_000]).all()
    assert abs(len(whole.samples) - len(audio.samples)) < 0.3 * 16_000
    assert agree(audio.samples[-5 * 16_000 :], whole.samples[-5 * 16_000 :]) > 0.9  # resampled at another phase


def test_pages_are_checked_by_their_crc(tmp_path: Path) -> None:
    data = coded(tmp_path, "ogg")
    page = data[: 27 + data[26] + sum(data[27 : 27 + data[26]])]
    assert ogg._checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")


def test_what_lies_in_front_of_the_sound_does_not_shift_it(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(chunked(tmp_path, (b"data", b"")))
    (tmp_path / "b.wav").write_bytes(chunked(tmp_path, ARTIST, (b"data", b"")))
    assert np.array_equal(load(tmp_path / "a.wav").samples, load(tmp_path / "b.wav").samples)


def many_chunks(form: bytes, chunk: bytes, size: int = 40_000_000) -> bytes:
    return form + chunk * (size // len(chunk))


STEPS: dict[str, Callable[[], bytes]] = {  # files of nothing but the smallest steps, and what begins others
    "wav": lambda: many_chunks(b"RIFF\xff\xff\xff\xffWAVE", b"junk" + bytes(4)),
    "aiff": lambda: many_chunks(b"FORM\xff\xff\xff\xffAIFF", b"junk" + bytes(4)),
    "caf": lambda: many_chunks(b"caff\0\1\0\0desc" + struct.pack(">Q", 32) + bytes(32), b"free" + bytes(8)),
    "flac": lambda: many_chunks(b"fLaC\0\0\0\x22" + bytes(34), b"\1\0\0\0"),
    "mp4": lambda: many_chunks(b"\0\0\0\x10ftypM4A " + bytes(4), b"\0\0\0\x08free"),
    "mp4, no boxes": lambda: many_chunks(b"\0\0\0\x10ftypM4A " + bytes(4), b"\0\0\0\x10ftypM4A " + bytes(7)),
    "wavpack": lambda: many_chunks(b"", b"wvpk\x18\0\0\0\x10\4" + bytes(22)),
    "wavpack, no blocks": lambda: many_chunks(b"", b"wvpk\x18\0\0\0\x10\4" + bytes(23)),
    "mp3": lambda: many_chunks(b"", 4 * (b"\xff\xf3\x14\xc0" + bytes(20)) + b"x"),
    "mp3 of two kinds": lambda: many_chunks(b"", 4 * (b"\xff\xf3\x14\xc0" + bytes(20)) + 4 * (b"\xff\xf3\x14\x40" + bytes(20))),
    "zeros behind frames": lambda: b"\x0b\x77" + bytes(300_000_000),
}


def wav_of(rate: int, samples: np.ndarray) -> bytes:
    """A WAV of mono 16-bit samples that states any rate."""
    out = io.BytesIO()
    soundfile.write(out, samples.astype(np.float32), 48_000, format="WAV", subtype="PCM_16")
    data = bytearray(out.getvalue())
    data[24:32] = struct.pack("<II", rate, 2 * rate)
    return bytes(data)


def test_a_joined_recording_of_an_impossible_rate_is_a_gap(tmp_path: Path) -> None:
    """A fuzzer's find: 33,075 frames at 2 Hz became four and a half hours of sound, 12 GB in one block."""
    tone = np.sin(np.arange(96_000) / 20)
    (tmp_path / "a.wav").write_bytes(wav_of(48_000, tone) + wav_of(2, tone))
    audio = load(tmp_path / "a.wav")
    assert audio.damaged
    assert audio.source.duration_s == pytest.approx(2.0, abs=NEAR_S)


def test_a_joined_recording_of_a_low_rate_comes_in_blocks(tmp_path: Path) -> None:
    tone = np.sin(np.arange(96_000) / 20)
    (tmp_path / "a.wav").write_bytes(wav_of(192_000, tone) + wav_of(800, tone))
    with contextlib.closing(open_decoder(tmp_path / "a.wav", "a.wav")) as decoder:
        blocks = [len(block) for block in decoder.blocks(0)]
    assert sum(blocks) == pytest.approx(96_000 + 96_000 * 192_000 / 800, abs=100)
    assert max(blocks) < 8 * BLOCK_FRAMES  # the resampler keeps some; a block at once would be 240 of them


@pytest.mark.parametrize("kind", STEPS)
def test_a_file_of_small_steps_is_not_walked_to_its_end(tmp_path: Path, kind: str) -> None:
    """WavPack with a byte between blocks took 54 s of processor time, 10 MB of MP3 in runs of four frames 22 s, zeros 10 s."""
    (tmp_path / "a").write_bytes(STEPS[kind]())
    begun = time.process_time()
    with (tmp_path / "a").open("rb") as file:
        structure_of(file)
    assert time.process_time() - begun < STEPS_LIMIT_S


def test_a_chunk_that_leads_beyond_any_file_is_the_last(tmp_path: Path) -> None:
    """A fuzzer's find: the place was sought, and the system's refusal was said to be the file's."""
    data = coded(tmp_path, "caf", 1.0)
    at = data.index(b"data")
    (tmp_path / "a.caf").write_bytes(data[:at] + b"free" + struct.pack(">Q", 1 << 61) + data[at:])
    with (tmp_path / "a.caf").open("rb") as file:
        assert structure_of(file).structure == Structure()


def test_a_chunk_that_leads_into_the_next_of_joined_files_is_the_last(tmp_path: Path) -> None:
    """The size of its data became negative."""
    data = coded(tmp_path, "caf", 1.0)
    at = data.index(b"data")
    long = data[:at] + b"free" + struct.pack(">Q", len(data) - at + 40) + data[at:]
    (tmp_path / "a.caf").write_bytes(long + data[:40] + b"data" + struct.pack(">q", -1) + data)
    with (tmp_path / "a.caf").open("rb") as file:
        assert structure_of(file).structure.parts[0].patches == ()


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("chunks", [(), (ARTIST,)], ids=["", "a chunk without padding"])
def test_a_joined_wav_whose_first_states_no_size_is_decoded_to_its_end(
    tmp_path: Path, size: int, chunks: tuple[tuple[bytes, bytes]]
) -> None:
    """The first part was eight bytes long, or ended before it began."""
    whole = chunked(tmp_path, *chunks, (b"data", b""), seconds=3.0)
    (tmp_path / "a.wav").write_bytes(sized(whole, b"RIFF", size) + whole)
    audio = load(tmp_path / "a.wav")
    assert (audio.source.duration_s, audio.warnings) == (6.0, ())


def test_a_layout_that_is_cut_names_the_channels_that_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(coded(tmp_path, "caf", 1.0))
    head = b"chan" + bytes(6) + b"\0\x34" + struct.pack(">III", 0, 0, 2) + struct.pack(">I16s", 1, b"") + b"\0\0\0"
    with soundfile.SoundFile(tmp_path / "a") as file:
        assert by_soundfile._roles(file, "pcm_16", head) == ("FL", "FR")


def test_a_frame_that_ends_behind_its_first_byte_is_none() -> None:
    assert container(b"V\xe0\x00V") is None


def test_a_position_that_no_page_can_hold_is_left_as_it_is() -> None:
    page = ogg.Page(0, 0, (1 << 63) - 1, 1, 2, b"", b"")
    assert ogg._as_counted(page, ogg.Stream("opus", 48_000, 0, ahead=1), 0) is page


@pytest.mark.parametrize("error", [PermissionError(1, "not permitted"), ValueError("not allowed to raise maximum limit")])
@needs_ffmpeg
def test_where_no_limit_can_be_set_a_file_is_decoded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made_by_ffmpeg(tmp_path, "a.m4a")
    monkeypatch.setattr("resource.prlimit", Mock(side_effect=error))
    assert load(tmp_path / "a.m4a").source.duration_s == pytest.approx(3.0, abs=NEAR_S)


def test_an_ogg_without_an_intact_page_is_not_given_to_ffmpeg(tmp_path: Path) -> None:
    """It took 13 s of ffprobe."""
    (tmp_path / "a.ogg").write_bytes(b"OggS\0" * 100_000)
    with pytest.raises(AudioError, match="not a recognised audio file"):
        load(tmp_path / "a.ogg")


def test_a_size_beyond_any_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\0\0\1ftyp" + b"\xff" * 100)
    with (tmp_path / "a").open("rb") as file:
        assert mp4.read(file, 0).notes == ()


@needs_ffmpeg
def test_other_audio_streams_are_named(tmp_path: Path) -> None:
    wav = tmp_path / "in.wav"
    soundfile.write(wav, music(3.0, RATE, 2), RATE)
    marks = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-disposition:a:0", "0", "-disposition:a:1", "default"]
    command = ["ffmpeg", "-v", "error", "-i", wav, "-i", wav, "-map", "0", "-map", "1", *marks, tmp_path / "a.m4a"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (warning,) = load(tmp_path / "a.m4a").warnings
    assert warning == "the file has 2 audio streams; only one (deu aac) was analysed, not: eng aac"


def made_by_ffmpeg(folder: Path, name: str, *options: object) -> bytes:
    """Three seconds of music in a format that libsndfile lacks."""
    soundfile.write(folder / "in.wav", music(3.0, RATE, 2), RATE)
    command = ["ffmpeg", "-v", "error", "-y", "-i", folder / "in.wav", *map(str, options), folder / name]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return (folder / name).read_bytes()


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.wv"])
def test_joined_files_that_ffmpeg_reads_are_decoded_to_their_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole, slow = made_by_ffmpeg(tmp_path, name), made_by_ffmpeg(tmp_path, name, "-ar", 22_050, "-ac", 1)
    (tmp_path / name).write_bytes(whole + slow + whole)
    audio = load(tmp_path / name)
    assert audio.source.duration_s == pytest.approx(9.0, abs=NEAR_S + 1024 / 22_050)  # AAC ends with a whole frame
    assert (audio.warnings, audio.damaged) == ((), False)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(AudioError, match=r"this (MP4 or M4A|WavPack) file needs the program ffmpeg, which is not installed"):
        load(tmp_path / name)


@pytest.mark.parametrize("tag", [ID3V1, ID3V2, APE], ids=["ID3v1", "ID3v2", "APE"])
@pytest.mark.parametrize("name", ["wav", "aiff"])
def test_a_tag_between_short_joined_files_is_no_sound(tmp_path: Path, name: str, tag: bytes) -> None:
    """More than a hundredth of the sound lies behind it, which looked like a size that was never set: headers were heard."""
    whole = coded(tmp_path, name, 1.0, channels=1)
    (tmp_path / "a").write_bytes(whole + tag + whole)
    assert load(tmp_path / "a").source.duration_s == 2.0


DEMUXERS = {"opus": "ogg", "rf64": "wav", "svx": "iff", "nist": "nistsphere", "paf": "epaf"}  # of other names than the form
JOINED = ("wav", "aiff", "au", "caf", "w64", "rf64", "voc", "flac", "mp3", "ogg", "opus")


def named(audio: Audio, demuxer: str) -> bool:
    return audio.warnings == (f"another file ({demuxer}) is joined to this one and not decoded; split the file to analyse both",)


@pytest.mark.parametrize("tag", [b"", ID3V1 + ID3V2, APE], ids=["", "ID3", "APE"])
@pytest.mark.parametrize("first", JOINED)
def test_a_file_of_another_format_that_is_joined_is_named_and_no_noise(tmp_path: Path, first: str, tag: bytes) -> None:
    """A WAV of three seconds had two more of noise; what was behind a FLAC, an AU or a CAF was lost without a word."""
    whole = coded(tmp_path, first, 3.0, 48_000)
    for other in JOINED:
        if DEMUXERS.get(first, first) == DEMUXERS.get(other, other):
            continue
        (tmp_path / "a").write_bytes(whole + tag + coded(tmp_path, other, 3.0, 48_000))
        audio = load(tmp_path / "a")
        assert audio.source.duration_s == pytest.approx(3.0, abs=NEAR_S), other
        assert named(audio, DEMUXERS.get(other, other)), (other, audio.warnings)


@pytest.mark.parametrize("first", ["au", "caf"])
def test_where_the_size_of_the_sound_is_unknown_another_file_ends_it(tmp_path: Path, first: str) -> None:
    whole = coded(tmp_path, first, 3.0)
    at, size = (8, 4) if first == "au" else (whole.index(b"data") + 4, 8)
    (tmp_path / "a").write_bytes(whole[:at] + b"\xff" * size + whole[at + size :] + coded(tmp_path, "flac", 3.0))
    audio = load(tmp_path / "a")
    assert audio.source.duration_s == pytest.approx(3.0, abs=0.001)
    assert named(audio, "flac")


@pytest.mark.parametrize("form", ["NIST", "IRCAM", "AU"])
def test_samples_that_repeat_are_no_transport_packets(tmp_path: Path, form: str) -> None:
    """A packet begins with 0x47 and has 188 bytes: so do silence at that level, and a tone of 938 Hz."""
    tone = (8000 * np.sin(2 * np.pi * np.arange(47) / 47)).astype(np.int16)
    tone[3] = 0x4747
    for period in (tone, np.full(47, 0x47, np.int16), np.full(47, 0x4747, np.int16)):
        samples = np.repeat(np.tile(period, 1000)[:, None], 2, axis=1)
        soundfile.write(tmp_path / "a", samples, 44_100, format=form, subtype="PCM_16")
        data = (tmp_path / "a").read_bytes()
        (tmp_path / "a").write_bytes(data[:8] + b"\xff" * 4 + data[12:] if form == "AU" else data)  # of unknown size
        audio = load(tmp_path / "a")
        assert audio.source.duration_s == pytest.approx(47_000 / 44_100, abs=0.001)
        assert audio.warnings == ()


@needs_ffmpeg
@pytest.mark.parametrize("cover", [b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(500), b"\x89PNG\r\n\x1a\n" + bytes(500)], ids=["JPEG", "PNG"])
def test_a_damaged_cover_is_no_damage_of_the_sound(tmp_path: Path, cover: bytes) -> None:
    mp4_tags = pytest.importorskip("mutagen.mp4")
    (tmp_path / "a.m4a").write_bytes(made_by_ffmpeg(tmp_path, "a.m4a"))
    tagged = mp4_tags.MP4(tmp_path / "a.m4a")
    tagged["covr"] = [mp4_tags.MP4Cover(cover)]
    tagged.save()
    audio = load(tmp_path / "a.m4a")
    assert (audio.warnings, audio.damaged) == ((), False)


@pytest.mark.parametrize("first", ["flac", "mp3", "wav", "ogg"])
def test_a_file_of_another_format_between_two_is_named_and_both_are_decoded(tmp_path: Path, first: str) -> None:
    other = "flac" if first != "flac" else "mp3"
    whole = coded(tmp_path, first, 3.0)
    (tmp_path / "a").write_bytes(whole + coded(tmp_path, other, 3.0) + whole)
    audio = load(tmp_path / "a")
    assert audio.source.duration_s == pytest.approx(6.0, abs=NEAR_S)
    assert (named(audio, other), audio.damaged) == (True, False)


FOREIGN = ("a.m4a", "a.wv", "a.mka", "a.wma", "a.tta", "a.flv", "a.avi", "a.aac", "a.ac3", "a.ts", "a.latm", "a.mpg")  # only ffmpeg reads
FOREIGN_DEMUXERS = ("mov", "wv", "matroska", "asf", "tta", "flv", "avi", "aac", "ac3", "mpegts", "loas", "mpeg")


@needs_ffmpeg
@pytest.mark.parametrize("first", ["wav", "flac", "mp3", "au"])
def test_a_file_that_only_ffmpeg_reads_behind_another_is_named(tmp_path: Path, first: str) -> None:
    whole = coded(tmp_path, first, 3.0)
    for name, demuxer in zip(FOREIGN, FOREIGN_DEMUXERS, strict=True):
        (tmp_path / "a").write_bytes(whole + made_by_ffmpeg(tmp_path, name))
        audio = load(tmp_path / "a")
        assert audio.source.duration_s == pytest.approx(3.0, abs=NEAR_S), name
        assert named(audio, demuxer), (name, audio.warnings)


@needs_ffmpeg
@pytest.mark.parametrize("first", FOREIGN)
def test_a_file_behind_one_that_only_ffmpeg_reads_is_named(tmp_path: Path, first: str) -> None:
    whole = made_by_ffmpeg(tmp_path, first)
    (tmp_path / "a").write_bytes(whole)
    alone_s = load(tmp_path / "a").source.duration_s
    for other in ("flac", "voc"):
        (tmp_path / "a").write_bytes(whole + coded(tmp_path, other, 3.0))
        audio = load(tmp_path / "a")
        assert audio.source.duration_s == pytest.approx(alone_s, abs=NEAR_S)
        assert (named(audio, other), audio.damaged) == (True, False), (other, audio.warnings)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.aac", "a.ac3", "a.eac3", "a.latm"])
@pytest.mark.parametrize("tag", [ID3V1, ID3V1 + ID3V2, APE], ids=["ID3v1", "ID3v1 and v2", "APE"])
def test_streams_of_frames_that_are_joined_with_a_tag_between_are_whole(tmp_path: Path, name: str, tag: bytes) -> None:
    whole = made_by_ffmpeg(tmp_path, name)
    (tmp_path / name).write_bytes(whole)
    alone_s = load(tmp_path / name).source.duration_s
    (tmp_path / name).write_bytes(whole + tag + whole)
    audio = load(tmp_path / name)
    assert audio.source.duration_s == pytest.approx(2 * alone_s, abs=NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.aac", "a.ac3", "a.ts"])
def test_a_stream_of_frames_goes_on_behind_damage_and_begins_within_a_frame(tmp_path: Path, name: str) -> None:
    """ffmpeg ends at 3 kB of zeros: of 3 s 0.4 to 1.2 were decoded. A recording from the air begins anywhere, and was no audio file."""
    whole = made_by_ffmpeg(tmp_path, name)
    (tmp_path / name).write_bytes(hurt(whole))
    audio = load(tmp_path / name)
    assert 2.5 < audio.duration_s < 3.0
    assert audio.damaged
    assert re.match(r"some sound is missing at 0:01.*: the file is damaged there; the rest was decoded", audio.warnings[0])
    (tmp_path / name).write_bytes(whole[77:])
    audio = load(tmp_path / name)
    assert audio.duration_s == pytest.approx(3.0, abs=0.06)  # without its first frame
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
def test_wavpack_with_several_tags_is_whole(tmp_path: Path) -> None:
    """ffmpeg takes the first of two APE tags for a damaged block."""
    whole = made_by_ffmpeg(tmp_path, "a.wv")
    for behind, seconds in ((APE + APE, 3.0), (bytes(5000), 3.0), (APE + whole, 6.0), (ID3V1 + APE + ID3V1, 3.0)):
        (tmp_path / "a.wv").write_bytes(whole + behind)
        audio = load(tmp_path / "a.wv")
        assert audio.source.duration_s == pytest.approx(seconds, abs=0.001)
        assert (audio.warnings, audio.damaged) == ((), False)


def test_a_count_of_frames_that_the_file_cannot_hold_is_none(tmp_path: Path) -> None:
    data = coded(tmp_path, "mp3")
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    (tmp_path / "a.mp3").write_bytes(data[:at] + struct.pack(">I", (1 << 31) - 1) + data[at + 4 :])
    audio = load(tmp_path / "a.mp3")
    assert audio.source.duration_s == pytest.approx(10.0, abs=NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


def test_a_text_behind_a_wav_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(coded(tmp_path, "wav", 3.0) + 10 * TEXT)
    audio = load(tmp_path / "a")
    assert (audio.source.duration_s, audio.warnings) == (3.0, ())


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.nut", ("-c:a", "pcm_s16le")),
        ("a.thd", ("-c:a", "truehd", "-strict", "-2", "-f", "truehd")),
        ("a.mlp", ("-c:a", "mlp", "-strict", "-2")),
        ("a.latm", ("-c:a", "aac")),
        ("a.m2ts", ("-c:a", "ac3")),
        ("a.rm", ("-c:a", "ac3")),
    ],
)
def test_what_ffmpeg_reads_is_recognised_and_as_long_as_it_says(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    whole = made_by_ffmpeg(tmp_path, name, *options)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / name, "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-"]
    theirs_s = len(subprocess.run(command, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL).stdout) / 2 / RATE
    for times in (1, 2):
        (tmp_path / name).write_bytes(whole * times)
        audio = load(tmp_path / name)
        assert audio.source.duration_s == pytest.approx(times * theirs_s, abs=NEAR_S)
        assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["flac.oga", "a.spx", "a.mka", "a.wma", "a.tta", "a.flv", "a.mov", "a.wv"])
def test_each_of_joined_files_is_decoded_once_whatever_reads_it(tmp_path: Path, name: str) -> None:
    """Tags between them too; an Ogg that only ffmpeg reads was given to it whole for each of its recordings."""
    whole = made_by_ffmpeg(tmp_path, name)
    (tmp_path / name).write_bytes(whole)
    alone_s = load(tmp_path / name).source.duration_s
    (tmp_path / name).write_bytes(whole + ID3V1 + whole + whole)
    audio = load(tmp_path / name)
    assert audio.source.duration_s == pytest.approx(3 * alone_s, abs=NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.ac3", "a.eac3", "a.m4a", "a.mka", "a.wma", "a.tta", "a.wv", "a.avi"])
@pytest.mark.parametrize(
    ("before", "behind"), [(b"", ID3V1), (b"", bytes(5000)), (bytes(4000), b""), (ID3V2, b"")], ids=["tag", "0", "00", "ID3"]
)
def test_what_is_around_a_whole_file_that_ffmpeg_reads_is_no_damage(tmp_path: Path, name: str, before: bytes, behind: bytes) -> None:
    whole = made_by_ffmpeg(tmp_path, name)
    (tmp_path / name).write_bytes(whole)
    alone_s = load(tmp_path / name).source.duration_s
    (tmp_path / name).write_bytes(before + whole + behind)
    audio = load(tmp_path / name)
    assert audio.source.duration_s == pytest.approx(alone_s, abs=NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


def test_a_caf_that_is_cut_is_decoded_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    data = coded(tmp_path, "caf")
    (tmp_path / "a.caf").write_bytes(data[: len(data) * 6 // 10])
    audio = load(tmp_path / "a.caf")
    assert (audio.damaged, round(audio.duration_s)) == (True, 6)
    assert "the file is shorter than its header says" in audio.warnings[0]


@pytest.mark.slow
@needs_ffmpeg
def test_of_recordings_that_take_a_process_each_fifty_are_decoded_and_more_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", music(0.1, RATE, 1), RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "in.wav", tmp_path / "a.wv"], check=True, stdin=subprocess.DEVNULL)
    blip = (tmp_path / "a.wv").read_bytes()
    (tmp_path / "a.wv").write_bytes(blip * MOST_PROCESSES)
    assert load(tmp_path / "a.wv").warnings == ()
    (tmp_path / "a.wv").write_bytes(blip * (MOST_PROCESSES + 1))
    audio = load(tmp_path / "a.wv")
    assert audio.source.duration_s == pytest.approx(MOST_PROCESSES * 0.1, abs=1e-3)
    assert audio.warnings == ("the file is made of more than 50 recordings; only the first 50 were analysed",)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["ogg", "mp3", "flac"])
def test_recordings_that_were_joined_in_one_stream_are_decoded_to_the_last(tmp_path: Path, name: str) -> None:
    """As `ffmpeg -f concat -c copy` does: packets go on, with a cut one, or blocks numbered anew, where one ended."""
    (tmp_path / f"one.{name}").write_bytes(coded(tmp_path, name, 5.0, 48_000))
    command = ["ffmpeg", "-v", "error", "-stream_loop", "2", "-i", tmp_path / f"one.{name}", "-c", "copy", tmp_path / f"a.{name}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    audio = load(tmp_path / f"a.{name}")
    assert audio.source.duration_s == pytest.approx(15.0, abs=3 * NEAR_S)  # each join has the delay of its encoder
    assert (audio.warnings, audio.damaged) == ((), False)


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
@pytest.mark.parametrize("options", [(), ("-frame_duration", "60"), ("-frame_duration", "2.5"), ("-ac", "1", "-b:a", "12k")], ids=str)
def test_opus_recordings_that_were_joined_in_one_stream_are_as_long_as_ffmpeg_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, options: tuple[str, ...]
) -> None:
    """libsndfile refuses the page with the cut packet; up to a second was missing at each joint."""
    for name, seconds in (("one", 3.0), ("two", 5.003)):
        soundfile.write(tmp_path / "in.wav", music(seconds, rate, 2), rate)
        coder = ["ffmpeg", "-v", "error", "-i", tmp_path / "in.wav", "-c:a", "libopus", *options, tmp_path / f"{name}.opus"]
        subprocess.run(coder, check=True, stdin=subprocess.DEVNULL)
    (tmp_path / "list").write_text("file one.opus\nfile two.opus\nfile one.opus\n")
    joiner = ["ffmpeg", "-v", "error", "-f", "concat", "-i", tmp_path / "list", "-c", "copy", tmp_path / "a.opus"]
    subprocess.run(joiner, check=True, stdin=subprocess.DEVNULL)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.opus", "-f", "s16le", "-ac", "1", "-"]
    theirs_s = len(subprocess.run(command, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL).stdout) / 2 / 48_000
    monkeypatch.setenv("PATH", os.devnull)
    audio = load(tmp_path / "a.opus")
    assert audio.source.duration_s == pytest.approx(theirs_s, abs=NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
@pytest.mark.slow
def test_an_opus_of_songs_that_were_joined_in_one_stream_is_decoded_to_its_end(tmp_path: Path) -> None:
    """libsndfile refuses the page where one ends; all behind it was lost."""
    command = ["ffmpeg", "-v", "error", "-stream_loop", "2", "-i", SONG, "-c", "copy", tmp_path / "a.opus"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    audio = load(tmp_path / "a.opus")
    assert audio.source.duration_s == pytest.approx(3 * 60.48, abs=3 * NEAR_S)
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
def test_an_m4a_without_a_beginning_that_is_joined_to_another_is_named(tmp_path: Path) -> None:
    whole = made_by_ffmpeg(tmp_path, "a.m4a")
    (tmp_path / "a.m4a").write_bytes(whole + whole[int.from_bytes(whole[:4], "big") :])
    assert load(tmp_path / "a.m4a").warnings[0].startswith("another file is joined to this one")


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 32_000])
def test_joined_mp3_of_a_low_rate_are_whole(tmp_path: Path, rate: int) -> None:
    """What their encoder adds at both ends, up to 0.3 s, was called missing."""
    (tmp_path / "a.mp3").write_bytes(2 * coded(tmp_path, "mp3", rate=rate))
    audio = load(tmp_path / "a.mp3")
    assert audio.source.duration_s == pytest.approx(20.0, abs=2000 / rate)
    assert (audio.warnings, audio.damaged) == ((), False)


@needs_ffmpeg
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (32_000, 1), (22_050, 2), (8_000, 1)])
def test_an_mp3_that_changes_its_form_is_as_long_as_ffmpeg_says(tmp_path: Path, rate: int, channels: int) -> None:
    (tmp_path / "a.mp3").write_bytes(coded(tmp_path, "mp3") + coded(tmp_path, "mp3", rate=rate, channels=channels))
    command = ["ffmpeg", "-v", "quiet", "-i", tmp_path / "a.mp3", "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-"]
    theirs_s = len(subprocess.run(command, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL).stdout) / 2 / RATE
    assert load(tmp_path / "a.mp3").source.duration_s == pytest.approx(theirs_s, abs=NEAR_S)


def test_a_thousand_recordings_are_decoded_and_more_are_named(tmp_path: Path) -> None:
    blip = coded(tmp_path, "wav", 0.01, rate=16_000, channels=1)
    (tmp_path / "a.wav").write_bytes(blip * 1000)
    assert load(tmp_path / "a.wav").warnings == ()
    (tmp_path / "a.wav").write_bytes(blip * 1001)
    audio = load(tmp_path / "a.wav")
    assert audio.source.duration_s == pytest.approx(10.0, abs=1e-3)
    assert audio.warnings == ("the file is made of more than 1,000 recordings; only the first 1,000 were analysed",)


# --- roles of channels -------------------------------------------------------------------------------------------------------


def loudness(path: Path) -> float:
    meter = LoudnessMeter()
    load(path, listeners=[meter])
    value = meter.result().integrated_lufs
    assert value is not None
    return value


def by_ffmpeg(path: Path) -> float:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-i", path, "-af", "ebur128", "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(log[log.rindex("Integrated loudness:") :].split("I:")[1].split()[0])


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (name, channels)
        for name in ("a.wav", "a.flac", "a.ogg", "a.opus", "a.m4a", "a.mka", "a.aiff", "a.caf")
        for channels in range(1, 9)
        if (name, channels) != ("a.m4a", 7)  # ffmpeg's own meter refuses what its encoder makes of it
    ],
)
def test_surround_is_as_loud_as_ffmpeg_says(tmp_path: Path, name: str, channels: int) -> None:
    levels = np.linspace(0.02, 0.3, channels) ** 1.2  # another level in each, so that an exchange is heard
    samples = (np.random.default_rng(1).standard_normal((48_000 * 6, channels)) * levels).astype(np.float32).clip(-1, 1)
    soundfile.write(tmp_path / "in.wav", samples, 48_000)
    wide = ["mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"][channels - 1]
    by_place = f"channelmap=map={'|'.join(map(str, range(channels)))}:channel_layout={wide}"
    options = ["-c:a", "libopus", "-mapping_family", "1"] if name == "a.opus" else ["-c:a", "libvorbis"] if name == "a.ogg" else []
    command = ["ffmpeg", "-v", "error", "-y", "-i", tmp_path / "in.wav", "-af", by_place, *options, tmp_path / name]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert loudness(tmp_path / name) == pytest.approx(by_ffmpeg(tmp_path / name), abs=LU)


def test_the_layouts_of_core_audio_name_as_many_roles_as_channels() -> None:
    for tag, roles in layout.APPLE.items():
        channels = len(roles.split())
        assert layout.of_apple(tag << 16 | channels, 0, [], channels) == tuple(roles.split())
        assert len(set(roles.split())) == channels
    assert layout.of_apple(layout.APPLE_BITS, 0x3F, [], 6) == layout.by_mask(0x3F, 6)
    assert layout.of_apple(layout.APPLE_NAMES, 0, [3, 1, 2], 3) == ("FC", "FL", "FR")
    assert layout.of_apple(999 << 16 | 3, 0, [], 3) is None
    assert layout.of_apple(layout.APPLE_NAMES, 0, [3, 1], 3) is None


def test_roles_stand_in_the_order_of_their_container() -> None:
    assert layout.of_xiph(6) == ("FL", "FC", "FR", "BL", "BR", "LFE")
    assert (
        layout.of_flac(6) == layout.by_mask(0x3F, 6) == layout.of_sndfile([2, 3, 4, 11, 9, 10], 6) == ("FL", "FR", "FC", "LFE", "BL", "BR")
    )
    assert layout.named("5.1(side)", 6)[-2:] == ("SL", "SR")
    assert layout.by_mask(0x3F, 8) == ("-",) * 8
