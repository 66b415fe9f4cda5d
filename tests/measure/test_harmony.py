"""Keys in their order, the one of the song, and church modes."""

from __future__ import annotations

import numpy as np
import pytest

from mflamingo_cli.measure import Measurement, measure
from mflamingo_cli.measure.confidence import MOST_ALONE
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.harmony import Harmony
from mflamingo_cli.measure.key import PROFILES, choose_key, scale_of, sounding
from mflamingo_cli.schema import Segment

from .synth import CHORDS, NOTES, RATE, audio, song

CHORD_S = 2
C_LOOP = ["C:maj", "G:maj", "A:min", "F:maj"]
D_LOOP = ["D:maj", "A:maj", "B:min", "G:maj"]
A_LOOP = ["A:maj", "E:maj", "F#:min", "D:maj"]
BOUNDARY_S = 1.0  # a key changes with the chord


def harmony(*labels: str, start_s: float = 0.0) -> Harmony:
    """Chords of two seconds each, whose notes sound and nothing else, with their roots in the bass."""
    n = CHORD_S * len(labels)
    chords = tuple(Segment(start_s + CHORD_S * i, start_s + CHORD_S * (i + 1), label) for i, label in enumerate(labels))
    pitches = np.zeros((n, 24))
    for second in range(n):
        root, kind = labels[second // CHORD_S].split(":")
        for interval in CHORDS[kind]:
            pitches[second, (NOTES.index(root) + interval) % 12] = 1.0
        pitches[second, 12 + NOTES.index(root)] = 1.0
    starts = start_s + np.arange(n, dtype=float)
    return Harmony(starts, starts + 1, pitches, chords)


def names(found: Harmony) -> list[tuple[float, float, str]]:
    return [(start, end, key.name) for start, end, key in found.keys]


@pytest.mark.parametrize("start_s", [0.0, 100.0])
def test_a_key_that_changes_is_two_keys(start_s: float) -> None:
    found = names(harmony(*C_LOOP * 3, *D_LOOP * 6, start_s=start_s))
    assert found == [(start_s, start_s + 24.0, "C major"), (start_s + 24.0, start_s + 72.0, "D major")]


def test_a_key_that_comes_back_is_three_spans() -> None:
    assert [name for *_, name in names(harmony(*C_LOOP * 5, *A_LOOP * 5, *C_LOOP * 5))] == ["C major", "A major", "C major"]


@pytest.mark.parametrize("passing", [["D:maj", "G:maj"], ["F:min", "C:maj"], ["E:maj", "A:min"], ["Bb:maj", "F:maj"]])
def test_a_borrowed_chord_changes_no_key(passing: list[str]) -> None:
    assert names(harmony(*C_LOOP * 4, *passing, *C_LOOP * 4)) == [(0.0, 68.0, "C major")]


def test_the_relative_key_of_a_verse_changes_no_key() -> None:
    verse = ["A:min", "F:maj", "A:min", "G:maj"]
    assert len(names(harmony(*C_LOOP * 3, *verse, *C_LOOP * 3))) == 1


def test_the_key_of_a_song_sounds_longest_and_is_less_sure_than_without_the_other() -> None:
    changed, plain = (Measurement(audio(song(bars, 120.0))) for bars in (C_LOOP * 2 + D_LOOP * 5, D_LOOP * 7))
    facts, whole = changed.facts(["key", "keys"]), plain.facts(["key", "keys"])
    assert [key.name for key in facts.keys] == ["C major", "D major"]
    assert facts.keys[1].start == pytest.approx(16.0, abs=BOUNDARY_S)
    assert facts.key == whole.key == Key("D", "major")
    assert [key.name for key in whole.keys] == ["D major"]
    assert whole.keys[0].confidence == pytest.approx(whole.confidence.key, abs=0.01)
    assert facts.confidence.key is not None
    assert whole.confidence.key is not None
    assert facts.confidence.key < 0.8 * whole.confidence.key


def test_keys_do_not_sound_in_silence() -> None:
    parts = [song(C_LOOP * 4), np.zeros(20 * RATE), song(D_LOOP * 4)]
    first, second = measure(audio(np.concatenate(parts)), only=["keys"]).keys
    silent = (len(parts[0]) / RATE, len(parts[0]) / RATE + 20)
    assert first.end <= silent[0]
    assert second.start >= silent[1] - BOUNDARY_S


def test_what_fits_no_profile_has_no_key() -> None:
    chords = harmony(*C_LOOP).whole[1]
    assert choose_key(np.concatenate([PROFILES[0], np.zeros(12)]), chords) == Key("C", "major")
    assert choose_key(np.concatenate([np.tile([1.0, 0.0, 0.0], 4), np.zeros(12)]), chords) is None


@pytest.mark.parametrize(("label", "name"), [("G:maj", "G major"), ("D:min", "D minor")])
def test_one_chord_alone_is_likeliest_the_tonic_and_never_sure(label: str, name: str) -> None:
    found = harmony(*[label] * 20)
    assert names(found) == [(0.0, 40.0, name)]
    assert found.key is not None
    assert found.confidence(found.key) <= MOST_ALONE


def test_without_chords_there_is_no_key() -> None:
    found = harmony()
    assert found.key is None
    assert found.keys == ()


@pytest.mark.parametrize(
    ("loop", "name"), [(["E:maj", "C:maj", "D:maj", "E:maj"], "E minor"), (["A:maj", "F:maj", "G:maj", "A:maj"], "A minor")]
)
def test_fifths_that_are_heard_as_major_chords_leave_the_mode_to_the_scale(loop: list[str], name: str) -> None:
    played = harmony(*loop * 5)
    fifths = np.zeros_like(played.pitches)
    for second, label in zip(range(len(fifths)), np.repeat(loop * 5, CHORD_S), strict=True):
        root = NOTES.index(label.split(":")[0])
        fifths[second, [root, (root + 7) % 12]] = 1.0, 0.7
        fifths[second, (root + 4) % 12] = 0.1  # the fifth partial of the root
        fifths[second, 12 + root] = 1.0
    assert names(Harmony(played.starts, played.ends, fifths, played.chords)) == [(0.0, 40.0, name)]


@pytest.mark.parametrize(
    ("loop", "key", "scale"),
    [
        (["D:min", "G:maj", "D:min", "G:maj", "A:min", "D:min"], "D minor", "D dorian"),
        (["G:maj", "F:maj", "C:maj", "G:maj"], "G major", "G mixolydian"),
        (["E:min", "F:maj", "E:min", "D:min", "F:maj", "E:min"], "E minor", "E phrygian"),
        (["A:min", "F:maj", "E:maj", "A:min"], "A minor", None),
        (C_LOOP, "C major", None),
    ],
)
def test_church_modes(loop: list[str], key: str, scale: str | None) -> None:
    found = harmony(*loop * 4)
    tonic, mode = key.split()
    told = Key(tonic, mode)  # type: ignore[arg-type]
    assert scale_of(told, found.pitches.sum(axis=0)[:12], sounding(found.chords)) == scale


def test_no_mode_is_told_that_the_chords_contradict() -> None:
    modal, foreign = harmony(*["D:min", "G:maj", "A:min"] * 4), [Segment(0.0, 8.0, "Bb:maj"), Segment(8.0, 40.0, "D:min")]
    pitches = modal.pitches.sum(axis=0)[:12]
    assert scale_of(Key("D", "minor"), pitches, sounding(foreign)) == "D dorian"
    assert scale_of(Key("D", "minor"), pitches, sounding([*foreign, Segment(40.0, 44.0, "Eb:maj")])) is None
