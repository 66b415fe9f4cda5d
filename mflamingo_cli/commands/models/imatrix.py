"""`mflamingo models imatrix`: an importance matrix, collected while a checkpoint answers about songs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mflamingo_cli.backends.options import GenerateOptions, OpenOptions
from mflamingo_cli.commands.reference import Device, End, MaxTokens, Start, TorchDtype, reference_request, song_files
from mflamingo_cli.errors import ExitCode, MFlamingoError, ModelError, UsageError, as_failed_work

if TYPE_CHECKING:
    from mflamingo_cli.backends.base import Backend
    from mflamingo_cli.backends.importance import Collector
    from mflamingo_cli.commands.terminal import Reporter
    from mflamingo_cli.requests import Request


def imatrix(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A checkpoint directory, or a downloaded hub id.")],
    songs: Annotated[list[str], typer.Argument(metavar="SONG", help="Audio files, folders or playlists.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The GGUF file to write.")],
    start: Start = None,
    end: End = None,
    max_tokens: MaxTokens = GenerateOptions.max_new_tokens,
    device: Device = OpenOptions.device,
    dtype: TorchDtype = OpenOptions.dtype,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Compute an importance matrix for `convert --imatrix`: the mean squared input of each weight matrix on songs. Needs torch."""
    from mflamingo_cli.backends import find_model, open_backend
    from mflamingo_cli.commands.terminal import Reporter, refuse_overwriting

    if find_model(name).directory is None:
        raise ModelError(f"{name}: contains only GGUF files; compute the importance matrix from the checkpoint, before converting")
    request, files = reference_request(start, end, max_tokens), song_files(songs)
    refuse_overwriting(str(output), files)
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{output}: this must be a file name in an existing folder")
    reporter = Reporter(progress="none" if quiet else "auto", quiet=quiet)
    done: list[str] = []
    with open_backend(name, OpenOptions("torch", device, dtype)) as backend:
        from mflamingo_cli.backends.importance import Collector
        from mflamingo_cli.backends.pytorch import TorchBackend

        assert isinstance(backend, TorchBackend), "only the torch back end shows the inputs of its matrices"
        collector = Collector(backend.network)
        try:
            failures = _collect(files, backend, request, collector, reporter, done)
        except KeyboardInterrupt:
            if done:
                _write(output, collector, done)
                reporter.warn(f"stopped; {output} contains the results of {len(done)} of {len(files)} songs")
            raise
    if not done:
        raise failures[-1]
    _write(output, collector, done)
    if not quiet:
        reporter.say(f"{collector.n_tokens} tokens, {len(done)} song{'s' * (len(done) != 1)}")
    print(output)
    if failures:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _collect(
    files: Sequence[str], backend: Backend, request: Request, collector: Collector, reporter: Reporter, done: list[str]
) -> list[MFlamingoError]:
    """Fill the collector and name the songs in `done`; the errors of those that are left out, which are reported."""
    from mflamingo_cli.models import agreement

    failures = []
    try:
        for number, song in enumerate(files, 1):
            reporter.working(f"{number}/{len(files)} {song}")
            try:
                agreement.collect(song, backend, request, collector)
                done.append(song)
            except MFlamingoError as error:
                reporter.idle()
                reporter.warn(str(error))
                failures.append(error)
    finally:
        reporter.idle()
    return failures


def _write(output: Path, collector: Collector, songs: Sequence[str]) -> None:
    from quant.imatrix import write

    with as_failed_work():
        write(output, collector.sums, [Path(song).name for song in songs])
