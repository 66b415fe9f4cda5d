"""Tags in the files themselves: what would be written, and writing it so that nothing else changes.

A file is copied into a `Draft` (quant.files) beside it, the copy is written and compared with the file (our fields, all other tags, the
packets bit by bit, and the sound as two decoders hear it), then it takes the file's place with its dates, permissions and extended
attributes. Until then the file is as it was. What we wrote is known again by a frame of our own: values of a person are not taken for ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mflamingo_cli import __version__
from mflamingo_cli.claims import read_claims, sentences
from mflamingo_cli.errors import AudioError, ModelError
from mflamingo_cli.files import Draft
from mflamingo_cli.grounding import sure
from mflamingo_cli.library.tag_fields import (
    ALBUM_GAIN,
    ALBUM_PEAK,
    BPM_FORMS,
    JOIN,
    MARK,
    POLICIES,
    REFERENCE_LUFS,
    REPLAYGAIN,
    TRACK_GAIN,
    TRACK_PEAK,
    TagError,
    TagOptions,
)
from mflamingo_cli.schema import Analysis, Loudness, path_of

if TYPE_CHECKING:
    from mflamingo_cli.library.containers import Container

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # by anybody: root could write all the same, but the owner has forbidden it
HASH_LINE = re.compile(r"^\d+,(\w),MD5=[0-9a-f]{32}$", re.MULTILINE)  # of ffmpeg's streamhash: the kind of a stream
COPY_BYTES = 1 << 20  # read at once
ROUNDED_S = 0.001  # times in a record have three decimals


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


def values(record: Analysis, options: TagOptions, album: Loudness | None = None) -> dict[str, tuple[str, ...]]:
    """The words for each field that is known: sure tempo and key, loudness, and what the model says of the rest."""
    result = record.result
    if result is None:
        return {}
    sure_of = {
        name: fact.source == "measured" and sure(fact.confidence, options.least)
        for name, fact in (("tempo", result.tempo), ("key", result.key), ("meter", result.meter))
    }
    known: dict[str, tuple[str, ...]] = {"genre": result.genre, "mood": result.mood}
    if result.tempo.bpm and sure_of["tempo"]:
        known["bpm"] = (BPM_FORMS[options.bpm_form](result.tempo.bpm),)
    if result.key.tonic and sure_of["key"]:
        known["key"] = (getattr(result.key, options.key_notation),)
    if comment := _without_claims(result.caption or "", [name for name, is_sure in sure_of.items() if not is_sure]):
        known["comment"] = (comment,)
    chosen = {field: known[field] for field in options.fields if known.get(field)}
    if REPLAYGAIN in options.fields:
        chosen |= _gains(result.loudness, TRACK_GAIN, TRACK_PEAK) | _gains(album or Loudness(), ALBUM_GAIN, ALBUM_PEAK)
    return chosen


def _gains(level: Loudness, gain: str, peak: str) -> dict[str, tuple[str, ...]]:
    """ReplayGain 2.0: the gain to -18 LUFS in dB, the true peak as a share of full scale."""
    if level.integrated_lufs is None or level.true_peak_dbtp is None:
        return {}
    return {gain: (f"{REFERENCE_LUFS - level.integrated_lufs:.2f} dB",), peak: (f"{10 ** (level.true_peak_dbtp / 20):.6f}",)}


def _without_claims(text: str, kinds: Collection[str]) -> str:
    """A text without the sentences that claim something of these kinds."""
    kept, end = "", 0
    for start, stop in sentences(text):
        if not any(claim.kind in kinds for claim in read_claims(text[start:stop])):
            kept += text[end:stop]
        end = stop
    return kept.strip()


# --- what changes ----------------------------------------------------------------------------------------------------------


def plan(tags: Container, record: Analysis, options: TagOptions, album: Loudness | None = None) -> list[Change]:
    """What would be written over what; fields that have the value already are left out."""
    ours, enough, changes = _ours(tags), values(record, options, album), []
    for field, words in (values(record, replace(options, least=0.0), album) | enough).items():
        if not tags.holds(field):
            continue
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


def write(record: Analysis, options: TagOptions, dry_run: bool = False, album: Loudness | None = None) -> list[Change]:
    """Write tags into a song's file, or with `dry_run` only return the changes; `album` is the loudness of its folder.

    Raises TagError; then the file is untouched.
    """
    containers, path = _containers(), path_of(record)
    try:
        before = _writable(path)
        tags = containers.open_tags(path)
        changes = plan(tags, record, options, album)
        if any(change.written for change in changes):
            if _is_damaged(record) and not options.force:
                raise TagError("the file is cut or damaged, so the measurements may be wrong; get the file again, or add --force")
            sound = _stream_hash(path, tags.demuxer)
            if not dry_run:
                _replace(record, before, tags, [change for change in changes if change.written], sound)
    except (OSError, ValueError, EOFError, struct.error, containers.MutagenError, TagError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TagError(f"{path}: tags not written: {why}") from error
    return changes


def _is_damaged(record: Analysis) -> bool:
    return record.audio is not None and record.audio.damaged


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
        raise TagError(f"the file has {state.st_nlink} names (hard links), and only this name would get the tags")
    return state


# --- writing -----------------------------------------------------------------------------------------------------------------


def _replace(record: Analysis, before: os.stat_result, tags: Container, changes: list[Change], sound: str) -> None:
    """Write a copy of a file, compare the two, and let the copy take its place. Raises TagError, OSError and mutagen's errors."""
    path, others = Path(path_of(record)), tags.others()
    written = {change.field: change.new for change in changes}
    mark = _mark(record, tags, written)
    try:
        draft = Draft(path)
    except BlockingIOError as error:
        raise TagError("another run is writing them; try again later") from error
    with draft:
        _copy(path, before, draft.stream)
        for change in changes:
            tags.put(change.field, change.words)
        tags.put(MARK, (mark,))
        tags.save(draft.stream)
        draft.stream.flush()
        _compare_sound(record, draft.part, tags.demuxer, sound)
        _compare(tags.reopened(draft.stream), written | {MARK: mark}, others)
        _take_state(path, draft, before)
        draft.publish(dates=True)


def _copy(path: Path, before: os.stat_result, copy: BinaryIO) -> None:
    """Copy the bytes of the file that was looked at, and of no other that has its name by now. Raises TagError."""
    with open(path, "rb") as file:
        if not os.path.samestat(os.fstat(file.fileno()), before):
            raise TagError("another program changed the file meanwhile; file left untouched")
        shutil.copyfileobj(file, copy, COPY_BYTES)


def _compare(copy: Container, written: dict[str, str], others: Any) -> None:
    """Raise TagError unless a copy, read anew, has the new values and all other tags."""
    if lost := [field for field, value in written.items() if copy.get(field) != value]:
        raise TagError(f"this file cannot store {', '.join(lost)} exactly; file left untouched")
    if copy.others() != others:
        raise TagError("writing would change other tags; file left untouched")


def _compare_sound(record: Analysis, copy: Path, demuxer: str, sound: str) -> None:
    """Raise TagError unless ffmpeg finds the packets and the sound of the file in a copy, and our own decoder its sound too."""
    audio, heard = record.audio, _decoded(copy)
    whole = audio is not None and audio.start == 0 and abs(audio.end - audio.duration) <= ROUNDED_S
    known = whole and heard == record.audio_id  # else the record is of a part, or older than the file
    same = heard is not None and (known or heard == _decoded(Path(path_of(record))))
    if not same or _stream_hash(copy, demuxer) != sound:
        raise TagError("writing would change the audio; file left untouched")


def _decoded(path: Path) -> str | None:
    """The name of a file's whole sound as `analyze` decodes it; None where it cannot be decoded."""
    from mflamingo_cli.core.audio import Fingerprint, load

    fingerprint = Fingerprint()
    try:
        load(path, listeners=(fingerprint,))
    except AudioError:
        return None
    return fingerprint.result()


def _take_state(path: Path, draft: Draft, before: os.stat_result) -> None:
    """Give a copy its original's owner. Raises TagError where another program has written to that since it was looked at."""
    now = os.lstat(path)
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
        raise TagError("another program changed the file meanwhile; file left untouched")
    os.fchown(draft.stream.fileno(), before.st_uid, before.st_gid)  # or leave the file alone


def _stream_hash(path: str | Path, demuxer: str) -> str:
    """The checksums of all audio packets and of what they decode to. Raises TagError for a video and for what ffmpeg cannot read."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", demuxer, "-f", demuxer]
    packets = ["-map", "0:a", "-map", "0:V?", "-c", "copy", "-f", "streamhash", "-hash", "md5", "-"]  # V: no pictures of covers
    samples = ["-map", "0:a", "-c", "pcm_f32le", "-f", "hash", "-hash", "md5", "-"]  # what is before or behind a frame moves its sound
    command = ["ffmpeg", "-nostdin", "-v", "error", *limits, "-i", f"file:{os.path.abspath(path)}", *packets, *samples]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True, errors="replace")
    kinds = HASH_LINE.findall(done.stdout)
    if done.returncode or "a" not in kinds:
        raise TagError("ffmpeg cannot read the audio, so the result could not be checked")
    if "v" in kinds:
        raise TagError("this is a video; tags are written to audio files only")
    return done.stdout
