"""Records in many files of a folder or an address: JSON Lines or Parquet, each file written whole; what they hold is not done again.

A folder holds the records of one command with one model and one set of options; `_settings.json` in it says which.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from mflamingo_cli import schema
from mflamingo_cli.errors import InternalError, UsageError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.schema import Analysis

SETTINGS = "_settings.json"  # a name that readers of Parquet folders leave out
RECORDS = 100  # to a file, or
SECONDS = 60.0  # of waiting: that much is done again when everything is killed
_SCALARS = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


def identity(path: str) -> str:
    """What names a song's record among all others: its path, or the base64 of it where it is not UTF-8."""
    shown, encoded = schema.path_fields(path)
    return encoded or shown


class ShardWriter:
    """A folder of records; every record that was added is in it after `flush`, or at the next full file."""

    def __init__(self, output: str) -> None:
        try:
            self._system, self._root = url_to_fs(output)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{output}: cannot be reached: {error}") from error
        self.output = output
        self._suffix = "parquet" if output.rstrip("/").endswith(".parquet") else "jsonl"
        self._run, self._n_files = uuid.uuid4().hex[:12], 0
        self._waiting: list[Analysis] = []
        self._since = time.monotonic()

    def open(self, settings: dict[str, Any]) -> dict[str, Analysis]:
        """Begin, or go on: the records that are there, by identity, without their results; an internal error is tried again.

        Raises UsageError where the folder is no folder or holds records of other settings.
        """
        if self._system.isfile(self._root):
            raise UsageError(f"{self.output}: this is a file; name a folder")
        self._system.makedirs(self._root, exist_ok=True)
        self._system.invalidate_cache()
        files = sorted(path for path in self._system.find(self._root, maxdepth=1) if path.rpartition("/")[2].startswith("part-"))
        name = f"{self._root}/{SETTINGS}"
        if self._system.exists(name):
            found = json.loads(self._system.cat_file(name))
            if others := sorted(key for key in found.keys() | settings.keys() if found.get(key) != settings.get(key)):
                raise UsageError(f"{self.output}: its records were made with other settings ({', '.join(others)}); name another folder")
        elif files:
            raise UsageError(f"{self.output}: contains records but no {SETTINGS}; name another folder")
        else:
            self._write(SETTINGS, json.dumps(settings, indent=1).encode())
        records = (_record(row) for path in files for row in self._read(path))
        return {record.path_b64 or record.path or "": record for record in records if not _is_internal(record)}

    def add(self, record: Analysis) -> None:
        """Take a record; a file is written when it is full or its first record has waited long."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(record)
        if len(self._waiting) >= RECORDS or time.monotonic() - self._since >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            content = to_parquet(self._waiting) if self._suffix == "parquet" else to_lines(self._waiting)
            self._write(f"part-{self._run}-{self._n_files:05}.{self._suffix}", content)
            self._n_files += 1
            self._waiting = []

    def _read(self, path: str) -> Iterator[dict[str, Any]]:
        try:
            content = self._system.cat_file(path)
            if path.endswith(".parquet"):
                yield from pq.read_table(io.BytesIO(content), columns=["command", "status", "path", "path_b64", "error"]).to_pylist()
            else:
                yield from map(json.loads, content.splitlines())
        except (ValueError, pa.ArrowException) as error:
            raise UsageError(f"{path}: cannot be read ({error}); remove it, and its songs will be analysed again") from error

    def _write(self, name: str, content: bytes) -> None:
        """Object stores show an object when it is whole; a local file gets its name then."""
        path = f"{self._root}/{name}"
        if "file" not in self._system.protocol:
            self._system.pipe_file(path, content)
            return
        with write_atomic(Path(path)) as stream:
            stream.write(content)


def _record(row: dict[str, Any]) -> Analysis:
    error = row["error"] and schema.ErrorInfo(**row["error"])
    return Analysis(row["command"], row["status"], row["path"], row["path_b64"], error=error)


def _is_internal(record: Analysis) -> bool:
    return record.error is not None and record.error.code == InternalError.code


def to_lines(records: Iterable[Analysis]) -> bytes:
    """JSON Lines."""
    return "".join(record.to_json() + "\n" for record in records).encode("ascii")


def to_parquet(records: Iterable[Analysis]) -> bytes:
    """A Parquet file whose columns are the record's keys, nested as they are."""
    columns = arrow_schema()
    rows = [_fitted(json.loads(record.to_json()), pa.struct(columns)) for record in records]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, columns), content)
    return content.getvalue()


def _fitted(value: Any, kind: pa.DataType) -> Any:
    """A value for a column of this type: what a column of text cannot hold as it is, it holds as JSON."""
    if isinstance(value, dict) and pa.types.is_struct(kind):
        return {name: _fitted(item, kind.field(name).type) for name, item in value.items()}
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_fitted(item, kind.value_type) for item in value]
    return json.dumps(value) if pa.types.is_string(kind) and not isinstance(value, str | None) else value


def arrow_schema() -> pa.Schema:
    """The record's JSON Schema as one of Arrow; an object of any keys is a map, and what may be of several types is text."""
    whole = schema.json_schema()
    return pa.schema([(name, _arrow(part, whole["$defs"])) for name, part in whole["properties"].items()])


def _arrow(part: dict[str, Any], definitions: dict[str, Any]) -> pa.DataType:
    if isinstance(part.get("type"), list):
        part = {"anyOf": [{"type": name} for name in part["type"]]}
    if "anyOf" in part:  # something or null
        part, *others = [option for option in part["anyOf"] if option.get("type") != "null"]
        if others:
            return pa.string()
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    if "const" in part or "enum" in part:
        return pa.string()
    if "prefixItems" in part:  # a beat: both places are numbers
        return pa.list_(pa.float64())
    if part["type"] == "array":
        return pa.list_(_arrow(part["items"], definitions))
    if part["type"] == "object" and "properties" in part:
        return pa.struct([(name, _arrow(inner, definitions)) for name, inner in part["properties"].items()])
    if part["type"] == "object":
        return pa.map_(pa.string(), _arrow(part["additionalProperties"], definitions))
    return _SCALARS[part["type"]]
