"""Real music of free Debian packages as training and test data: 16 kHz mono pieces of a minute with pseudo-labels. Times are seconds.

Packages are unpacked, not installed. Which pieces there are, and their order, follows from the files alone; a run that was stopped goes on
where the manifests end. Pieces come round robin over the tracks, so that a part of a run has something of all of them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mflamingo_cli.core.audio import SAMPLE_RATE, load
from mflamingo_cli.errors import AudioError, ModelError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.mini.corpora.debian import unpacked
from mflamingo_cli.train.mini.corpora.pseudo_labels import pseudo_labels
from mflamingo_cli.train.mini.frames import window_frames
from mflamingo_cli.train.mini.manifest import append_row, in_processes, read_manifest

SPLITS = {"real-train": 4, "real-test": 1}  # name: share of the pieces while both are made
PIECE_S = 60.0
SHORTEST_S = 20.0  # of what is left of a track
TRACK_S = 30.0  # shorter files are effects and jingles
LEAST_BYTES = 150_000  # 30 s of any codec here need more
QUIET = 1e-3  # root mean square, -60 dBFS: below it a piece teaches nothing
AUDIO = (".ogg", ".oga", ".opus", ".mp3", ".flac")
ARCHIVES = (".zip", ".pk3")
HEADS = (b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3")  # files without a suffix are known by these
# stems of a song whose mix is there, weather, animals, machines, speech
NOT_MUSIC = re.compile(r"/(ambien(t|ce)|tilesets|sfx|sounds/ambient)/|/guitar\.ogg$|/wav/misc/|/Sounds/(Wind|DesertAmbient)|machinery\.mp3"
                       r"|static-radio|steamLocomotive|nolok_speech|airport_pa|/toon/")  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A Debian package with music: its side of the split, and the licence and maker where its copyright file names none for a track."""

    name: str
    licence: str
    artist: str = ""
    held_out: bool = False


PACKAGES = (  # artists who made music for several of these (Westlund, Toscano, Lavallee, Leutwyler, Cho, Gyte) stand on one side
    Package("0ad-data", "CC-BY-SA-3.0", "Wildfire Games"),
    Package("amoebax-data", "Free Art License 1.2", "Alex Almarza"),
    Package("asc-music", "GPL-2+", "Michael Kievernagel"),
    Package("blobwars-data", "CC-BY-3.0, CC-BY-SA-3.0", held_out=True),
    Package("brainparty-data", "CC-BY-SA-3.0"),
    Package("btanks-data", "Battle Tanks license (GPL-2 with an exception for its owner)"),
    Package("colobot-common-sounds", "GPL-3+"),
    Package("drascula-music", "Drascula license (free, not sold by itself, changes are marked)", held_out=True),
    Package("extremetuxracer-data", "GPL-2+"),
    Package("fillets-ng-data", "GPL-2"),
    Package("freedroidrpg-data", "GPL-2+", held_out=True),
    Package("freeorion-data", "CC-BY-SA-3.0"),
    Package("fretsonfire-songs-muldjord", "CC-BY-SA-3.0", "Muldjord"),
    Package("fretsonfire-songs-sectoid", "MIT", "Sectoid", held_out=True),
    Package("frozen-bubble-data", "GPL-2"),
    Package("gunroar-data", "BSD-2-clause", "Kenta Cho"),
    Package("hedgewars-data", "GPL-2", held_out=True),
    Package("hyperrogue-music", "CC-BY-SA-3.0"),
    Package("lincity-ng-data", "GPL-2+", held_out=True),
    Package("lugaru-data", "CC-BY-SA-3.0"),
    Package("marsshooter-data", "CC-BY-SA-3.0"),
    Package("megaglest-data", "CC-BY-SA-3.0"),
    Package("mu-cade-data", "BSD-2-clause", "Kenta Cho"),
    Package("naev-data", "GPL-2+, GPL-3+, GPL-3 or CC-BY-3.0, CC-BY-3.0, CC-BY-SA-3.0"),
    Package("nexuiz-music", "GPL-2+"),
    Package("noiz2sa-data", "BSD-2-clause", "Kenta Cho"),
    Package("openarena-088-data", "GPL-2+"),
    Package("openclonk-data", "CC-BY-3.0", held_out=True),
    Package("parsec47-data", "BSD-2-clause", "Kenta Cho"),
    Package("pathological", "GPL-2+"),
    Package("pax-britannica-data", "MIT"),
    Package("pink-pony-data", "CC-BY-SA-3.0"),
    Package("pushover-data", "GPL-3+"),
    Package("redeclipse-data", "CC-BY-SA-3.0, CC-BY-SA-3.0+, CC0-1.0"),
    Package("rrootage-data", "BSD-2-clause", "Kenta Cho"),
    Package("scorched3d-data", "GPL-2+"),
    Package("singularity-music", "CC-BY-SA-3.0", "Maxstack"),
    Package("supertux-data", "GPL-2+"),
    Package("supertuxkart-data", "GPL, GPL-3+, GPL-2+ or CC-BY-SA, CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0"),
    Package("titanion-data", "BSD-2-clause", "Kenta Cho"),
    Package("torus-trooper-data", "BSD-2-clause", "Kenta Cho"),
    Package("tumiki-fighters-data", "BSD-2-clause", "Kenta Cho"),
    Package("tuxmath-data", "CC-BY-SA-3.0, public domain"),
    Package("ufoai-music", "GPL-2, CC-BY-3.0, CC-BY-SA-3.0, public domain"),
    Package("warmux-data", "GPL-2+"),
    Package("warzone2100-music", "GPL-2+"),
    Package("wesnoth-1.16-music", "GPL-2+"),
    Package("widelands-data", "GPL-2+, CC-BY-SA-3.0", held_out=True),
    Package("xmoto-data", "GPL-2+"),
    Package("zaz-data", "CC-BY-SA-3.0"),
)


@dataclass(frozen=True)
class Track:
    """A file with music; `name` is its path inside the package."""

    path: Path
    package: Package
    name: str
    duration: float
    artist: str
    title: str
    licence: str


@dataclass(frozen=True)
class TrackPart:
    """Some seconds of a track, number `index` of its split."""

    track: Track
    start: float
    end: float
    split: str
    index: int


# ---- packages ----


def open_archives(folder: Path) -> None:
    """Put the audio of archives beside them: `x.zip` -> `x.zip.d`."""
    for archive in [path for path in folder.rglob("*") if path.suffix in ARCHIVES and path.is_file()]:
        with zipfile.ZipFile(archive) as content:
            content.extractall(f"{archive}.d", [name for name in content.namelist() if name.lower().endswith(AUDIO)])


HOLDER_NOISE = re.compile(r"(?i)\(c\)|©|copyright|<[^>]*>|\(https?:[^)]*\)|\b(19|20)\d\d\b[-, ]*")


def copyright_stanzas(text: str) -> list[tuple[list[str], str, str]]:
    """File patterns, holder and licence of each stanza of a machine-readable debian/copyright."""
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        fields = {m[1].lower(): m[2].strip() for m in re.finditer(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", block)}
        if "files" in fields:
            holder = HOLDER_NOISE.sub("", fields.get("copyright", "").split("\n")[0]).strip(" ,.;")
            stanzas.append((fields["files"].split(), holder, fields.get("license", "").split("\n")[0]))
    return stanzas


def maker(name: str, stanzas: list[tuple[list[str], str, str]]) -> tuple[str, str]:
    """Holder and licence of a file, from the last stanza that names the file itself or its folder: `*` and `data/*` say nothing."""
    found = ("", "")
    for patterns, holder, licence in stanzas:
        for pattern in (p.removeprefix("./") for p in patterns):
            by_folder = "/" in pattern.strip("*/") and fnmatch.fnmatch(name, f"*/{pattern}")
            if by_folder or (pattern.endswith(AUDIO) and Path(pattern).name == Path(name).name):
                found = holder, licence
    return found


# ---- tracks ----


def sounds(folder: Path) -> Iterator[Path]:
    """Files that may be music, in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size < LEAST_BYTES or NOT_MUSIC.search(f"/{path.relative_to(folder)}"):
            continue
        if path.suffix.lower() in AUDIO or (not path.suffix and path.open("rb").read(4).startswith(HEADS)):
            yield path


def package_tracks(folder: Path, package: Package) -> list[Track]:
    """Tracks of an unpacked package."""
    note = folder / "usr/share/doc" / package.name / "copyright"
    stanzas = copyright_stanzas(note.read_text(encoding="utf-8", errors="replace")) if note.exists() else []
    found = []
    for path in sounds(folder):
        try:
            with soundfile.SoundFile(path) as file:
                duration, tags = file.frames / file.samplerate, file.copy_metadata()
        except soundfile.LibsndfileError:
            continue
        if duration < TRACK_S:
            continue
        name = str(path.relative_to(folder))
        holder, licence = maker(name, stanzas)
        tagged = tags.get("artist", "").strip(" <>")
        artist = (tagged if tagged != "Unknown" else "") or package.artist or holder or package.name
        found.append(Track(path, package, name, duration, artist, tags.get("title", "").strip() or path.stem, licence or package.licence))
    return found


def same_artist(name: str) -> str:
    """What is equal for two spellings of one artist: letters and digits, without a remark in brackets or quotes."""
    bare = re.sub(r"\(.*?\)|\".*?\"|'[^']*' ", "", name.casefold())
    return re.sub(r"[\W_]+", "", bare) or re.sub(r"[\W_]+", "", name.casefold())


def separate(tracks: list[Track]) -> dict[str, list[Track]]:
    """Tracks of each split, each recording once; what a held-out artist made for another package belongs to neither side."""
    once: dict[str, Track] = {}
    for track in tracks:
        once.setdefault(hashlib.md5(track.path.read_bytes()).hexdigest(), track)
    test = [track for track in once.values() if track.package.held_out]
    kept_back = {same_artist(track.artist) for track in test}
    train = [track for track in once.values() if not track.package.held_out and same_artist(track.artist) not in kept_back]
    return {"real-train": train, "real-test": test}


# ---- pieces ----


def cut(duration: float) -> list[tuple[float, float]]:
    """Pieces of a track that do not overlap, the one around its first third first: -> (start, end)."""
    if duration <= PIECE_S:
        return [(0.0, duration)]
    first = max(0.0, min(duration / 3 - PIECE_S / 2, duration - PIECE_S))
    if first < SHORTEST_S:
        first = 0.0
    pieces, end = [(first, first + PIECE_S)], first
    at = first + PIECE_S
    while duration - at >= SHORTEST_S:
        pieces.append((at, min(at + PIECE_S, duration)))
        at += PIECE_S
    while end >= SHORTEST_S:
        pieces.append((max(0.0, end - PIECE_S), end))
        end -= PIECE_S
    return [(round(start, 3), round(stop, 3)) for start, stop in pieces]


def plan(tracks: list[Track], split: str) -> list[TrackPart]:
    """All pieces of a split: first pieces of all tracks in a shuffled order, then second ones, and so on."""
    order = np.random.default_rng(len(split)).permutation(len(tracks))
    parts = [(tracks[i], cut(tracks[i].duration)) for i in order]
    rounds = max((len(pieces) for _, pieces in parts), default=0)
    chosen = [(track, pieces[r]) for r in range(rounds) for track, pieces in parts if r < len(pieces)]
    return [TrackPart(track, start, end, split, index) for index, (track, (start, end)) in enumerate(chosen)]


def within(plans: dict[str, list[TrackPart]], hours: float) -> list[TrackPart]:
    """Pieces of some splits in the order they are made, mixed by their shares, up to so many hours in all."""
    order = sorted((piece for pieces in plans.values() for piece in pieces), key=lambda p: ((p.index + 0.5) / SPLITS[p.split], p.split))
    left, chosen = hours * 3600, []
    for piece in order:
        if left <= 0:
            break
        chosen.append(piece)
        left -= piece.end - piece.start
    return chosen


# ---- clips ----


@dataclass(frozen=True)
class RecordingsConfig:
    """Where recordings come from and go to: `debs` has packages, `out` gets a folder for each split."""

    debs: Path
    out: Path
    hours: float = 1000.0
    splits: tuple[str, ...] = tuple(SPLITS)


def generate(config: RecordingsConfig, jobs: int = 1) -> Iterator[dict[str, Any]]:
    """Cut and label all pieces that the manifests lack, yielding each new row as it is written."""
    if unknown := set(config.splits) - set(SPLITS):
        raise ModelError(f"unknown split {unknown.pop()!r}; one of {', '.join(SPLITS)}")
    tracks = [track for package in PACKAGES for track in package_tracks(unpacked(config.debs, package.name, open_archives), package)]
    plans = {split: plan(found, split) for split, found in separate(tracks).items() if split in config.splits}
    todo = [piece for piece in within(plans, config.hours) if not _made(config.out / piece.split, piece)]
    for split, row in filter(None, in_processes(_clip, todo, config, jobs)):
        append_row(config.out / split, row)
        yield {**row, "split": split}


@cache
def _rows(folder: Path) -> dict[int, dict[str, Any]]:
    return {row["index"]: row for row in read_manifest(folder)}


def _made(folder: Path, piece: TrackPart) -> bool:
    """Whether a manifest has a piece; it must be the same one."""
    row = _rows(folder).get(piece.index)
    if row and (row["track"], row["start"]) != (piece.track.name, piece.start):
        raise ModelError(f"{folder}: clip {piece.index} was cut from another track, because the packages have changed; delete the folder")
    return row is not None


def _clip(piece: TrackPart, config: RecordingsConfig) -> tuple[str, dict[str, Any]] | None:
    """Audio, caches and row of a piece; None where it is silent."""
    try:
        samples = load(piece.track.path, start_s=piece.start, end_s=piece.end).samples
    except AudioError:
        return None
    if len(samples) < SHORTEST_S * SAMPLE_RATE or float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < QUIET:
        return None
    folder, name, track = config.out / piece.split, f"{piece.index:06d}", piece.track
    for sub in ("audio", "cache"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    samples = samples.clip(-1.0, 1.0)
    with write_atomic(folder / "audio" / f"{name}.flac") as file:
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    fields, labels = pseudo_labels(samples)
    with write_atomic(folder / "cache" / f"{name}.mel.npy") as file:
        np.save(file, window_frames(samples))
    with write_atomic(folder / "cache" / f"{name}.labels.npz") as file:
        np.savez_compressed(file, **labels)
    return piece.split, {
        "index": piece.index, "audio": f"audio/{name}.flac", "kind": "recording", "duration": round(len(samples) / SAMPLE_RATE, 3),
        "package": track.package.name, "artist": track.artist, "title": track.title, "licence": track.licence, "track": track.name,
        "start": piece.start, **fields,
    }  # fmt: skip
