"""The model itself is asked, without facts in the prompt and without corrections: a benchmark is about a model, not about this program."""

from __future__ import annotations

from pathlib import Path

from mflamingo_cli.backends.base import Backend, Encoded, GenerateOptions, Prompt, complete
from mflamingo_cli.core.audio import load
from mflamingo_cli.errors import AudioError
from mflamingo_cli.thinking import think_prompt
from mflamingo_cli.train.evaluate.bench.items import BenchItem


class Asker:
    """Asks greedily about one recording after the other; questions about the same part in a row share its encoding.

    Of a part that is longer than the model hears it is given the beginning.
    """

    def __init__(self, backend: Backend, *, think: bool = False, max_new_tokens: int = 1024) -> None:
        self._backend, self._think, self._options = backend, think, GenerateOptions(max_new_tokens=max_new_tokens)
        self._part: tuple[Path, float, float | None] | None = None
        self._encoded: Encoded | None = None

    def __call__(self, item: BenchItem) -> str:
        """Return the reply of the model, its reasoning included. Raises AudioError for a recording that cannot be decoded."""
        prompt = think_prompt(item.prompt()) if self._think else item.prompt()
        [reply] = complete(self._backend, self._encode(item), [Prompt(prompt)], self._options)
        return reply.text

    def _encode(self, item: BenchItem) -> Encoded:
        heard_to_s = item.start_s + self._backend.info.geometry.max_audio_s
        end_s = heard_to_s if item.end_s is None else min(item.end_s, heard_to_s)
        part = (item.audio, item.start_s, end_s)
        if self._encoded is None or part != self._part:
            try:
                [self._encoded] = self._backend.encode([load(item.audio, start_s=item.start_s, end_s=end_s)])
            except AudioError as error:
                raise AudioError(f"{item.id}: {error}", code=error.code) from error
            self._part = part
        return self._encoded
