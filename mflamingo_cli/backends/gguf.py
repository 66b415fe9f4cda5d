"""The GGUF back end: our ggml encoder in front of llama.cpp's language model.

A song is encoded to embeddings once; prompts then share its prefix in the KV cache and are decoded together, one token each per step.
"""

from __future__ import annotations

import ctypes
import os
import platform
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends import ggml, memory
from mflamingo_cli.backends.base import BackendInfo, Chunk, Encoded, GenerateOptions, OpenOptions, SongPrompts, no_progress, stamp
from mflamingo_cli.backends.generation import FORCED_BATCH, Answer, AnswerReader, ForcedAnswer, PrefixGroup, batches, group_by_prefix
from mflamingo_cli.backends.threads import useful_threads
from mflamingo_cli.backends.torch_encoder import TorchEncoder, quicker_in_torch
from mflamingo_cli.core.audio import Audio
from mflamingo_cli.core.chat import END_TOKENS, ChatTemplate
from mflamingo_cli.core.features import Window, checked_windows
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.errors import ModelError
from quant import keys
from quant.geometry import Geometry, TextSizes
from quant.keys import geometry_of_keys
from quant.layout import hub_identity
from quant.types import TYPES

Floats = npt.NDArray[np.float32]

KV_TYPES = {"f16": (1, 2.0), "q8_0": (8, 34 / 32), "f32": (0, 4.0)}  # enum ggml_type, bytes of a value
KV_REASONS = {"auto": "f16, q8_0 where that does not fit"}
# Where libllama keeps weights as they are in the file. Repacked, 8 B in Q4_K_M take 3 GB more, read a song at 0.63 of the speed, and write
# 1.1 times as fast: less in all, as long as an answer is shorter than its song.
NO_GAIN_FROM_REPACKING = {"x86_64", "AMD64"}
ROOM_TO_ANSWER = 2048  # positions beside the audio that are certain to be wanted, before questions and their limits are known
FILE_TYPES = {mix.file_type: mix.name for mix in TYPES.values()}
BATCH = 512  # tokens per llama_decode while reading a prompt: llama.cpp's own default for n_ubatch
ROOM_TO_GO_ON = 2048  # positions for the next turns of a conversation; with more the song is read again
CONTEXT_STEP = 256  # llama.cpp pads contexts to this
# Where a processor reads as fast with plain attention as with flash attention, and writes faster: in the 8 B shape by 0.7 ms a layer and
# token after 1500 tokens, 2.0 ms after 6000.
WIDE_HEAD = 128  # channels; with fewer it spends more time on the scores than they save
SCORES_BYTES = 512 << 20  # of one layer's scores, which flash attention does not keep


class GgufBackend(AnswerReader):
    """`Backend` on a pair of GGUF files: text model and audio part."""

    def __init__(self, text: Path, audio: Path, options: OpenOptions | None = None) -> None:
        options = options or OpenOptions()
        threads = options.threads or useful_threads(memory.file_bytes(text, audio))
        ears = stamp([audio, *ggml.library().files()])  # before the weights are read: what is written over them later is not these ears
        text_keys, audio_keys = ggml.read_metadata(text), ggml.read_metadata(audio)
        geometry = geometry_of_keys(audio_keys, text_keys, text)
        self._mel = LogMel(geometry.mel)
        with ExitStack() as opened:
            self._device = opened.enter_context(closing(ggml.Device(options.device, threads)))
            weights = opened.enter_context(closing(ggml.Weights(audio, self._device)))
            needed = memory.file_bytes(text) + weights.n_bytes
            memory.require_bytes(text.stem, needed, self._device.room(), "convert it to a smaller --type, or free some")
            self._encoder: ggml.Encoder | TorchEncoder
            if in_torch := quicker_in_torch(weights):
                self._encoder = TorchEncoder(audio, geometry, threads)
            else:
                self._encoder = ggml.Encoder(weights, geometry, self._device)
            opened.enter_context(closing(self._encoder))
            self._language = opened.enter_context(closing(LanguageModel(text, self._device, threads, options.kv_type, geometry.text)))
            self._opened = opened.pop_all()
        self._chat = ChatTemplate(text_keys.get("tokenizer.chat_template"), geometry.tokens)
        info = _info(text, geometry, text_keys, audio_keys, self._device.name, options, threads)
        if in_torch or weights.widened:
            info = replace(info, reason=f"{info.reason}, audio part in BF16{' by torch' * in_torch}: {ggml.QUICK_BF16}")
        self.info = replace(info, encoder_fingerprint=f"{ears} {info.device} {threads} {self._encoder.versions}")
        self.on_progress: Callable[[str], None] = no_progress

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        """Embed every window of each song.

        Raises AudioError(code="too_long") beyond the model's limit and ModelError(code="oom") where there is no room to talk about one.
        """
        songs = [list(checked_windows(audio, self.info.geometry)) for audio in audios]
        for audio, windows in zip(audios, songs, strict=True):
            needed = self._language.song_bytes(sum(window.n_tokens for window in windows))
            memory.require_bytes(f"{audio.duration_s:.0f} s of audio", needed, self._device.room(), "choose a part with --start and --end")
        return [self._encode(windows) for windows in songs]

    def _encode(self, windows: Sequence[Window]) -> Encoded:
        parts = []
        for index, window in enumerate(windows):
            self.on_progress(f"window {index + 1} of {len(windows)}")
            parts.append(self._encoder.window(self._mel(window.samples), window.n_frames, index))
        embeddings = np.concatenate(parts)
        return Encoded(len(embeddings), embeddings)

    def generate(self, talks: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer all prompts of as many songs together as memory allows; those with the same text in front of the audio share it."""
        rows, limit = group_by_prefix(talks, self._chat, self._language.tokenize), self.info.context_length
        for row in rows:
            row.check(limit)
        if len(rows) == 1 and talks[0].keep_cache:
            yield from self._language.go_on(rows[0], options, limit, self.on_progress)
            return
        self._language.forget()
        for batch in batches(rows, lambda some: self._language.fit(some, options, limit, self._device.room())):
            yield from self._language.generate(batch, options, limit, self.on_progress)

    def tokenize(self, text: str) -> list[int]:
        """Return ids of text in which special tokens are recognised by name; nothing is added."""
        return self._language.tokenize(text)

    def _force_group(self, group: PrefixGroup, answers: list[list[int]]) -> list[ForcedAnswer]:
        return self._language.teacher_force(group, answers)

    def pack(self, encoded: Encoded) -> npt.NDArray[Any]:
        """The embeddings: (n_tokens, d_model) float32."""
        embeddings: Floats = encoded.payload
        return embeddings

    def unpack(self, numbers: npt.NDArray[Any]) -> Encoded:
        """The same, as an encoding."""
        return Encoded(len(numbers), numbers)

    def close(self) -> None:
        """Free the models."""
        self._opened.close()

    def __enter__(self) -> GgufBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _info(
    text: Path,
    geometry: Geometry,
    text_keys: Mapping[str, Any],
    audio_keys: Mapping[str, Any],
    device: str,
    options: OpenOptions,
    threads: int,
) -> BackendInfo:
    name, revision = hub_identity(text.parent) or (text.stem, None)
    abilities = audio_keys.get(keys.KEY_ABILITIES)
    return BackendInfo(
        model=audio_keys.get(keys.KEY_NAME, name),
        revision=audio_keys.get(keys.KEY_REVISION, revision),
        backend="gguf",
        device=device,
        dtype=FILE_TYPES.get(text_keys.get("general.file_type", -1), "unknown"),
        reason=f"{device} with {threads} thread{'s' * (threads > 1)}, KV cache {KV_REASONS.get(options.kv_type, options.kv_type)}",
        context_length=geometry.text.context_length,
        geometry=geometry,
        abilities=None if abilities is None else frozenset(abilities),
        grounded=bool(audio_keys.get(keys.KEY_GROUNDED, False)),
    )


class LanguageModel:
    """A `qwen2` GGUF in libllama: tokens or embeddings in, logits out."""

    def __init__(self, path: Path, device: ggml.Device, threads: int, kv_type: str, sizes: TextSizes) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self.device, self._threads, self._sizes = device, threads, sizes
        whole_blocks = sizes.d_head % 32 == 0  # q8_0 has blocks of 32 values
        self._kv_types = (("f16", "q8_0") if whole_blocks else ("f16",)) if kv_type == "auto" else (kv_type,)  # by preference
        self._mapped_bytes = 0 if device.is_gpu else path.stat().st_size  # weights in the page cache, which counts as available
        llama_cpp.llama_log_set(ggml.as_log_callback(llama_cpp.llama_log_callback), None)
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = -1 if device.is_gpu else 0
        parameters.use_extra_bufts = platform.machine() not in NO_GAIN_FROM_REPACKING
        parameters.split_mode, parameters.main_gpu = llama_cpp.LLAMA_SPLIT_MODE_NONE, device.gpu_index
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load it ({ggml.last_error()})")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._end_ids = self._ends()
        self._kept: PrefixCache | None = None

    def kv_type(self, n_tokens: int, room: int | None) -> str:
        """Number format of a KV cache for so many positions: the half as large one, from which a CPU reads at a quarter of the speed,
        only where the other does not fit into so many bytes."""
        return self._kv_types[0] if self._fits(n_tokens, room) else self._kv_types[-1]

    def plain_attention(self, n_tokens: int, kv_type: str) -> bool:
        """Whether a context of so many positions is read without flash attention, which also computes in half precision."""
        scores = 4 * BATCH * self._sizes.n_heads * n_tokens
        pays = self._sizes.d_head >= WIDE_HEAD and scores <= SCORES_BYTES and not self.device.is_gpu
        return kv_type == "f32" or (kv_type == "f16" and pays)

    def song_bytes(self, n_audio_tokens: int) -> int:
        """KVCache that embeddings and KV cache of a song take at least, beside weights that are only mapped."""
        cache = self._cache_bytes(n_audio_tokens + ROOM_TO_ANSWER, self._kv_types[-1])
        return self._mapped_bytes + cache + 4 * n_audio_tokens * self._sizes.d_model

    def _fits(self, n_tokens: int, room: int | None) -> bool:
        return room is None or self._mapped_bytes + self._cache_bytes(n_tokens, self._kv_types[0]) <= room

    def _cache_bytes(self, n_tokens: int, kv_type: str) -> int:
        _, value_bytes = KV_TYPES[kv_type]
        return int(n_tokens * memory.kv_bytes(self._sizes.n_layers, self._sizes.n_kv_heads, self._sizes.d_head, value_bytes))

    def _ends(self) -> frozenset[int]:
        """Ids that end an answer; llama.cpp's own list also holds [PAD], which transformers does not stop at."""
        named = [self.tokenize(name) for name in END_TOKENS]
        ids = {ids[0] for ids in named if len(ids) == 1} | {self._llama.llama_vocab_eos(self._vocab)}
        return frozenset(ids - {-1})

    def tokenize(self, text: str) -> list[int]:
        """Ids of text in which special tokens are recognised by name; nothing is added."""
        data = unicodedata.normalize("NFC", text).encode("utf-8")  # part of Qwen2's tokenizer that libllama leaves out
        buffer = (self._llama.llama_token * (len(data) + 1))()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, True)
        assert count >= 0, "a token covers at least one byte"
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Bytes of a token; special tokens have none."""
        buffer = ctypes.create_string_buffer(256)
        count = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        assert count >= 0, "no token is longer than the buffer"
        return buffer.raw[:count]

    def fit(self, rows: Sequence[PrefixGroup], options: GenerateOptions, limit: int, room: int | None) -> bool:
        """Whether songs can be answered together: in so many sequences, and in so many bytes."""
        if sum(len(row.after) for row in rows) > self._llama.llama_max_parallel_sequences():
            return False
        n_tokens = sum(row.n_needed(options, limit) for row in rows)
        return self._fits(n_tokens, room)

    def generate(
        self, rows: Sequence[PrefixGroup], options: GenerateOptions, limit: int, tell: Callable[[str], None]
    ) -> Iterator[tuple[int, int, Chunk]]:
        """Stream answers to the prompts of several songs; `limit` is the context length of one conversation."""
        with closing(Context(self, sum(row.n_needed(options, limit) for row in rows), sum(len(row.after) for row in rows))) as context:
            own = self._read(context, rows, tell)
            yield from self._answer(context, rows, own, options, limit)

    def go_on(
        self, row: PrefixGroup, options: GenerateOptions, limit: int, tell: Callable[[str], None]
    ) -> Iterator[tuple[int, int, Chunk]]:
        """The same about one song, which is not read again as long as it is the same and what is asked has room."""
        needed, kept = row.n_needed(options, limit), self._kept
        if kept is None or not (kept.context.n_tokens >= needed and kept.begins(row)):
            self.forget()
            with ExitStack() as stack:
                context = stack.enter_context(closing(Context(self, min(needed + ROOM_TO_GO_ON, limit), len(row.after))))
                self._read(context, [row], tell)
                stack.pop_all()
            kept = self._kept = PrefixCache(row, context)
        try:
            yield from self._answer(kept.context, [row], row.after, options, limit)
        finally:
            kept.context.cut(row.n_shared)

    def forget(self) -> None:
        """Free what was kept of a song."""
        if self._kept is not None:
            self._kept.context.close()
            self._kept = None

    def _answer(
        self, context: Context, rows: Sequence[PrefixGroup], own: list[list[int]], options: GenerateOptions, limit: int
    ) -> Iterator[tuple[int, int, Chunk]]:
        logits = context.continue_each(own)
        answers = [Answer(row, index, options, self._end_ids, limit) for row in rows for index in range(len(row.after))]
        running = list(range(len(answers)))
        while running:
            tokens = [answers[index].sampler.pick(row) for index, row in zip(running, logits, strict=True)]
            for index, token in zip(running, tokens, strict=True):
                yield from answers[index].add(token, self.piece(token))
            going = [(index, token) for index, token in zip(running, tokens, strict=True) if not answers[index].ended]
            running = [index for index, _ in going]
            if running:
                logits = context.step(going)

    def _read(self, context: Context, rows: Sequence[PrefixGroup], tell: Callable[[str], None] = no_progress) -> list[list[int]]:
        """Read what each row shares, a sequence for each of its prompts; the prompts' own tokens, by sequence."""
        own: list[list[int]] = []
        for row in rows:
            embeddings = np.empty((0, self._sizes.d_model), np.float32) if row.embeddings is None else row.embeddings
            context.read(len(own), row.before, embeddings, tell)
            context.group_by_prefix(len(own), len(row.after))
            own += row.after
        return own

    def teacher_force(self, row: PrefixGroup, answers: list[list[int]]) -> list[ForcedAnswer]:
        """Read each prompt and the answer to it, up to the answer's last token."""
        context = Context(self, row.n_shared + sum(map(len, row.after)) + sum(map(len, answers)), len(row.after))
        try:
            own = self._read(context, [row])
            return [context.teacher_force(index, tokens, answers[index]) for index, tokens in enumerate(own)]
        finally:
            context.close()

    def close(self) -> None:
        """Free the model."""
        self.forget()
        if self._model:
            self._llama.llama_model_free(self._model)
            self._model = None


@dataclass(frozen=True)
class PrefixCache:
    """What was read of a song, for the next question about it."""

    row: PrefixGroup
    context: Context

    def begins(self, row: PrefixGroup) -> bool:
        """Whether that is what a row begins with."""
        same_text = (row.before, len(row.after)) == (self.row.before, len(self.row.after))
        return same_text and row.embeddings is self.row.embeddings


class Context:
    """A KV cache: as long as needed, one sequence per prompt, what a song's prompts share in all of theirs."""

    def __init__(self, model: LanguageModel, n_tokens: int, n_sequences: int) -> None:
        self._llama, self._model = model._llama, model
        parameters = self._llama.llama_context_default_params()
        self.n_tokens = parameters.n_ctx = -(-n_tokens // CONTEXT_STEP) * CONTEXT_STEP
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_seq_max = n_sequences
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = model._threads
        kv_type = model.kv_type(n_tokens, model.device.room())
        parameters.type_k = parameters.type_v = KV_TYPES[kv_type][0]
        plain = model.plain_attention(parameters.n_ctx, kv_type)
        parameters.flash_attn_type = self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED if plain else self._llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        self._context = self._llama.llama_init_from_model(model._model, parameters)
        if not self._context:
            raise ModelError(f"no memory for a context of {parameters.n_ctx} tokens ({ggml.last_error()}); try --kv-type q8_0", code="oom")
        self._memory = self._llama.llama_get_memory(self._context)
        self._length = [0] * n_sequences

    def read(self, sequence: int, tokens: list[int], embeddings: Floats, tell: Callable[[str], None]) -> None:
        """Put tokens, then embeddings, into a sequence."""
        for start in range(0, len(tokens), BATCH):
            self._submit([(sequence, token) for token in tokens[start : start + BATCH]], [])
        for start in range(0, len(embeddings), BATCH):
            tell(f"{100 * start // len(embeddings)} % of the song read")
            self._submit_embeddings(sequence, embeddings[start : start + BATCH])

    def group_by_prefix(self, first: int, count: int) -> None:
        """Let so many sequences from `first` on see what that one holds, without copying it."""
        for sequence in range(first + 1, first + count):
            self._llama.llama_memory_seq_cp(self._memory, first, sequence, -1, -1)
            self._length[sequence] = self._length[first]

    def cut(self, length: int) -> None:
        """Forget what comes after so many positions of each sequence."""
        for sequence in range(len(self._length)):
            self._llama.llama_memory_seq_rm(self._memory, sequence, length, -1)
            self._length[sequence] = length

    def continue_each(self, tokens: list[list[int]]) -> list[Floats]:
        """Append each sequence's tokens and return the logits after its last one."""
        results: dict[int, Floats] = {}
        entries = [(sequence, token) for sequence, own in enumerate(tokens) for token in own]
        ends = np.cumsum([len(own) for own in tokens]) - 1
        for start in range(0, len(entries), BATCH):
            part = entries[start : start + BATCH]
            wanted = [int(end) - start for end in ends if start <= end < start + len(part)]
            for row, logits in zip(wanted, self._submit(part, wanted), strict=True):
                results[part[row][0]] = logits
        return [results[sequence] for sequence in range(len(tokens))]

    def teacher_force(self, sequence: int, prompt: list[int], answer: list[int]) -> ForcedAnswer:
        """Append a prompt and all but the last token of an answer to a sequence, and compare the answer with what was expected."""
        tokens, first = prompt + answer[:-1], len(prompt) - 1
        likeliest: list[int] = []
        log_probs: list[float] = []
        for start in range(0, len(tokens), FORCED_BATCH):
            part = [(sequence, token) for token in tokens[start : start + FORCED_BATCH]]
            for logits in self._submit(part, list(range(max(0, first - start), len(part)))):
                token = answer[len(likeliest)]
                likeliest.append(int(np.argmax(logits)))
                relative = (logits - logits.max()).astype(np.float64)
                log_probs.append(relative[token] - np.log(np.exp(relative).sum()))
        return ForcedAnswer(np.array(likeliest, np.int64), np.array(log_probs, np.float32))

    def step(self, entries: list[tuple[int, int]]) -> list[Floats]:
        """Append one token to each named sequence; logits in the same order."""
        return self._submit(entries, list(range(len(entries))))

    def _submit(self, entries: list[tuple[int, int]], wanted: list[int]) -> list[Floats]:
        tokens = np.array([token for _, token in entries], np.int32)
        self._decode(tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)), None, [sequence for sequence, _ in entries], wanted)
        return [self._logits(row) for row in wanted]

    def _submit_embeddings(self, sequence: int, embeddings: Floats) -> None:
        rows = np.ascontiguousarray(embeddings, np.float32)
        self._decode(None, rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), [sequence] * len(rows), [])

    def _decode(self, tokens: Any, embeddings: Any, sequences: list[int], wanted: list[int]) -> None:
        n = len(sequences)
        positions, outputs = np.empty(n, np.int32), np.zeros(n, np.int8)
        outputs[wanted] = 1
        ids = np.array(sequences, np.int32)
        for row, sequence in enumerate(sequences):
            positions[row] = self._length[sequence]
            self._length[sequence] += 1
        one = np.ones(n, np.int32)
        int_pointer = ctypes.POINTER(ctypes.c_int32)
        rows = (int_pointer * n)(*[ctypes.cast(ids.ctypes.data + 4 * row, int_pointer) for row in range(n)])
        batch = self._llama.llama_batch(
            n, tokens, embeddings, positions.ctypes.data_as(int_pointer), one.ctypes.data_as(int_pointer), rows,
            outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )  # fmt: skip
        status = self._llama.llama_decode(self._context, batch)
        if status != 0:
            raise ModelError(f"llama.cpp stopped with status {status} ({ggml.last_error()})", code="failed")

    def _logits(self, row: int) -> Floats:
        pointer = self._llama.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self._model.n_vocab,)).copy()

    def close(self) -> None:
        """Free the cache."""
        self._llama.llama_free(self._context)
