"""Which records are written, and in which order: the expressions of --where and --sort.

    either     = both {"or" both}
    both       = negated {"and" negated}
    negated    = "not" negated | "(" either ")" | comparison
    comparison = field [operator value | ["not"] "in" "(" value {"," value} ")"]
    operator   = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~"
    value      = word | number | quoted text | "null"

Fields are those of `fields`. Words are compared without regard to case, keys by what they mean ("8A" is "A minor"), `~` looks for a part of
a text. What is not known is neither true nor false, as in SQL: only `= null` and `!= null` hold for it.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from mflamingo_cli.errors import UsageError
from mflamingo_cli.render import Writer
from mflamingo_cli.render.query import fields
from mflamingo_cli.render.query.fields import Field
from mflamingo_cli.schema import Analysis

Truth = bool | None  # None: not known
Test = Callable[[Analysis], Truth]
TOKEN = re.compile(r"""\s*(?:(?P<mark><=|>=|==|!=|[=<>~(),])|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s<>=!~(),"']+))""")
ORDER: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
WORDS = ("and", "or", "not", "in")  # of the language; quoted, they are values
END = ("end", "")
KEYS = {f"result.key.{notation}" for notation in ("name", "camelot", "openkey", "id3")}  # which say the same


def parse(text: str) -> Test:
    """An expression as a test of records. Raises UsageError that says where it is not understood."""
    try:
        return _Parser(text).whole()
    except RecursionError as error:
        raise UsageError("--where: too many parentheses") from error


class _Parser:
    """Recursive descent; each method takes its part of the tokens and gives a test. A token is its kind (a group of TOKEN) and its text."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = place = 0
        text = text.rstrip()
        while place < len(text):
            match = TOKEN.match(text, place)
            if match is None:
                raise UsageError(f"--where: {text[place:].strip()!r} is not understood")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()
        self._tokens.append(END)

    def whole(self) -> Test:
        """The whole expression."""
        test = self._either()
        if self._tokens[self._at] != END:
            raise self._unexpected("and, or, or the end (put quotes around several words)")
        return test

    def _take(self, *wanted: str) -> str | None:
        """The next token if it is one of these marks or words of the language; quoted text never is."""
        kind, text = self._tokens[self._at]
        if kind not in ("mark", "word") or text.lower() not in wanted:
            return None
        self._at += 1
        return text.lower()

    def _unexpected(self, wanted: str) -> UsageError:
        token = self._tokens[self._at]
        return UsageError(f"--where: expected {wanted}, found {'the end' if token == END else repr(token[1])}")

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda record: _any(test(record) for test in tests)

    def _both(self) -> Test:
        tests = [self._negated()]
        while self._take("and"):
            tests.append(self._negated())
        return tests[0] if len(tests) == 1 else lambda record: _not(_any(_not(test(record)) for test in tests))

    def _negated(self) -> Test:
        if self._take("not"):
            inner = self._negated()
            return lambda record: _not(inner(record))
        if self._take("("):
            inside = self._either()
            if not self._take(")"):
                raise self._unexpected("')'")
            return inside
        return self._comparison()

    def _comparison(self) -> Test:
        field = fields.find(self._value("a field"))
        if field.kind == "parts":
            inner = next((name for name in fields.names() if name.startswith(field.name + ".")), None)
            raise UsageError(f"--where: {field.name} is not a single value; compare one, such as {inner or 'bpm'}")
        if mark := self._take("=", "==", "!=", "~", *ORDER):
            return _compared(field, mark, *self._literal(field, mark))
        negated = bool(self._take("not"))
        if self._take("in"):
            tests = [_compared(field, "=", *literal) for literal in self._list(field)]
            among: Test = lambda record: _any(test(record) for test in tests)  # noqa: E731
            return (lambda record: _not(among(record))) if negated else among
        if field.kind != "truth" or negated:
            raise self._unexpected(f"a comparison after {field.name}")
        return field.of

    def _list(self, field: Field) -> list[tuple[Any, bool]]:
        if not self._take("("):
            raise self._unexpected("'(' after in")
        values = [self._literal(field, "=")]
        while self._take(","):
            values.append(self._literal(field, "="))
        if not self._take(")"):
            raise self._unexpected("',' or ')'")
        return values

    def _value(self, wanted: str) -> str:
        kind, text = self._tokens[self._at]
        if kind in ("mark", "end") or (kind == "word" and text.lower() in WORDS):
            raise self._unexpected(wanted)
        self._at += 1
        return text

    def _literal(self, field: Field, mark: str) -> tuple[Any, bool]:
        """A value as the field has it, and whether it is null."""
        null = self._tokens[self._at][0] == "word" and self._tokens[self._at][1].lower() == "null"
        text = self._value("a value")
        if null and mark not in ("=", "==", "!="):
            raise UsageError(f"--where: null works with = and != only, not with {mark}")
        return (None, True) if null else (_literal(field, mark, text), False)


def _any(truths: Iterator[Truth]) -> Truth:
    found: Truth = False
    for truth in truths:
        if truth:
            return True
        found = found if truth is False else None
    return found


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _literal(field: Field, mark: str, text: str) -> Any:
    """A word of the expression as a value of the field's kind. Raises UsageError."""
    if mark in ORDER and field.kind != "number":
        raise UsageError(f"--where: {field.name} is not a number, and {mark} compares numbers only")
    if mark == "~" and field.kind in ("number", "truth"):
        raise UsageError(f"--where: {field.name} is not text, and ~ searches text only")
    if field.kind == "number":
        with contextlib.suppress(ValueError):
            return float(text)
        raise UsageError(f"--where: {field.name} is a number, and {text!r} is not")
    if field.kind == "truth":
        if text.lower() not in ("true", "false"):
            raise UsageError(f"--where: {field.name} is true or false, not {text!r}")
        return text.lower() == "true"
    return _camelot(text).casefold() if mark != "~" and field.path in KEYS else text.casefold()


def _camelot(text: str) -> str:
    from mflamingo_cli.parsers import parse_key

    key = parse_key(text)
    if key is None:
        raise UsageError(f"--where: {text!r} is not a key; write 'A minor' (in quotes), Am or 8A")
    return key.camelot


def _compared(field: Field, mark: str, wanted: Any, null: bool) -> Test:
    if null:
        return lambda record: (field.of(record) is None) is (mark != "!=")
    if mark == "!=":
        same = _compared(field, "=", wanted, null)
        return lambda record: _not(same(record))
    if mark != "~" and field.path in KEYS:
        field = fields.find("camelot")
    holds = _holds(field, mark, wanted)
    return lambda record: None if (value := field.of(record)) is None else holds(value)


def _holds(field: Field, mark: str, wanted: Any) -> Callable[[Any], bool]:
    if mark in ORDER:
        return lambda value: ORDER[mark](value, wanted)

    def fits(value: Any) -> bool:
        folded = value.casefold() if isinstance(value, str) else value
        return bool(wanted in folded if mark == "~" else folded == wanted)

    return (lambda words: any(map(fits, words))) if field.kind == "words" else fits


# --- order -----------------------------------------------------------------------------------------------------------------

Order = tuple[tuple[Field, bool], ...]  # by which fields, and whether the greatest comes first


def parse_order(text: str) -> Order:
    """Fields separated by commas, each with a hyphen before it where the greatest comes first. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    order = tuple((fields.find(part.removeprefix("-")), part.startswith("-")) for part in parts)
    if several := [field.name for field, _ in order if field.kind == "parts"]:
        raise UsageError(f"{several[0]} is not a single value; sort by one, such as bpm")
    return order


def ordered(records: list[Analysis], order: Order) -> list[Analysis]:
    """Records sorted by the first field, those alike by the next; what is not known comes last. Numbers in texts count as numbers."""
    for field, down in reversed(order):
        known = [(record, _rank(field, value)) for record in records if (value := field.of(record)) is not None]
        unknown = [record for record in records if field.of(record) is None]
        records = [record for record, _ in sorted(known, key=lambda pair: pair[1], reverse=down)] + unknown
    return records


def _rank(field: Field, value: Any) -> Any:
    if field.kind in ("number", "truth"):
        return value
    if field.path in KEYS:  # around the wheel, minor before major
        value = _camelot(value)
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [int(part) if place % 2 else part.casefold() for place, part in enumerate(re.split(r"([0-9]+)", text))]


class _Selected:
    """A writer that passes on the records that match."""

    def __init__(self, test: Test | None, take: Callable[[Analysis], None]) -> None:
        self._test, self._take = test, take

    def write(self, record: Analysis) -> None:
        """Take one record."""
        if self._test is None or self._test(record):
            self._take(record)


@contextlib.contextmanager
def chosen(writer: Writer, test: Test | None, order: Order | None) -> Iterator[Writer]:
    """A writer for the records that pass a test; with an order, they are written at the end, also of a run that is stopped."""
    kept: list[Analysis] = []
    try:
        yield _Selected(test, writer.write if order is None else kept.append)
    finally:
        for record in ordered(kept, order or ()):
            writer.write(record)
