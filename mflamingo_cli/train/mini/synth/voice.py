"""A sung line, synthesised: a singer, syllables, a pitch curve, then glottal pulses and noise through a vocal tract. Seconds, Hz, MIDI.

Source and filter as in Klatt's cascade synthesiser (JASA 67, 1980), but filtered block by block in the frequency domain. Everything is
drawn from one `numpy` generator: a line is a pure function of (generator state, notes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

FRAME_S = 0.005  # one row of controls
HOP_FRAMES = 2  # filters are exchanged every 10 ms
BLOCK_HOPS = 7  # a filtered block: 20 ms of source and 50 ms of ringing
LEVEL = 0.1  # RMS of the line where it sounds
PEAK = 0.98
PHRASE_GAP_S = 0.3  # a rest of this length ends a phrase
MAX_PHRASE_S = 7.0  # then the singer must breathe

# F1 F2 F3 of /i ɪ ɛ æ ɑ ɔ ʊ u ʌ ɝ/: means of men, women and children (Peterson & Barney, JASA 24, 1952, table II)
VOWELS = {
    "man": ((270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
            (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690)),
    "woman": ((310, 2790, 3310), (430, 2480, 3070), (610, 2330, 2990), (860, 2050, 2850), (850, 1220, 2810),
              (590, 920, 2710), (470, 1160, 2680), (370, 950, 2670), (760, 1400, 2780), (500, 1640, 1960)),
    "child": ((370, 3200, 3730), (530, 2730, 3600), (690, 2610, 3570), (1010, 2320, 3320), (1030, 1370, 3170),
              (680, 1060, 3180), (560, 1410, 3310), (430, 1170, 3260), (850, 1590, 3360), (560, 1820, 2160)),
}  # fmt: skip
VOWEL_SHARE = np.array([0.14, 0.11, 0.13, 0.09, 0.16, 0.1, 0.04, 0.09, 0.1, 0.04])  # open vowels carry sung lines
OPEN_VOWELS = (4, 5, 7, 3, 0, 8)  # of a line without words: ah, aw, oo, …
GLIDES = {2: 0, 4: 0, 8: 7, 5: 0, 3: 7}  # diphthongs, vowel -> its end: ei, ai, ou, oi, au
TRACTS = {"man": 1.0, "woman": 1.17, "child": 1.34}  # formant scale, mean F3 of the table over that of men
BANDWIDTHS = (70, 90, 140, 230, 290, 380, 480, 600)  # F1 up; Hz for a man's tract
N_FORMANTS = 8  # up to 8 kHz, 1 kHz apart in a tract of 17 cm
RANGES = {"man": ((40, 62), (45, 67), (48, 71)), "woman": ((53, 74), (57, 79), (60, 84)), "child": ((57, 76), (59, 79))}


class Phone(NamedTuple):
    """A stretch of speech: levels of voicing, breath (through the whole tract) and hiss (at the lips), formants of a man's tract."""

    seconds: float
    voice: float = 0.0
    breath: float = 0.0
    hiss: float = 0.0
    hiss_hz: float = 5000.0
    nasal: float = 0.0
    formants: tuple[float, float, float] | None = None  # None: those of the vowel


# Formants of consonants: Klatt 1980, table III. Peaks of frication: Jongman, Wayland & Wong, JASA 108, 2000
CONSONANTS: dict[str, tuple[Phone, ...]] = {
    "": (),
    "h": (Phone(0.07, breath=1.0),),
    "m": (Phone(0.08, voice=0.5, nasal=1.0, formants=(480, 1270, 2130)),),
    "n": (Phone(0.07, voice=0.5, nasal=1.0, formants=(480, 1340, 2470)),),
    "l": (Phone(0.06, voice=0.6, formants=(310, 1050, 2880)),),
    "r": (Phone(0.07, voice=0.6, formants=(310, 1060, 1380)),),
    "w": (Phone(0.07, voice=0.6, formants=(290, 610, 2150)),),
    "j": (Phone(0.07, voice=0.6, formants=(260, 2070, 3020)),),
    "f": (Phone(0.1, hiss=0.35, hiss_hz=7733, formants=(340, 1100, 2080)),),
    "v": (Phone(0.06, voice=0.35, hiss=0.2, hiss_hz=7733, formants=(220, 1100, 2080)),),
    "th": (Phone(0.05, voice=0.35, hiss=0.15, hiss_hz=7470, formants=(270, 1290, 2540)),),
    "s": (Phone(0.11, hiss=1.0, hiss_hz=6839, formants=(320, 1390, 2530)),),
    "z": (Phone(0.08, voice=0.3, hiss=0.6, hiss_hz=6839, formants=(240, 1390, 2530)),),
    "sh": (Phone(0.11, hiss=1.1, hiss_hz=3820, formants=(300, 1840, 2750)),),
    "p": (Phone(0.06, formants=(400, 1100, 2150)), Phone(0.01, hiss=0.5, hiss_hz=900), Phone(0.035, breath=0.8)),
    "t": (Phone(0.05, formants=(400, 1600, 2600)), Phone(0.015, hiss=1.0, hiss_hz=4500), Phone(0.04, breath=0.8)),
    "k": (Phone(0.055, formants=(300, 1990, 2850)), Phone(0.02, hiss=0.8, hiss_hz=2000), Phone(0.045, breath=0.8)),
    "b": (Phone(0.05, voice=0.1, formants=(200, 1100, 2150)), Phone(0.01, hiss=0.3, hiss_hz=900)),
    "d": (Phone(0.045, voice=0.1, formants=(200, 1600, 2600)), Phone(0.01, hiss=0.6, hiss_hz=4000)),
    "g": (Phone(0.05, voice=0.1, formants=(200, 1990, 2850)), Phone(0.015, hiss=0.5, hiss_hz=2000)),
    "st": (Phone(0.08, hiss=1.0, hiss_hz=6839, formants=(320, 1390, 2530)), Phone(0.03), Phone(0.01, hiss=0.8, hiss_hz=4500)),
    "ch": (Phone(0.045, formants=(350, 1800, 2820)), Phone(0.06, hiss=1.0, hiss_hz=3820)),
}  # fmt: skip
CODAS = ("", "", "", "", "n", "m", "l", "s", "t", "z", "d", "r")
SCAT = ("l", "n", "d", "h", "j", "b", "w")  # la la, na na, yeah, …
VOICE, BREATH, HISS, HISS_HZ, NASAL, F1, F2, F3 = range(8)  # columns of the controls


@dataclass(frozen=True)
class Singer:
    """Who sings, and how: fixed for a line."""

    kind: str  # key of VOWELS
    low: int
    high: int  # range, MIDI
    tract: float  # factor on the formants of its kind
    words: str  # "words" | "scat" | "vocalise" | "spoken"
    open_quotient: float = 0.6
    asymmetry: float = 0.7
    tilt_hz: float = 2500.0  # above it the voice falls by another 6 dB an octave
    breath: float = 0.02
    jitter: float = 0.3  # cents a frame
    shimmer: float = 0.03
    vibrato_hz: float = 5.5
    vibrato_cents: float = 40.0
    vibrato_delay_s: float = 0.3
    glide_s: float = 0.07
    scoop: float = 0.4  # share of notes that are reached from below
    drift_cents: float = 8.0
    ring: float = 0.3  # singer's formant: F3-F5 drawn together (Sundberg, JASA 55, 1974)
    growl: float = 0.0  # depth of the modulation at half the pitch
    diction: float = 1.0  # level of consonants
    restless: float = 0.03  # share by which formants stray within a vowel
    articulation_s: float = 0.07  # time in which formants move
    fall: float = 0.2  # share of phrase ends that let the pitch drop
    attack_s: float = 0.03
    company: str = "solo"  # key of COMPANY_SHARE


# open quotient, tilt Hz, breath, vibrato cents, glide s, growl, ring: from-to. Lax voices open longer and fall faster
# (Doval, d'Alessandro & Henrich, Acta Acustica 92, 2006)
STYLES = {
    "breathy": ((0.7, 0.9), (500, 1800), (0.06, 0.2), (0, 50), (0.05, 0.2), (0, 0), (0.1, 0.6)),
    "pop": ((0.5, 0.7), (1500, 4000), (0.015, 0.06), (10, 70), (0.04, 0.16), (0, 0), (0.2, 0.8)),
    "belt": ((0.35, 0.5), (3000, 6500), (0.005, 0.03), (30, 100), (0.04, 0.12), (0, 0.1), (0.4, 1)),
    "classical": ((0.45, 0.65), (1800, 4000), (0.003, 0.012), (60, 130), (0.05, 0.16), (0, 0), (0.7, 1)),
    "rock": ((0.35, 0.55), (3000, 7000), (0.02, 0.08), (0, 70), (0.03, 0.14), (0.1, 0.5), (0.2, 0.9)),
    "tuned": ((0.5, 0.7), (2000, 4500), (0.01, 0.04), (0, 15), (0.006, 0.02), (0, 0), (0.1, 0.6)),
}
STYLE_SHARE = (0.17, 0.33, 0.17, 0.1, 0.13, 0.1)
WORDS_SHARE = {"words": 0.72, "scat": 0.1, "vocalise": 0.12, "spoken": 0.06}
COMPANY_SHARE = {"solo": 0.7, "double": 0.15, "octave": 0.07, "choir": 0.08}


@dataclass(frozen=True)
class Syllable:
    """One syllable: its vowel sounds from `start` to `end`, the consonants of its onset before that."""

    start: float
    end: float
    pitch: float  # MIDI
    level: float  # linear
    vowel: int
    glide: int | None  # vowel it ends in
    onset: str
    coda: str
    tied: bool  # sung on without a new attack
    opens: bool  # first of a phrase
    closes: bool  # a rest follows


def sing(
    rng: np.random.Generator,
    notes: Sequence[tuple[float, float, float]],
    duration_s: float,
    sample_rate: int = 16_000,
    singer: Singer | None = None,
) -> np.ndarray:
    """Sing a line as some drawn singer, sometimes doubled or as a small choir.

    Parameters
    ----------
    rng
        Draws everything; the result is a function of its state.
    notes
        (start, end, MIDI pitch), seconds; one at a time. Pitches beyond the singer's range are moved by octaves.
    duration_s
        Length of the result.
    singer
        Who sings; drawn when not given. One whose `words` are "spoken" keeps neither the pitches nor the rhythm.

    Returns
    -------
    (round(duration_s * sample_rate),) float32, RMS `LEVEL` where it sounds; zero where there is neither note, consonant nor breath.
    """
    n_samples = round(duration_s * sample_rate)
    line = [n for n in sorted(notes) if n[1] - n[0] >= 0.04 and n[0] < duration_s]
    if not line:
        return np.zeros(n_samples, np.float32)
    singer = singer or draw_singer(rng)
    syllables = lyrics(rng, singer, in_range(line, singer))
    total = _voice(rng, singer, syllables, n_samples, sample_rate)
    for other, level in _company(rng, singer):
        moved = [replace(s, pitch=s.pitch + other.low - singer.low) for s in syllables]
        total += level * _voice(rng, other, moved, n_samples, sample_rate)
    sounding = np.abs(total) > 1e-4 * np.abs(total).max()
    total *= LEVEL / max(float(np.sqrt(np.mean(total[sounding] ** 2))), 1e-9)
    return (total / max(1.0, float(np.abs(total).max()) / PEAK)).astype(np.float32)


def draw_singer(rng: np.random.Generator) -> Singer:
    """A singer: kind of voice, range, style and habits."""
    kind = str(rng.choice(list(RANGES), p=[0.47, 0.47, 0.06]))
    low, high = RANGES[kind][rng.integers(len(RANGES[kind]))]
    name = rng.choice(list(STYLES), p=STYLE_SHARE)
    quotient, tilt, breath, vibrato, glide, growl, ring = (float(rng.uniform(*span)) for span in STYLES[name])
    return Singer(
        kind, low, high,
        tract=float(rng.uniform(0.92, 1.08)),
        words=str(rng.choice(list(WORDS_SHARE), p=list(WORDS_SHARE.values()))),
        open_quotient=quotient, asymmetry=float(rng.uniform(0.62, 0.8)), tilt_hz=tilt, breath=breath,
        jitter=float(rng.uniform(0, 6)), shimmer=float(rng.uniform(0.01, 0.08)),
        vibrato_hz=float(rng.uniform(4.8, 6.8)), vibrato_cents=vibrato, vibrato_delay_s=float(rng.uniform(0.1, 0.5)),
        glide_s=glide, scoop=0.0 if name == "tuned" else float(rng.uniform(0, 0.5)),
        drift_cents=0.0 if name == "tuned" else float(rng.uniform(4, 16)),
        ring=ring, growl=growl, diction=float(rng.uniform(0.5, 1.3)), restless=float(rng.uniform(0.02, 0.06)),
        attack_s=float(rng.uniform(0.015, 0.08)), articulation_s=float(rng.uniform(0.05, 0.14)),
        fall=0.0 if name == "tuned" else float(rng.uniform(0, 0.5)),
        company=str(rng.choice(list(COMPANY_SHARE), p=list(COMPANY_SHARE.values()))),
    )  # fmt: skip


def _company(rng: np.random.Generator, singer: Singer) -> list[tuple[Singer, float]]:
    """Other voices on the same words with their levels, in unison or an octave away: no other pitch classes."""
    if singer.words == "spoken":
        return []
    others = []
    for _ in range({"solo": 0, "double": 1, "octave": 1, "choir": 3}[singer.company]):
        shift = int(rng.choice([-12, 12])) if singer.company == "octave" else 0
        kind = {-12: "man", 12: "woman"}.get(shift, singer.kind)
        others.append(replace(
            singer, kind=kind, low=singer.low + shift, high=singer.high + shift, tract=singer.tract * float(rng.uniform(0.96, 1.04)),
            vibrato_hz=singer.vibrato_hz * float(rng.uniform(0.9, 1.1)), drift_cents=singer.drift_cents + 4,
            breath=singer.breath * float(rng.uniform(0.8, 2)),
        ))  # fmt: skip
    return [(other, float(rng.uniform(0.3, 0.9))) for other in others]


def in_range(notes: Sequence[tuple[float, float, int]], singer: Singer) -> list[tuple[float, float, int]]:
    """Move the line as a whole to where most of it can be sung, then the rest note by note; by octaves only."""
    pitches = np.array([pitch for *_, pitch in notes])
    inside = {shift: int(np.sum((pitches + shift >= singer.low) & (pitches + shift <= singer.high))) for shift in range(-60, 61, 12)}
    shift = max(inside, key=lambda octaves: (inside[octaves], -abs(octaves)))
    moved = []
    for start, end, pitch in notes:
        sung = pitch + shift
        sung += 12 * -(-max(0, singer.low - sung) // 12)
        sung -= 12 * -(-max(0, sung - singer.high) // 12)
        moved.append((start, end, sung))
    return moved


def lyrics(rng: np.random.Generator, singer: Singer, notes: Sequence[tuple[float, float, int]]) -> list[Syllable]:
    """Put syllables under the notes: phrases between rests, ties within them, levels that rise and fall with the phrase."""
    if singer.words == "spoken":
        notes = _spoken(rng, singer, notes)
    names = list(CONSONANTS) if singer.words in ("words", "spoken") else [str(rng.choice(SCAT))]
    fixed = int(rng.choice(OPEN_VOWELS))
    weight, syllables, since = _phrase_levels(rng, notes), [], 0.0
    for index, (start, end, pitch) in enumerate(notes):
        gap = start - notes[index - 1][1] if index else 1e9
        opens = gap >= PHRASE_GAP_S or start - since > MAX_PHRASE_S
        since = start if opens else since
        tied = not opens and gap < 0.06 and rng.random() < {"vocalise": 0.8, "spoken": 0.0}.get(singer.words, 0.12)
        vowel = int(rng.choice(len(VOWEL_SHARE), p=VOWEL_SHARE)) if singer.words in ("words", "spoken") else fixed
        vowel = syllables[-1].vowel if tied else vowel
        onset = "" if tied or (singer.words == "vocalise" and rng.random() < 0.8) else str(rng.choice(names))
        closes = index + 1 == len(notes) or notes[index + 1][0] - end > 0.1
        coda = str(rng.choice(CODAS)) if singer.words in ("words", "spoken") and (closes or rng.random() < 0.25) else ""
        glide = GLIDES.get(vowel) if singer.words in ("words", "spoken") and rng.random() < 0.4 else None
        if index + 1 < len(notes) and notes[index + 1][0] - since > MAX_PHRASE_S:
            end = max(start + 0.5 * (end - start), end - 0.25)  # room to breathe
        syllables.append(Syllable(start, end, float(pitch), weight[index], vowel, glide, onset, coda, tied, opens, closes))
    return syllables


def _phrase_levels(rng: np.random.Generator, notes: Sequence[tuple[float, float, int]]) -> list[float]:
    """Linear level of each note: an arch over each phrase, louder high notes, accents."""
    starts = [i for i in range(len(notes)) if i == 0 or notes[i][0] - notes[i - 1][1] >= PHRASE_GAP_S]
    middle, levels = float(np.median([pitch for *_, pitch in notes])), []
    for first, last in zip(starts, [*starts[1:], len(notes)], strict=True):
        offset, arch = rng.normal(0, 2), rng.uniform(0, 5)
        for index in range(first, last):
            place = (index - first + 0.5) / (last - first)
            decibels = offset + arch * (np.sin(np.pi * place) - 0.6) + 0.25 * (notes[index][2] - middle) + rng.normal(0, 1.2)
            levels.append(float(10 ** (np.clip(decibels, -12, 9) / 20)))
    return levels


def _spoken(rng: np.random.Generator, singer: Singer, notes: Sequence[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Speech on the rhythm of the notes: long ones become several syllables; pitch falls over a phrase, with accents."""
    unit, base = rng.uniform(0.13, 0.24), singer.low + rng.uniform(2, 8)
    spoken: list[tuple[float, float, float]] = []
    since = 0.0
    for start, end, _ in notes:
        if not spoken or start - spoken[-1][1] >= PHRASE_GAP_S:
            since = start
        count = max(1, round((end - start) / unit))
        for at in np.linspace(start, end, count, endpoint=False):
            pitch = base - 1.2 * (at - since) % 5 + (rng.uniform(2, 6) if rng.random() < 0.3 else rng.normal(0, 0.8))
            spoken.append((float(at), float(at) + (end - start) / count, float(pitch)))
    return spoken


def _voice(rng: np.random.Generator, singer: Singer, syllables: Sequence[Syllable], n_samples: int, rate: int) -> np.ndarray:
    """One voice: controls, source, tract. -> (n_samples,) float64."""
    hop = round(HOP_FRAMES * FRAME_S * rate)
    n_frames = HOP_FRAMES * (-(-n_samples // hop) + 1)
    controls = draw_controls(rng, singer, syllables, n_frames)
    pitch = draw_pitch(rng, singer, syllables, n_frames)
    pulses, noise = _source(rng, singer, controls, 440 * 2 ** ((pitch - 69) / 12), hop // HOP_FRAMES, rate)
    half = 440 * 2 ** ((pitch[::HOP_FRAMES] - 69) / 12)
    return _filter(rng, singer, controls[::HOP_FRAMES], half, pulses, noise, hop, rate)[:n_samples]


def draw_controls(rng: np.random.Generator, singer: Singer, syllables: Sequence[Syllable], n_frames: int) -> np.ndarray:
    """What the mouth does: -> (n_frames, 8), columns VOICE to F3, already smooth."""
    rows = np.zeros((n_frames, 8))
    rows[:, HISS_HZ] = 5000
    rows[:, F1:] = np.array(VOWELS[singer.kind][8]) * singer.tract
    previous_end = 0.0
    for index, syllable in enumerate(syllables):
        following = syllables[index + 1].start if index + 1 < len(syllables) else 1e9
        if syllable.opens and syllable.start - previous_end > 0.45 and rng.random() < 0.8:
            _breathe(rng, singer, rows, previous_end, syllable.start)
        _speak(rng, singer, syllable, rows, previous_end, following)
        previous_end = syllable.end
    rows[:, F1:] = _smooth(rows[:, F1:], singer.articulation_s)
    for column in (F1, F2, F3):  # no vowel is held still
        rows[:, column] *= 1 + singer.restless * _wander(rng, n_frames, 0.12)
    rows[:, [VOICE, NASAL]] = _smooth(rows[:, [VOICE, NASAL]], singer.attack_s)
    rows[:, [BREATH, HISS]] = _smooth(rows[:, [BREATH, HISS]], 0.015)
    return rows


def _breathe(rng: np.random.Generator, singer: Singer, rows: np.ndarray, after: float, before: float) -> None:
    """An audible breath before a phrase, through an open mouth."""
    end = before - rng.uniform(0.12, 0.2)
    start = max(after + 0.05, end - rng.uniform(0.2, 0.5))
    span = slice(max(0, round(start / FRAME_S)), max(0, round(end / FRAME_S)))
    rows[span, BREATH] = rng.uniform(0.03, 0.25) * np.hanning(span.stop - span.start + 2)[1:-1][: len(rows[span])]


def _speak(rng: np.random.Generator, singer: Singer, syllable: Syllable, rows: np.ndarray, previous_end: float, following: float) -> None:
    """Write one syllable into the controls: consonants before the beat, the vowel on it, the coda at its end."""
    table, scale = VOWELS[singer.kind], singer.tract
    vowel = np.array(table[syllable.vowel]) * scale * rng.normal(1, 0.02, 3)
    start, end = round(syllable.start / FRAME_S), min(round(syllable.end / FRAME_S), len(rows))
    swell = np.interp(np.linspace(0, 1, max(0, end - start)), (0, rng.uniform(0.1, 0.6), 1), (rng.uniform(0.5, 1), 1, rng.uniform(0.3, 1)))
    rows[start:end, VOICE] = syllable.level * swell
    rows[start:end, F1:] = vowel
    if syllable.glide is not None:
        turn = start + int((end - start) * rng.uniform(0.55, 0.8))
        rows[turn:end, F1:] = 0.4 * vowel + 0.6 * np.array(table[syllable.glide]) * scale
    room = syllable.start - max(0.0, previous_end - 0.06 if syllable.start - previous_end < 0.08 else previous_end)
    onset = _stretched(CONSONANTS[syllable.onset], max(room, 0.0), rng.uniform(0.8, 1.3))
    at = start - round(sum(phone.seconds for phone in onset) / FRAME_S)
    for phone in onset:
        at = _write(singer, phone, rows, at, syllable.level, vowel)
    coda = _stretched(CONSONANTS[syllable.coda], max(0.0, min(following - syllable.end, 0.15)) + 0.05, rng.uniform(0.7, 1.2))
    at = end - round(0.03 / FRAME_S) if coda else end
    for phone in coda:
        at = _write(singer, phone, rows, at, syllable.level * 0.7, vowel)


def _stretched(phones: Sequence[Phone], room: float, pace: float) -> list[Phone]:
    """Phones at a pace, squeezed into the room there is (s); hardly any room, no consonant."""
    total = sum(phone.seconds for phone in phones)
    factor = min(pace, room / total) if total else 0.0
    return [phone._replace(seconds=phone.seconds * factor) for phone in phones] if factor > 0.4 else []


def _write(singer: Singer, phone: Phone, rows: np.ndarray, at: int, level: float, vowel: np.ndarray) -> int:
    """Write a phone from frame `at`; returns the frame after it."""
    stop = at + max(1, round(phone.seconds / FRAME_S))
    span = slice(max(0, at), max(0, stop))
    noisy = level * singer.diction
    rows[span, :F1] = (phone.voice * level, phone.breath * noisy * 0.25, phone.hiss * noisy * 0.12, phone.hiss_hz, phone.nasal)
    rows[span, F1:] = vowel if phone.formants is None else np.array(phone.formants) * TRACTS[singer.kind] * singer.tract
    return stop


def draw_pitch(rng: np.random.Generator, singer: Singer, syllables: Sequence[Syllable], n_frames: int) -> np.ndarray:
    """The pitch curve: notes, glides, scoops, late vibrato, drift and jitter. -> (n_frames,) MIDI."""
    target = np.full(n_frames, syllables[0].pitch)
    bends, depth = np.zeros(n_frames), np.zeros(n_frames)
    spoken = singer.words == "spoken"
    for syllable in syllables:
        start, end = (round(t / FRAME_S) for t in (syllable.start, syllable.end))
        target[max(0, start) :] = syllable.pitch
        since = np.arange(max(0, min(end, n_frames) - start)) * FRAME_S
        if not spoken and not syllable.tied and rng.random() < singer.scoop:
            bends[start:end] -= rng.uniform(0.5, 2) * np.exp(-since / rng.uniform(0.02, 0.05))
        if not spoken and syllable.closes and rng.random() < singer.fall:
            bends[start:end] -= rng.uniform(0.5, 3) * np.clip(1 - (since[-1:] - since) / rng.uniform(0.06, 0.2), 0, 1)
        grown = np.clip((since - singer.vibrato_delay_s) / 0.3, 0, 1)
        depth[start:end] = 0 if spoken else grown * singer.vibrato_cents * rng.uniform(0.7, 1.2)
    glide = 0.1 if spoken else singer.glide_s
    early = round(glide / 4 / FRAME_S)
    target = np.concatenate([target[early:], np.full(early, target[-1])])  # most of a glide lies before the beat
    rate = singer.vibrato_hz * (1 + 0.05 * _wander(rng, n_frames, 0.5))
    vibrato = _smooth(depth, 0.05) * np.sin(2 * np.pi * np.cumsum(rate) * FRAME_S)
    fine = vibrato + singer.drift_cents * _wander(rng, n_frames, 0.4) + singer.jitter * rng.standard_normal(n_frames)
    return _smooth(target, glide) + bends + fine / 100


def _wander(rng: np.random.Generator, n_frames: int, seconds: float) -> np.ndarray:
    """Slow noise of unit variance: (n_frames,)."""
    width = max(1, round(seconds / FRAME_S))
    points = rng.standard_normal(n_frames // width + 3)
    return np.interp(np.arange(n_frames) / width, np.arange(len(points)), points)


def _smooth(rows: np.ndarray, seconds: float) -> np.ndarray:
    """Hann-weighted running mean along axis 0, ends held."""
    width = round(seconds / FRAME_S)
    if width < 2:
        return rows
    kernel = np.hanning(width + 2)[1:-1] / np.hanning(width + 2).sum()
    padded = np.pad(rows, [(width // 2, width - 1 - width // 2)] + [(0, 0)] * (rows.ndim - 1), mode="edge")
    if rows.ndim == 1:
        return np.convolve(padded, kernel, mode="valid")
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)


def _stretch(values: np.ndarray, step: int) -> np.ndarray:
    """Linear interpolation of frames to samples: (n,) -> (n * step,)."""
    ramp = np.arange(step) / step
    rise = np.append(np.diff(values), 0.0)
    return (values[:, None] + rise[:, None] * ramp).ravel()


def _source(
    rng: np.random.Generator, singer: Singer, controls: np.ndarray, hz: np.ndarray, step: int, rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Glottal pulses of flat spectrum, band-limited (a closed sum of cosines), and breath noise, both (n,) float32."""
    f0 = _stretch(hz, step)
    phase = 2 * np.pi * np.cumsum(f0) / rate
    partials = np.floor(0.48 * rate / f0)
    half = np.sin(phase / 2)
    safe = np.where(np.abs(half) < 1e-6, 1.0, half)
    pulses = np.where(np.abs(half) < 1e-6, partials, np.sin((partials + 0.5) * phase) / (2 * safe) - 0.5)
    voiced = controls[:, VOICE] * (1 + singer.shimmer * rng.standard_normal(len(controls)))
    pulses *= _stretch(np.maximum(voiced, 0), step) * f0 / 100
    if singer.growl:
        pulses *= 1 - singer.growl * (0.5 + 0.5 * np.cos(phase / 2 + 0.3 * np.sin(phase / 5)))
    noise = rng.standard_normal(len(phase), dtype=np.float32)
    noise *= _stretch(controls[:, BREATH], step) + singer.breath * _stretch(controls[:, VOICE], step) * (1 - 0.7 * np.cos(phase))
    return pulses.astype(np.float32), noise


def _filter(
    rng: np.random.Generator, singer: Singer, rows: np.ndarray, hz: np.ndarray, pulses: np.ndarray, noise: np.ndarray, hop: int, rate: int
) -> np.ndarray:
    """Pass the source through the tract of each hop and overlap-add: -> (n_hops * hop,) float64."""
    n_hops, size = len(rows) - 1, BLOCK_HOPS * hop
    window = np.hanning(2 * hop + 1)[:-1].astype(np.float32)
    active = np.flatnonzero((rows[:, VOICE] + rows[:, BREATH])[:-1] + (rows[:, VOICE] + rows[:, BREATH])[1:] > 1e-5)
    blocks = np.zeros((n_hops, size), np.float32)
    if len(active):
        tract, glottis = _responses(singer, rows[active], hz[active], size, rate)
        at = active[:, None] * hop + np.arange(2 * hop)
        spectrum = np.fft.rfft(pulses[at] * window, size) * glottis + np.fft.rfft(noise[at] * window, size)
        blocks[active] = np.fft.irfft(spectrum * tract, size)
    hissing = np.flatnonzero(rows[:-1, HISS] > 1e-5)
    if len(hissing):
        blocks[hissing, : 2 * hop] += _hiss(rng, rows[hissing], 2 * hop, rate) * window
    parts = blocks.reshape(n_hops, BLOCK_HOPS, hop)
    total = np.zeros((n_hops + BLOCK_HOPS, hop))
    for k in range(BLOCK_HOPS):
        total[k : k + n_hops] += parts[:, k]
    return total.ravel()


def _hiss(rng: np.random.Generator, rows: np.ndarray, size: int, rate: int) -> np.ndarray:
    """Frication: noise with a broad peak at HISS_HZ. -> (n, size)."""
    bins = np.fft.rfftfreq(size, 1 / rate)
    octaves = np.log2(np.maximum(bins, 50) / rows[:, HISS_HZ, None])
    shape = np.exp(-0.5 * (octaves / np.where(octaves < 0, 0.4, 0.7)) ** 2)
    spectrum = shape * (rng.standard_normal(shape.shape) + 1j * rng.standard_normal(shape.shape))
    return np.fft.irfft(spectrum * np.sqrt(size), size) * rows[:, HISS, None]


def _responses(singer: Singer, rows: np.ndarray, hz: np.ndarray, size: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Responses of tract and glottis for every hop: 2 x (n, size // 2 + 1) complex64."""
    scale = TRACTS[singer.kind] * singer.tract
    formants = np.empty((len(rows), N_FORMANTS))
    formants[:, :3] = rows[:, F1:]
    formants[:, 3:] = 1000 * (np.arange(3, N_FORMANTS) + 0.5) * scale
    formants[:, 0] = np.maximum(formants[:, 0], 1.02 * hz)  # singers open the mouth when the pitch passes F1 (Sundberg 1987)
    formants[:, 1] = np.maximum(formants[:, 1], formants[:, 0] + 200)
    centre = 2900 * scale**0.5
    formants[:, 2:5] += 0.7 * singer.ring * (centre + np.array([-250, 0, 350]) - formants[:, 2:5])
    widths = np.broadcast_to(np.array(BANDWIDTHS) * scale, formants.shape) * (1 + 0.5 * rows[:, NASAL, None])
    widths = np.where(formants < 0.48 * rate, widths, np.inf)
    nasal_pole = np.full((len(rows), 1), 270 * scale)
    nasal_zero = nasal_pole + rows[:, NASAL, None] * (700 * scale)  # apart only in nasals (Klatt 1980)
    narrow = np.full((len(rows), 1), 100.0)
    poles = _polynomial(np.hstack([formants, nasal_pole]), np.hstack([widths, narrow]), rate)
    tract = np.fft.rfft(_polynomial(nasal_zero, narrow, rate), size) / np.fft.rfft(poles, size)
    return tract.astype(np.complex64), _glottis(singer, rows, hz, size, rate)


def _polynomial(hz: np.ndarray, width: np.ndarray, rate: int) -> np.ndarray:
    """Second-order sections multiplied out, gain 1 at 0 Hz: 2 x (n, k) -> (n, 2 k + 1). A width of infinity is no section."""
    result = np.ones((len(hz), 1))
    for k in range(hz.shape[1]):
        radius = np.exp(-np.pi * width[:, k] / rate)
        first, second = -2 * radius * np.cos(2 * np.pi * hz[:, k] / rate), radius**2
        wider = np.zeros((len(hz), result.shape[1] + 2))
        wider[:, :-2] = result
        wider[:, 1:-1] += first[:, None] * result
        wider[:, 2:] += second[:, None] * result
        result = wider
    return result / result.sum(axis=1, keepdims=True)


def _glottis(singer: Singer, rows: np.ndarray, hz: np.ndarray, size: int, rate: int) -> np.ndarray:
    """Spectrum of the derivative of glottal flow, LF-like: a resonance below F1, a zero at 0 Hz and a tilt; (n, bins) complex64.

    Resonance and its width follow from open quotient and asymmetry (Doval & d'Alessandro, ICASSP 1997). Louder is brighter.
    """
    formant = hz / (2 * singer.open_quotient)
    width = hz / (singer.open_quotient * abs(np.tan(np.pi * singer.asymmetry)))
    poles = _polynomial(formant[:, None], width[:, None], rate)
    bins = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    loud = np.clip(rows[:, VOICE], 0.2, 2.5)
    corner = np.exp(-2 * np.pi * np.minimum(singer.tilt_hz * loud**0.7, 0.4 * rate) / rate)[:, None]
    tilt = (1 - corner) / (1 - corner * bins)
    rise = (1 - bins) * rate / (2 * np.pi * formant[:, None])  # derivative, gain 1 at the resonance
    return (tilt * rise / np.fft.rfft(poles, size)).astype(np.complex64)
