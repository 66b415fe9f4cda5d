"""Who does a run: `ENGINES`, one row per engine. The command line reads their names, so nothing is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mflamingo_cli.library.plan import Engine


@dataclass(frozen=True)
class Row:
    """Where an engine is, and which options it takes; `writes_folder`: its results are a folder."""

    made: str  # module:class
    takes: frozenset[str] | None = None  # names of options; None: all
    writes_folder: bool = False

    def engine(self) -> Engine:
        """Import and return the engine."""
        module, _, name = self.made.partition(":")
        made: Engine = getattr(import_module(module), name)()
        return made


OF_RAY = (
    "paths files_from null start end model backend device dtype kv_type threads quantize offline no_cache max_tokens temperature top_p "
    "seed repetition_penalty thinking_budget only no_model tempo_range json output quiet verbose color progress dry_run shard engine "
    "ray_address"
)
DEFAULT_ENGINE = "local"
ENGINES = {
    "local": Row("mflamingo_cli.library.run:LocalEngine"),
    "ray": Row("mflamingo_cli.library.ray:RayEngine", frozenset(OF_RAY.split()), writes_folder=True),
}
