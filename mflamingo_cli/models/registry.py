"""The published checkpoints of the families, their terms, and which of them are here. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mflamingo_cli.backends import DEFAULT_MODEL, find_model
from mflamingo_cli.errors import ModelError
from mflamingo_cli.store import hub

NVIDIA = "NVIDIA OneWay Noncommercial License"
RESEARCH = "research only"
APACHE = "Apache-2.0"


@dataclass(frozen=True)
class Published:
    """A checkpoint that these commands can open."""

    name: str
    about: str
    licence: str = NVIDIA


PUBLISHED = (
    Published("nvidia/music-flamingo-2601-hf", "8 B, bf16, 20 minutes"),
    Published("nvidia/music-flamingo-think-2601-hf", "8 B, bf16, reasons"),
    Published("nvidia/music-flamingo-hf", "8 B, bf16, preview, 10 minutes"),
    Published("nvidia/audio-flamingo-next-hf", "8 B, bf16, 30 minutes"),
    Published("nvidia/audio-flamingo-next-think-hf", "8 B, bf16, reasons"),
    Published("nvidia/audio-flamingo-next-captioner-hf", "8 B, bf16, captions"),
    Published("henry1477/music-flamingo-gguf", "8 B, GGUF of the preview"),
    Published("henry1477/music-flamingo-2601-hf-fp8", "8 B, fp8"),
)


def licence(names: Iterable[str]) -> str | None:
    """The terms of the first of some hub ids that is known here."""
    terms = {model.name: model.licence for model in PUBLISHED}
    return next((terms[name] for name in names if name in terms), None)


def listed() -> list[dict[str, Any]]:
    """The embedded model, the published ones, and what else of their families is in the cache."""
    try:
        find_model(DEFAULT_MODEL)
        state = "embedded"
    except ModelError:
        state = "missing"
    rows = [_row(DEFAULT_MODEL, "embedded, works offline", APACHE, None) | {"state": state}]
    rows += [_row(model.name, model.about, model.licence, hub.cached(model.name)) for model in PUBLISHED]
    names = {model.name for model in PUBLISHED}
    return rows + [_row(found.name, "", None, found) for found in hub.music_flamingos() if found.name not in names]


def _row(name: str, about: str, licence: str | None, found: hub.CachedModel | None) -> dict[str, Any]:
    state = "absent" if found is None else "downloaded" if found.directory else "partial"
    here = {"bytes": found.n_bytes if found else None, "revision": found.revision if found else None}
    return {"name": name, "state": state, "about": about, "licence": licence, **here}
