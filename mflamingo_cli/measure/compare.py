"""A claim beside a measured fact: whether they agree, and if not, how they are related."""

from __future__ import annotations

from dataclasses import dataclass

from mflamingo_cli.measure.facts import Key

TEMPO_TOLERANCE = 0.04 + 1e-9  # relative, 4 % included, as in MIREX tempo estimation
RATIOS = {"double": 2.0, "half": 0.5, "triple": 3.0, "third": 1 / 3, "three halves": 1.5, "two thirds": 2 / 3}  # claim over fact


@dataclass(frozen=True)
class Comparison:
    """Whether a claim agrees with a fact (None: one of them is missing), and the musical relation where it does not."""

    agrees: bool | None
    relation: str | None = None


def compare_tempi(fact_bpm: float | None, claimed_bpm: float | None) -> Comparison:
    """Equal within 4 %, or an octave or other simple ratio away: compare_tempi(87.5, 175) is a "double"."""
    if fact_bpm is None or claimed_bpm is None or fact_bpm <= 0 or claimed_bpm <= 0:
        return Comparison(None)
    ratio = claimed_bpm / fact_bpm
    if abs(ratio - 1) <= TEMPO_TOLERANCE:
        return Comparison(True)
    return Comparison(False, next((name for name, value in RATIOS.items() if abs(ratio / value - 1) <= TEMPO_TOLERANCE), None))


def compare_voices(fact: bool | None, claim: bool | None) -> Comparison:
    """Both sung, or both not."""
    return Comparison(None if fact is None or claim is None else fact == claim)


def compare_keys(fact: Key | None, claim: Key | None) -> Comparison:
    """The same key, or its "relative", "parallel" or a "fifth" away; the spelling does not matter."""
    if fact is None or claim is None:
        return Comparison(None)
    step = (claim.pitch - fact.pitch) % 12
    if fact.mode == claim.mode:
        return Comparison(True) if step == 0 else Comparison(False, "fifth" if step in (5, 7) else None)
    if step == 0:
        return Comparison(False, "parallel")
    return Comparison(False, "relative" if step == (9 if fact.mode == "major" else 3) else None)


def compare_meters(fact: str | None, claim: str | None) -> Comparison:
    """The same time signature."""
    return Comparison(None if fact is None or claim is None else fact == claim)
