"""Who sings: phrases are where the evidence is, and a song is called sung or not only where that is clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.core.audio import load
from mflamingo_cli.measure import Confidence, measure
from mflamingo_cli.measure.confidence import CLEAR_VOCALS, MOST_VOCALS, of_vocals
from mflamingo_cli.measure.vocals import Voicing, spans, sung_signs, voicing
from mflamingo_cli.schema import Segment

from .synth import RATE, audio, song

SUNG = Path(__file__).with_name("sung.opus")  # from its tenth second on
VOICE_S = 10.0
FRAME_S = 0.12  # evidence is averaged over 0.2 s


def evidence(seconds: float, **voices: list[tuple[float, float]]) -> np.ndarray:
    """Probabilities of speech, singing and music that are high between times."""
    found = np.tile(np.array([0.02, 0.02, 0.99], np.float32), (round(seconds * 100), 1))
    for column, name in enumerate(("speech", "singing")):
        for start, end in voices.get(name, []):
            found[round(start * 100) : round(end * 100), column] = 0.95
    return found


def test_a_breath_ends_no_phrase_and_a_moment_is_none() -> None:
    found = voicing(evidence(30, singing=[(2, 8), (8.5, 12), (20, 20.3)], speech=[(22, 25), (27, 28)]), 100.0)
    (phrase,), (said,) = found.singing, found.speech
    assert (phrase.label, said.label) == ("singing", "speech")
    assert (phrase.start, phrase.end) == (pytest.approx(102, abs=FRAME_S), pytest.approx(112, abs=FRAME_S))
    assert (said.start, said.end) == (pytest.approx(122, abs=FRAME_S), pytest.approx(125, abs=FRAME_S))
    assert (found.sung_s, found.heard_s) == (pytest.approx(9.8), 30.0)


def test_an_instrument_that_sounds_sung_for_a_while_has_no_phrases_in_the_record() -> None:
    found = [voicing(evidence(60, singing=[(5, 8)], speech=[(20, 30)]), 0.0)]
    assert [span.label for span in spans(found, sung=True)] == ["singing", "speech"]
    assert [span.label for span in spans(found, sung=False)] == ["speech"]


def test_what_is_clear_is_said_and_nothing_else() -> None:
    def judged(sung_s: float, phrase_s: float, heard_s: float = 240.0) -> tuple[bool | None, float | None]:
        return of_vocals(sung_signs([Voicing((Segment(0, phrase_s, "singing"),), (), sung_s, heard_s)]))

    assert judged(180, 90)[0] is True
    assert judged(0, 0)[0] is False
    assert any(judged(seconds, phrase) == (None, None) for seconds in (20, 60, 100) for phrase in (8, 12, 16))
    stated = [confidence for _, confidence in (judged(180, 90), judged(0, 0)) if confidence is not None]
    assert len(stated) == 2
    assert all(CLEAR_VOCALS <= confidence <= MOST_VOCALS for confidence in stated)


def test_a_sung_song_is_sung_where_it_is() -> None:
    excerpt = load(SUNG).samples
    samples = np.concatenate([excerpt, *[excerpt[int(VOICE_S * RATE) :]] * 3])
    found = measure(audio(samples, start_s=5.0), only=["vocals"])
    assert found.vocals.present is True
    assert found.confidence == Confidence(vocals=found.confidence.vocals)
    assert found.confidence.vocals is not None
    first, last = found.vocals.spans[0], found.vocals.spans[-1]
    assert first.start == pytest.approx(5 + VOICE_S, abs=1.0)
    assert last.end > 5 + len(samples) / RATE - 1.0


def test_drums_and_strings_do_not_sing_and_silence_says_nothing() -> None:
    found = measure(audio(song(["C:maj", "F:maj"] * 8, 120.0)), only=["vocals"])
    assert (found.vocals.present, found.vocals.spans) == (False, ())
    nothing = measure(audio(np.zeros(20 * RATE, np.float32)), only=["vocals"])
    assert (nothing.vocals.present, nothing.confidence.vocals) == (None, None)
