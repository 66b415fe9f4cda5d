"""What a writer is, and what it gets besides its stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mflamingo_cli.render.query.fields import Field
    from mflamingo_cli.schema import Analysis


class Writer(Protocol):
    """Writes records one by one, each as soon as it is finished."""

    def write(self, record: Analysis) -> None:
        """Write one record."""
        ...


@dataclass(frozen=True)
class Layout:
    """What the user wants: colours, one song or many, the chosen fields (none: the usual ones), the folder of the file.

    `link` gives the path of a song's own file, relative to the index.
    """

    color: bool = False
    many: bool = False
    fields: tuple[Field, ...] = ()
    folder: str = "."
    link: Callable[[Analysis], str | None] | None = None
