"""Options shared by the commands: their names, help and defaults, once. Choices come from the tables they choose from.

Times are given as seconds or as [h:]m:ss.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

import typer

from mflamingo_cli.backends import BACKENDS, DEFAULT_MODEL, DTYPE_CHOICES, KV_TYPE_CHOICES, QUANTIZE_CHOICES
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions
from mflamingo_cli.commands.help import HELP_OPTIONS
from mflamingo_cli.library.tags import BPM_FORMS, KEY_NOTATIONS, POLICIES, TagOptions, parse_fields
from mflamingo_cli.render import WRITERS

__all__ = ["HELP_OPTIONS", "INPUT", "MODEL", "OUTPUT", "RUN", "WORDS", "AnalyzeOptions", "SongOptions", "song_command"]
MAX_THREADS = 512  # GGML_MAX_N_THREADS: ggml ends the program when it is asked for more
INPUT, MODEL, WORDS, OUTPUT, RUN, TAGS = "Input", "Model", "Words", "Output", "Many songs", "Tags"

if TYPE_CHECKING:
    Format: TypeAlias = str
    BackendName: TypeAlias = str
    Dtype: TypeAlias = str
    KvType: TypeAlias = str
    Quantize: TypeAlias = str
    ColorMode: TypeAlias = str
    ProgressMode: TypeAlias = str
    Policy: TypeAlias = str
    KeyNotation: TypeAlias = str
    BpmForm: TypeAlias = str
    Engine: TypeAlias = str
else:  # a table's names as the choices of an option
    Format = Literal[tuple(WRITERS)]
    BackendName = Literal[BACKENDS]
    Dtype = Literal[DTYPE_CHOICES]
    KvType = Literal[KV_TYPE_CHOICES]
    Quantize = Literal[QUANTIZE_CHOICES]
    ColorMode = Literal["auto", "always", "never"]
    ProgressMode = Literal["auto", "bar", "plain", "none"]
    Policy = Literal[tuple(POLICIES)]
    KeyNotation = Literal[KEY_NOTATIONS]
    BpmForm = Literal[tuple(BPM_FORMS)]
    Engine = Literal["local", "ray"]


# hours before minutes and seconds below 60, minutes before seconds below 60, seconds; nine digits are 30 years
TIME = re.compile(r"(?:(\d{1,9}):(?=[0-5]?\d:))?(?:(\d{1,9}):(?=[0-5]?\d(?:\.|$)))?(\d{1,9}(?:\.\d*)?)", re.ASCII)


def parse_time(text: str) -> float:
    """`83.5`, `1:23.5` or `1:02:03` in seconds."""
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time; write 83.5 or 1:23.5")
    hours, minutes, seconds = (float(part) if part else 0.0 for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_batch(text: object) -> int | None:
    """A number of songs from 1 on, None for `auto`."""
    match = re.fullmatch(r"auto|([1-9]\d{0,3})", str(text).strip(), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of songs; write 4 or auto")
    return int(match[1]) if match[1] else None


@dataclass(frozen=True)
class Share:
    """So many, or so many percent of all."""

    number: float
    percent: bool

    def of(self, total: int) -> float:
        """The number that it is."""
        return self.number * total / 100 if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class Shard:
    """The I-th of N parts of the inputs, I from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_share(text: object) -> Share:
    """`20` or `5%`."""
    match = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d*)?)%", str(text).strip(), re.ASCII)
    if match is None or float(match[2] or 0) > 100:
        raise typer.BadParameter(f"{text!r} is neither a number nor a percentage; write 20 or 5%")
    return Share(float(match[1] or match[2]), match[2] is not None)


def parse_shard(text: str) -> Shard:
    """`3/8`: the third of eight."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise typer.BadParameter(f"{text!r} is not a shard; write 3/8 for the third of eight")
    return Shard(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class SongOptions:
    """What every command that hears songs can be told; `given` names what was typed, the rest was set (`config`) or is as always."""

    given: frozenset[str] = frozenset()
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Audio or video files, folders, .m3u playlists, or - for audio bytes on stdin.", show_default=False
        ),
    ] = None
    files_from: Annotated[
        str | None,
        typer.Option("--files-from", metavar="FILE", help="Read paths from FILE (- is stdin), one per line.", rich_help_panel=INPUT),
    ] = None
    null: Annotated[bool, typer.Option("--null", "-0", help="Paths in --files-from end with a null byte.", rich_help_panel=INPUT)] = False
    start: Annotated[
        float | None, typer.Option("--start", metavar="T", parser=parse_time, help="Begin here: 83.5 or 1:23.5.", rich_help_panel=INPUT)
    ] = None
    end: Annotated[float | None, typer.Option("--end", metavar="T", parser=parse_time, help="Stop here.", rich_help_panel=INPUT)] = None
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR|FILE",
            help="The embedded model, a checkpoint directory, a .gguf file, or a downloaded hub id.",
            rich_help_panel=MODEL,
        ),
    ] = DEFAULT_MODEL
    backend: Annotated[BackendName, typer.Option("--backend", help="What runs the model.", rich_help_panel=MODEL)] = OpenOptions.backend
    device: Annotated[
        str,
        typer.Option("--device", "-d", metavar="auto|cpu|cuda[:N]|mps", help="Where it runs.", rich_help_panel=MODEL),
    ] = OpenOptions.device
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Number format of the torch back end.", rich_help_panel=MODEL)] = OpenOptions.dtype
    quantize: Annotated[
        Quantize,
        typer.Option("--quantize", help="Load the language model in fewer bits (torch back end).", rich_help_panel=MODEL),
    ] = OpenOptions.quantize
    kv_type: Annotated[KvType, typer.Option("--kv-type", help="Number format of the gguf back end's memory.", rich_help_panel=MODEL)] = (
        OpenOptions.kv_type
    )
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", min=1, max=MAX_THREADS, help="CPU threads; as many as help if not given.", rich_help_panel=MODEL
        ),
    ] = OpenOptions.threads
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N|auto",
            parser=parse_batch,
            help="Songs that the model answers together; auto: 1, on a GPU as many as help and fit.",
            rich_help_panel=MODEL,
        ),
    ] = None
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the network, whatever a library tries.", rich_help_panel=MODEL)] = (
        False
    )
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Do everything again, and remember nothing of it.", rich_help_panel=MODEL)
    ] = False
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer.", rich_help_panel=WORDS)] = (
        GenerateOptions.max_new_tokens
    )
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="X", min=0.0, help="0 takes the likeliest word.", rich_help_panel=WORDS)
    ] = GenerateOptions.temperature
    top_p: Annotated[
        float, typer.Option("--top-p", metavar="X", min=0.0, max=1.0, help="Sample from this much probability.", rich_help_panel=WORDS)
    ] = GenerateOptions.top_p
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the sampling.", rich_help_panel=WORDS)] = GenerateOptions.seed
    format: Annotated[
        Format | None, typer.Option("--format", "-f", help="How results are written; table or text if not given.", rich_help_panel=OUTPUT)
    ] = None
    json: Annotated[
        bool, typer.Option("--json", help="JSON Lines, one record per input, failures too: --format json.", rich_help_panel=OUTPUT)
    ] = False
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER/",
            help="Write results to FILE (- is stdout), or a file for each song to FOLDER, in json if no format is given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="Write a file beside each song: song.flac.mflamingo.json, or in --format.", rich_help_panel=OUTPUT),
    ] = False
    fields: Annotated[
        str | None,
        typer.Option(
            "--fields", metavar="A,B", help="What json, csv, tsv and markdown hold: path,tempo.bpm,key.camelot.", rich_help_panel=OUTPUT
        ),
    ] = None
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="TEST", help="Only songs such as 'bpm > 120 and key in (8A, 9A)'.", rich_help_panel=OUTPUT),
    ] = None
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="A,-B", help="By these fields; - is downwards. Written at the end.", rich_help_panel=OUTPUT),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            help="Songs to hear at the same time; one per core if not given.",
            rich_help_panel=RUN,
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Do again what earlier runs have done.", rich_help_panel=RUN)] = False
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed or was skipped in earlier runs.", rich_help_panel=RUN)
    ] = False
    max_failures: Annotated[
        Share | None,
        typer.Option(
            "--max-failures",
            metavar="N|P%",
            parser=parse_share,
            help="Stop when more songs than that fail in this run.",
            rich_help_panel=RUN,
        ),
    ] = None
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first song that fails.", rich_help_panel=RUN)] = False
    shard: Annotated[
        Shard | None,
        typer.Option(
            "--shard", metavar="I/N", parser=parse_shard, help="Only the I-th of N parts of the songs, chosen by path.", rich_help_panel=RUN
        ),
    ] = None
    engine: Annotated[
        Engine,
        typer.Option("--engine", help="Hear songs here, or on a Ray cluster, which writes a folder.", rich_help_panel=RUN),
    ] = "local"
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", metavar="HOST:PORT", help="The cluster; one is started on this machine if not given.", rich_help_panel=RUN
        ),
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel=OUTPUT)] = False
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Say what is done and why; keep the model's own words.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0
    color: Annotated[ColorMode, typer.Option("--color", help="Colours in results and messages.", rich_help_panel=OUTPUT)] = "auto"
    progress: Annotated[ProgressMode, typer.Option("--progress", help="How progress is shown on stderr.", rich_help_panel=OUTPUT)] = "auto"
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="List the songs, and stop.", rich_help_panel=OUTPUT)] = False

    @property
    def generate(self) -> GenerateOptions:
        """How text is produced."""
        return GenerateOptions(max_new_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed)

    @property
    def open(self) -> OpenOptions:
        """How the model is opened."""
        return OpenOptions(self.backend, self.device, self.dtype, self.kv_type, self.threads, self.quantize)

    @property
    def tags(self) -> TagOptions | None:
        """What is written into the songs' files: nothing."""
        return None


@dataclass(frozen=True)
class AnalyzeOptions(SongOptions):
    """What `analyze` can be told besides."""

    write_tags: Annotated[
        str | None,
        typer.Option(
            "--write-tags",
            metavar="[=A,B]",
            help="Write bpm,key,genre,mood into the files, or =bpm,key,… with comment too, or =all; -n shows what would change.",
            rich_help_panel=TAGS,
            show_default=False,
        ),
    ] = None
    overwrite_tags: Annotated[
        Policy, typer.Option("--overwrite-tags", help="Which values are replaced: none, those we wrote, all.", rich_help_panel=TAGS)
    ] = TagOptions.overwrite
    tag_key_notation: Annotated[KeyNotation, typer.Option("--tag-key-notation", help="Am, 8A or 1m.", rich_help_panel=TAGS)] = (
        TagOptions.key_notation
    )
    tag_bpm: Annotated[BpmForm, typer.Option("--tag-bpm", help="124 or 123.97.", rich_help_panel=TAGS)] = TagOptions.bpm_form
    tag_confidence: Annotated[
        float,
        typer.Option(
            "--tag-confidence", metavar="X", min=0.0, max=1.0, help="Write no tempo or key less sure than this.", rich_help_panel=TAGS
        ),
    ] = TagOptions.least

    @property
    def tags(self) -> TagOptions | None:
        """What is written into the songs' files. Raises UsageError."""
        if self.write_tags is None:
            return None
        return TagOptions(parse_fields(self.write_tags), self.overwrite_tags, self.tag_key_notation, self.tag_bpm, self.tag_confidence)


def song_command(function: Callable[..., None]) -> Callable[..., None]:
    """Let `function(options: SongOptions, ...)`, or of a class made from it, be a Typer command: own parameters first, then the class's."""
    first, *own = inspect.signature(function, eval_str=True).parameters.values()
    hints = get_type_hints(first.annotation, include_extras=True)
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in dataclasses.fields(first.annotation)
        if f.name != "given"
    ]

    def command(ctx: typer.Context, **values: Any) -> None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's products here are small: a second thread waits more than it works
        given = frozenset(name for name in values if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE")
        options = first.annotation(given, **{parameter.name: values.pop(parameter.name) for parameter in shared})
        function(options, **values)

    ctx = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [ctx, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *shared]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
