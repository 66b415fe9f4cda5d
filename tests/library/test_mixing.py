"""Laws of what mixes: the wheel, the tempo and its octaves, and the order of what is found; and of the command that says so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import soundfile

from mflamingo_cli.library.mixing import match, matches
from mflamingo_cli.measure import Key
from mflamingo_cli.parsers import parse_key
from mflamingo_cli.schema import KeyInfo, Loudness, TempoInfo
from tests.measure.synth import RATE
from tests.measure.synth import song as sound
from tests.test_cli import one_sentence, run
from tests.test_schema import FAILED, FULL


def song(name: str, key: str | None = "A minor", bpm: float | None = 120.0, lufs: float | None = -10.0):
    """A record of a song with these facts."""
    known = parse_key(key) if key else None
    info = KeyInfo() if known is None else KeyInfo(known.tonic, known.mode, known.name, known.camelot, known.openkey, known.id3, "measured")
    result = dataclasses.replace(FULL.result, key=info, tempo=TempoInfo(bpm, (), "measured"), loudness=Loudness(lufs))
    return dataclasses.replace(FULL, path=name, audio_id=f"sha256:{name}", result=result)


OWN = song("own.mp3")


@pytest.mark.parametrize(
    ("key", "relation"),
    [
        ("A minor", "same key"), ("C major", "relative key"), ("E minor", "a fifth up"), ("D minor", "a fifth down"), ("A major", None),
        ("G minor", None), ("G major", None), ("F major", None),
    ],
)  # fmt: skip
def test_keys_beside_each_other_on_the_wheel_mix(key, relation):
    found = match(OWN, song("x", key))
    assert (found and found.relation) == relation


def test_neighbours_are_one_step_on_the_camelot_wheel():
    for mode in ("major", "minor"):
        for pitch in range(12):
            key = Key.of(pitch, mode)
            number, letter = int(key.camelot[:-1]), key.camelot[-1]
            steps = {f"{(number - 2) % 12 + 1}{letter}", f"{number % 12 + 1}{letter}", f"{number}{'AB'[letter == 'A']}"}
            assert {neighbour.camelot for neighbour in key.neighbours.values()} == steps


@pytest.mark.parametrize(
    ("bpm", "faster"),
    [(120, 0.0), (112, 0.0714), (129, -0.0698), (111, None), (131, None), (60, 0.0), (62, -0.0323), (240, 0.0), (90, None)],
)
def test_tempi_within_a_pitch_fader_or_an_octave_mix(bpm, faster):
    found = match(OWN, song("x", bpm=bpm))
    assert (found and found.faster) == (None if faster is None else pytest.approx(faster, abs=1e-4))


def test_what_is_not_known_mixes_with_nothing():
    assert (
        match(OWN, song("x", key=None)) is match(OWN, song("x", bpm=None)) is match(song("x", bpm=None), OWN) is match(OWN, FAILED) is None
    )
    assert match(OWN, song("x", lufs=None)).louder_lu is None


def test_the_nearest_come_first_and_the_song_itself_does_not():
    others = [song("loud", lufs=-4.0), song("far", "E minor", 129), song("like"), OWN, song("key", "C major"), song("none", "F# major")]
    assert [found.record.path for found in matches(OWN, others)] == ["like", "loud", "key", "far"]


@pytest.mark.slow
def test_the_command_reads_records_and_says_what_it_leaves_out(tmp_path):
    records = [song("own.mp3"), song("b.mp3", "C major", 123), song("c.mp3", bpm=None), FAILED, song("d.mp3", "F# major")]
    (tmp_path / "lib.jsonl").write_text("".join(record.to_json() + "\n" for record in records))
    done = run("next", "own.mp3", "--from", tmp_path / "lib.jsonl")
    assert done.returncode == 0
    assert done.stdout.decode().split("\n")[1].split() == "b.mp3 8B C relative key 123 \u22122.4 % +0.0 LU".split()
    assert "1 of 3 songs were left out: their tempo or key is not known" in done.stderr.decode()
    done = run("next", "own.mp3", "--from", tmp_path, "-f", "m3u", "-q")
    assert done.stdout.decode().splitlines()[2].endswith("b.mp3")
    [line] = run("next", "own.mp3", "--from", tmp_path / "lib.jsonl", "-f", "json", "-q").stdout.splitlines()
    assert json.loads(line)["path"] == "b.mp3"
    done = run("next", "d.mp3", "--from", tmp_path / "lib.jsonl")
    assert (done.returncode, done.stdout) == (0, b"")
    assert "mixes with d.mp3" in done.stderr.decode()


@pytest.mark.slow
def test_of_songs_without_a_record_only_what_a_match_needs_is_measured(tmp_path, monkeypatch):
    for name, bpm in (("own", 112.0), ("near", 108.0), ("far", 90.0)):
        soundfile.write(tmp_path / f"{name}.wav", sound(["A:min", "F:maj", "C:maj", "G:maj"] * 2, bpm), RATE)
    (tmp_path / "words.wav").write_text("no sound")
    monkeypatch.setenv("MFLAMINGO_MODEL", "nobody/nothing")  # is not looked for
    done = run("next", tmp_path / "own.wav", "--from", tmp_path, "-f", "json")
    assert done.returncode == 0, done.stderr
    [found] = map(json.loads, done.stdout.splitlines())
    assert (found["path"], found["only"], found["model"]) == (str(tmp_path / "near.wav"), ["tempo", "key", "loudness"], None)
    assert "words.wav: not a recognised audio file" in done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("c.mp3", "--from", "lib.jsonl"), 1, "its tempo could not be determined"),
        (("nothing.mp3", "--from", "lib.jsonl"), 1, "no such file"),
        (("own.mp3", "--from", "nowhere"), 66, "No such file"),
        (("own.mp3", "--from", "empty"), 66, "neither records nor songs"),
        (("own.mp3", "--from", "words.txt"), 2, "line 2 is not a record"),
    ],
)
def test_what_is_missing_is_said(tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text(OWN.to_json() + "\nnothing\n")
    (tmp_path / "lib.jsonl").write_text(OWN.to_json() + "\n" + song("c.mp3", bpm=None).to_json() + "\n")
    done = run("next", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in one_sentence(done.stderr)
