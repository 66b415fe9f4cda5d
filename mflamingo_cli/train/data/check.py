"""What rows hold and what is wrong with them, before anything is trained: counts, lengths, and every problem by its line."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from mflamingo_cli.core.audio import SAMPLE_RATE
from mflamingo_cli.core.decode import open_decoder
from mflamingo_cli.core.limits import StreamHeader
from mflamingo_cli.core.limits import check as check_limits
from mflamingo_cli.core.mel import n_audio_tokens, valid_frames
from mflamingo_cli.errors import AudioError, UsageError
from mflamingo_cli.text import clock
from mflamingo_cli.train.data.row import AudioPart, RowError, TrainingRow
from mflamingo_cli.train.data.rowset import Rows
from mflamingo_cli.train.rows import Branch, ChatEncoder
from quant.geometry import Geometry


@dataclass
class RowsReport:
    """What a check found; tokens are those of the model's tokenizer, the song's included."""

    formats: Counter[str] = field(default_factory=Counter)  # rows that can be trained on, by format
    with_audio: int = 0
    songs: int = 0
    hours: float = 0.0  # of all songs, each counted once
    answers: int = 0
    answer_tokens: int = 0
    longest: int = 0  # tokens of a row
    shown: list[TrainingRow] = field(default_factory=list)
    problems: list[RowError] = field(default_factory=list)

    @property
    def n_good(self) -> int:
        """Rows that can be trained on."""
        return self.formats.total()


@dataclass(frozen=True)
class RowSize:
    """Tokens of a row and of its song among them; rows about one song `begin` alike, None without one."""

    n_tokens: int
    n_audio: int = 0
    begin: str | None = None


class RowChecker:
    """Reads rows as training does, up to the model; lengths of files are looked up once."""

    def __init__(self, encoder: ChatEncoder, geometry: Geometry, context: int) -> None:
        self.encoder, self.geometry, self.context = encoder, geometry, context
        self._lengths: dict[AudioPart, float] = {}
        self._broken: dict[AudioPart, str] = {}

    def check(self, rows: Rows, show: int = 3, progress: Callable[[int, int], None] = lambda done, total: None) -> RowsReport:
        """Check every row; the first `show` good ones are kept."""
        report, done = RowsReport(problems=list(rows.problems)), 0
        for source in rows.sources:
            for number in range(len(source.records)):
                progress(done, len(rows))
                done += 1
                try:
                    row = source.row(number)
                    branch, n_audio = self.sized(row)
                except RowError as error:
                    report.problems.append(error)
                    continue
                report.formats[source.layout.name] += 1
                report.with_audio += row.audio is not None
                report.answers += sum(marked for marked, _ in groupby(branch.mask))
                report.answer_tokens += sum(branch.mask)
                report.longest = max(report.longest, len(branch.ids) + n_audio)
                if len(report.shown) < show:
                    report.shown.append(row)
        report.songs, report.hours = len(self._lengths), sum(self._lengths.values()) / 3600
        return report

    def sized(self, row: TrainingRow) -> tuple[Branch, int]:
        """Return the ids and the mask of a row's text, and how many tokens its song takes, which would be long to write out.

        Raises RowError for audio that cannot be read, and for a row that is too long.
        """
        n_audio = 0 if row.audio is None else audio_tokens(self._seconds(row.audio, row.place), self.geometry)
        branch = self._encoded(row, 0)
        if (n_tokens := len(branch.ids) + n_audio) > self.context:
            raise RowError(row.place, f"{n_tokens} tokens, {n_audio} of them audio, exceed the context of {self.context}")
        return branch, n_audio

    def branch(self, row: TrainingRow) -> Branch:
        """Return the ids and the mask of a row, its song's tokens included. Raises RowError as `sized` does."""
        return self._encoded(row, self.sized(row)[1])

    def size(self, row: TrainingRow) -> RowSize:
        """Return how many tokens a row takes. Raises RowError as `sized` does."""
        branch, n_audio = self.sized(row)
        return RowSize(len(branch.ids) + n_audio, n_audio, f"{row.audio}, {row.system}" if row.audio else None)

    def _encoded(self, row: TrainingRow, n_audio: int) -> Branch:
        try:
            return self.encoder.row(row, n_audio)
        except UsageError as error:  # a text holds the placeholder of audio
            raise RowError(row.place, str(error)) from None

    def _seconds(self, part: AudioPart, place: str) -> float:
        if part not in self._lengths and part not in self._broken:
            try:
                self._lengths[part] = part_seconds(part)
            except AudioError as error:
                self._broken[part] = str(error)
        if part in self._broken:
            raise RowError(place, self._broken[part])
        seconds, most = self._lengths[part], self.geometry.max_audio_s
        if seconds > most:
            raise RowError(place, f"{part.path} lasts {clock(seconds)}, but the model takes at most {clock(most)}; set start and end")
        return seconds


def part_seconds(part: AudioPart) -> float:
    """Length of a part as the header of its file states it. Raises AudioError for what is no audio, or not there."""
    shown = str(part.path)
    try:
        with contextlib.closing(open_decoder(part.path, shown)) as decoder:
            seconds = decoder.frames / decoder.rate_hz if decoder.frames else decoder.guess_s
            check_limits(StreamHeader(decoder.rate_hz, decoder.channels, seconds), shown)
    except OSError as error:
        raise AudioError(f"{shown}: {error.strerror or error}", code="not_found") from error
    length = min(seconds, part.end_s if part.end_s is not None else seconds) - part.start_s
    if length <= 0:
        raise AudioError(f"{shown}: the part from {clock(part.start_s)} is empty; the file lasts {clock(seconds)}", code="too_short")
    return length


def audio_tokens(seconds: float, geometry: Geometry) -> int:
    """Tokens that a song of so many seconds takes among the text, without the markers around them."""
    whole, rest = divmod(round(seconds * SAMPLE_RATE), geometry.mel.window_samples)
    return whole * geometry.tokens_per_window + max(0, n_audio_tokens(valid_frames(rest, geometry.mel.hop_length)))


def pieces(branch: Branch, encoder: ChatEncoder) -> Iterator[tuple[str, bool]]:
    """Text of a row as the model is given it, by runs of one mask; the song's tokens are counted, not written out."""
    for marked, run in groupby(zip(branch.ids, branch.mask, strict=True), key=lambda pair: pair[1]):
        for is_audio, ids in groupby((number for number, _ in run), key=lambda number: number == encoder.sound_id):
            numbers = list(ids)
            text = encoder.tokenizer.decode(numbers[:1] if is_audio else numbers, skip_special_tokens=False)
            yield (f"{text} × {len(numbers)}" if is_audio else text), marked
