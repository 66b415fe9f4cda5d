"""The same questions answered without this model: by `measure`, by librosa, by musicnn. Times are seconds.

`measure` analyses the whole clip, as the program does; the others the excerpt that the model is asked about. Estimates are cached.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli import codec, measure
from mflamingo_cli.core import audio
from mflamingo_cli.core.audio import SAMPLE_RATE
from mflamingo_cli.errors import AudioError, ModelError
from mflamingo_cli.measure import Facts
from mflamingo_cli.measure.loudness import LoudnessMeter
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.evaluate import ground_truth, music
from mflamingo_cli.train.evaluate.bootstrap import Score, Scoring, auc_scores, micro_f1, scored
from mflamingo_cli.train.evaluate.ground_truth import Item, cached_json
from mflamingo_cli.train.evaluate.inference import SongBatch, Update
from mflamingo_cli.train.evaluate.question_accuracy import family_rows, family_scores, meter_scores, style_scores
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRE_TAGS, INSTRUMENT_TAGS, STYLES, Tagged
from mflamingo_cli.train.mini.frames import Clip

LIBROSA_RATE = 22_050  # its default
LIBROSA_HOP = 512
KOSTKA_PAYNE = {
    "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    "minor": (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
}  # key profiles of Temperley after Kostka & Payne, the best of the published ones on chroma_cqt
TRIADS = {"maj": (0, 4, 7), "min": (0, 3, 7)}
CHORD_STAYS = 0.95  # probability that a frame has the chord of the one before


Guess = dict[str, Any]  # what an estimator says of an excerpt, by FIGURES: None where it finds none; what it cannot know is not there
SILENCE: list[music.Span] = [(0.0, 1.0, "N")]


# --- measure ---------------------------------------------------------------------------------------------------------


def measured(clip: Clip) -> Facts:
    """What `measure` finds in a whole clip."""

    def find() -> dict[str, Any]:
        meter = LoudnessMeter()
        try:
            return codec.to_plain(measure.measure(audio.load(clip.folder / clip.row["audio"], listeners=(meter,)), meter))
        except AudioError:  # silent all the way
            return codec.to_plain(Facts())

    found: Facts = codec.from_plain(Facts, cached_json(clip, f"facts-{_measure_version()}", find))
    return found


@cache
def _measure_version() -> str:
    files = sorted(Path(measure.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def _by_measure(item: Item) -> Guess:
    facts = measured(item.clip)
    inside = [chord for chord in facts.chords if chord.start < item.end and chord.end > item.start]
    return {
        "key": (facts.key.pitch, facts.key.mode) if facts.key else None,
        "tempo": facts.tempo.bpm,
        "meter": facts.meter,
        "sections": [section.start for section in facts.sections[1:]],
        "chords": [(max(c.start, item.start) - item.start, min(c.end, item.end) - item.start, c.label) for c in inside] or SILENCE,
    }


# --- librosa -----------------------------------------------------------------------------------------------------------


def _by_librosa(item: Item) -> Guess:
    found = cached_json(item.clip, f"librosa-{item.start:g}-{item.end:g}", lambda: _librosa(item.samples()))
    return {"key": tuple(found["key"]), "tempo": found["tempo"], "chords": [tuple(span) for span in found["chords"]]}


def _librosa(samples: np.ndarray) -> dict[str, Any]:
    """Key profiles on the mean of `chroma_cqt`, `beat_track`, and triad templates on chroma."""
    import librosa

    samples = librosa.resample(samples, orig_sr=SAMPLE_RATE, target_sr=LIBROSA_RATE)
    tempo, _ = librosa.beat.beat_track(y=samples, sr=LIBROSA_RATE)
    chroma = librosa.feature.chroma_cqt(y=samples, sr=LIBROSA_RATE)
    return {"key": profile_key(chroma.mean(axis=1)), "tempo": float(np.atleast_1d(tempo)[0]), "chords": template_chords(chroma)}


def profile_key(chroma: np.ndarray) -> tuple[int, str]:
    """The key whose profile correlates best with a mean chroma, (12,)."""
    scored = [(float(np.corrcoef(np.roll(p, tonic), chroma)[0, 1]), tonic, mode) for mode, p in KOSTKA_PAYNE.items() for tonic in range(12)]
    _, tonic, mode = max(scored)
    return tonic, mode


def template_chords(chroma: np.ndarray) -> list[music.Span]:
    """Viterbi path through 24 triad templates: chroma (12, frames) -> spans."""
    import librosa

    names = [music.harte(root, kind) for kind in TRIADS for root in range(12)]
    templates = np.array([np.roll([float(i in notes) for i in range(12)], root) for notes in TRIADS.values() for root in range(12)])
    likeness = np.exp(8 * templates / np.sqrt(3) @ (chroma / (np.linalg.norm(chroma, axis=0) + 1e-9)))
    stay = librosa.sequence.transition_loop(len(names), CHORD_STAYS)
    path = librosa.sequence.viterbi_discriminative(likeness / likeness.sum(axis=0), stay)
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(a * LIBROSA_HOP / LIBROSA_RATE, b * LIBROSA_HOP / LIBROSA_RATE, names[path[a]]) for a, b in pairwise(edges)]


# --- musicnn -----------------------------------------------------------------------------------------------------------

VOICE = ("mtt:vocal", "mtt:vocals", "mtt:singing", "mtt:voice", "mtt:female vocal", "mtt:male vocal", "mtt:female voice",
         "mtt:male voice", "mtt:female", "mtt:male", "mtt:woman", "mtt:man")  # fmt: skip
VOCALISTS = ("msd:female vocalists", "msd:male vocalists")
MARGINS = (0.1, 0.25, 0.5, 1.0)  # of being sure: where musicnn is cut, whichever serves it best


def _by_musicnn() -> Callable[[Item], Guess]:
    """The tags of a published model as families and styles: the tables that label recordings, read on synthetic clips."""
    from mflamingo_cli.train.mini.corpora.pseudo_labels import clip_tags

    def estimate(item: Item) -> Guess:
        made = cached_json(item.clip, f"musicnn-{item.start:g}-{item.end:g}", lambda: clip_tags(item.samples())[1].mean(axis=0).tolist())
        tags = dict(zip(TAG_NAMES, made, strict=True))
        genres = {name: margin for name, margin in _margins(tags, GENRE_TAGS).items() if name in STYLES}
        voice = sum(max(tags[name] for name in names) for names in (VOICE, VOCALISTS))
        styles = sorted(genres, key=lambda name: -genres[name])
        return {"instruments": _margins(tags, INSTRUMENT_TAGS), "style": styles, "vocals": voice}

    return estimate


def _margins(tags: Mapping[str, float], table: Tagged) -> dict[str, float]:
    return {name: max(tags[tag] for tag in names) / sure for name, (names, sure, _) in table.items()}


def _margin_scores(ability: str, truths: Sequence[Any], claims: Sequence[Mapping[str, float]], **where: Any) -> list[Score]:
    """Families by how clear each is, cut where that serves best."""
    cuts = [[[name for name, margin in margins.items() if margin >= cut] for margins in claims] for cut in MARGINS]
    return family_scores(ability, truths, max(cuts, key=lambda said: micro_f1(family_rows(truths, said).sum(axis=1))), **where)


# --- jobs ----------------------------------------------------------------------------------------------------------------

FIGURES: dict[str, tuple[Callable[[Item], Any], Scoring]] = {  # what may be claimed: what is true, and how both are compared
    "key": (lambda item: None if item.recording else ground_truth.key_truth(item), music.key_scores),  # theirs is the estimators' own
    "tempo": (ground_truth.tempo_truth, music.tempo_scores),
    "meter": (lambda item: item.clip_labels.get("meter"), meter_scores),
    "sections": (ground_truth.form_truth, music.section_scores),
    "chords": (ground_truth.chord_sequence, music.chord_sequence_scores),
    "instruments": (ground_truth.families_truth, _margin_scores),
    "style": (ground_truth.names_truth("genre"), style_scores),
    "vocals": (ground_truth.vocals_truth, auc_scores),
}
ESTIMATORS: dict[str, Callable[[], Callable[[Item], Guess]]] = {
    "measure": lambda: _by_measure,
    "librosa": lambda: _by_librosa,
    "musicnn": _by_musicnn,
}
TEACHERS = {"measure", "musicnn"}  # they made the labels of the recordings, and say nothing about them here


@dataclass
class Baseline:
    """An estimator on the first `limit` excerpts."""

    name: str
    estimate: Callable[[Item], Guess]
    limit: int
    items: list[Item] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Estimate, where that proves anything; nothing is asked."""
        for item in items:
            if len(self.items) < self.limit and not (item.recording and self.name in TEACHERS):
                self.items.append(item)
                self.guesses.append(self.estimate(item))
        yield from ()

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures of everything that it says and whose truth is known."""
        for ability, (truth, scoring) in FIGURES.items():
            said = [(truth(item), guess[ability]) for item, guess in zip(self.items, self.guesses, strict=True) if ability in guess]
            pairs = [(true, claim) for true, claim in said if true is not None]
            yield from scored(scoring, ability, pairs, **{**where, "system": self.name})


def check_installed(names: Sequence[str]) -> None:
    """Raise ModelError for an estimator whose library is missing, before anything is encoded."""
    if "librosa" in names and importlib.util.find_spec("librosa") is None:
        raise ModelError("the baseline librosa needs librosa; install it with: pip install librosa")
