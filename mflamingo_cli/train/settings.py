"""The settings that a run was begun with: the same command resumes it, one with other settings is refused by the name of the option."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mflamingo_cli.errors import UsageError

WORDS = {True: "on", False: "off", None: "none"}


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from a file."""
    return dict(json.loads(json.dumps(settings)))


def require_same(where: object, then: Mapping[str, Any], now: Mapping[str, Any], option: str = "--{}") -> None:
    """Raise UsageError that names the first option whose value is not the one from then; options that only one of them has are let be."""
    for name, value in as_json(now).items():
        if name in then and then[name] != value:
            spelled, old = option.format(name), _shown(then[name])
            raise UsageError(
                f"{where}: was begun with {spelled} {old}, not {_shown(value)}; to resume, set {spelled} to {old} again; to begin anew, "
                "choose another output or remove this one"
            )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_shown, value)) or "none"
    return WORDS[value] if value is None or isinstance(value, bool) else str(value)
