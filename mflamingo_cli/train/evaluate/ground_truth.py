"""What is known of an excerpt, as evaluation compares it: exact labels of synthetic clips, pseudo-labels of recordings.

Every truth is None where it is not known; such clips are left out of the figure. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mflamingo_cli.files import write_atomic
from mflamingo_cli.parsers import parse_list
from mflamingo_cli.train.evaluate.music import Span, chord_spans, parsed_key
from mflamingo_cli.train.mini.dialogue.clip_labels import INSTRUMENTS as NAMED_FAMILIES
from mflamingo_cli.train.mini.dialogue.clip_labels import excerpt_labels
from mflamingo_cli.train.mini.dialogue.exchanges import PromptFacts
from mflamingo_cli.train.mini.frames import TOKEN_S, Clip

SECTIONS_FROM_S = 45.0  # clips shorter than that have no form to find
ALIASES = {
    "saxophone": "sax", "saxophones": "sax", "woodwinds": "woodwind", "drum kit": "drums", "drum": "drums", "percussion": "drums",
    "synthesizer": "synth", "synths": "synth", "keyboard": "piano", "mallet": "mallets", "string": "strings", "voices": "choir",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """An excerpt of a clip, and what is known of it."""

    clip: Clip
    start: float
    end: float
    clip_labels: PromptFacts

    @property
    def row(self) -> dict[str, Any]:
        """Its line of the manifest."""
        return self.clip.row

    @property
    def recording(self) -> bool:
        """Whether its labels are pseudo-labels."""
        return self.row.get("kind") == "recording"

    def samples(self) -> np.ndarray:
        """Its audio, (n,) float32 at 16 kHz."""
        return self.clip.samples(self.start, self.end)


def item_of(clip: Clip, start: float, end: float) -> Item:
    """An excerpt with what is known of it."""
    return Item(clip, start, end, excerpt_labels(clip.row, clip.labels(), start, end))


def labels_of(item: Item, count: int) -> dict[str, np.ndarray]:
    """Dense labels of an excerpt's first `count` audio tokens, as many as there are."""
    first = round(item.start / TOKEN_S)
    return {name: values[first : first + count] for name, values in item.clip.token_labels().items()}


# --- one truth each ----------------------------------------------------------------------------------------------------


def key_truth(item: Item) -> tuple[int, str] | None:
    """The key; of a recording only where both estimators agree, of a synthetic excerpt only where it has one key."""
    row = item.row
    if not item.recording:
        sounding = {(tonic, mode) for start, end, tonic, mode in row.get("keys", ()) if start < item.end and end > item.start}
        return sounding.pop() if len(sounding) == 1 else None if sounding else parsed_key(item.clip_labels.get("key"))
    agreed = "tonic" in row and list(row.get("key2") or ()) == [row["tonic"], row["mode"]]
    return (row["tonic"], row["mode"]) if agreed else None


def measured_key(item: Item) -> tuple[int, str] | None:
    """The key that signal analysis finds in a recording, agreed upon or not."""
    return (item.row["tonic"], item.row["mode"]) if item.recording and "tonic" in item.row else None


def tempo_truth(item: Item) -> tuple[float, ...] | None:
    """Felt beats a minute; in 6/8 its quarter notes are a tempo as well. Of recordings only a measured one is known, so none."""
    if item.recording or "tempo" not in item.row:
        return None
    felt = item.row["tempo"]
    return (felt, 1.5 * felt) if item.row.get("meter") == "6/8" else (felt,)


def chord_sequence(item: Item) -> list[Span] | None:
    """All chords of the excerpt as spans from 0; between chords of a recording nothing is known."""
    chords = item.row.get("chords")
    return chord_spans(chords, item.start, item.end, "X" if item.recording else "N") if chords else None


def families_truth(item: Item) -> tuple[frozenset[str], frozenset[str]] | None:
    """(families that surely sound, families that surely do not)."""
    if "instruments" not in item.clip_labels and "absent" not in item.clip_labels:
        return None
    present, absent = (frozenset(families_in(item.clip_labels.get(name, ""))) for name in ("instruments", "absent"))
    return present, absent - present


def names_truth(field: str) -> Callable[[Item], list[str] | None]:
    """Genres or moods of an excerpt, best first."""
    return lambda item: names_in(item.clip_labels.get(field, "")) or None


def vocals_truth(item: Item) -> bool | None:
    """Whether somebody sings, where that is sure."""
    return {"yes": True, "no": False}.get(item.clip_labels.get("vocals", ""))


def boundaries_truth(item: Item) -> list[float] | None:
    """Starts of the sections of a whole song but the first, repeated ones too."""
    return None if item.recording else [start for start, _, _ in item.row.get("sections", [])][1:] or None


def form_truth(item: Item) -> tuple[list[float], float] | None:
    """Boundaries and duration of a song that is long enough to have a form."""
    starts, duration = boundaries_truth(item), item.row["duration"]
    return (starts, duration) if starts and duration >= SECTIONS_FROM_S else None


# --- answers -----------------------------------------------------------------------------------------------------------


def names_in(text: str) -> list[str]:
    """Lower-case names of a list with commas."""
    return [name.strip().casefold() for name in text.split(",") if name.strip()]


def families_in(text: str) -> list[str]:
    """Families named in an answer or in a list of facts, in its order; other words are passed over."""
    words = parse_list(text) if "," in text or " and " in text else tuple(text.split())
    words = words if any(_family(word) for word in words) else parse_list(text)
    return [family for family in dict.fromkeys(map(_family, words)) if family]


def _family(word: str) -> str | None:
    word = word.casefold().strip(" .")
    if word in NAMED_FAMILIES:
        return word
    return ALIASES.get(word) or (word[:-1] if word[:-1] in NAMED_FAMILIES else None)


# --- what takes long is done once for every clip -----------------------------------------------------------------------


def cached_json(clip: Clip, name: str, make: Callable[[], Any]) -> Any:
    """A JSON value of a clip that no model changes: read from its cache unless the audio is newer, or made and written there."""
    path, sound = Path(f"{clip.stem}.{name}.json"), clip.folder / clip.row["audio"]
    if path.exists() and path.stat().st_mtime_ns >= sound.stat().st_mtime_ns:
        return json.loads(path.read_text(encoding="utf-8"))
    value = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomic(path) as stream:
        stream.write(json.dumps(value).encode())
    return value
