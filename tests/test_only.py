"""Laws of `--only`: nothing else is computed or loaded, the values are those of the whole, and a part never stands for the whole."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mflamingo_cli import pipeline, requests
from mflamingo_cli.assemble import assemble
from mflamingo_cli.backends.base import OpenOptions
from mflamingo_cli.backends.no_model import NoModel
from mflamingo_cli.commands.analyze import FactOptions
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.errors import InternalError, ModelError, UsageError
from mflamingo_cli.library.plan import EngineListener, Finished, RunPlan, Unavailable
from mflamingo_cli.library.run import LocalEngine
from mflamingo_cli.measure import FACTS, Facts, Measurement, SongPart, Tempo, Voices, stretch
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.requests import PreparedSong
from mflamingo_cli.schema import Analysis, FormPart, Segment
from mflamingo_cli.store.cache import Cache

from .measure.synth import RATE, audio, song
from .test_pipeline import ANSWERS, Parrot

STAGES = {"pulse", "chords", "pitches", "units", "texture", "voices", "tags"}
BARS = ["A:min", "F:maj", "C:maj", "G:maj"] * 2
SILENT_LISTENER = EngineListener(*[lambda text: None] * 4)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("only") / "song.wav"
    soundfile.write(path, song(BARS, 112.0), RATE)
    return path


@pytest.fixture(scope="module")
def whole(file) -> Analysis:
    return analyzed(file, FACTS)


def test_without_a_model_all_is_asked_that_is_measured():
    request = requests.analyze_request(with_model=False)
    assert request.only == (*FACTS, "instruments", "genre", "mood")
    assert (request.tasks, request.facts(NoModel().info)) == ((), tuple(FACTS))
    assert requests.analyze_request(["genre"], with_model=False).facts(NoModel().info) == ("tags",)


def analyzed(file: Path, only, cache: Cache | None = None, **settings) -> Analysis:
    *_, record = pipeline.run(file, NoModel(), requests.analyze_request(only, **settings), cache=cache)
    assert isinstance(record, Analysis)
    return record


# --- what runs ---


@pytest.fixture(scope="module")
def all_facts() -> Facts:
    return Measurement(audio(song(BARS, 112.0))).facts()


@pytest.mark.parametrize("name", FACTS)
def test_the_stages_that_run_are_those_in_the_table_and_the_value_is_that_of_the_whole(name, all_facts):
    measurement = Measurement(audio(song(BARS, 112.0)))
    found = measurement.facts([name])
    assert {stage for stretch in measurement.stretches for stage in vars(stretch)} & STAGES == set(FACTS[name].needs)
    assert found == Facts().updated(all_facts, [name])


@pytest.mark.parametrize("name", ["tempo", "key", "sections", "dynamics"])
def test_the_stages_in_the_table_are_enough_of_a_long_song_whose_sound_is_let_go(name, all_facts):
    sound = audio(song(BARS, 112.0))
    part = SongPart.of(sound.samples, 0.0)
    part.settle([name])
    assert {stage for stretch in part.stretches for stage in vars(stretch)} & STAGES == set(FACTS[name].needs)
    assert Measurement(sound, None, [part]).facts([name]) == Facts().updated(all_facts, [name])


def test_what_two_threads_compute_is_what_one_does_bit_by_bit(all_facts):
    sound = audio(song(BARS, 112.0))
    part = SongPart.of(sound.samples, 0.0)
    with part.computing(FACTS, threads=2):
        pass
    assert {stage for stretch in part.stretches for stage in vars(stretch)} >= {"chords", "pulse", "voices", "tags"}
    assert Measurement(sound, None, [part]).facts() == all_facts


def test_a_stage_that_fails_on_a_thread_fails_the_song_and_no_thread_is_left(file, monkeypatch):
    monkeypatch.setattr("mflamingo_cli.measure.stretch.voice_evidence", lambda _: [][0])
    monkeypatch.setattr("mflamingo_cli.pipeline.physical_cores", lambda: 2)
    before = threading.active_count()
    with pytest.raises(InternalError, match="list index out of range"):
        analyzed(file, ["tempo", "vocals"])
    assert threading.active_count() == before


def test_threads_end_at_once_where_the_caller_is_interrupted(monkeypatch):
    def endless(_):
        running.set()
        while True:
            np.zeros(9)

    def interrupted():
        with SongPart.of(song(BARS, 112.0), 0.0).computing(["vocals"], threads=2):
            assert running.wait(60)
            raise KeyboardInterrupt

    running = threading.Event()
    monkeypatch.setattr(stretch, "voice_evidence", endless)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


@pytest.mark.parametrize(("abilities", "waits"), [(None, False), (frozenset({"key"}), True)])
def test_a_song_is_heard_while_it_is_measured_where_nothing_else_is_in_work(file, whole, monkeypatch, abilities, waits):
    """Encoded whatever is asked; answered too where no answer is a text, which is held against facts."""

    class Watched(Parrot):
        def encode(self, audios):
            assert started.wait(60)
            return super().encode(audios)

        def generate(self, talks, options):
            if waits:
                heard.set()  # before the chords are there
            return super().generate(talks, options)

    def measured(*given):
        started.set()
        assert not waits or heard.wait(60)
        return measure_chords(*given)

    started, heard, measure_chords = threading.Event(), threading.Event(), stretch.measure_chords
    monkeypatch.setattr(stretch, "measure_chords", measured)
    monkeypatch.setattr("mflamingo_cli.pipeline.physical_cores", lambda: 2)
    *_, record = pipeline.run(file, Watched(ANSWERS, abilities=abilities), requests.analyze_request())
    assert heard.is_set() is waits
    assert (record.chords, record.key.tonic) == (whole.chords, whole.key.tonic)
    assert record.key.claimed is not None
    assert None not in (record.timing.encode_s, record.timing.generate_s, record.timing.measure_s)


def test_a_record_has_what_was_asked_for_and_names_it(file, whole, monkeypatch):
    monkeypatch.setattr(LoudnessMeter, "open", lambda *_: pytest.fail("the loudness is metered"))
    record = analyzed(file, ["key", "tempo"])
    assert record.only == ("tempo", "key")
    assert (record.tempo, record.key) == (whole.tempo, whole.key)
    assert record.tempo.bpm == pytest.approx(112, abs=1)
    assert (record.chords, record.beats, record.meter.value, record.loudness.integrated_lufs) == ((), (), None, None)
    assert (record.model, record.audio.windows, record.audio.truncated) == (None, 0, False)


def test_sections_say_whether_they_are_sung_and_singers_are_not_named(file):
    assert requests.analyze_request(["sections"]).facts(NoModel().info) == ("sections", "vocals")
    facts = Facts(sections=(FormPart(0.0, 4.0, "A"),), vocals=Voices(True, (Segment(0.0, 4.0, "singing"),)))
    sound = core_audio.load(file).described("sha256:x")
    record = assemble(requests.analyze_request(["sections"]), PreparedSong(sound, facts), NoModel().info, {}, None, None)
    assert [section.sung for section in record.sections] == [True]
    assert (record.vocals.present, record.vocals.spans) == (None, ())


def test_a_caption_is_held_against_all_facts_and_stands_alone(file):
    backend = Parrot({**ANSWERS, "caption": "A calm piece at 60 BPM."}, grounded=True)
    *_, record = pipeline.run(file, backend, requests.analyze_request(["caption"]))
    assert "caption" in record.only
    assert "60" not in (record.caption or "")
    assert (record.tempo.bpm, record.genre) == (None, ())
    assert [len(prompts) for prompts in backend.calls] == [1]


def test_no_model_is_opened_unless_one_is_asked(file):
    def events(*only: str):
        plan = RunPlan((str(file),), requests.analyze_request(only), "no such model", OpenOptions(), cached=False, resumable=False)
        return list(LocalEngine().run(plan, SILENT_LISTENER))

    [finished] = [event for event in events("tempo") if isinstance(event, Finished)]
    assert finished.record.status == "ok"
    assert [type(event.reason) for event in events("tempo", "genre") if isinstance(event, Unavailable)] == [ModelError]


# --- what is kept ---


def test_a_part_is_completed_and_the_whole_answers_for_its_parts(file, whole, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    loaded = []
    load = core_audio.load
    monkeypatch.setattr(core_audio, "load", lambda *args, **named: loaded.append(args) or load(*args, **named))
    assert analyzed(file, ["tempo"], cache).tempo == whole.tempo
    assert analyzed(file, FACTS, cache).result == whole.result
    assert len(loaded) == 2
    for name in ["tempo", "sections", "tags"]:
        again = analyzed(file, [name], cache)
        assert getattr(again, name) == getattr(whole, name)
        assert again.timing.decode_s is None
    assert len(loaded) == 2


def test_what_is_asked_decides_a_record():
    asked = [None, ["tempo"], ["tempo", "key"], ["genre"]]
    keys = [requests.analyze_request(only).deciding for only in asked] + [requests.analyze_request(None, tempo_range=(80, 160)).deciding]
    assert len({repr(key) for key in keys}) == len(keys)
    assert requests.analyze_request(["key", "tempo"]).deciding == requests.analyze_request(["tempo", "key"]).deciding


@pytest.mark.parametrize(
    ("typed", "names"),
    [({"only"}, ["tempo", "caption"]), ({"no_model"}, ["tempo"]), (set(), ["tempo"]), ({"only", "no_model"}, "--no-model contradicts")],
)
def test_of_an_answer_and_no_model_the_typed_one_wins(typed, names):
    options = FactOptions("tempo, caption", no_model=True)
    with pytest.raises(UsageError, match=names) if isinstance(names, str) else nullcontext():
        assert options.names(frozenset(typed)) == names
    assert FactOptions("caption", no_model=True).names(frozenset()) is None
    assert FactOptions().names(frozenset()) is None


def test_names_that_are_nothing_are_refused():
    with pytest.raises(UsageError, match="bpm: no such fact or answer; choose from tempo, key"):
        requests.analyze_request(["tempo", "bpm"])


# --- the octave of the tempo ---


@pytest.mark.parametrize(
    ("measured", "low", "high", "want"),
    [
        (Tempo(75.1, (150.2,)), 80, 160, Tempo(150.2, (75.1,))),
        (Tempo(124.0, (62.0,)), 80, 160, Tempo(124.0, (62.0,))),
        (Tempo(170.0, (85.0,)), 40, 50, Tempo(42.5, (85.0, 170.0))),
        (Tempo(124.0, (62.0,)), 90, 100, Tempo(124.0, (62.0,))),
        (Tempo(), 80, 160, Tempo()),
    ],
)
def test_a_range_chooses_the_octave_and_keeps_the_others(measured, low, high, want):
    assert measured.within(low, high) == want


def test_an_octave_that_was_chosen_has_no_confidence_and_one_that_is_missing_is_named(file, whole):
    chosen = analyzed(file, ["tempo"], tempo_range=(40.0, 60.0))
    assert (chosen.tempo.bpm, chosen.tempo.confidence) == (pytest.approx(56, abs=0.5), None)
    assert whole.tempo.bpm in chosen.tempo.alternatives
    [warning] = analyzed(file, ["tempo"], tempo_range=(90.0, 100.0)).warnings
    assert warning.startswith("tempo: no octave of 112.")
