"""Language models that are given text alone: they write captions and reasons from facts, and rate answers."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

from mflamingo_cli.backends.options import GenerateOptions
from mflamingo_cli.errors import ModelError, UsageError

KEY = "OPENAI_API_KEY"
TIMEOUT_S = 300
MOST_TOKENS = 600  # of an answer: a caption of six sentences has 200
TEMPERATURE = 0.7


class ChatWriter(Protocol):
    """Whoever answers a prompt under an order; `name` stands in the provenance of what it writes."""

    name: str

    def complete(self, system: str, prompt: str, seed: int = 0, temperature: float = TEMPERATURE) -> str:
        """Return the answer. Raises ModelError where there is none."""


class Endpoint:
    """Any endpoint that speaks OpenAI's chat completions, such as llama.cpp's server; its key, where it needs one, is in OPENAI_API_KEY."""

    def __init__(self, url: str, model: str) -> None:
        self.name, self._url, self._model = f"{model} at {url}", url.rstrip("/") + "/chat/completions", model

    def complete(self, system: str, prompt: str, seed: int = 0, temperature: float = TEMPERATURE) -> str:
        """Return the answer. Raises ModelError where the endpoint does not answer as one."""
        said = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        body = {"model": self._model, "messages": said, "temperature": temperature, "seed": seed, "max_tokens": MOST_TOKENS}
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"]).strip()
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{self._url}: did not answer ({error})") from error


class LocalWriter:
    """An instruct model in a GGUF file."""

    def __init__(self, path: Path) -> None:
        from mflamingo_cli.backends.text_gguf import TextModel

        self.name, self._model = path.stem, TextModel(path)

    def complete(self, system: str, prompt: str, seed: int = 0, temperature: float = TEMPERATURE) -> str:
        """Return the answer."""
        options = GenerateOptions(max_new_tokens=MOST_TOKENS, temperature=temperature, top_p=0.95, seed=seed)
        return self._model.complete(system, prompt, options).strip()


def open_writer(place: str, model: str, option: str) -> ChatWriter:
    """Return the writer at an address or in a GGUF file. Raises UsageError that names the option."""
    if place.startswith(("http://", "https://")):
        return Endpoint(place, model)
    if place.endswith(".gguf"):
        return LocalWriter(Path(place).expanduser())
    raise UsageError(f"{option} {place}: neither a URL that begins with http:// or https:// nor a .gguf file")
