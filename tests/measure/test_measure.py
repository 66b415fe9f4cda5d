"""What is measured is true of songs made here, and nothing is told where nothing can be."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from mflamingo_cli.measure import FACTS, Confidence, Facts, Loudness, Measurement, measure
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.schema import Result

from .synth import RATE, audio, song, tone

LOOP = ["A:min", "F:maj", "C:maj", "G:maj"] * 3 + ["A:min"]
HOME = ["D:maj", "G:maj", "A:maj", "D:maj"] * 3 + ["D:maj"]
BPM = 0.005  # relative
NEAR = 0.25  # seconds around a chord change that may be heard either way
FORBIDDEN = ("torch", "scipy", "librosa", "numba", "onnxruntime", "sklearn", "transformers")


@cache
def facts(name: str) -> Facts:
    bars, bpm = {"loop": (LOOP, 112.0), "home": (HOME, 96.0)}[name]
    return measure(audio(song(bars, bpm)))


@pytest.mark.parametrize(("name", "bpm", "key"), [("loop", 112.0, "A minor"), ("home", 96.0, "D major")])
def test_a_song_has_its_tempo_and_key(name: str, bpm: float, key: str) -> None:
    found = facts(name)
    assert found.tempo.bpm == pytest.approx(bpm, rel=BPM)
    assert found.key is not None
    assert found.key.name == key


@pytest.mark.parametrize(("name", "bars", "bpm"), [("loop", LOOP, 112.0), ("home", HOME, 96.0)])
def test_a_song_has_its_chords(name: str, bars: list[str], bpm: float) -> None:
    right = total = 0
    for i, label in enumerate(bars):
        for time in np.arange(i * 240 / bpm + NEAR, (i + 1) * 240 / bpm - NEAR, 0.1):
            heard = next(c.label for c in facts(name).chords if c.start <= time < c.end)
            right += heard.removesuffix("7") == label
            total += 1
    assert right > 0.9 * total


@pytest.mark.parametrize("name", ["loop", "home"])
def test_spans_cover_the_clip_without_holes(name: str) -> None:
    chords = facts(name).chords
    assert chords[0].start == 0
    assert all(a.end == b.start for a, b in pairwise(chords))
    assert chords[-1].end == pytest.approx(len(song(*{"loop": (LOOP, 112.0), "home": (HOME, 96.0)}[name])) / RATE, abs=0.01)


@pytest.mark.slow
def test_detuned_songs_keep_their_key_and_chords() -> None:
    found = measure(audio(song(LOOP, 112.0, detune=0.4)))
    assert found.key == facts("loop").key
    assert {c.label for c in found.chords} == {c.label for c in facts("loop").chords}


@pytest.mark.slow
def test_level_changes_nothing() -> None:
    quiet = measure(audio(song(LOOP, 112.0) * np.float32(0.02)))
    assert quiet.tempo.bpm == pytest.approx(facts("loop").tempo.bpm, rel=BPM)
    assert quiet.key == facts("loop").key


def test_times_count_from_the_start_of_the_file() -> None:
    samples = song(HOME[:6], 96.0)
    here, later = measure(audio(samples)), measure(audio(samples, start_s=30.0))
    assert [round(time - 30, 3) for time, _ in later.beats] == [time for time, _ in here.beats] != []
    assert later.chords[0].start == 30
    assert [c.label for c in later.chords] == [c.label for c in here.chords]


def _noise(power: float) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(20 * RATE))
    hertz = np.maximum(np.fft.rfftfreq(20 * RATE, 1 / RATE), 20)
    noise = np.fft.irfft(spectrum / hertz**power)
    return 0.3 * noise / np.abs(noise).max()


NOTHING = {
    "silence": np.zeros(20 * RATE),
    "white noise": _noise(0),
    "pink noise": _noise(0.5),
    "brown noise": _noise(1),
    "sine": 0.3 * np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE),
    "drone": 0.1 * sum(np.sin(2 * np.pi * 110 * k * np.arange(20 * RATE) / RATE) / k for k in range(1, 12)),
    "a tenth of a second": 0.3 * np.sin(np.arange(RATE // 10)),
    "nothing": np.zeros(0),
}


@pytest.mark.parametrize("name", sorted(NOTHING))
def test_nothing_is_told_of(name: str) -> None:
    found = measure(audio(NOTHING[name]))
    assert found.tempo.bpm is None
    assert found.beats == ()
    assert found.meter is None
    assert found.key is None
    assert found.chords == ()
    assert found.sections == ()


def test_free_playing_has_no_tempo() -> None:
    rng = np.random.default_rng(5)
    out, at = np.zeros(25 * RATE), 0.0
    while at < 23:
        start = int(at * RATE)
        sound = tone(220 * 2 ** (rng.choice([0, 3, 5, 7, 10, 12]) / 12), 1.5)[: len(out) - start]
        out[start : start + len(sound)] += 0.2 * sound
        at += 0.6 * float(np.exp(rng.normal(0, 0.5)))
    assert measure(audio(out)).tempo.bpm is None


def test_the_meter_that_listened_gives_the_loudness() -> None:
    samples = song(HOME[:3], 96.0)
    meter = LoudnessMeter()
    meter.open(RATE, 1)
    meter.add(samples[:, None])
    heard = measure(audio(samples), meter).loudness
    assert heard.integrated_lufs is not None
    assert heard.true_peak_dbtp == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=1.0)
    assert facts("home").loudness == Loudness()


@pytest.mark.slow
def test_sections_come_back_under_their_letter() -> None:
    found = measure(audio(song((["C:maj", "F:maj"] * 4 + ["Ab:maj", "Eb:min"] * 4) * 2, 120.0))).sections
    assert found[0].start == 0
    assert found[0].label == "A"
    times = [s.start for s in found]
    assert all(min(abs(t - boundary) for t in times) < 3.0 for boundary in (16, 32, 48))


def test_measuring_imports_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, numpy as np\n"
        "from tests.measure.synth import audio, song\n"
        "from mflamingo_cli.measure import measure\n"
        "measure(audio(song(['C:maj', 'G:maj'] * 2)))\n"
        f"print([name for name in {FORBIDDEN} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("beats", "places"), [(3, [1, 2, 3, 1]), (4, [1, 2, 3, 4])])
def test_beats_are_counted_in_bars_where_the_meter_is_known(beats: int, places: list[int]) -> None:
    found = measure(audio(song(LOOP, 112.0, beats=beats)))
    first = next(index for index, (_, place) in enumerate(found.beats) if place == 1)
    assert [place for _, place in found.beats[first : first + 4]] == places


def test_facts_are_the_table_and_the_table_is_in_the_record() -> None:
    names = [field.name for field in dataclasses.fields(Facts)]
    assert names == [*FACTS, "confidence"]
    assert set(FACTS) <= {field.name for field in dataclasses.fields(Result)}
    assert set(vars(Confidence())) <= set(FACTS)


@pytest.mark.parametrize(
    ("only", "never"),
    [
        (["tempo"], {"untuned_spectrogram", "spectrogram", "chords", "units", "chord_spans", "counted", "key_fit"}),
        (["loudness"], {"untuned_spectrogram", "pulse", "parts"}),
        (["key", "chords"], {"pulse", "pulses", "units", "counted", "sections"}),
    ],
)
def test_only_what_is_asked_is_computed_and_equals_the_whole(only: list[str], never: set[str]) -> None:
    measurement = Measurement(audio(song(LOOP, 112.0)))
    found = measurement.facts(only)
    computed = vars(measurement).keys() | {name for stretch in measurement.stretches for name in vars(stretch)}
    assert not (never - {"parts"}) & computed
    assert "parts" in vars(measurement)
    for name in only:
        assert getattr(found, name) == getattr(facts("loop"), name)
    for name in {"tempo", "key", "meter"} & set(only):
        assert getattr(found.confidence, name) == getattr(facts("loop").confidence, name)


def test_a_fact_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError, match="tempi: not among the facts tempo, key"):
        measure(audio(song(HOME[:3], 96.0)), only=["tempi"])


def test_a_tone_that_pulses_has_a_tempo_but_no_harmony() -> None:
    t = np.arange(20 * RATE) / RATE
    pulses = np.exp(-6 * ((t * 2) % 1) / 2) * sum(0.1 * np.sin(2 * np.pi * 110 * k * t) for k in range(1, 8))
    found = measure(audio(pulses))
    assert found.tempo.bpm == pytest.approx(120.0, rel=BPM)
    assert (found.key, found.chords, found.sections) == (None, (), ())
