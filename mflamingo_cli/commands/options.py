"""Options shared by the commands: one frozen dataclass per group with names, help and defaults; choices come from tables.

Times are given as seconds or as [h:]m:ss. A field of a group is an option of its name, unless it gives another; a tuple or table beside its
type is its choices. A command's own options stand where the command is.
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import typer

from mflamingo_cli.backends.options import (
    BACKENDS,
    DEFAULT_MODEL,
    DTYPE_CHOICES,
    KV_TYPE_CHOICES,
    QUANTIZE_CHOICES,
    GenerateOptions,
    OpenOptions,
)
from mflamingo_cli.commands.values import Shard, Share, checked_fields, checked_order, parse_batch, parse_shard, parse_share, parse_time
from mflamingo_cli.config import NOTES
from mflamingo_cli.library.engines import DEFAULT_ENGINE, ENGINES
from mflamingo_cli.library.tag_fields import TagOptions
from mflamingo_cli.render import WRITERS
from mflamingo_cli.styles import CLAIMS_MODES, ClaimsMode

MAX_THREADS = 512  # GGML_MAX_N_THREADS: ggml ends the program when it is asked for more
WORDS = "Generation"
COLORS = ("auto", "always", "never")
PROGRESS = ("auto", "bar", "plain", "none")
NO_SONG_HELP = "Ask about music in general, without a song."
option = typer.Option


@dataclass(frozen=True)
class InputOptions:
    """Which songs, and which part of them."""

    panel: ClassVar[str] = "Input"
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Audio or video files, folders, playlists (.m3u, .pls, .xspf), or - for audio bytes on stdin."),
    ] = None
    files_from: Annotated[str | None, option(metavar="FILE", help="Read paths from FILE (- is stdin), one per line.")] = None
    null: Annotated[bool, option("-0", help="Paths in --files-from are separated by null bytes.")] = False
    start: Annotated[float | None, option(metavar="T", parser=parse_time, help="Start at this time in the song: 83.5 or 1:23.5.")] = None
    end: Annotated[float | None, option(metavar="T", parser=parse_time, help="End at this time in the song.")] = None


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it runs."""

    panel: ClassVar[str] = "Model"
    name: Annotated[
        str,
        option(
            "--model",
            "-m",
            metavar="NAME|DIR|FILE",
            help="An embedded model (mini, small), a checkpoint directory, a .gguf file, or the hub id of a downloaded model.",
        ),
    ] = DEFAULT_MODEL
    backend: Annotated[str, BACKENDS, option(help="Back end that runs the model.")] = OpenOptions.backend
    device: Annotated[str, option("-d", metavar="auto|cpu|cuda[:N]|mps", help="Device that runs the model.")] = OpenOptions.device
    dtype: Annotated[str, DTYPE_CHOICES, option(help="Number format for computing (torch).")] = OpenOptions.dtype
    quantize: Annotated[str, QUANTIZE_CHOICES, option(help="Quantise the language model when it is loaded (torch).")] = OpenOptions.quantize
    kv_type: Annotated[str, KV_TYPE_CHOICES, option(help="KV-cache type (gguf).")] = OpenOptions.kv_type
    threads: Annotated[int | None, option(metavar="N", min=1, max=MAX_THREADS, help="CPU threads; default: chosen automatically.")] = (
        OpenOptions.threads
    )
    batch_size: Annotated[
        int | None,
        option(metavar="N|auto", parser=parse_batch, help="Songs answered together; auto: 1 on a CPU, as many as fit and help on a GPU."),
    ] = None
    offline: Annotated[bool, option(help="Never use the network.")] = False
    no_cache: Annotated[bool, option(help="Neither read nor write the cache and the list of finished songs.")] = False

    @property
    def open(self) -> OpenOptions:
        """Return how the model is opened."""
        return OpenOptions(self.backend, self.device, self.dtype, self.kv_type, self.threads, self.quantize)


@dataclass(frozen=True)
class WordOptions:
    """How text is generated."""

    panel: ClassVar[str] = WORDS
    max_tokens: Annotated[int, option(metavar="N", min=1, help="Longest answer, in tokens.")] = GenerateOptions.max_new_tokens
    temperature: Annotated[float, option(metavar="X", min=0.0, help="Sampling temperature; 0 is greedy.")] = GenerateOptions.temperature
    top_p: Annotated[
        float, option(metavar="X", min=0.0, max=1.0, help="Nucleus sampling: keep the smallest set of tokens with this total probability.")
    ] = GenerateOptions.top_p
    seed: Annotated[int, option(metavar="N", min=0, help="Random seed for sampling.")] = GenerateOptions.seed
    repetition_penalty: Annotated[
        float, option(metavar="X", min=1.0, help="Make tokens that occurred before less likely: 1 is off, 1.1 is usual.")
    ] = GenerateOptions.repetition_penalty
    thinking_budget: Annotated[
        int | None, option(metavar="N", min=0, help="Longest reasoning, in tokens; longer reasoning is cut off and the model must answer.")
    ] = GenerateOptions.thinking_budget
    claims: Annotated[
        ClaimsMode | None,
        CLAIMS_MODES,
        option(
            help="Claims that contradict measured facts: mark, fix, drop the sentence, or leave raw; default: fix for mini, "
            "mark for other models. mini's captions are written from measured facts; with raw, mini writes them itself."
        ),
    ] = None

    @property
    def generate(self) -> GenerateOptions:
        """Return how text is generated."""
        return GenerateOptions(
            max_new_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            thinking_budget=self.thinking_budget,
        )


@dataclass(frozen=True)
class OutputOptions:
    """What is written, where, and what is said meanwhile."""

    panel: ClassVar[str] = "Output"
    format: Annotated[str | None, WRITERS, option("-f", help="Output format; default: table or text.")] = None
    json: Annotated[bool, option(help="Short for --format json: JSON Lines, one record per input, failures included.")] = False
    output: Annotated[
        str | None,
        option(
            "-o",
            metavar="FILE|FOLDER/",
            help="Write results to FILE (- is stdout), or one file per song to FOLDER/ (default format there: json).",
        ),
    ] = None
    sidecar: Annotated[bool, option(help="Write a file beside each song: song.flac.mflamingo.json, or with the extension of --format.")] = (
        False
    )
    fields: Annotated[
        str | None,
        option(
            metavar="A,B",
            parser=checked_fields,
            help="Fields to write as columns (csv, tsv, markdown) or keys (json), such as path,tempo.bpm,key.camelot.",
        ),
    ] = None
    where: Annotated[str | None, option(metavar="TEST", help="Show only matching songs, such as 'bpm > 120 and key in (8A, 9A)'.")] = None
    sort: Annotated[
        str | None,
        option(metavar="A,-B", parser=checked_order, help="Sort by these fields (- for descending); results appear at the end."),
    ] = None
    quiet: Annotated[bool, option("-q", help="Print results and errors only.")] = False
    verbose: Annotated[
        int, option("-v", count=True, show_default=False, help="Explain decisions, and include the model's raw text in records.")
    ] = 0
    color: Annotated[str, COLORS, option(help="Colours in results and messages.")] = "auto"
    progress: Annotated[str, PROGRESS, option(help="How progress is shown on stderr.")] = "auto"
    dry_run: Annotated[bool, option("-n", help="List the songs and stop.")] = False


@dataclass(frozen=True)
class RunOptions:
    """How a run over many songs goes."""

    panel: ClassVar[str] = "Many songs"
    jobs: Annotated[int | None, option("-j", metavar="N", min=1, help="Songs to decode and measure at once; default: one per core.")] = None
    force: Annotated[
        bool,
        option(help="Redo finished songs; also write tags into damaged files, and overwrite sidecar files that mflamingo did not write."),
    ] = False
    retry_failed: Annotated[bool, option(help="Retry songs that failed or were skipped in earlier runs.")] = False
    max_failures: Annotated[
        Share | None, option(metavar="N|P%", parser=parse_share, help="Stop when more songs than this have failed in this run.")
    ] = None
    fail_fast: Annotated[bool, option(help="Stop at the first song that fails.")] = False
    shard: Annotated[
        Shard | None, option(metavar="I/N", parser=parse_shard, help="Process only part I of N of the songs, divided by path.")
    ] = None
    engine: Annotated[str, ENGINES, option(help="Run here, or on a Ray cluster that writes a folder of records.")] = DEFAULT_ENGINE
    ray_address: Annotated[
        str | None, option(metavar="HOST:PORT", help="Address of the Ray cluster; default: start one on this machine.")
    ] = None


@dataclass(frozen=True)
class SongOptions:
    """The groups of every command that analyses songs.

    `typed` names the options that the command line has, not a setting; `notes` says which settings are not used.
    """

    input: InputOptions = InputOptions()
    model: ModelOptions = ModelOptions()
    words: WordOptions = WordOptions()
    output: OutputOptions = OutputOptions()
    run: RunOptions = RunOptions()
    typed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def tag_options(self) -> TagOptions | None:
        """What is written into the songs' files: nothing, for most commands."""
        return None

    def values(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield (name, value, default) of every option."""
        for group, fields in _groups(type(self)).items():
            for name, field in fields.items():
                yield name, getattr(getattr(self, group), field.name), field.default


def _groups(kind: type[SongOptions]) -> dict[str, dict[str, "dataclasses.Field[Any]"]]:
    """The fields of each group by the name of their option."""
    return {
        group.name: {_name(field): field for field in dataclasses.fields(group.type)}
        for group in dataclasses.fields(kind)
        if dataclasses.is_dataclass(group.type)
    }


def _name(field: "dataclasses.Field[Any]") -> str:
    """The long option with underscores, without its leading hyphens: `model` for the field `name` of `--model`."""
    first = get_args(field.type)[-1].default  # where Typer keeps the first name of an Annotated option
    return first[2:].replace("-", "_") if isinstance(first, str) and first.startswith("--") else field.name


def song_command(function: Callable[..., None]) -> Callable[..., None]:
    """Make `function(options, ...)` a Typer command: its own parameters come first, then the options of the groups of `options`."""
    first, *own = inspect.signature(function, eval_str=True).parameters.values()
    kind = first.annotation
    groups = _groups(kind)
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}

    def command(ctx: typer.Context, **values: Any) -> None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's products here are small: a second thread waits more than it works
        typed = frozenset(name for name in values if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE")
        made = {group: kinds[group](*map(values.pop, fields)) for group, fields in groups.items()}
        function(kind(**made, typed=typed, notes=ctx.meta.get(NOTES, ())), **values)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [_parameter(parameter.name, parameter.annotation, parameter.default, WORDS) for parameter in own]
    for group, fields in groups.items():
        parameters += [_parameter(name, field.type, field.default, kinds[group].panel) for name, field in fields.items()]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, annotation: Any, default: Any, panel: str) -> inspect.Parameter:
    """One parameter of a command under its panel: no flag has a `--no-` form; choices become a Literal, which Typer lists in the help."""
    kind, *tables, info = get_args(annotation)
    if isinstance(info, typer.models.OptionInfo):
        info.rich_help_panel = panel
        if not str(info.default).startswith("--"):  # Typer's place for the first name, here for a letter or nothing
            info.param_decls, info.default = [] if info.default is ... else [str(info.default)], "--" + name.replace("_", "-")
    for names in tables:
        literal = Literal[tuple(names)]  # type: ignore[valid-type]
        kind = literal | None if type(None) in get_args(kind) else literal
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])
