"""Playlists and lists of paths, broken at random: what they name is collected and opened, and no entry takes another down."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from urllib.parse import quote

import numpy as np
import soundfile

from mflamingo_cli.commands.inputs import collect
from mflamingo_cli.commands.names import NameFinder
from mflamingo_cli.core import audio
from mflamingo_cli.core.remote import forbid_network
from mflamingo_cli.errors import MFlamingoError
from tests.fuzz.numbers import TEXTS, scattered

RATE_HZ = 16_000
SONGS = ("a b.wav", "Über.wav", "sub/café.wav")
LIST, LIST_0 = "list.txt", "list.0"  # read by --files-from, the second with -0
OPENED = 20  # of the songs that a list leads to
ENTRIES = (
    *(word.encode() for song in SONGS for word in (song, quote(song), song.replace("/", "\\"), f"file://localhost/x/{quote(song)}")),
    *("Über.wav".encode(page) for page in ("cp1252", "utf-16", "mac_roman")),
    *(b"http://127.0.0.1:1/x", b"C:\\Music\\a b.wav", b"\\\\nas\\share\\a b.wav", b"file:///", b"%", b"%00", b"~/a", b"-", b"//"),
    b"#EXT-X-KEY",
    *(b"a/" * 3000, "é/".encode() * 1500, b"..\\" * 500, b"&lt;a b.wav&gt;", b"<!ENTITY a 'a'>"),
    *(text.encode() for text in TEXTS),
)  # fmt: skip


def make_seeds(folder: Path) -> None:
    """Write three songs, and each kind of list that names them."""
    for song in SONGS:
        (folder / song).parent.mkdir(exist_ok=True)
        soundfile.write(folder / song, 0.2 * np.sin(np.arange(RATE_HZ) / 9), RATE_HZ)
    lines = "\r\n".join(["#EXTM3U", *(f"#EXTINF:1,x\r\n{quote(song)}" for song in SONGS), ""])
    (folder / "list.m3u").write_bytes(lines.encode())
    (folder / "list.m3u8").write_bytes(lines.encode("utf-16"))
    (folder / "list.pls").write_text("[playlist]\n" + "".join(f"File{i}={song}\nTitle{i}=x\n" for i, song in enumerate(SONGS)), "utf-8")
    tracks = "".join(f"<track><location>{quote(song)}</location></track>" for song in SONGS)
    (folder / "list.xspf").write_text(f'<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList>{tracks}</trackList></playlist>')
    (folder / LIST).write_bytes("\n".join(os.fspath(folder / song) for song in SONGS).encode())
    (folder / LIST_0).write_bytes("\0".join(os.fspath(folder / song) for song in SONGS).encode())


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Write the songs, and a list in which entries are others and bytes are scattered."""
    shutil.copytree(seeds, folder, dirs_exist_ok=True)
    path = folder / rng.choice(sorted(entry.name for entry in seeds.iterdir() if entry.name.startswith("list")))
    found = path.read_bytes()
    for _ in range(rng.choice((1, 1, 2, 5))):
        names = [song for song in (quote(song).encode() for song in SONGS) if song in found] or [b"\n", b"\0"]
        found = found.replace(rng.choice(names), rng.choice(ENTRIES), rng.choice((1, -1)))
        if rng.random() < 0.5:
            found = scattered(rng, found) or found
    path.write_bytes(found)
    return path


def names_a_folder(content: bytes) -> bool:
    """Whether one of the lines of a list of paths is a folder."""
    lines = content.replace(b"\0", b"\n").splitlines()
    return any(os.path.isdir(NameFinder().find(os.fsdecode(line))) for line in lines if line)


def run(path: Path) -> None:
    """Collect what is named and open it, as a command does whose songs fail one by one. Raises the last failure."""
    forbid_network()
    if path.is_dir():
        return
    if path.name not in (LIST, LIST_0):
        songs = collect([os.fspath(path)])
    elif names_a_folder(path.read_bytes()):  # "/" is searched for songs, as it should be
        return
    else:
        songs = collect([], os.fspath(path), path.name == LIST_0)
    failure: MFlamingoError | None = None
    for song in songs[:OPENED]:
        try:
            audio.load(song)
        except MFlamingoError as error:
            failure = error
            if "\n" in str(error):  # only the last is judged by who called
                break
    if failure:
        raise failure
