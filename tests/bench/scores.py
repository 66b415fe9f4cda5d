"""How right guesses are: scores of one excerpt, and what is counted over a set of them. Shares and scores are 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mflamingo_cli.measure.compare import compare_keys, compare_tempi
from mflamingo_cli.measure.facts import Key, pitch_class
from mflamingo_cli.parsers import parse_key
from tests.bench.ears import AMONG, auc
from tests.bench.estimators import LIMIT_S, Guess, Spans
from tests.bench.songs import Song

FOUND_S = 0.07  # from a beat within which one counts as found, as in mir_eval
OCTAVES = {"double", "half", "triple", "third"}
SUNG_TAGS = {"metal": "genre", "rock": "genre", "classical": "genre", "strings": "instruments", "energetic": "mood"}
Said = Sequence[tuple[Song, Guess]]


def song_key(song: Song) -> Key | None:
    """The true key, where it is known."""
    return Key.of(pitch_class(song.key[0]), song.key[1]) if song.key else None  # type: ignore[arg-type]


def chord_scores(song: Song, guess: Spans) -> dict[str, float]:
    """Duration-weighted agreement by mir_eval."""
    import mir_eval

    end = min(song.chords[-1][1], LIMIT_S)
    truth = [(a, min(b, end), label) for a, b, label in song.chords if a < end]
    times, labels = np.array([c[:2] for c in truth]), [c[2] for c in truth]
    heard, names = mir_eval.util.adjust_intervals(np.array([c[:2] for c in guess]), [c[2] for c in guess], 0.0, end, "N", "N")
    result = mir_eval.chord.evaluate(times, labels, heard, names)
    return {f"chords {kind}": float(result[kind]) for kind in ("majmin", "root", "sevenths") if not np.isnan(result[kind])}


def section_scores(song: Song, guess: Spans) -> dict[str, float]:
    """Boundaries within 3 s and 0.5 s, and whether equal letters fall together."""
    import mir_eval

    end = min(song.sections[-1][1], LIMIT_S)
    (times, labels), (heard, names) = (
        (np.array([(a, min(b, end)) for a, b, _ in part if a < end]), [c for a, _, c in part if a < end]) for part in (song.sections, guess)
    )
    times[-1, 1] = heard[-1, 1] = end
    hits = {f"sections F@{w:g}": mir_eval.segment.detection(times, heard, w, trim=True)[2] for w in (3.0, 0.5)}
    return {**hits, "sections pairwise": mir_eval.segment.pairwise(times, labels, heard, names)[2]}


def tempo_scores(truth: float, bpm: float | None) -> dict[str, float]:
    """Right within 4 % (Acc1), or but for a factor of two or three (Acc2), and within 1 %."""
    told = compare_tempi(truth, bpm or 1e-9)
    return {
        "tempo Acc1": float(bool(told.agrees)),
        "tempo Acc2": float(bool(told.agrees) or told.relation in OCTAVES),
        "tempo 1 %": float(bpm is not None and abs(bpm / truth - 1) < 0.01),
    }


def key_scores(truth: Key, told: str | None) -> dict[str, float]:
    """Right, and MIREX's weights of near misses."""
    import mir_eval

    key = parse_key(told or "")
    weighted = mir_eval.key.weighted_score(*(f"{one.usual.tonic} {one.mode}" for one in (truth, key))) if key else 0.0
    return {"key exact": float(bool(key and compare_keys(truth, key).agrees)), "key MIREX": float(weighted)}


def scores(song: Song, guess: Guess, tells: Sequence[str]) -> dict[str, float]:
    """Every measure that the truth and the program allow; what a program that tells of it does not say counts as wrong."""
    import mir_eval

    out: dict[str, float] = {}
    key = song_key(song)
    if song.bpm is not None and "tempo" in tells:
        out |= tempo_scores(song.bpm, guess.bpm)
    if key and "key" in tells:
        out |= key_scores(key, guess.key)
        out |= {"key, where told": out["key exact"]} if guess.key else {}
    if song.meter and "meter" in tells:
        out["meter"] = float(song.meter == guess.meter)
        out |= {"meter, where told": float(song.meter == guess.meter)} if guess.meter else {}
    if song.chords and guess.beats:
        truth, beats = np.array([beat for beat in song.beats if beat < LIMIT_S]), np.array(guess.beats)
        off = np.abs(beats[:, None] - truth).min(axis=1)
        if (off < FOUND_S).any():
            out["beats off ms"] = 1000 * float(np.median(off[off < FOUND_S]))
        out["beats F"] = float(mir_eval.beat.f_measure(truth[truth > 5], beats[beats > 5]))
    if song.chords and guess.chords:
        out |= chord_scores(song, guess.chords)
    if song.sections and guess.sections:
        out |= section_scores(song, guess.sections)
    if "nothing" in song.labels:
        told = {"tempo": guess.bpm, "key": guess.key, "meter": guess.meter, "voice": guess.sung or None}
        out |= {f"{name} told of no music": float(told[name] is not None) for name in told if name in tells}
    if "voice" in tells and {"sung", "unsung"} & song.labels:
        out |= _voice_scores("sung" in song.labels, guess.sung)
    return out | (tag_scores(song, guess) if "tags" in tells else {})


def _voice_scores(sung: bool, told: bool | None) -> dict[str, float]:
    kind = "sung" if sung else "unsung"
    return {f"{kind}, called sung": float(told is True), f"{kind}, called not sung": float(told is False)}


def tag_scores(song: Song, guess: Guess) -> dict[str, float]:
    """Of each name that is told of an excerpt whose kind is labelled: whether it is right."""
    return {f"{name}, right": float(name in song.labels) for name in guess.tags if set(AMONG[SUNG_TAGS[name]].split()) & song.labels}


def known(song: Song) -> frozenset[str]:
    """What of an excerpt can be judged, in the words of `Estimator.tells`."""
    kinds = {"tempo": song.bpm, "key": song.key, "meter": song.meter, "voice": {"sung", "unsung"} & song.labels, "tags": song.labels}
    return frozenset(name for name, truth in kinds.items() if truth or "nothing" in song.labels)


# --- over a set ------------------------------------------------------------------------------------------------------------------


def bootstrap(score: Callable[[np.ndarray], float], count: int, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of what `score` makes of rows drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, count, (draws, count))
    with np.errstate(invalid="ignore"):
        found = np.array([score(rows) for rows in drawn])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def voice_auc(said: Said) -> tuple[float, float, float, int] | None:
    """Of the evidence of singing: AUC with its interval, and the number of excerpts; None without both kinds."""
    known = [(guess.sung_evidence, "sung" in song.labels) for song, guess in said if {"sung", "unsung"} & song.labels]
    evidence = np.array([value for value, _ in known if value is not None])
    right = np.array([sung for value, sung in known if value is not None])
    if not len(right) or right.all() or not right.any():
        return None
    return auc(evidence, right), *bootstrap(lambda rows: auc(evidence[rows], right[rows]), len(right)), len(right)
