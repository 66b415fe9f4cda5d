"""The GGUF back end: our ggml encoder in front of llama.cpp's language model.

A song is encoded to embeddings once; prompts then share its prefix in the KV cache and are decoded together, one token each per step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.base import Chunk, Encoded, GenerateOptions, OpenOptions, SongPrompts, no_progress, stamp
from mflamingo_cli.backends.generation import ForcedAnswer, LocalBackend, PrefixGroup, Sampler, batches, model_info
from mflamingo_cli.backends.ggml.binding import Device, library
from mflamingo_cli.backends.ggml.graph import GgmlEncoder
from mflamingo_cli.backends.ggml.llama_abi import MAX_SEQUENCES
from mflamingo_cli.backends.ggml.weights import BF16_FEATURE, Weights
from mflamingo_cli.backends.llama import Context, LanguageModel
from mflamingo_cli.backends.threads import useful_threads
from mflamingo_cli.backends.torch_encoder import TorchEncoder, faster_in_torch
from mflamingo_cli.core.audio import Audio, Window, checked_windows
from mflamingo_cli.core.chat import ChatTemplate
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.errors import ModelError
from quant.layout import hub_identity
from quant.pair import open_pair
from quant.types import TYPES
from quant.vocabulary import KEY_PRE, PRE_TOKENIZERS

Floats = npt.NDArray[np.float32]

KV_REASONS = {"auto": "f16, or q8_0 if f16 does not fit"}
FILE_TYPES = {mix.file_type: mix.name for mix in TYPES.values()}
NEXT_TURNS_TOKENS = 2048  # positions for the next turns of a conversation; when they are used up the song is prefilled again


class GgufBackend(LocalBackend):
    """`Backend` on a pair of GGUF files: text model and audio part."""

    def __init__(self, text: Path, audio: Path, options: OpenOptions | None = None) -> None:
        options = options or OpenOptions()
        pair = open_pair(text, audio)
        threads = options.threads or useful_threads(memory.file_bytes(text, audio))
        fingerprint = stamp([audio, *library().files()])  # before the weights are read, so that a file replaced meanwhile is noticed
        pair.check_weights()
        text_keys, audio_file, geometry = pair.text.keys, pair.audio, pair.geometry
        self._mel = LogMel(geometry.mel)
        self._prefix: PrefixCache | None = None
        with ExitStack() as opened:
            self._device = opened.enter_context(closing(Device(options.device, threads)))
            weights = opened.enter_context(closing(Weights(audio_file, self._device)))
            needed = memory.file_bytes(text) + weights.n_bytes
            memory.require_bytes(text.stem, needed, self._device.free_bytes(), "convert it to a smaller --type, or free some")
            self._encoder: GgmlEncoder | TorchEncoder
            if in_torch := faster_in_torch(weights):
                self._encoder = TorchEncoder(audio_file, geometry, threads)
            else:
                self._encoder = GgmlEncoder(weights, geometry, self._device)
            opened.enter_context(closing(self._encoder))
            nfc = PRE_TOKENIZERS[text_keys[KEY_PRE]].nfc
            self._language = opened.enter_context(
                closing(LanguageModel(text, self._device, threads, options.kv_type, geometry.text, nfc=nfc))
            )
            opened.callback(self._drop_prefix)
            self._opened = opened.pop_all()
        self._chat, self._end_ids = ChatTemplate(text_keys.get("tokenizer.chat_template"), geometry.tokens, text), self._language.end_ids
        card = {key.removeprefix("mflamingo."): value for key, value in audio_file.keys.items()}
        cache, device = KV_REASONS.get(options.kv_type, options.kv_type), self._device.name
        reason = f"{device} with {threads} thread{'s' * (threads > 1)}, KV cache {cache}"
        if in_torch or weights.converted:
            reason += f", audio part in BF16{' by torch' * in_torch}: {BF16_FEATURE}"
        self.info = model_info(
            geometry,
            card,
            hub_identity(text.parent) or (text.stem, None),
            backend="gguf",
            device=device,
            dtype=FILE_TYPES.get(text_keys.get("general.file_type", -1), "unknown"),
            reason=reason,
            encoder_fingerprint=f"{fingerprint} {device} {threads} {self._encoder.versions}",
        )

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        """Encode every window of each song.

        Raises AudioError(code="too_long") beyond the model's limit and ModelError(code="oom") where a song's KV cache would not fit.
        """
        songs = [list(checked_windows(audio, self.info.geometry)) for audio in audios]
        for audio, windows in zip(audios, songs, strict=True):
            needed, free = self._language.song_bytes(sum(window.n_tokens for window in windows)), self._device.free_bytes()
            memory.require_bytes(f"{audio.duration_s:.0f} s of audio", needed, free, "choose a part with --start and --end")
        return [self._encode(windows) for windows in songs]

    def _encode(self, windows: Sequence[Window]) -> Encoded:
        parts = []
        for index, window in enumerate(windows):
            self.on_progress(f"window {index + 1} of {len(windows)}")
            parts.append(self._encoder.window(self._mel(window.samples), window.n_frames, index))
        return self.unpack(self._finite(np.concatenate(parts)))

    def generate(self, songs: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer all prompts of as many songs together as memory allows; those with the same text in front of the audio share it."""
        groups = self._checked_groups(songs)
        if len(groups) == 1 and songs[0].keep_cache:
            yield from self._continue(groups[0], options)
            return
        self._drop_prefix()
        for batch in batches(groups, lambda some: self._fit(some, options)):
            with closing(Context(self._language, self._n_needed(batch, options), sum(len(group.after) for group in batch))) as context:
                context.prefill(batch, self.on_progress)
                yield from self._answer(context, batch, options)

    def _n_needed(self, groups: Sequence[PrefixGroup], options: GenerateOptions) -> int:
        return sum(group.n_needed(options, self.info.context_length) for group in groups)

    def _fit(self, groups: Sequence[PrefixGroup], options: GenerateOptions) -> bool:
        """Return whether songs can be answered together: in so many sequences, and in the memory that is left."""
        few = sum(len(group.after) for group in groups) <= MAX_SEQUENCES
        return few and self._language.fits(self._n_needed(groups, options), self._device.free_bytes())

    def _continue(self, group: PrefixGroup, options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer prompts about one song and keep its prefix, which is not computed again for the next ones as long as they fit."""
        needed = self._n_needed([group], options)
        if self._prefix is None or self._prefix.context.n_tokens < needed or not self._prefix.serves(group):
            self._drop_prefix()
            with ExitStack() as stack:
                n_tokens = min(needed + NEXT_TURNS_TOKENS, self.info.context_length)
                context = stack.enter_context(closing(Context(self._language, n_tokens, len(group.after))))
                context.prefill([group], self.on_progress)
                stack.pop_all()
            self._prefix = PrefixCache(group, context)
        context = self._prefix.context
        try:
            yield from self._answer(context, [group], options)
        finally:
            context.truncate(group.n_shared)

    def _drop_prefix(self) -> None:
        """Free the prefix that was kept of a song."""
        if self._prefix is not None:
            self._prefix.context.close()
            self._prefix = None

    def _answer(self, context: Context, groups: Sequence[PrefixGroup], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        logits = context.prefill_prompts([tokens for group in groups for tokens in group.after])
        return self._stream(groups, options, logits, choose, context.step)

    def _force_group(self, group: PrefixGroup, answers: list[list[int]]) -> list[ForcedAnswer]:
        n_tokens = group.n_shared + sum(map(len, group.after)) + sum(map(len, answers)) - len(answers)
        with closing(Context(self._language, n_tokens, len(answers))) as context:
            context.prefill([group], no_progress)
            return [context.force(index, group.after[index], answer) for index, answer in enumerate(answers)]

    def _finite(self, numbers: Any) -> Any:
        if not all(np.isfinite(row).all() for row in numbers):
            raise ModelError(
                "the model's values are too large: its weights are probably damaged; convert or download it again", code="failed"
            )
        return numbers

    def pack(self, encoded: Encoded) -> npt.NDArray[Any]:
        """Return the embeddings, (n_tokens, d_model) float32."""
        embeddings: Floats = encoded.payload
        return embeddings

    def unpack(self, numbers: npt.NDArray[Any]) -> Encoded:
        """Return embeddings as an encoding."""
        return Encoded(len(numbers), numbers)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens are recognised by name; nothing is added."""
        return self._language.tokenize(text)

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; special tokens have none."""
        return self._language.piece(token)

    def close(self) -> None:
        """Free the models."""
        self._opened.close()


@dataclass(frozen=True)
class PrefixCache:
    """The KV cache of a group's prefix, for the next prompts about the same song."""

    group: PrefixGroup
    context: Context

    def serves(self, group: PrefixGroup) -> bool:
        """Return whether a group begins with the same prefix and has as many prompts."""
        same_text = (group.before, len(group.after)) == (self.group.before, len(self.group.after))
        return same_text and group.embeddings is self.group.embeddings


def choose(logits: Sequence[Floats], samplers: Sequence[Sampler]) -> list[int]:
    """Choose a token for each answer from its logits."""
    return [sampler.pick(row) for row, sampler in zip(logits, samplers, strict=True)]
