"""The settings that a run was begun with: the same command resumes it, one with other settings is refused by the name of the option.

A model or a file is written as NAME (…, HASH): the hash of its content is compared, so that it may be moved or renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mflamingo_cli.errors import UsageError

HASH_DIGITS = 8
HASH = re.compile(rf"\((?:.*, )?([0-9a-f]{{{HASH_DIGITS}}})\)$")
WORDS = {True: "on", False: "off", None: "none"}


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from a file."""
    return dict(json.loads(json.dumps(settings)))


def content_hash(path: Path) -> str:
    """Return a hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:HASH_DIGITS]


def require_same(where: object, then: Mapping[str, Any], now: Mapping[str, Any], option: str = "--{}") -> None:
    """Raise UsageError that names the first option whose value is not the one from then; options that only one of them has are let be."""
    for name, value in as_json(now).items():
        if name in then and _compared(then[name]) != _compared(value):
            spelled, old = option.format(name), _shown(then[name])
            raise UsageError(
                f"{where}: was begun with {spelled} {old}, not {_shown(value)}; to resume, set {spelled} to {old} again; to begin anew, "
                "choose another output or remove this one"
            )


def _compared(value: Any) -> Any:
    if isinstance(value, list):
        return [_compared(one) for one in value]
    return found[1] if isinstance(value, str) and (found := HASH.search(value)) else value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_shown, value)) or "none"
    return WORDS[value] if value is None or isinstance(value, bool) else str(value)
