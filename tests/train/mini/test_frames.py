"""Dense labels: what sounds is claimed, what is too quiet is left open, what is not there is absent."""

import mido
import numpy as np

from mflamingo_cli.train.mini import frames
from mflamingo_cli.train.mini.frames import Levels, SoundingNote
from mflamingo_cli.train.mini.synth.parts import DRUMS, FAMILIES, SUNG

PIANO, BASS, CHOIR = 0, 33, 52
ROW = {"duration": 2.0, "chords": [[0.0, 2.0, 9, "min"]], "beat_s": 0.5, "bar_s": 2.0, "tonic": 9, "mode": "minor"}
T = 50


def levels(*parts):
    return Levels(np.array([c for c, _, _ in parts]), np.array([p for _, p, _ in parts]), np.array([np.full(T, db) for *_, db in parts]))


def column(labels, family):
    return labels["families"][:, FAMILIES.index(family)]


def test_labels_follow_the_notes():
    heard = [SoundingNote(0.0, 1.0, 57, 0, PIANO, 0.0)]
    labels = frames.frame_labels(ROW, heard, frames.note_levels(heard, T))
    assert labels["chroma"].shape == (T, 12)
    assert (labels["chroma"][:20, 9] == 1).all()
    assert (labels["root"][:20] == 9).all()
    assert (labels["root"][40:] == frames.NO_CHORD).all()  # nothing sounds: no chord is asked for
    assert (labels["quality"][40:] == -1).all()
    assert labels["beat"][[0, 12, 25]].tolist() == [2, 1, 1]
    assert (labels["key"] == 21).all()
    assert not labels["vocals"].any()


def test_levels_decide_what_is_claimed():
    heard = [SoundingNote(0.0, 2.0, 60, 0, PIANO, 0.0), SoundingNote(0.0, 2.0, 38, 1, BASS, 0.0)]
    labels = frames.frame_labels(ROW, heard, levels((0, PIANO, -3), (1, BASS, -30)))
    assert (column(labels, "piano") == 1).all()
    assert (column(labels, "bass") == frames.UNKNOWN).all()
    assert (labels["chroma"][:, 0] == 1).all()
    assert (labels["chroma"][:, 2] == frames.UNKNOWN).all()
    assert (labels["bass"] == 0).all()  # the lowest that can be heard
    absent = frames.frame_labels(ROW, heard, levels((0, PIANO, -3), (1, BASS, -80)))
    assert not column(absent, "bass").any()


def test_noise_hides_what_is_quiet():
    heard = [SoundingNote(0.0, 2.0, 60, 0, PIANO, 0.0)]
    labels = frames.frame_labels({**ROW, "mix": {"noise_db": -20.0}}, heard, levels((0, PIANO, -15)))
    assert (column(labels, "piano") == frames.UNKNOWN).all()
    assert (labels["root"] == -1).all()


def test_singing_is_known_and_a_choir_is_not():
    sung = frames.frame_labels(ROW, [SoundingNote(0.0, 2.0, 60, SUNG, SUNG, 0.0)], levels((SUNG, SUNG, -5)))
    assert (sung["vocals"] == 1).all()
    assert (sung["chroma"][:, 0] == 1).all()
    choir = frames.frame_labels(ROW, [], levels((0, CHOIR, -5)))
    assert (choir["vocals"] == frames.UNKNOWN).all()


def test_drums_have_no_harmony():
    row = {"duration": 2.0, "chords": [], "beat_s": 0.5, "bar_s": 2.0}
    labels = frames.frame_labels(row, [SoundingNote(0.0, 0.1, 36, DRUMS, 0, 0.0)], levels((DRUMS, 0, 0)))
    assert (labels["families"][:, -1] == 1).all()
    assert (labels["root"] == frames.NO_CHORD).all()
    assert (labels["key"] == -1).all()


def test_a_lone_melody_names_no_chords():
    row = {name: value for name, value in ROW.items() if name != "chords"}
    labels = frames.frame_labels(row, [SoundingNote(0.0, 1.0, 60, 0, PIANO, 0.0)], levels((0, PIANO, 0)))
    assert (labels["root"] == -1).all()
    assert (labels["quality"] == -1).all()


def test_silence_has_nothing_to_claim():
    labels = frames.frame_labels({"duration": 2.0, "music": False, "chords": []}, [], frames.note_levels([], T))
    assert (labels["root"] == frames.NO_CHORD).all()
    assert not labels["families"].any()
    assert not labels["beat"].any()
    assert not labels["chroma"].any()


def test_a_shifted_clip_has_shifted_notes_beats_and_keys():
    midi = mido.MidiFile(ticks_per_beat=480)
    midi.tracks.append(
        mido.MidiTrack([mido.Message("note_on", note=57, velocity=90, time=960), mido.Message("note_off", note=57, time=960)])
    )
    (note,) = frames.notes(midi, offset=0.5, speed=2.0)
    assert (note.start, note.end) == (0.25, 0.75)
    row = {**ROW, "beat_at": 0.2, "bar_at": 1.2, "keys": [[0.0, 1.0, 9, "minor"], [1.0, 2.0, 0, "major"]]}
    labels = frames.frame_labels(row, [note], frames.note_levels([note], T))
    assert labels["beat"][5] == 1
    assert labels["beat"][30] == 2
    assert labels["key"].tolist() == [21] * 25 + [0] * 25


def test_outdated_labels_are_made_again(tmp_path):
    clip = frames.Clip({"index": 0, "duration": 2.0, "music": False, "chords": []}, tmp_path)
    (tmp_path / "cache").mkdir()
    np.save(f"{clip.stem}.mel.npy", np.zeros((200, 256), np.float16))
    np.savez(f"{clip.stem}.labels.npz", root=np.zeros(T, np.int8))
    frames.make_caches(clip)  # the mel frames are kept
    assert (clip.labels()["root"] == frames.NO_CHORD).all()
    assert "version" not in clip.labels()


def test_labels_of_recordings_are_left_alone(tmp_path):
    clip = frames.Clip({"index": 0, "duration": 2.0, "kind": "recording"}, tmp_path)
    (tmp_path / "cache").mkdir()
    np.save(f"{clip.stem}.mel.npy", np.zeros((200, 256), np.float16))
    np.savez(f"{clip.stem}.labels.npz", tags=np.full((T, 100), 7, np.uint8))
    frames.make_caches(clip)
    assert list(clip.labels()) == ["tags"]


def test_onsets_tell_what_begins_and_are_not_lost_between_tokens(tmp_path):
    drum, quiet = SoundingNote(0.52, 0.6, 36, DRUMS, 0, 0.0), SoundingNote(1.0, 1.1, 38, DRUMS, 7, 0.0)
    heard = [
        SoundingNote(0.0, 1.0, 60, 0, PIANO, 0.0),
        drum,
        quiet,
        SoundingNote(1.4, 1.5, 47, DRUMS, 0, 0.0),
    ]  # a tom is none of the kinds
    labels = frames.frame_labels(ROW, heard, levels((0, PIANO, 0), (DRUMS, 0, 0), (DRUMS, 7, -30)))
    assert np.argwhere(labels["onsets"] == 1).tolist() == [[0, 0], [13, 1]]
    assert np.argwhere(labels["onsets"] == frames.UNKNOWN).tolist() == [[25, 2]]
    clip = frames.Clip({"index": 0, "duration": 2.0}, tmp_path)
    (tmp_path / "cache").mkdir()
    np.savez(f"{clip.stem}.labels.npz", **labels)
    tokens = clip.token_labels()["onsets"]
    assert np.argwhere(tokens == 1).tolist() == [[0, 0], [6, 1]]
    assert np.argwhere(tokens == frames.UNKNOWN).tolist() == [[12, 2]]


def test_labels_at_other_times_keep_every_moment():
    labels = {"beat": np.array([2, 0, 0, 1], np.uint8), "root": np.array([1, 2, 3, 4], np.int8)}
    faster = frames.resample(labels, np.array([0, 2]), np.array([0, 0, 1, 1]))
    assert faster["beat"].tolist() == [2, 1]
    assert faster["root"].tolist() == [1, 3]
    slower = frames.resample(labels, np.arange(8) // 2, np.arange(4) * 2)
    assert slower["beat"].tolist() == [2, 0, 0, 0, 0, 0, 1, 0]
    assert slower["root"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
