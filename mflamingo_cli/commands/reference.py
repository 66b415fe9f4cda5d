"""What `models imatrix` and `models verify` share: a checkpoint that answers about songs, run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from mflamingo_cli.backends.options import DTYPE_CHOICES, GenerateOptions
from mflamingo_cli.commands.values import parse_time
from mflamingo_cli.errors import UsageError

if TYPE_CHECKING:
    from mflamingo_cli.requests import Request

    Dtype: TypeAlias = str
else:
    Dtype = Literal[DTYPE_CHOICES]

Start = Annotated[
    float | None, typer.Option("--start", metavar="T", parser=parse_time, help="Start at this time in each song: 83.5 or 1:23.5.")
]
End = Annotated[float | None, typer.Option("--end", metavar="T", parser=parse_time, help="End at this time in each song.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer about a song, in tokens.")]
Device = Annotated[str, typer.Option("--device", "-d", metavar="auto|cpu|cuda[:N]|mps", help="Device that torch uses.")]
TorchDtype = Annotated[Dtype, typer.Option("--dtype", help="Number format for computing in torch.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def reference_request(start_s: float | None, end_s: float | None, max_tokens: int) -> Request:
    """Every question of the program about a part of songs. Raises UsageError for a part that ends before it starts."""
    from mflamingo_cli.requests import agreement_request

    if end_s is not None and end_s <= (start_s or 0.0):
        raise UsageError("--end must be later than --start")
    return agreement_request(start_s=start_s or 0.0, end_s=end_s, options=GenerateOptions(max_new_tokens=max_tokens))


def song_files(songs: Sequence[str]) -> list[str]:
    """The files that the arguments name. Raises UsageError for stdin, which can be read only once."""
    from mflamingo_cli.commands import inputs

    if inputs.STDIN in songs:
        raise UsageError("stdin can be read only once; name a file")
    return inputs.collect(songs)
