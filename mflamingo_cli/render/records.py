"""What programs read: a row per input, failures too. JSON Lines holds whole records, the others columns; --fields chooses."""

from __future__ import annotations

import csv
import json
import re
from typing import Any, ClassVar, TextIO

from mflamingo_cli.render.layout import Layout
from mflamingo_cli.render.query import fields
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis

COLUMNS = "path,status,duration,bpm,key,camelot,meter,integrated_lufs,true_peak_dbtp,instruments,genre,mood,vocals,caption,text,error"
SHOWN_COLUMNS = "path,duration,bpm,key,camelot,meter,lufs"  # as many as fit a page
TSV_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})  # as in jq's @tsv
MARKUP = re.compile(r"[\\`*_\[\]<>|&#]")  # characters that Markdown or its HTML could obey


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def cell(value: Any) -> str:
    """A plain value in one cell: unknown is empty, words are joined by semicolons, what has parts is JSON."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "; ".join(value)
    return str(value) if isinstance(value, str | float) else _json(value)


class JsonWriter:
    """JSON Lines: one record per input, or an object of the chosen fields under the names that were given."""

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream, self._fields = stream, layout.fields

    def write(self, record: Analysis) -> None:
        """Print one line and flush it."""
        line = _json({field.name: field.of(record) for field in self._fields}) if self._fields else record.to_json()
        self._stream.write(line + "\n")
        self._stream.flush()


class _ColumnWriter:
    """A row of cells per input under a header."""

    columns: ClassVar[str] = COLUMNS

    def __init__(self, stream: TextIO, layout: Layout) -> None:
        self._stream = stream
        self._fields = layout.fields or fields.parse(self.columns)
        self._head([field.name for field in self._fields])
        stream.flush()

    def _head(self, names: list[str]) -> None:
        self._row(names)

    def _row(self, cells: list[str]) -> None:
        raise NotImplementedError

    def write(self, record: Analysis) -> None:
        """Print one row."""
        self._row([cell(field.of(record)) for field in self._fields])
        self._stream.flush()


class CsvWriter(_ColumnWriter):
    """Comma-separated values (RFC 4180), lines ended by a newline alone."""

    def _row(self, cells: list[str]) -> None:
        csv.writer(self._stream, lineterminator="\n").writerow(cells)


class TsvWriter(_ColumnWriter):
    r"""Tab-separated values; a tab, newline or backslash in a cell is written as `\t`, `\n`, `\\`."""

    def _row(self, cells: list[str]) -> None:
        self._stream.write("\t".join(text.translate(TSV_ESCAPES) for text in cells) + "\n")


class MarkdownWriter(_ColumnWriter):
    """A table as GitHub draws it; nothing in a cell is read as markup."""

    columns = SHOWN_COLUMNS

    def _head(self, names: list[str]) -> None:
        self._row(names)
        self._stream.write("|" + " --- |" * len(names) + "\n")

    def _row(self, cells: list[str]) -> None:
        tidy = (MARKUP.sub(r"\\\g<0>", safe(" ".join(text.split()))) for text in cells)
        self._stream.write("| " + " | ".join(tidy) + " |\n")
