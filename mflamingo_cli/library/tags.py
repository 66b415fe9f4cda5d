"""Tags in the files themselves: what would be written, and writing it so that nothing else changes.

A file is copied beside itself, the copy is written and compared (our fields, all other tags, the audio stream bit by bit), then it takes
the file's place with its dates, permissions and extended attributes. Until then the file is as it was; a process that is killed leaves at
most a hidden `.mflamingo-…` copy, which the next run writes over. What we wrote is known again by a frame of our own: values of a person
are not taken for ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mflamingo_cli import __version__
from mflamingo_cli.errors import ModelError
from mflamingo_cli.files import open_exclusive
from mflamingo_cli.grounding import sure
from mflamingo_cli.library.tag_fields import BPM_FORMS, JOIN, MARK, POLICIES, TagError, TagOptions
from mflamingo_cli.schema import Analysis, path_of

if TYPE_CHECKING:
    from mflamingo_cli.library.containers import Container

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # by anybody: root could write all the same, but the owner has forbidden it
PART = ".mflamingo-"  # begins the name of a copy
HASH_LINE = re.compile(r"^\d+,(\w),MD5=[0-9a-f]{32}$", re.MULTILINE)  # of ffmpeg's streamhash: the kind of a stream


@dataclass(frozen=True)
class Change:
    """One field: the value in the file, the new words, whether they are written, and whether they are sure enough for it."""

    field: str
    old: str | None
    words: tuple[str, ...]
    written: bool
    sure: bool = True

    @property
    def new(self) -> str:
        """The new value as one text."""
        return JOIN.join(self.words)

    def __str__(self) -> str:
        if self.written:
            return f"{self.field}: {'none' if self.old is None else repr(self.old)} -> {self.new!r}"
        if not self.sure:
            return f"{self.field}: not written ({self.new} is below the confidence limit)"
        return f"{self.field}: not written ({self.old!r} is kept, {self.new!r} would replace it)"


def require_tools() -> None:
    """Raise ModelError with the cure where mutagen or ffmpeg is missing."""
    from mflamingo_cli.core.decode import INSTALL_FFMPEG

    _containers()
    if shutil.which("ffmpeg") is None:
        raise ModelError(f"writing tags needs ffmpeg to check the result; install it with `{INSTALL_FFMPEG}`")


def _containers() -> Any:
    try:
        from mflamingo_cli.library import containers
    except ModuleNotFoundError as error:
        raise ModelError(f"writing tags needs {error.name}; install it with: pip install 'mflamingo-cli[tags]'") from error
    return containers


def values(record: Analysis, options: TagOptions) -> dict[str, tuple[str, ...]]:
    """The words for each field that is known: measured tempo and key of enough confidence, and what the model says of the rest."""
    result = record.result
    if result is None:
        return {}
    tempo, key = result.tempo, result.key
    known: dict[str, tuple[str, ...]] = {"genre": result.genre, "mood": result.mood}
    if tempo.bpm and tempo.source == "measured" and sure(tempo.confidence, options.least):
        known["bpm"] = (BPM_FORMS[options.bpm_form](tempo.bpm),)
    if key.tonic and key.source == "measured" and sure(key.confidence, options.least):
        known["key"] = (getattr(key, options.key_notation),)
    if result.caption:
        known["comment"] = (result.caption,)
    return {field: known[field] for field in options.fields if known.get(field)}


# --- what changes ----------------------------------------------------------------------------------------------------------


def plan(tags: Container, record: Analysis, options: TagOptions) -> list[Change]:
    """What would be written over what; fields that have the value already are left out."""
    ours, enough, changes = _ours(tags), values(record, options), []
    for field, words in values(record, replace(options, least=0.0)).items():
        old = tags.get(field)
        if old != JOIN.join(words):
            may = old is None or POLICIES[options.overwrite](old, ours.get(field))
            changes.append(Change(field, old, words, may and field in enough, field in enough))
    return changes


def _ours(tags: Container) -> dict[str, str]:
    """What our frame says that we wrote; another program may have left anything there."""
    with contextlib.suppress(ValueError):
        found = json.loads(tags.get(MARK) or "{}")
        if isinstance(found, dict) and isinstance(found.get("wrote"), dict):
            return {field: value for field, value in found["wrote"].items() if isinstance(value, str)}
    return {}


def _mark(record: Analysis, tags: Container, written: dict[str, str]) -> str:
    """Our frame: who wrote what, and what of our earlier values is still there."""
    model = record.model and "@".join(filter(None, (record.model.id, record.model.revision)))
    kept = {field: value for field, value in _ours(tags).items() if tags.get(field) == value}
    return json.dumps({"by": f"mflamingo {__version__}", "model": model, "wrote": kept | written}, separators=(",", ":"))


def write(record: Analysis, options: TagOptions, dry_run: bool = False) -> list[Change]:
    """Write tags into a song's file, or with `dry_run` only return the changes. Raises TagError; then the file is untouched."""
    containers, path = _containers(), path_of(record)
    try:
        before = _writable(path)
        tags = containers.open_tags(path)
        changes = plan(tags, record, options)
        if any(change.written for change in changes):
            hashed = _stream_hash(path, tags.demuxer)
            if not dry_run:
                _replace(record, before, tags, [change for change in changes if change.written], hashed)
    except (OSError, ValueError, EOFError, struct.error, containers.MutagenError, TagError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TagError(f"{path}: tags not written: {why}") from error
    return changes


def _writable(path: str) -> os.stat_result:
    """The state of a file that a copy can replace. Raises TagError."""
    if path == "-":
        raise TagError("a song on stdin has no file to write to")
    state = os.lstat(path)
    if stat.S_ISLNK(state.st_mode):
        raise TagError(f"this is a link; name its target, {os.path.realpath(path)}")
    if not stat.S_ISREG(state.st_mode):
        raise TagError("not a regular file")
    if not state.st_mode & WRITABLE or not os.access(path, os.W_OK):
        raise TagError("the file is read-only")
    if state.st_nlink > 1:
        raise TagError(f"the file has {state.st_nlink} names (hard links), and only this one would get the tags")
    return state


# --- writing -----------------------------------------------------------------------------------------------------------------


def _replace(record: Analysis, before: os.stat_result, tags: Container, changes: list[Change], hashed: str) -> None:
    """Write a copy of a file, compare the two, and let the copy take its place. Raises TagError, OSError and mutagen's errors."""
    path, others = Path(path_of(record)), tags.others()
    written = {change.field: change.new for change in changes}
    mark = _mark(record, tags, written)
    part = path.with_name(PART + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16] + path.suffix)
    try:
        own = open_exclusive(part, stat.S_IRUSR | stat.S_IWUSR)  # what a killed process left is written over
    except BlockingIOError as error:
        raise TagError("another run is writing them; try again later") from error
    with own:
        try:
            shutil.copyfile(path, part)
            for change in changes:
                tags.put(change.field, change.words)
            tags.put(MARK, (mark,))
            tags.save(os.fspath(part))
            _compare(part, written | {MARK: mark}, others, hashed)
            _take_state(path, part, before)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _compare(part: Path, written: dict[str, str], others: Any, hashed: str) -> None:
    """Raise TagError unless a copy, read anew, has the new values, all other tags, and the same sound."""
    tags = _containers().open_tags(part)
    if lost := [field for field, value in written.items() if tags.get(field) != value]:
        raise TagError(f"this file cannot store {', '.join(lost)} exactly; file left untouched")
    if tags.others() != others:
        raise TagError("writing would change other tags; file left untouched")
    if _stream_hash(part, tags.demuxer) != hashed:
        raise TagError("writing would change the audio; file left untouched")


def _take_state(path: Path, part: Path, before: os.stat_result) -> None:
    """Give a copy the owner, permissions, dates and extended attributes of its original, and see it on the disk."""
    now, copy = os.lstat(path), os.stat(part)
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
        raise TagError("another program changed the file meanwhile; file left untouched")
    if (copy.st_uid, copy.st_gid) != (now.st_uid, now.st_gid):
        os.chown(part, now.st_uid, now.st_gid)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    shutil.copystat(path, part)


def _stream_hash(path: str | Path, demuxer: str) -> str:
    """The checksums of all audio packets, not decoded. Raises TagError for a video and for what ffmpeg cannot read."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", demuxer, "-f", demuxer]
    streams = ["-map", "0:a", "-map", "0:V?", "-c", "copy", "-f", "streamhash", "-hash", "md5", "-"]  # V: no pictures of covers
    command = ["ffmpeg", "-nostdin", "-v", "error", *limits, "-i", f"file:{os.path.abspath(path)}", *streams]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True, errors="replace")
    kinds = HASH_LINE.findall(done.stdout)
    if done.returncode or "a" not in kinds:
        raise TagError("ffmpeg cannot read the audio, so the result could not be checked")
    if "v" in kinds:
        raise TagError("this is a video; tags are written to audio files only")
    return done.stdout
