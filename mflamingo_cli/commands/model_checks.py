"""The bodies of `models imatrix` and `models verify`: a checkpoint on songs, a GGUF pair read back, and the pair on the same songs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mflamingo_cli.backends import find_model, open_backend
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions
from mflamingo_cli.commands import inputs, terminal
from mflamingo_cli.commands.tables import show, table
from mflamingo_cli.errors import ExitCode, MFlamingoError, ModelError, UsageError
from quant import QuantError, TensorReport, TypeReport, by_type, verifying

if TYPE_CHECKING:
    from mflamingo_cli.models.agreement import Agreement, ReferenceAnswers
    from mflamingo_cli.requests import Request


@dataclass(frozen=True)
class TrialOptions:
    """Which part of songs, how long the answers, and how the checkpoint is run."""

    start_s: float | None
    end_s: float | None
    max_tokens: int
    open: OpenOptions

    def request(self) -> Request:
        """Every question of the program."""
        from mflamingo_cli.requests import agreement_request

        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise UsageError("--end must be later than --start")
        return agreement_request(start_s=self.start_s or 0.0, end_s=self.end_s, options=GenerateOptions(max_new_tokens=self.max_tokens))


def collect_imatrix(name: str, songs: Sequence[str], output: Path, options: TrialOptions, quiet: bool) -> None:
    """Write an importance matrix of a checkpoint. A song that cannot be heard is left out and told."""
    if find_model(name).directory is None:
        raise ModelError(f"{name}: holds no checkpoint, only GGUF; an importance matrix is collected before converting")
    request, files = options.request(), _files(songs)
    terminal.refuse_overwriting(str(output), files)
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{output}: not a file name in a folder that is there")
    voice = terminal.Reporter(progress="none" if quiet else "auto", quiet=quiet)
    heard: list[str] = []
    failures: list[MFlamingoError] = []
    with open_backend(name, options.open) as backend:
        from mflamingo_cli.backends.importance import Collector
        from mflamingo_cli.backends.pytorch import TorchBackend
        from mflamingo_cli.models.agreement import collect

        assert isinstance(backend, TorchBackend), "only torch shows what its matrices read"
        collector = Collector(backend.network)
        for number, song in enumerate(files, 1):
            voice.working(f"{number}/{len(files)} {song}")
            try:
                collect(song, backend, request, collector)
                heard.append(song)
            except MFlamingoError as error:
                voice.idle()
                voice.warn(str(error))
                failures.append(error)
            except KeyboardInterrupt:
                voice.idle()
                if heard:
                    _write(output, collector, heard)
                    voice.warn(f"stopped; {output} holds what {len(heard)} of {len(files)} songs gave")
                raise
    voice.idle()
    if not heard:
        raise failures[-1]
    _write(output, collector, heard)
    if not quiet:
        voice.say(f"{collector.n_tokens} tokens, {len(heard)} song{'s' * (len(heard) != 1)}")
    print(output)
    if failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _files(songs: Sequence[str]) -> list[str]:
    if inputs.STDIN in songs:
        raise UsageError("stdin cannot be heard again; name a file")
    return inputs.collect(songs)


def _write(output: Path, collector: Any, songs: Iterable[str]) -> None:
    from quant.imatrix import write

    try:
        write(output, collector.sums, [Path(song).name for song in songs])
    except QuantError as error:
        raise MFlamingoError(str(error)) from error


def verify(path: Path, against: Path | None, on: Sequence[str], options: TrialOptions, verbose: bool, as_json: bool) -> None:
    """Show what is wrong with a pair, how exact it is, and how it agrees with its checkpoint on songs."""
    if on and against is None:
        raise UsageError("--on compares with a checkpoint; name it with --against")
    files = find_model(str(against)) if against else None
    if files and (files.directory is None or files.adapter):
        raise ModelError(f"{against}: {'is an adapter, no' if files.adapter else 'holds no'} checkpoint to compare with")
    source = files.directory if files else None
    request = options.request()
    songs = _files(on) if on else []
    voice = terminal.Reporter()
    reports = _read_back(path, source, voice)
    bad = [report for report in reports if report.problem]
    agreements: dict[Path, list[Agreement]] = {}
    if songs and not bad:  # a damaged pair is not worth the time
        agreements = _agreements(reports, _answers(str(against), songs, request, options.open, voice), request, voice)
    types = by_type(reports) if against else []
    if as_json:
        print(json.dumps(_record(reports, types, agreements)))
    else:
        _show_reports(reports, reports if verbose else bad, types)
        for file, found in agreements.items():
            _show_agreement(file, found)
    if bad:
        raise typer.Exit(1)


def _read_back(path: Path, source: Path | None, voice: terminal.Reporter) -> list[TensorReport]:
    reports = []
    try:
        for report in verifying(path, source):
            voice.working(report.name)
            reports.append(report)
    except QuantError as error:
        raise MFlamingoError(str(error)) from error
    finally:
        voice.idle()
    return reports


def _answers(name: str, songs: Sequence[str], request: Request, options: OpenOptions, voice: terminal.Reporter) -> list[ReferenceAnswers]:
    """What the checkpoint itself says; it is closed before the pair is opened, because both may not fit."""
    from mflamingo_cli.models.agreement import collect

    trials = []
    try:
        with open_backend(name, options) as backend:
            for song in songs:
                voice.working(f"{song}: {name} answers")
                trials.append(collect(song, backend, request))
    finally:
        voice.idle()
    return trials


def _agreements(
    reports: Sequence[TensorReport], trials: Sequence[ReferenceAnswers], request: Request, voice: terminal.Reporter
) -> dict[Path, list[Agreement]]:
    """By text part, in the order of the reports: a pair's tensors name its text part first."""
    from mflamingo_cli.models.agreement import compare
    from quant.layout import AUDIO_PREFIX

    found = {}
    try:
        for file in dict.fromkeys(report.file for report in reports if not report.file.name.startswith(AUDIO_PREFIX)):
            voice.working(f"{file.name} follows")
            with open_backend(str(file)) as backend:
                found[file] = list(compare(trials, backend, request))
    finally:
        voice.idle()
    return found


def _record(reports: Sequence[TensorReport], types: Sequence[TypeReport], agreements: dict[Path, list[Agreement]]) -> dict[str, Any]:
    agreed = [{"file": str(file), **vars(agreement)} for file, found in agreements.items() for agreement in found]
    return {"tensors": [_plain(report) for report in reports], "types": [_plain(one) for one in types], "agreement": agreed}


def _plain(report: TensorReport | TypeReport) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    fields = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in vars(report).items()}
    return fields | {"file": str(report.file)}


def _show_reports(reports: Sequence[TensorReport], shown: Sequence[TensorReport], types: Sequence[TypeReport]) -> None:
    if shown:
        show(_tensor_table(shown, bool(types)))
    for file in dict.fromkeys(one.file for one in types):
        show(f"{file.name}:")
        show(_type_table([one for one in types if one.file == file]))
    n_bad = sum(report.problem is not None for report in reports)
    show(f"{len(reports)} tensors, {n_bad} with problems")


def _tensor_table(reports: Sequence[TensorReport], compared: bool) -> Any:
    rows = table("tensor", "type", "shape", "error", "problem") if compared else table("tensor", "type", "shape", "problem")
    for report in reports:
        error = [] if not compared else ["" if report.error is None else f"{report.error:.5f}"]
        rows.add_row(report.name, report.type, "x".join(map(str, report.shape)), *error, report.problem or "")
    return rows


def _type_table(types: Sequence[TypeReport]) -> Any:
    rows = table("type", "tensors", "MB", "error", "largest", "in")
    for one in types:
        numbers = ["" if number is None else f"{number:.5f}" for number in (one.error, one.largest)]
        rows.add_row(one.type, str(one.n_tensors), f"{one.n_bytes / 1e6:.1f}", *numbers, one.worst or "")
    return rows


def _show_agreement(file: Path, found: Sequence[Agreement]) -> None:
    for one in found:
        share = f"{100 * one.n_same / one.n_tokens:.1f} % of next tokens agree ({one.n_same} of {one.n_tokens})"
        show(f"{file.name} on {one.song}: {share}")
