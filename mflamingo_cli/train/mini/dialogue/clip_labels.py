"""What may be asked of an excerpt: key, chords, meter, instruments, genre, mood, vocals, each only where the labels are sure.

Synthetic clips have exact truth; recordings have pseudo-labels (musicnn tags, measured harmony), which count only where they are
clear: above one threshold a thing is there, below another it is not, between the two it is not asked. Times are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mflamingo_cli.grounding import GROUND_CHORDS
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.mini import probes
from mflamingo_cli.train.mini.dialogue.prompt_facts import MEASURED_ROOTS, PromptFacts
from mflamingo_cli.train.mini.frames import LABEL_S, NO_CHORD, UNKNOWN
from mflamingo_cli.train.mini.synth.harmony import QUALITIES, chord_set, key_flats, pitch_name
from mflamingo_cli.train.mini.synth.parts import FAMILIES

INSTRUMENTS = (*FAMILIES, "drums")  # columns of the dense labels `families`
LONG_ENOUGH_S = 0.2  # a chord shorter than this in an excerpt is not asked for
ASIDE = 0.1  # of an excerpt: another key that long makes it one without a key
PLAYED = 0.12  # of an excerpt: an instrument that sounds so long is there
LOUDER_DB = 6.0  # than another instrument: clearly in front of it
SUNG_S = 1.5  # of singing make a synthetic excerpt sung: there it is known exactly
SUNG_SHARE = 0.3  # of a recorded one, in sure tokens: from here on it is sung (10 of 13 such tracks are)
NOT_SUNG_SHARE = 0.03  # and up to here it is not
UNSURE = 0.25  # of an excerpt may be unknown where there is no singing

# --- styles of synthetic clips -----------------------------------------------------------------------------------------

VAGUE = frozenset({"pop"})  # a style that is what no other name fits: it rules nothing out but itself elsewhere
KIN = (  # styles that share songs: of none of them another can be denied
    {"soul", "funk", "pop", "ballad"}, {"rock", "metal", "pop"}, {"rock", "blues"}, {"jazz", "blues"}, {"jazz", "latin"}, {"jazz", "funk"},
    {"ambient", "electronic"}, {"ambient", "ballad"}, {"country", "folk", "pop"}, {"country", "rock"}, {"folk", "ballad"},
    {"jazz", "ballad"}, {"soul", "jazz"}, {"folk", "waltz"}, {"march", "folk"}, {"country", "march"},
)  # fmt: skip
STYLES = (
    "waltz", "blues", "country", "latin", "ballad", "reggae", "electronic", "ambient", "soul", "funk", "metal", "march", "jazz", "rock",
    "folk", "pop",
)  # fmt: skip

# --- tags of recordings: name: (tags, sure when the likeliest reaches, surely not when none reaches) ---------------------
# musicnn gives a rare tag a low probability even where it fits: thresholds stand near the 90th to 98th and the 10th to 30th
# percentile of each tag over 258 clips of 45 packages. Tags that are opinions (beautiful, sexy) are left out.

Tagged = dict[str, tuple[tuple[str, ...], float, float]]
INSTRUMENT_TAGS: Tagged = {
    "guitar": (("mtt:guitar", "msd:guitar"), 0.3, 0.02),
    "piano": (("mtt:piano",), 0.25, 0.015),
    "strings": (("mtt:strings", "mtt:violin", "mtt:cello"), 0.27, 0.01),
    "drums": (("mtt:drums", "mtt:beat", "mtt:beats"), 0.25, 0.03),
    "synth": (("mtt:synth",), 0.25, 0.03),
    "woodwind": (("mtt:flute",), 0.2, 0.001),
    "choir": (("mtt:choir", "mtt:choral"), 0.15, 0.001),
}
GENRE_TAGS: Tagged = {
    "classical": (("mtt:classical", "mtt:classic", "mtt:opera"), 0.3, 0.01),
    "electronic": (
        ("mtt:techno", "mtt:electronic", "mtt:dance", "msd:electronic", "msd:electronica", "msd:electro", "msd:House", "msd:dance"),
        0.4, 0.06,
    ),
    "rock": (
        ("mtt:rock", "msd:rock", "msd:alternative rock", "msd:classic rock", "msd:indie rock", "msd:hard rock", "msd:Progressive rock"),
        0.2, 0.03,
    ),
    "metal": (("mtt:metal", "msd:metal", "msd:heavy metal"), 0.15, 0.008),
    "ambient": (("mtt:ambient", "mtt:new age", "msd:ambient"), 0.3, 0.04),
    "jazz": (("msd:jazz",), 0.2, 0.012),
    "folk": (("msd:folk",), 0.15, 0.005),
    "country": (("mtt:country", "msd:country"), 0.1, 0.002),
    "blues": (("msd:blues",), 0.1, 0.003),
    "soul": (("msd:soul", "msd:rnb"), 0.08, 0.003),
    "funk": (("msd:funk",), 0.08, 0.003),
    "punk": (("msd:punk",), 0.1, 0.002),
    "hip hop": (("msd:Hip-Hop",), 0.08, 0.002),
    "pop": (("mtt:pop", "msd:pop", "msd:indie pop"), 0.17, 0.02),
}  # fmt: skip
MOOD_TAGS: Tagged = {
    "calm": (("mtt:slow",), 0.32, 0.05),
    "energetic": (("mtt:fast", "mtt:loud"), 0.35, 0.05),
    "mellow": (("msd:Mellow", "msd:chillout", "msd:chill"), 0.16, 0.02),
    "gentle": (("mtt:soft", "mtt:quiet"), 0.11, 0.01),
}
GENRES = tuple(dict.fromkeys([*STYLES, *GENRE_TAGS]))
MAX_GENRES, MAX_MOODS = 3, 2


def excerpt_labels(row: Mapping[str, Any], frame_labels: Mapping[str, np.ndarray], start: float, end: float) -> PromptFacts:
    """What can be asked of an excerpt of a clip; empty where it is no music."""
    if row.get("music") is False:
        return {}
    span = slice(round(start / LABEL_S), max(round(end / LABEL_S), round(start / LABEL_S) + 1))
    recorded = row.get("kind") == "recording"
    labels = _harmony(row, start, end) | ({"meter": row["meter"]} if row.get("meter") else {})
    labels |= _tagged(row, frame_labels, span) if recorded else _arranged(row, frame_labels, span)
    vocals = _vocals(row, frame_labels, span)
    if vocals and not (not recorded and "choir" in labels.get("instruments", "")):  # a sampled choir is a voice to some
        labels["vocals"] = vocals
    return {name: value for name, value in labels.items() if value}


def _harmony(row: Mapping[str, Any], start: float, end: float) -> PromptFacts:
    """Key, and the (up to four) longest chords as triads in order of first sound."""
    key = _key(row, start, end)
    flats = key is not None and ("b" in key.tonic or key_flats(key.pitch, key.mode))
    lengths: dict[str, float] = {}
    for chord_start, chord_end, root, quality in row.get("chords", ()):
        overlap = min(chord_end, end) - max(chord_start, start)
        if overlap > LONG_ENOUGH_S:
            name = (pitch_name(root, flats) if key else MEASURED_ROOTS[root]) + triad(quality)
            lengths[name] = lengths.get(name, 0.0) + overlap
    longest = sorted(lengths, key=lambda name: -lengths[name])[:GROUND_CHORDS]
    labels = {"key": key.name} if key else {}
    return labels | ({"chords": " ".join(name for name in lengths if name in longest)} if longest else {})


def _key(row: Mapping[str, Any], start: float, end: float) -> Key | None:
    """The one key of an excerpt; none where it changes, or where a second estimator denies it."""
    if "keys" in row:
        there = [(tonic, mode) for begin, until, tonic, mode in row["keys"] if min(until, end) - max(begin, start) > ASIDE * (end - start)]
        return Key.of(*there[0]) if len(set(there)) == 1 else None
    if row.get("tonic") is None or list(row.get("key2") or (row["tonic"], row["mode"])) != [row["tonic"], row["mode"]]:
        return None
    return Key.of(row["tonic"], row["mode"])


def triad(quality: str) -> str:
    """The kind of triad of a chord in Harte's notation: major, minor, diminished or augmented."""
    return "dim" if quality.startswith(("dim", "hdim")) else "m" if quality.startswith("min") else "aug" if quality == "aug" else ""


def _arranged(row: Mapping[str, Any], frame_labels: Mapping[str, np.ndarray], span: slice) -> PromptFacts:
    """Instruments of a synthetic excerpt, loudest first, those that are surely absent, and its style."""
    families = frame_labels["families"][span]  # (T, 12)
    played, absent = (families == 1).mean(0), (families == 0).all(0)
    levels = row.get("instruments", {})
    present = [name for name, share in zip(INSTRUMENTS, played, strict=True) if share >= PLAYED]
    present.sort(key=lambda name: (-levels.get(name, -60.0), -played[INSTRUMENTS.index(name)]))
    facts = {"instruments": " ".join(present), "absent": " ".join(np.array(INSTRUMENTS)[absent])}
    quiet = [name for name in present[1:] if levels.get(present[0], 0) - levels.get(name, 0) >= LOUDER_DB]
    if quiet and all(name in levels for name in present):
        facts["louder"] = f"{present[0]} {quiet[0]}"
    if style := row.get("style"):
        denied = [] if style in VAGUE else [name for name in STYLES if name != style and not any({style, name} <= kin for kin in KIN)]
        facts |= {"genre": style, "not_genre": ", ".join(denied)}
    return facts


def _tagged(row: Mapping[str, Any], frame_labels: Mapping[str, np.ndarray], span: slice) -> PromptFacts:
    """Instruments, genres and moods of a recorded excerpt, likeliest first, and what is surely not there."""
    if "tags" in frame_labels:
        tags = dict(zip(TAG_NAMES, frame_labels["tags"][span].mean(0) / 255, strict=True))
    elif "tags" in row:
        tags = row["tags"]
    else:
        return {}
    instruments, absent = sorted_out(tags, INSTRUMENT_TAGS)
    genres, denied = sorted_out(tags, GENRE_TAGS)
    moods, _ = sorted_out(tags, MOOD_TAGS)
    return {
        "instruments": " ".join(instruments),
        "absent": " ".join(absent),
        "genre": ", ".join(genres[:MAX_GENRES]),
        "not_genre": ", ".join(denied),
        "mood": ", ".join(moods[:MAX_MOODS]),
    }


def sorted_out(tags: Mapping[str, float], table: Tagged) -> tuple[list[str], list[str]]:
    """Names of a table that are surely there, clearest first, and those that are surely not."""
    likely = {name: max(tags[tag] for tag in names) for name, (names, _, _) in table.items()}
    clear = {name: likely[name] / sure for name, (_, sure, _) in table.items()}
    there = sorted((name for name, margin in clear.items() if margin >= 1), key=lambda name: -clear[name])
    return there, [name for name, (_, _, none) in table.items() if likely[name] < none]


def _vocals(row: Mapping[str, Any], frame_labels: Mapping[str, np.ndarray], span: slice) -> str:
    """Whether somebody sings in an excerpt: "yes", "no", or "" where that is not sure."""
    if "vocals" not in frame_labels:
        return {True: "yes", False: "no", None: ""}[row.get("vocals")]
    values = frame_labels["vocals"][span]
    sung = float((values == 1).mean())
    recorded = row.get("kind") == "recording"
    if sung >= SUNG_SHARE if recorded else sung * len(values) * LABEL_S >= SUNG_S:
        return "yes"
    return "no" if sung <= (NOT_SUNG_SHARE if recorded else 0.0) and (values == UNKNOWN).mean() <= UNSURE else ""


# --- confident labels ------------------------------------------------------------------------------------------------------
# Those that the encoder's linear probes confirm clearly. A caption volunteers facts; without measured ones it is trained to name these
# labels only: the language model reads the same tokens and learns when to be silent.

KEYS = [Key.of(number % 12, "minor" if number >= 12 else "major").name for number in range(24)]  # the classes of the head
CLEAR = 0.7  # probability from which a probe counts as clear: of a key, meter, style, of an instrument while it sounds
VOICED, UNVOICED = 0.8, 0.1  # of a voice where it is clearest: from the first somebody sings, up to the second there is none
CLEAREST = 85  # percentile over the tokens of an excerpt: what sounds for a seventh of it counts


def confident_labels(labels: PromptFacts, logits: Mapping[str, np.ndarray]) -> PromptFacts:
    """Those labels, and of lists those items, that the probes confirm, in their order."""
    tags = dict(zip(TAG_NAMES, _chances(logits["tags"]).mean(axis=0), strict=True))
    played = np.percentile(_chances(logits["families"]), CLEAREST, axis=0)
    classes = {"key": KEYS, "meter": probes.METERS, "style": probes.STYLES}
    key, meter, style = (_clear(logits[name].mean(axis=0), names) for name, names in classes.items())
    voice = float(np.percentile(_chances(logits["vocals"]), CLEAREST))
    read = {
        "key": {key},
        "meter": {meter},
        "instruments": {name for name, chance in zip(INSTRUMENTS, played, strict=True) if chance >= CLEAR} | _there(tags, INSTRUMENT_TAGS),
        "genre": {style} | _there(tags, GENRE_TAGS),
        "mood": _there(tags, MOOD_TAGS),
        "vocals": {"yes" if voice >= VOICED else "no" if voice <= UNVOICED else None},
    }
    confirmed = {}
    for name, sure in read.items():
        join = ", " if name in ("genre", "mood") else " "
        items = [] if name not in labels else [labels[name]] if name == "key" else labels[name].split(join)
        confirmed[name] = join.join(item for item in items if item in sure)
    if "chords" in labels and chord_set(labels["chords"].split()) == main_triads(logits, len(labels["chords"].split())):
        confirmed["chords"] = labels["chords"]
    return {name: value for name, value in confirmed.items() if value}


def _chances(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _clear(logits: np.ndarray, names: Sequence[str]) -> str | None:
    """The likeliest class where it is likely enough."""
    chances = np.exp(logits - logits.max())
    return names[int(chances.argmax())] if chances.max() >= CLEAR * chances.sum() else None


def _there(tags: Mapping[str, float], table: Tagged) -> set[str]:
    return set(sorted_out(tags, table)[0])


def main_triads(logits: Mapping[str, np.ndarray], count: int) -> set[tuple[int, str]]:
    """The triads that are read for most tokens."""
    roots, kinds = logits["root"].argmax(axis=-1), logits["quality"].argmax(axis=-1)
    read = Counter((int(root), triad(QUALITIES[kind])) for root, kind in zip(roots, kinds, strict=True) if root != NO_CHORD)
    return {chord for chord, _ in read.most_common(count)}
