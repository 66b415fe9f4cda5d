"""A writer of captions: any endpoint that speaks OpenAI's chat completions, such as llama.cpp's server on the same machine."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.schema import Analysis

ORDER = (
    "Write a caption of four to six sentences about a song for people who know music. Use only the facts that are given, all of them, "
    "with their numbers and names as they are; claim nothing else. Answer with the caption alone."
)
TIMEOUT_S = 300
KEY = "OPENAI_API_KEY"


class EndpointWriter:
    """Writes captions from facts by `URL/chat/completions`; the key, where one is needed, is in OPENAI_API_KEY."""

    def __init__(self, url: str, model: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--writer {url}: is no address that begins with http:// or https://")
        self._url, self._model = url.rstrip("/") + "/chat/completions", model

    def __call__(self, facts: Mapping[str, Any], record: Analysis) -> str | None:
        """Return a caption, None where nothing is known of a song. Raises ModelError where the endpoint does not answer."""
        known = {name: fact["value"] for name, fact in facts.items()} | {
            "chords": " ".join(dict.fromkeys(c.label for c in record.chords))[:200]
        }
        known = {name: value for name, value in known.items() if value not in (None, "")}
        if not known:
            return None
        said = [{"role": "system", "content": ORDER}, {"role": "user", "content": json.dumps(known, ensure_ascii=False)}]
        body = json.dumps({"model": self._model, "messages": said, "temperature": 0.7}).encode()
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=TIMEOUT_S) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"]).strip()
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{self._url}: gives no caption ({error})") from error
