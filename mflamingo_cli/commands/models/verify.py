"""`mflamingo models verify`: a GGUF pair read back, and beside its checkpoint on songs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mflamingo_cli.backends.options import GenerateOptions, OpenOptions
from mflamingo_cli.commands.reference import Device, End, Json, MaxTokens, Start, TorchDtype, reference_request, song_files
from mflamingo_cli.commands.tables import show, show_json, table
from mflamingo_cli.errors import ExitCode, ModelError, UsageError, as_failed_work

if TYPE_CHECKING:
    from mflamingo_cli.commands.terminal import Reporter
    from mflamingo_cli.models.agreement import ReferenceAnswers, TokenAgreement
    from mflamingo_cli.requests import Request
    from quant.verify import TensorReport, TypeReport


def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A directory with GGUF pairs, or the language-model file of one pair.")],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="SRC", help="Checkpoint that the pair was converted from, to compare with.")
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="SONG", help="Also compare next tokens on this song; repeatable. Needs torch.")
    ] = None,
    start: Start = None,
    end: End = None,
    max_tokens: MaxTokens = GenerateOptions.max_new_tokens,
    device: Device = OpenOptions.device,
    dtype: TorchDtype = OpenOptions.dtype,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every tensor, not only those with problems.")] = False,
    as_json: Json = False,
) -> None:
    """Check a GGUF pair: names, shapes, types, and with --against the error of every tensor. Exit code 1 if anything is wrong.

    With --on the checkpoint answers the program's questions about a song, the pair reads the same song and answers, and the table shows
    how often both predict the same next token.
    """
    from mflamingo_cli.backends import find_model
    from mflamingo_cli.commands.terminal import Reporter
    from quant.verify import verify as verify_tensors

    options = OpenOptions("torch", device, dtype)
    if on and against is None:
        raise UsageError("--on needs a checkpoint to compare with; name it with --against")
    files = find_model(str(against)) if against else None
    if files and (files.directory is None or files.adapter):
        raise ModelError(f"{against}: {'is an adapter, not a' if files.adapter else 'contains no'} checkpoint to compare with")
    request, songs, reporter = reference_request(start, end, max_tokens), song_files(on) if on else [], Reporter()
    try:
        with as_failed_work():
            reports = []
            for report in verify_tensors(path, files.directory if files else None):
                reporter.working(report.name)
                reports.append(report)
        bad = [report for report in reports if report.problem]
        agreements: dict[Path, list[TokenAgreement]] = {}
        if songs and not bad:  # a damaged pair is not run
            agreements = _agreements(reports, _answers(str(against), songs, request, options, reporter), request, reporter)
    finally:
        reporter.idle()
    _print(reports, agreements, compared=against is not None, verbose=verbose, as_json=as_json)
    if bad:
        raise typer.Exit(ExitCode.ALL_FAILED)


def _print(
    reports: Sequence[TensorReport], agreements: dict[Path, list[TokenAgreement]], *, compared: bool, verbose: bool, as_json: bool
) -> None:
    from quant.verify import by_type

    types = by_type(reports) if compared else []
    if as_json:
        agreed = [{"file": str(file), **vars(agreement)} for file, found in agreements.items() for agreement in found]
        show_json({"tensors": [_plain(report) for report in reports], "types": [_plain(one) for one in types], "agreement": agreed})
        return
    if shown := [report for report in reports if verbose or report.problem]:
        show(_tensor_table(shown, bool(types)))
    for file in dict.fromkeys(one.file for one in types):
        show(f"{file.name}:")
        show(_type_table([one for one in types if one.file == file]))
    n_bad = sum(report.problem is not None for report in reports)
    show(f"{len(reports)} tensors, {n_bad} with problems")
    for file, found in agreements.items():
        for one in found:
            share = f"{100 * one.n_same / one.n_tokens:.1f} % of next tokens agree ({one.n_same} of {one.n_tokens})"
            show(f"{file.name} on {one.song}: {share}")


def _answers(name: str, songs: Sequence[str], request: Request, options: OpenOptions, reporter: Reporter) -> list[ReferenceAnswers]:
    """The checkpoint's own answers; it is closed before the pair is opened, because both may not fit."""
    from mflamingo_cli.backends import open_backend
    from mflamingo_cli.models.agreement import collect

    references = []
    with open_backend(name, options) as backend:
        for song in songs:
            reporter.working(f"{song}: {name} answers")
            references.append(collect(song, backend, request))
    return references


def _agreements(
    reports: Sequence[TensorReport], references: Sequence[ReferenceAnswers], request: Request, reporter: Reporter
) -> dict[Path, list[TokenAgreement]]:
    """By text part, in the order of the reports: a pair's tensors name its text part first."""
    from mflamingo_cli.backends import open_backend
    from mflamingo_cli.models.agreement import compare
    from quant.layout import AUDIO_PREFIX

    found = {}
    for file in dict.fromkeys(report.file for report in reports if not report.file.name.startswith(AUDIO_PREFIX)):
        reporter.working(f"{file.name} reads the answers")
        with open_backend(str(file)) as backend:
            found[file] = list(compare(references, backend, request))
    return found


def _plain(report: TensorReport | TypeReport) -> dict[str, Any]:
    """For JSON, which has no infinity."""
    fields = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in vars(report).items()}
    return fields | {"file": str(report.file)}


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
