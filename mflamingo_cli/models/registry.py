"""The published checkpoints of the families, their terms, and which of them are here. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mflamingo_cli.backends import find_model
from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.errors import ModelError
from mflamingo_cli.store import hub

NVIDIA = "NVIDIA OneWay Noncommercial License"
RESEARCH = "research only"
HERE = ("bytes", "revision", "problem")  # of a model that is downloaded, null for others
EMBEDDED_LICENCES = {"mini": "Apache-2.0", "small": "Apache-2.0, encoder MIT"}


PUBLISHED = {  # name: about; their licence is NVIDIA's
    "nvidia/music-flamingo-2601-hf": "8 B, bf16, 20 minutes",
    "nvidia/music-flamingo-think-2601-hf": "8 B, bf16, reasoning",
    "nvidia/music-flamingo-hf": "8 B, bf16, preview, 10 minutes",
    "nvidia/audio-flamingo-next-hf": "8 B, bf16, 30 minutes",
    "nvidia/audio-flamingo-next-think-hf": "8 B, bf16, reasoning",
    "nvidia/audio-flamingo-next-captioner-hf": "8 B, bf16, captions",
    "henry1477/music-flamingo-gguf": "8 B, GGUF of the preview",
    "henry1477/music-flamingo-2601-hf-fp8": "8 B, fp8",
}


def licence(names: Iterable[str]) -> str | None:
    """The terms of some hub ids, None where none of them is known here."""
    return NVIDIA if any(name in PUBLISHED for name in names) else None


def listed() -> list[dict[str, Any]]:
    """The embedded models, the published ones, and what else of their families is in the cache."""
    rows = [_row(name, "embedded, works offline", EMBEDDED_LICENCES[name], None) | {"state": _embedded(name)} for name in EMBEDDED]
    rows += [_row(name, about, NVIDIA, hub.cached(name)) for name, about in PUBLISHED.items()]
    return rows + [_row(found.name, "", None, found) for found in hub.music_flamingos() if found.name not in PUBLISHED]


def _embedded(name: str) -> str:
    try:
        find_model(name)
    except ModelError:
        return "missing"
    return "embedded"


def _row(name: str, about: str, licence: str | None, found: hub.CachedModel | None) -> dict[str, Any]:
    state = "absent" if found is None else "damaged" if found.problem else "downloaded" if found.directory else "partial"
    here = {"bytes": found.n_bytes, "revision": found.revision, "problem": found.problem} if found else dict.fromkeys(HERE)
    return {"name": name, "state": state, "about": about, "licence": licence, **here}
