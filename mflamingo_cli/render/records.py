"""What programs read: a row per input, failures too. JSON Lines holds whole records, the others columns; --fields chooses."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from mflamingo_cli.render import Layout, Writer
from mflamingo_cli.render.query import fields
from mflamingo_cli.render.text import safe
from mflamingo_cli.schema import Analysis

COLUMNS = "path,status,duration,bpm,key,camelot,meter,integrated_lufs,true_peak_dbtp,instruments,genre,mood,vocals,caption,text,error"
SHOWN_COLUMNS = "path,duration,bpm,key,camelot,meter,lufs"  # as many as fit a page
FORMULA = re.compile(  # where begins what spreadsheets run (owasp.org, CSV Injection); those of some countries part cells at ;
    r"(?:^|(?<=[;\n]))(?=[=+@\uff1d\uff0b\uff0d\uff20-].)", re.DOTALL
)
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)  # begins so, and is run by none
AS_TEXT = "'"  # in front of a cell: a spreadsheet takes the rest as it stands
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


def inert(text: str) -> str:
    """A cell of a spreadsheet, which runs nothing in it; numbers are as they are."""
    return text if NUMBER.fullmatch(text) else FORMULA.sub(AS_TEXT, text)


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
    """A row of cells per input under a header, which `rule` follows, once for each column."""

    def __init__(
        self, stream: TextIO, layout: Layout, write_row: Callable[[Iterable[str]], object], columns: str = COLUMNS, rule: str = ""
    ) -> None:
        self._stream, self._write_row = stream, write_row
        self._fields = layout.fields or fields.parse(columns)
        write_row(field.name for field in self._fields)
        stream.write(rule and "|" + rule * len(self._fields) + "\n")
        stream.flush()

    def write(self, record: Analysis) -> None:
        """Print one row."""
        self._write_row(cell(field.of(record)) for field in self._fields)
        self._stream.flush()


def csv_writer(stream: TextIO, layout: Layout) -> Writer:
    r"""Comma-separated values (RFC 4180), lines ended by a newline alone; in a cell newlines are raw, other controls are `\x1b`, `\t`."""
    rows = csv.writer(stream, lineterminator="\n")
    return _ColumnWriter(stream, layout, lambda cells: rows.writerow(inert("\n".join(map(safe, text.split("\n")))) for text in cells))


def tsv_writer(stream: TextIO, layout: Layout) -> Writer:
    r"""Tab-separated values; a control or backslash in a cell is written as `\x1b`, `\t`, `\n`, `\\`, the last three as in jq's @tsv."""
    return _ColumnWriter(
        stream, layout, lambda cells: stream.write("\t".join(inert(safe(text.replace("\\", r"\\"))) for text in cells) + "\n")
    )


def markdown_writer(stream: TextIO, layout: Layout) -> Writer:
    """A table as GitHub draws it; nothing in a cell is read as markup."""

    def write_row(cells: Iterable[str]) -> None:
        tidy = (MARKUP.sub(r"\\\g<0>", safe(" ".join(text.split()))) for text in cells)
        stream.write("| " + " | ".join(tidy) + " |\n")

    return _ColumnWriter(stream, layout, write_row, SHOWN_COLUMNS, rule=" --- |")
