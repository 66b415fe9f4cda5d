"""The run store: what was done with which sound, so that a run can be killed at any moment and resumes where it was.

Tables, one step each: a file's state leads to the hash of its bytes, bytes and part to the name of their sound, a key (keys.py) to the
record. So an unchanged file costs a `stat`, a moved or copied one is read, one with other tags is decoded, and none is analysed again; what
its tags say belongs to the bytes and is put into the record that is found.

The journal is a write-ahead log: readers and one writer of several processes do not wait for each other. `synchronous = NORMAL` is safe
against the death of the process at any instruction; after a power cut the last records may be missing, which costs their time, never the
database (sqlite.org/pragma.html#pragma_synchronous). A database in this mode must not lie on a network file system.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import threading
import zlib
from pathlib import Path
from typing import Any

from mflamingo_cli import codec
from mflamingo_cli.backends.base import stamp
from mflamingo_cli.errors import MFlamingoError
from mflamingo_cli.files import user_folder
from mflamingo_cli.schema import Analysis, SongTags
from mflamingo_cli.store.cache import digest_of

FILE = "runs.db"
LAYOUT = 1  # PRAGMA user_version; another number is another layout
BUSY_S = 60.0  # a writer waits so long for another one, which needs milliseconds: beyond it something is wrong
TABLES = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sounds (digest TEXT, part TEXT, sound TEXT NOT NULL, PRIMARY KEY (digest, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (digest TEXT PRIMARY KEY, tags TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, record BLOB NOT NULL);
"""


class StoreError(MFlamingoError):
    """A store that cannot be opened; the run can do without."""

    code = "no_store"


def default_folder() -> Path | None:
    """$MFLAMINGO_STATE, or `mflamingo` in the user's state directory; None for a user without a home."""
    own = os.environ.get("MFLAMINGO_STATE")
    return Path(own) if own else user_folder("XDG_STATE_HOME", ".local/state")


class Store:
    """One SQLite file. Threads share one connection, processes share the file.

    Once open it never fails: after the first trouble `problem` says what it was, nothing more is found and nothing more is kept.
    """

    def __init__(self, folder: Path) -> None:
        """Open or make the store of a folder. Raises StoreError in words."""
        self.path, self.problem = folder / FILE, ""
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, BUSY_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path}: {_words(error)}") from error
        try:
            self._prepare()
        except BaseException as error:
            self._database.close()
            if not isinstance(error, sqlite3.Error):
                raise
            raise StoreError(f"{self.path}: {_words(error)}") from error

    def _prepare(self) -> None:
        [[layout]] = self._database.execute("PRAGMA user_version")
        if layout not in (0, LAYOUT):
            raise StoreError(
                f"{self.path}: this store was written by another version; move it away, or name another folder in MFLAMINGO_STATE"
            )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT")

    def digest(self, path: str) -> str | None:
        """Hash of a file's bytes, remembered while the file does not change; None for what is no regular file or cannot be read."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return None
            state = stamp([path])
            found = self._execute("SELECT digest FROM files WHERE path = ? AND state = ?", os.fsencode(path), state)
            if found is not None:
                return str(found)
            digest = digest_of(path)
            if stamp([path]) != state:  # it is being written
                return None
        except OSError:  # decoding reports it
            return None
        self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", os.fsencode(path), state, digest)
        return digest

    def sound(self, digest: str, part: str) -> str | None:
        """Name of the sound that a part of these bytes is; None also where a version that read no tags left it."""
        found = self._execute("SELECT sound FROM sounds JOIN tags USING (digest) WHERE digest = ? AND part = ?", digest, part)
        return None if found is None else str(found)

    def tags(self, digest: str) -> SongTags | None:
        """The tags in these bytes."""
        found = self._execute("SELECT tags FROM tags WHERE digest = ?", digest)
        with contextlib.suppress(ValueError):
            tags: SongTags | None = codec.from_plain(SongTags | None, json.loads(found or "null"))
            return tags
        return None

    def keep_sound(self, digest: str, part: str, sound: str, tags: SongTags | None) -> None:
        """Remember which sound a part of these bytes is, and their tags."""
        self._execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", digest, json.dumps(codec.to_plain(tags)))
        self._execute("INSERT OR REPLACE INTO sounds VALUES (?, ?, ?)", digest, part, sound)

    def has(self, key: str) -> bool:
        """Whether there is a record."""
        return self._execute("SELECT 1 FROM records WHERE key = ?", key) is not None

    def record(self, key: str) -> Analysis | None:
        """The record of a key, with the path that it had then."""
        found = self._execute("SELECT record FROM records WHERE key = ?", key)
        if found is None:
            return None
        try:
            return Analysis.from_json(zlib.decompress(found).decode("ascii"))
        except (ValueError, zlib.error):
            return None

    def keep(self, key: str, record: Analysis) -> None:
        """Remember a record: when this returns it outlives the process."""
        self._execute("INSERT OR REPLACE INTO records (key, record) VALUES (?, ?)", key, zlib.compress(record.to_json().encode("ascii")))

    def close(self) -> None:
        """Let go of the file; nothing is found or kept from now on."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self.problem = self.problem or "closed"
            self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _execute(self, query: str, *values: object) -> Any:
        """Execute a statement; the first column of the first row, None where there is none."""
        with self._lock:
            if self.problem:
                return None
            try:
                row = self._database.execute(query, values).fetchone()
            except sqlite3.Error as error:
                self.problem = f"{self.path}: {_words(error)}"
                return None
        return row[0] if row else None


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return f"{error}; move it away, and a new one will be made"
    return str(error)
