"""What every format knows of its task: the stream is given, this is the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mflamingo_cli.render.query.fields import Field
from mflamingo_cli.schema import Analysis


class Writer(Protocol):
    """Writes records one by one, each as soon as it is there."""

    def write(self, record: Analysis) -> None:
        """Write one record."""
        ...


@dataclass(frozen=True)
class Layout:
    """What the user wants: colours, whether there are several songs, the chosen fields (none: the usual), where the file will lie.

    `link` leads from an index to a song's own file, relative to it.
    """

    color: bool = False
    many: bool = False
    fields: tuple[Field, ...] = ()
    folder: str = "."
    link: Callable[[Analysis], str | None] | None = None
