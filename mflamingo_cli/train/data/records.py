"""Files of records (JSON Lines, JSON arrays, CSV, TSV) indexed by place, so that the millionth record is read as fast as the first.

An index keeps three numbers a record: offset and length in bytes, and the line it begins on. Nothing else of a file stays in memory.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mflamingo_cli.train.data.row import RowError

PIECE_BYTES = 1 << 20  # of a JSON array, read at once; more where a single record is longer
SPACE = re.compile(r"[ \t\r\n]*")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
DECODER = json.JSONDecoder()


class RecordFile:
    """The records of a file by number; `problems` names what is no record at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[RowError] = []
        self.separator = SEPARATORS.get(path.suffix.lower())
        self.columns: list[str] = []
        self._offsets, self._lengths, self._lines = array("Q"), array("Q"), array("Q")
        self._file: BinaryIO | None = None
        with path.open("rb") as stream:
            for offset, length, line in self._spans(stream):
                self._offsets.append(offset)
                self._lengths.append(length)
                self._lines.append(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def place(self, number: int) -> str:
        """Return FILE:LINE of a record."""
        return f"{self.path}:{self._lines[number]}"

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Read one record. Raises RowError for one that is no object, and for CSV of the wrong width."""
        if self._file is None:
            self._file = self.path.open("rb")
        data = os.pread(self._file.fileno(), self._lengths[number], self._offsets[number])  # threads and processes share the file
        try:
            text = data.decode("utf-8")
            record = json.loads(text) if self.separator is None else self._cells(text, number)
        except UnicodeDecodeError:
            raise RowError(self.place(number), "the line is not UTF-8") from None
        except json.JSONDecodeError as error:
            reason = error.msg.removesuffix(" at")
            raise RowError(self.place(number), f"the line is not JSON: {reason} at character {error.pos + 1}") from None
        except ValueError as error:  # a number of more digits than Python reads
            raise RowError(self.place(number), f"the line cannot be read: {error}") from None
        except RecursionError:
            raise RowError(self.place(number), "it is nested too deeply") from None
        if not isinstance(record, dict):
            raise RowError(self.place(number), "the record is not a JSON object")
        return record

    def _cells(self, text: str, number: int) -> dict[str, str]:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=self.separator or ","))
        if len(cells) != len(self.columns):
            raise RowError(self.place(number), f"{len(cells)} cells under {len(self.columns)} column names")
        return dict(zip(self.columns, cells, strict=True))

    def _spans(self, stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
        """Yield offset, length and line of each record."""
        if self.separator is not None:
            yield from self._csv_spans(stream)
        elif self.path.suffix.lower() == ".json" and not _one_record_a_line(stream):
            yield from self._array_spans(JsonText(stream))
        else:
            yield from _line_spans(stream)

    def _csv_spans(self, stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
        lines = _CountedLines(stream)
        reader = csv.reader(lines, delimiter=self.separator or ",", strict=True)
        start = (0, 1)
        try:
            for cells in reader:
                if not self.columns:
                    self.columns = cells
                elif cells:
                    yield start[0], lines.offset - start[0], start[1]
                start = (lines.offset, lines.line + 1)
        except (csv.Error, UnicodeDecodeError) as error:
            self.problems.append(RowError(f"{self.path}:{start[1]}", f"the rest of the file cannot be read: {error}"))

    def _array_spans(self, text: JsonText) -> Iterator[tuple[int, int, int]]:
        """Spans of the objects of an array, or of the arrays in an object, such as {"QA": [...]}."""
        try:
            opening = text.next()
            while opening == "{" and text.peek() != "}":
                text.value()
                text.expect(":")
                if text.peek() == "[":
                    text.next()
                    yield from _item_spans(text)
                else:
                    text.value()
                if text.peek() == ",":
                    text.next()
            if opening == "[":
                yield from _item_spans(text)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            self.problems.append(RowError(f"{self.path}:{text.line}", f"the rest of the file cannot be read: {reason}"))


class JsonText:
    """The text of a JSON file, decoded in pieces; knows the byte and the line where reading stands."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-8")()
        self._text, self._at = "", 0
        self.offset, self.line = 0, 1

    def peek(self) -> str:
        """Return the next character that is no white space, "" at the end, and stand on it."""
        while True:
            match = SPACE.match(self._text, self._at)
            self._pass(match.end() if match else self._at)
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def next(self) -> str:
        """Return the next character and pass it."""
        found = self.peek()
        self._pass(self._at + len(found))
        return found

    def expect(self, character: str) -> None:
        """Pass a character that must come next. Raises json.JSONDecodeError."""
        if self.next() != character:
            raise json.JSONDecodeError(f"Expecting '{character}'", "", 0)

    def value(self) -> Any:
        """Pass a value and return it. Raises json.JSONDecodeError where there is none."""
        self.peek()
        while True:
            try:
                found, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._fill():
                    raise
                continue
            if end < len(self._text) or not self._fill():  # a number might go on in the next piece
                self._pass(end)
                return found

    def _pass(self, end: int) -> None:
        passed = self._text[self._at : end]
        self.offset += len(passed.encode("utf-8"))
        self.line += passed.count("\n")
        self._at = end

    def _fill(self) -> bool:
        """Read as much again as is there; False at the end of the file."""
        data = self._stream.read(max(PIECE_BYTES, len(self._text) - self._at))
        self._text = self._text[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return bool(data)


class _CountedLines:
    """Lines of a text file for csv.reader, counted with their bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.offset = self.line = 0

    def __iter__(self) -> Iterator[str]:
        for data in self._stream:
            text = data.decode("utf-8-sig" if self.offset == 0 else "utf-8")
            self.offset += len(data)
            self.line += 1
            yield text


def _one_record_a_line(stream: BinaryIO) -> bool:
    """Whether the first line that is not blank is a whole object, with more behind it; JSON Lines are often named .json."""
    first = next((line for line in stream if line.strip()), b"")
    more = any(line.strip() for line in stream)
    stream.seek(0)
    try:
        return more and isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _line_spans(stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    offset = 0
    for number, line in enumerate(stream, 1):
        if line.strip():
            mark = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
            yield offset + mark, len(line) - mark, number
        offset += len(line)


def _item_spans(text: JsonText) -> Iterator[tuple[int, int, int]]:
    while text.peek() not in ("]", ""):
        start, line = text.offset, text.line
        text.value()
        yield start, text.offset - start, line
        if text.peek() == ",":
            text.next()
        elif text.peek() != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", "", 0)
    text.expect("]")
