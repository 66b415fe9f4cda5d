"""Keys of the run store: everything that decides a record, hashed. What is not in here must not change a record."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mflamingo_cli import __version__, schema
from mflamingo_cli.backends import ModelFiles, embedded_directory
from mflamingo_cli.backends.base import BackendInfo
from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.core.audio import Sound

DECIDE = (  # our own folders and files that decide what a record says and what is cached of a song; a test keeps the list whole
    *("quant", "mflamingo_cli/core", "mflamingo_cli/measure", "mflamingo_cli/grounding", "mflamingo_cli/backends"),
    *(
        f"mflamingo_cli/{name}.py"
        for name in (["assemble", "checks", "claims", "codec", "parsers", "pipeline", "requests", "schema", "tasks", "text", "thinking"])
    ),
)
OF_A_MODEL = {".safetensors", ".gguf", ".json", ".jinja", ".model"}


def sound_name(sound: Sound, *, with_tags: bool = False) -> str:
    """Identify a sound with all that a record says of its file except path and tags: codec, rate, channels, length, damage.

    With `with_tags` two files of one sound and other tags are two: an answer may come from them.
    """
    return _hash(asdict(replace(sound, source=replace(sound.source, path="", tags=sound.source.tags if with_tags else None))))


@dataclass(frozen=True)
class JobKey:
    """What is done with every song of a run, as a name: command, questions, part, way of writing, model, and this program."""

    name: str

    @classmethod
    def of(cls, asked: Sequence[object], info: BackendInfo, files: ModelFiles, kv_type: str) -> JobKey:
        """Name the work from `Request.deciding`; device and threads are left out, a record is as true on another machine."""
        model = (info.model, info.revision, info.backend, info.dtype, kv_type, weights(files))
        return cls(_hash([schema.VERSION, program(), *asked, model]))

    def of_sound(self, sound: str) -> str:
        """Key of the record of a sound."""
        return _hash([self.name, "sound", sound])

    def of_file(self, path: str, digest: str) -> str:
        """Key of the record of a file that gives no sound; its message names the path."""
        return _hash([self.name, "file", os.fsencode(path).hex(), digest])


@functools.cache
def program() -> str:
    """This program's state by the contents of its files, so that installing the same again changes nothing."""
    root = Path(__file__).parents[2]
    found = [path for name in DECIDE for path in ([root / name] if name.endswith(".py") else sorted((root / name).rglob("*.*")))]
    digest = hashlib.sha256(__version__.encode())
    for path in found:
        if path.suffix != ".pyc":
            digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def weights(files: ModelFiles) -> list[tuple[str, int, int]]:
    """Name, size and time of a model's files. An embedded model has no time: its revision names it, however often it is installed."""
    embedded = {embedded_directory(name) for name in EMBEDDED}
    return [
        (path.name, path.stat().st_size, 0 if not embedded.isdisjoint(path.parents) else path.stat().st_mtime_ns) for path in _paths(files)
    ]


def _paths(files: ModelFiles) -> list[Path]:
    folders = [folder for folder in (files.directory, files.adapter) if folder is not None]
    paths = [path for pair in files.pairs for path in pair]
    paths += [path for folder in folders for path in folder.iterdir() if path.suffix in OF_A_MODEL and path.is_file()]
    return sorted(paths)


def content_digest(files: ModelFiles) -> str:
    """Return a hash of the contents of a model's files, wherever they lie and whenever they were written; all of them are read."""
    digest = hashlib.sha256()
    for path in _paths(files):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def shard_of(path: str, n_shards: int) -> int:
    """Which of n shards (from 0) a path belongs to, by its name alone: new files do not move the others to another shard."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big") % n_shards


def _hash(value: Sequence[object] | dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()
