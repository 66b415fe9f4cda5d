"""`mflamingo analyze`: tempo, key, chords, structure, loudness, words."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from mflamingo_cli.commands.options import SongOptions, option, song_command
from mflamingo_cli.commands.values import Range, checked_only, comma_separated, parse_range
from mflamingo_cli.errors import UsageError
from mflamingo_cli.library.tag_fields import BPM_FORMS, KEY_NOTATIONS, POLICIES, REPLAYGAIN, TagOptions, parse_fields

NO_GAINS = "--album writes album loudness; add --write-tags=replaygain"


@dataclass(frozen=True)
class FactOptions:
    """Which facts and answers, and which octave of the tempo."""

    panel: ClassVar[str] = "Facts"
    only: Annotated[
        str | None,
        option(
            metavar="A,B",
            parser=checked_only,
            help="Compute only these facts and answers, such as tempo,key; a model is loaded only if an answer needs it.",
        ),
    ] = None
    no_model: Annotated[bool, option(help="Measure only, without loading a model.")] = False
    tempo_range: Annotated[
        Range | None,
        option(
            metavar="LOW-HIGH",
            parser=parse_range,
            help="Halve or double the tempo to lie in this range, such as 80-160; alternatives are still listed.",
        ),
    ] = None

    def names(self, typed: frozenset[str]) -> list[str] | None:
        """Return the names of the facts and answers that are asked for, None for all; of two that contradict, the typed one wins.

        What was set for other runs gives way: without a model the caption is left out. Raises UsageError where both were typed.
        """
        if self.only is None:
            return None
        names = list(comma_separated(self.only))
        if not self.no_model or "caption" not in names:
            return names
        if {"no_model", "only"} <= typed:
            raise UsageError("--no-model contradicts --only caption; leave one out")
        return names if "only" in typed else [name for name in names if name != "caption"] or None


@dataclass(frozen=True)
class TagWritingOptions:
    """What is written into the tags of the songs' files."""

    panel: ClassVar[str] = "Tags"
    write: Annotated[
        str | None,
        option(
            "--write-tags",
            metavar="[=A,B]",
            help="Write bpm, key, genre and mood into the files; choose with =bpm,replaygain or =all (adds comment). -n shows the changes.",
        ),
    ] = None
    album: Annotated[bool, option(help="With --write-tags=replaygain: also write album values, measured on all songs of the folder.")] = (
        False
    )
    overwrite: Annotated[
        str, POLICIES, option("--overwrite-tags", help="Which existing values are replaced: none, those mflamingo wrote, or all.")
    ] = TagOptions.overwrite
    key_notation: Annotated[str, KEY_NOTATIONS, option("--tag-key-notation", help="How keys are written: Am, 8A or 1m.")] = (
        TagOptions.key_notation
    )
    bpm_form: Annotated[str, BPM_FORMS, option("--tag-bpm", help="How tempi are written: 124 or 123.97.")] = TagOptions.bpm_form
    confidence: Annotated[
        float,
        option(
            "--tag-confidence",
            metavar="X",
            min=0.0,
            max=1.0,
            help="Do not write a tempo or key below this confidence into any tag.",
        ),
    ] = TagOptions.least


@dataclass(frozen=True)
class AnalyzeOptions(SongOptions):
    """What `analyze` takes besides."""

    facts: FactOptions = FactOptions()
    tags: TagWritingOptions = TagWritingOptions()

    @property
    def tag_options(self) -> TagOptions | None:
        """Return what is written into the songs' files. Raises UsageError."""
        tags = self.tags
        if tags.write is None:
            if tags.album and "album" in self.typed:
                raise UsageError(NO_GAINS)
            return None
        fields = parse_fields(tags.write)
        gains = REPLAYGAIN in fields
        if gains and (self.input.start or self.input.end is not None):
            raise UsageError("--write-tags=replaygain measures whole songs; leave out --start and --end")
        if tags.album and not gains and "album" in self.typed:
            raise UsageError(NO_GAINS)
        return TagOptions(fields, tags.overwrite, tags.key_notation, tags.bpm_form, tags.confidence, self.run.force, tags.album and gains)


@song_command
def analyze(options: AnalyzeOptions) -> None:
    """Analyse songs: tempo, key, meter, chords, sections, loudness, instruments, genre, mood, vocals and a description.

    Facts are measured from the audio; the model's claims are shown beside them. Anything that cannot be determined is omitted
    (null in JSON).
    """
    from mflamingo_cli.commands.songs import run_songs
    from mflamingo_cli.requests import analyze_request

    octave = options.facts.tempo_range
    names = options.facts.names(options.typed)
    with_model = not options.facts.no_model or "caption" in (names or ())
    request = analyze_request(names, with_model=with_model, tempo_range=octave and (octave.low, octave.high))
    run_songs(options, request, "table")
