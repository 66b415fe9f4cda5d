"""A conversation about one song, which is decoded, measured and encoded once."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

from mflamingo_cli.backends.base import Backend, Encoded
from mflamingo_cli.errors import ModelError
from mflamingo_cli.grounding.follow_ups import completed
from mflamingo_cli.pipeline import Turn, encode, generate, preparing
from mflamingo_cli.requests import Path, Piece, PreparedSong, Request, Step, answerable, drain
from mflamingo_cli.schema import Analysis
from mflamingo_cli.store.cache import Cache
from mflamingo_cli.thinking import think_prompt

FOLLOWS = "chat"  # the ability to understand a question by the turns before it
ROOM_TO_ANSWER = 512  # positions that an answer in a conversation shall have, if it may be so long
CHARS_PER_TOKEN = 4  # of English; text of other scripts has more tokens, so too much is left out rather than too little


class Conversation:
    """Turns about one song.

    A model that can follow a conversation is given the turns before, the oldest left out when it holds no more: `forgotten` counts them.
    For others a question is completed by the one before it, so that facts answer it.
    """

    def __init__(self, backend: Backend, song: PreparedSong, encoded: Encoded | None, encode_s: float | None) -> None:
        self.follows = backend.info.abilities is None or FOLLOWS in backend.info.abilities
        self.forgotten = 0
        self._backend, self._song, self._encoded, self._encode_s = backend, song, encoded, encode_s
        self._turns: list[Turn] = []
        self._before: str | None = None  # the last question that was answered, whole
        self._used = 0  # positions of the last prompt and its answer

    @property
    def duration_s(self) -> float | None:
        """Length of the part that the conversation is about; None without a song."""
        return self._song.duration_s

    @classmethod
    def begin(
        cls, path: Path | None, backend: Backend, request: Request, cache: Cache | None = None
    ) -> Generator[Step, None, Conversation]:
        """Prepare and encode the song as the request says, where there is one. Raises MFlamingoError."""
        song = yield from preparing(path, request, backend.info, cache, alone=backend, listens=True)
        return cls(backend, song, *drain(encode(backend, {0: song}))[0])

    def say(self, request: Request) -> Generator[Step | Piece | Analysis, None, None]:
        """Take one turn: the same events as `pipeline.run` gives. A turn that fails or is not waited for leaves no trace."""
        request = self._completed(request)
        self._make_room(request)
        while True:
            try:
                yield from self._turn(request)
                return
            except ModelError as error:
                if error.code != "too_long" or not self._turns:
                    raise
                self._forget()

    def _turn(self, request: Request) -> Iterator[Step | Piece | Analysis]:
        asked, encoded = answerable(request, self._backend.info), {0: (self._encoded, self._encode_s)}
        for _, event in generate({0: self._song}, encoded, self._backend, request, asked, self._turns):
            if isinstance(event, Analysis):
                words = event.result.caption if event.result else event.text
                if self.follows and words and event.answerable is not False:
                    self._turns.append((request.tasks[0].prompt, words))
                if request.question and event.answerable:
                    self._before = request.question
                self._used = event.usage.tokens_in + event.usage.tokens_out if event.usage else 0
                self._song, self._encode_s = replace(self._song, decode_s=None, measure_s=None), None
            yield event

    def _completed(self, request: Request) -> Request:
        """The request with what its question leaves out, where the model is not given the turns before."""
        question = request.question if self.follows else completed(request.question, self._before)
        if question == request.question:
            return request
        prompt = think_prompt(question) if request.command == "think" else question
        return replace(request, question=question, tasks=(replace(request.tasks[0], prompt=prompt),))

    def _make_room(self, request: Request) -> None:
        """Leave turns out until the next answer has room, as far as can be estimated beforehand."""
        room = min(request.options.max_new_tokens, ROOM_TO_ANSWER) + len(request.tasks[0].prompt)
        while self._turns and self._used + room > self._backend.info.context_length:
            self._used -= sum(map(len, self._turns[0])) // CHARS_PER_TOKEN
            self._forget()

    def _forget(self) -> None:
        del self._turns[0]
        self.forgotten += 1
