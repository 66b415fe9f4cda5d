"""Written music: what a source tells, what it does not, and where things stand in an excerpt."""

import io
import struct
from pathlib import Path
from types import SimpleNamespace

import mido
import numpy as np
import pytest

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train.mini import frames
from mflamingo_cli.train.mini.corpora import sheet_music
from mflamingo_cli.train.mini.synth import player
from mflamingo_cli.train.mini.synth import render as synth
from mflamingo_cli.train.mini.synth.arrange import Rejected
from mflamingo_cli.train.mini.synth.parts import Note, Part

ABC = "X:1\nT:Three bars\nM:3/4\nL:1/4\nK:G\nD|GBd|{a}A2 c|G3|]\n"
ANALYSIS = "Time Signature: 3/4\n\nm0 b3 G: V\nm1 I\nm2 V7\nm3 I\n"


def three_bars():
    """Three bars of 3/4 with an upbeat in C, chords C G7 C, the last in another key."""
    voice = tuple(Note(at, 1.0, pitch, 90) for at, pitch in enumerate((67, 72, 76, 79, 71, 74, 77, 72, 76, 72)))
    chords = ((0.0, 1.0, 7, "maj"), (1.0, 4.0, 0, "maj"), (4.0, 7.0, 7, "7"), (7.0, 10.0, 0, "maj"))
    keys = ((0.0, 7.0, 0, "major"), (7.0, 10.0, 5, "major"))
    stretch = sheet_music.Stretch(0.0, 10.0, 1.0, 3.0, 1.0, "3/4")
    return sheet_music.WrittenScore((Part("chords", 0, voice),), (stretch,), keys=keys, chords=chords)


def bars(*lengths, meter=("3/4", 3.0, 1.0)):
    """A part with measures of these lengths, as music21 gives it."""
    name, bar, beat = meter
    time = SimpleNamespace(
        ratioString=name, barDuration=SimpleNamespace(quarterLength=bar), beatDuration=SimpleNamespace(quarterLength=beat)
    )
    starts = np.cumsum([0, *lengths[:-1]])
    found = [
        SimpleNamespace(timeSignature=None if at else time, offset=at, duration=SimpleNamespace(quarterLength=length))
        for at, length in zip(starts, lengths, strict=True)
    ]
    return SimpleNamespace(getElementsByClass=lambda _: found)


def midi_file(*tempi):
    midi = mido.MidiFile()
    midi.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm), time=480) for bpm in tempi]))
    notes = [mido.Message("note_on", note=60, velocity=80, time=480), mido.Message("note_off", note=60, time=480)]
    midi.tracks.append(mido.MidiTrack([mido.Message("program_change", program=40), *notes]))
    buffer = io.BytesIO()
    midi.save(file=buffer)
    return buffer.getvalue()


def test_facts_of_an_excerpt_are_in_its_time_and_at_its_pitch():
    score = three_bars()
    excerpt = sheet_music.replace(score.stretches[0], start=1.0)
    facts = sheet_music.exact_facts(score, excerpt, 120.0, synth.ClipWindow(0.0, 1.0, 4.5), 2)
    assert facts["chords"] == [[0.0, 1.5, 2, "maj"], [1.5, 3.0, 9, "7"], [3.0, 4.5, 2, "maj"]]
    assert facts["keys"] == [[0.0, 3.0, 2, "major"], [3.0, 4.5, 7, "major"]]
    assert (facts["tonic"], facts["mode"], facts["meter"], facts["tempo"]) == (2, "major", "3/4", 120.0)
    assert (facts["beat_s"], facts["bar_s"], facts["beat_at"], facts["bar_at"]) == (0.5, 1.5, 0.0, 0.0)


def test_an_upbeat_stands_before_the_first_bar():
    score = three_bars()
    facts = sheet_music.exact_facts(score, score.stretches[0], 60.0, synth.ClipWindow(0.0, 1.0, 10.0), 0)
    assert (facts["beat_at"], facts["bar_at"]) == (0.0, 1.0)


def test_a_chord_without_a_class_silences_all_chords():
    score = sheet_music.replace(three_bars(), chords=((0.0, 10.0, 0, ""),))
    assert "chords" not in sheet_music.exact_facts(score, score.stretches[0], 60.0, synth.ClipWindow(0.0, 1.0, 10.0), 0)


def test_a_change_of_inversion_is_no_change_of_chord():
    assert synth.joined([[0.0, 1.0, 0, "maj"], [1.0, 2.0, 0, "maj"], [2.0, 3.0, 7, "7"]]) == [
        [0.0, 2.0, 0, "maj"],
        [2.0, 3.0, 7, "7"],
    ]


def test_an_upbeat_and_halves_at_a_repeat_keep_the_grid():
    (stretch,) = sheet_music.stretches(bars(1, 3, 3, 2, 1, 3))
    assert (stretch.start, stretch.end, stretch.first, stretch.bar, stretch.meter) == (0, 13, 1, 3, "3/4")


def test_a_lost_beat_begins_another_stretch():
    first, second = sheet_music.stretches(bars(3, 3, 2, 3, 3))
    assert (first.end, second.start, second.first) == (8, 8, 8)


def test_cut_parts_begin_at_zero_and_held_notes_are_shortened():
    (part,) = sheet_music.cut([Part("chords", 0, (Note(0, 4, 60, 90), Note(3, 2, 64, 90), Note(6, 1, 67, 90)))], 3.0, 6.0)
    assert [(note.start, note.length, note.pitch) for note in part.notes] == [(0, 1, 60), (0, 2, 64)]


def test_a_note_ends_before_its_key_is_struck_again():
    found = sheet_music.repeatable([Note(1.0, 1.0, 60, 90), Note(0.0, 1.02, 60, 90), Note(0.0, 2.0, 64, 90), Note(1.0, 0.5, 60, 80)])
    first, last = (note for note in found if note.pitch == 60)
    assert first.start + first.length < last.start
    assert next(note for note in found if note.pitch == 64).length == 2.0


def test_sounding_time_is_counted_by_span_and_pitch_class():
    found = sheet_music.sounding_time([Part("chords", 0, (Note(0, 3, 60, 90), Note(2, 1, 76, 90)))], [(0.0, 2.0), (2.0, 4.0)])
    assert found[:, [0, 4]].tolist() == [[2.0, 0.0], [1.0, 1.0]]


def test_midi_of_one_tempo_has_notes_but_no_bars():
    score = sheet_music.read_midi(midi_file(96))
    assert score.tempo == pytest.approx(96)
    assert (score.stretches[0].start, score.stretches[0].end, score.stretches[0].bar) == (1.0, 2.0, 0.0)
    facts = sheet_music.exact_facts(score, score.stretches[0], 96.0, synth.ClipWindow(0.0, 1.0, 0.6), 0)
    assert not {"meter", "bar_s", "chords", "tonic", "keys"} & set(facts)


def test_midi_whose_tempo_changes_is_left_out():
    with pytest.raises(Rejected, match="tempo"):
        sheet_music.read_midi(midi_file(96, 120))


def test_unknown_bars_are_no_absent_bars():
    row = {"duration": 1.0, "tempo": 120.0}
    assert "beat" not in frames.frame_labels(row, [], frames.note_levels([], 25))
    assert not frames.frame_labels({**row, "music": False}, [], frames.note_levels([], 25))["beat"].any()


def test_lumps_of_a_wad_file():
    data = b"MThd...." + b"x"
    wad = struct.pack("<4sii", b"IWAD", 1, 12 + len(data)) + data + struct.pack("<ii8s", 12, len(data), b"D_E1M1")
    assert list(sheet_music.wad_lumps(wad)) == [("D_E1M1", data)]
    with pytest.raises(ModelError, match="WAD"):
        list(sheet_music.wad_lumps(b"ZWAD" + wad[4:]))


def test_a_piece_that_stands_in_two_files_is_found_once(tmp_path):
    files = tmp_path / "unpacked/freedoom/usr/share"
    files.mkdir(parents=True)
    (tmp_path / "unpacked/freedoom/.ready").touch()
    for name in ("freedoom1.wad", "freedoom2.wad"):
        (files / name).write_bytes(struct.pack("<4sii", b"IWAD", 1, 17) + b"MThd." + struct.pack("<ii8s", 12, 5, b"D_E1M1"))
    assert [(piece.name, piece.content) for piece in sheet_music.freedoom(tmp_path)] == [("freedoom1/D_E1M1", b"MThd.")]


def test_pieces_of_one_group_lie_on_one_side():
    pieces = [sheet_music.SourcePiece("chorales", f"bwv{n}.{k}", f"bwv{n}", Path()) for n in range(300) for k in (1, 2)]
    assert all(first.held_out == second.held_out for first, second in zip(pieces[::2], pieces[1::2], strict=True))
    assert 0.1 < np.mean([piece.held_out for piece in pieces]) < 0.25


def test_notation_and_analysis_agree():
    music21 = pytest.importorskip("music21")
    notation = music21.converter.parse(ABC, format="abc")
    score = sheet_music.read_notation(notation)
    assert [note.pitch for note in score.parts[0].notes] == [62, 67, 71, 74, 69, 72, 67]
    assert score.tonic == (7, "major")
    assert [(s.bar, s.first, s.meter) for s in score.stretches] == [(3.0, 1.0, "3/4")]
    known = sheet_music.analysed(score, notation, music21.converter.parse(ANALYSIS, format="romanText"))
    assert known.chords == ((0.0, 1.0, 2, "maj"), (1.0, 4.0, 7, "maj"), (4.0, 7.0, 2, "7"), (7.0, 10.0, 7, "maj"))
    assert known.keys == ((0.0, 10.0, 7, "major"),)
    wrong = music21.converter.parse(ANALYSIS.replace("V7", "viio").replace("V", "viio").replace(" I\n", " viio\n"), format="romanText")
    with pytest.raises(Rejected, match="does not fit"):
        sheet_music.analysed(score, notation, wrong)


def test_a_clip_of_a_score_is_written_with_its_labels(tmp_path, monkeypatch):
    try:
        player.library()
    except ModelError:
        pytest.skip("libfluidsynth is not installed")
    if not Path(synth.SOUNDFONTS["TimGM6mb"][0]).exists():
        pytest.skip("the soundfont TimGM6mb is not installed")
    monkeypatch.setattr(synth, "TRAIN_FONTS", (("TimGM6mb", 1.0),))
    monkeypatch.setattr(sheet_music, "SHORTEST_S", 1.0)
    piece = sheet_music.SourcePiece("chorales-analysed", "three bars", "three bars", Path())
    for sub in ("audio", "cache"):
        (tmp_path / "scores-train" / sub).mkdir(parents=True)
    row = sheet_music.render(np.random.default_rng(1), 0, sheet_music.ScoresConfig(tmp_path, tmp_path, 1), piece, three_bars())
    labels = frames.exact_labels(frames.Clip(row, tmp_path / "scores-train"))
    assert row["kind"] == "synth"
    assert (labels["beat"] == 2).sum() == 3
    sounding = int(row["bar_at"] / frames.LABEL_S) + 3
    assert (labels["root"][sounding], labels["key"][sounding]) == (row["transposed"] % 12, row["transposed"] % 12)


def test_a_broken_file_is_left_out():
    with pytest.raises(Rejected, match="broken"):
        sheet_music.trusted(sheet_music.SourcePiece("freedoom", "broken", "broken", Path(), b"MThd"))
