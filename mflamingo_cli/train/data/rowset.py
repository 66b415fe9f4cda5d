"""Files of records as one sequence of rows, each read when it is asked for."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.data import formats
from mflamingo_cli.train.data.formats import FORMATS, Files, RowFormat
from mflamingo_cli.train.data.records import RecordFile
from mflamingo_cli.train.data.row import RowError, TrainingRow
from mflamingo_cli.train.settings import content_hash

METADATA = ("metadata.jsonl", "metadata.csv")  # of a folder of audio
DATASET_INFO = "dataset_info.json"  # LLaMA-Factory's list of files, with the names of their columns


@dataclass(frozen=True)
class RowSource:
    """A file of rows, its format, and how its records get the names that the format reads."""

    records: RecordFile
    layout: RowFormat
    files: Files
    rename: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def row(self, number: int) -> TrainingRow:
        """Read a row. Raises RowError."""
        return formats.read(self.layout, self.rename(self.records[number]), self.files, self.records.place(number))


class Rows(Sequence[TrainingRow]):
    """All rows of some files, folders with metadata, and lists of LLaMA-Factory; audio is looked for in `roots`, then beside the file.

    `to_train` leaves out rows that say they are of another split than `train`, such as `test`: `held_out` is how many.
    """

    def __init__(self, paths: Sequence[Path], roots: Sequence[Path] = (), *, to_train: bool = False) -> None:
        self.sources = [source for path in paths for source in _sources(path, tuple(roots))]
        self._ends = list(accumulate(len(source.records) for source in self.sources))
        n_all = self._ends[-1] if self._ends else 0
        self._chosen = array("Q", (n for n in range(n_all) if self._trains(n))) if to_train else range(n_all)
        self.held_out = n_all - len(self._chosen)

    @property
    def problems(self) -> Iterator[RowError]:
        """What in the files is no record."""
        return (problem for source in self.sources for problem in source.records.problems)

    def names(self) -> list[str]:
        """Return the name of each file with what tells its content from any other."""
        return [f"{source.records.path.name} ({len(source.records)} rows, {content_hash(source.records.path)})" for source in self.sources]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, number: Any) -> Any:
        """Read a row. Raises RowError for one that cannot be trained on."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        source, record = self._find(self._chosen[number])
        return source.row(record)

    def _find(self, number: int) -> tuple[RowSource, int]:
        source = bisect_right(self._ends, number)
        return self.sources[source], number - (self._ends[source - 1] if source else 0)

    def _trains(self, number: int) -> bool:
        """Whether a record is of the split `train`, or of none; what cannot be read is not left out, so that it is named."""
        source, record = self._find(number)
        try:
            return formats.split_of(source.records[record]) in (None, "train")
        except RowError:
            return True


def _sources(path: Path, roots: tuple[Path, ...]) -> Iterator[RowSource]:
    if path.is_dir():
        found = next((path / name for name in METADATA if (path / name).is_file()), None)
        if found is None:
            raise UsageError(f"{path}: a folder of rows must contain {' or '.join(METADATA)}")
        path = found
    if path.name == DATASET_INFO:
        yield from _listed(path, roots)
    else:
        yield _source(path, roots, dict)


def _source(path: Path, roots: tuple[Path, ...], rename: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> RowSource:
    try:
        records = RecordFile(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    for number in range(len(records)):
        try:
            first = rename(records[number])
        except RowError:
            continue
        layout = formats.recognise(first)
        if layout is None:
            keys = ", ".join(sorted(first)[:8]) or "nothing"
            raise UsageError(
                f"{records.place(number)}: a record with {keys} has none of the supported formats: {', '.join(row.name for row in FORMATS)}"
            )
        return RowSource(records, layout, Files((*roots, path.parent)), rename)
    raise UsageError(
        f"{path}: no record can be read"
        + "".join(f"; line {problem.place.rpartition(':')[2]}: {problem.reason}" for problem in records.problems)
    )


def _listed(path: Path, roots: tuple[Path, ...]) -> Iterator[RowSource]:
    """Yield the local sharegpt files that LLaMA-Factory's list names."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        named = [entry for entry in entries.values() if entry.get("file_name") and entry.get("formatting") == "sharegpt"]
        sources = [(path.parent / entry["file_name"], _renaming(entry.get("columns") or {}, entry.get("tags") or {})) for entry in named]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not a list of datasets ({type(error).__name__}: {error})") from error
    if not sources:
        raise UsageError(f"{path}: no dataset in it has a file_name and the formatting sharegpt")
    for file, rename in sources:
        yield _source(file, roots, rename)


def _renaming(columns: Mapping[str, str], tags: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return what gives a record of LLaMA-Factory the default names of its columns and tags (its data/README.md)."""
    roles = {tags.get(f"{name}_tag", default): default for name, default in (("user", "human"), ("assistant", "gpt"), ("system", "system"))}
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")

    def rename(record: Mapping[str, Any]) -> Mapping[str, Any]:
        turns = [
            {"from": roles.get(turn[role], turn[role]), "value": turn[content]} for turn in record[columns.get("messages", "conversations")]
        ]
        return dict(record) | {
            "conversations": turns,
            "audios": record.get(columns.get("audios", "audios")) or [],
            "system": record.get(columns.get("system", "system")),
        }

    return rename
