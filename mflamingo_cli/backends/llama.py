"""A text GGUF in libllama: tokens or embeddings in, logits out, on KV caches whose sequences share a prefix.

Positions count tokens of the language model, sizes are bytes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.generation import FORCED_BATCH, ForcedAnswer, PrefixGroup
from mflamingo_cli.backends.ggml.binding import Device, errors_logged, first_error, library
from mflamingo_cli.backends.ggml.llama_abi import FLASH_ATTN_AUTO, FLASH_ATTN_DISABLED, SPLIT_MODE_NONE, Batch
from mflamingo_cli.core.chat import END_TOKENS
from mflamingo_cli.errors import ModelError
from quant.geometry import TextSizes

Floats = npt.NDArray[np.float32]

KV_TYPES = {"f16": (1, 2.0), "q8_0": (8, 34 / 32), "f32": (0, 4.0)}  # enum ggml_type, bytes of a value
# Where libllama keeps weights as they are in the file. Repacked, 8 B in Q4_K_M take 3 GB more, prefill a song at 0.63 of the speed, and
# generate 1.1 times as fast: a loss in all, as long as an answer is shorter than its song.
NO_GAIN_FROM_REPACKING = {"x86_64", "AMD64"}
MIN_ANSWER_TOKENS = 2048  # positions beside the audio that are certain to be needed, before questions and their limits are known
BATCH = 512  # tokens per llama_decode during prefill: llama.cpp's own default for n_ubatch
PIECE_BYTES = 256  # of a token, with which one is asked for first
CONTEXT_STEP = 256  # llama.cpp pads contexts to this
# Where a processor prefills as fast with plain attention as with flash attention, and generates faster: in the 8 B shape by 0.7 ms a layer
# and token after 1500 tokens, 2.0 ms after 6000.
WIDE_HEAD = 128  # channels; with fewer it spends more time on the scores than they save
SCORES_BYTES = 512 << 20  # of one layer's scores, which flash attention does not store


class LanguageModel:
    """The loaded model with its tokenizer."""

    def __init__(self, path: Path, device: Device, threads: int, kv_type: str, sizes: TextSizes, *, nfc: bool = True) -> None:
        """Load a file; `nfc` says whether its tokenizer normalizes text first, which libllama leaves out."""
        self.llama, self.device, self.threads, self.sizes, self._nfc = library(), device, threads, sizes, nfc
        whole_blocks = sizes.d_head % 32 == 0  # q8_0 has blocks of 32 values
        self._kv_types = (("f16", "q8_0") if whole_blocks else ("f16",)) if kv_type == "auto" else (kv_type,)  # by preference
        self.mapped_bytes = 0 if device.is_gpu else path.stat().st_size  # weights in the page cache, which counts as available
        parameters = self.llama.llama_model_default_params()
        parameters.n_gpu_layers = -1 if device.is_gpu else 0
        parameters.use_extra_bufts = platform.machine() not in NO_GAIN_FROM_REPACKING
        parameters.split_mode, parameters.main_gpu = SPLIT_MODE_NONE, device.gpu_index
        errors_logged.clear()
        self.handle = self.llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise ModelError(f"{path}: llama.cpp cannot load it ({first_error()})")
        self._vocab = self.llama.llama_model_get_vocab(self.handle)
        self.n_vocab: int = self.llama.llama_vocab_n_tokens(self._vocab)
        self.end_ids = self._find_end_ids()

    def kv_type(self, n_tokens: int, free_bytes: int | None) -> str:
        """Return the type of a KV cache of this length: the smaller one, which a CPU reads at a quarter of the speed, only where needed."""
        return self._kv_types[0] if self.fits(n_tokens, free_bytes) else self._kv_types[-1]

    def uses_plain_attention(self, n_tokens: int, kv_type: str) -> bool:
        """Return whether a context of this length avoids flash attention, which also computes in half precision."""
        scores = 4 * BATCH * self.sizes.n_heads * n_tokens
        pays = self.sizes.d_head >= WIDE_HEAD and scores <= SCORES_BYTES and not self.device.is_gpu
        return kv_type == "f32" or (kv_type == "f16" and pays)

    def song_bytes(self, n_audio_tokens: int) -> int:
        """Return the least memory that a song's embeddings and KV cache take, and the weights where they are mapped."""
        cache = self._cache_bytes(n_audio_tokens + MIN_ANSWER_TOKENS, self._kv_types[-1])
        return self.mapped_bytes + cache + 4 * n_audio_tokens * self.sizes.d_model

    def fits(self, n_tokens: int, free_bytes: int | None) -> bool:
        """Return whether a KV cache of the preferred type and this length fits."""
        return free_bytes is None or self.mapped_bytes + self._cache_bytes(n_tokens, self._kv_types[0]) <= free_bytes

    def _cache_bytes(self, n_tokens: int, kv_type: str) -> int:
        _, value_bytes = KV_TYPES[kv_type]
        return int(n_tokens * memory.kv_bytes(self.sizes.n_layers, self.sizes.n_kv_heads, self.sizes.d_head, value_bytes))

    def _find_end_ids(self) -> frozenset[int]:
        """Return the ids that end an answer; llama.cpp's own list also holds [PAD], which transformers does not stop at."""
        named = [self.tokenize(name) for name in END_TOKENS]
        ids = {ids[0] for ids in named if len(ids) == 1} | {self.llama.llama_vocab_eos(self._vocab)}
        return frozenset(ids - {-1})

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens are recognised by name; nothing is added."""
        data = (unicodedata.normalize("NFC", text) if self._nfc else text).encode("utf-8")
        buffer = (ctypes.c_int32 * (len(data) + 1))()
        count = self.llama.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, True)
        assert count >= 0, "a token covers at least one byte"
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; special tokens have none."""
        count = -PIECE_BYTES
        while count < 0:  # as many bytes as are needed
            buffer = ctypes.create_string_buffer(-count)
            count = self.llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def close(self) -> None:
        """Free the model."""
        if self.handle:
            self.llama.llama_model_free(self.handle)
            self.handle = None


class Context:
    """A KV cache as long as needed: one sequence per prompt; what prompts of a song share is stored once, in all of their sequences."""

    def __init__(self, model: LanguageModel, n_tokens: int, n_sequences: int) -> None:
        self._llama, self._model = model.llama, model
        parameters = self._llama.llama_context_default_params()
        self.n_tokens = parameters.n_ctx = -(-n_tokens // CONTEXT_STEP) * CONTEXT_STEP
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_seq_max = n_sequences
        parameters.kv_unified = True
        parameters.n_threads = parameters.n_threads_batch = model.threads
        kv_type = model.kv_type(n_tokens, model.device.free_bytes())
        parameters.type_k = parameters.type_v = KV_TYPES[kv_type][0]
        plain = model.uses_plain_attention(parameters.n_ctx, kv_type)
        parameters.flash_attn_type = FLASH_ATTN_DISABLED if plain else FLASH_ATTN_AUTO
        errors_logged.clear()
        self._context = self._llama.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise ModelError(
                f"not enough memory for a context of {parameters.n_ctx} tokens ({first_error()}); try --kv-type q8_0", code="oom"
            )
        self._memory = self._llama.llama_get_memory(self._context)
        self._length = [0] * n_sequences

    def prefill(self, groups: Sequence[PrefixGroup], on_progress: Callable[[str], None]) -> None:
        """Put what the prompts of each group share into their sequences, which are numbered in the order of the prompts."""
        first = 0
        for group in groups:
            self.prefill_prefix(first, group, on_progress)
            for sequence in range(first + 1, first + len(group.after)):
                self._llama.llama_memory_seq_cp(self._memory, first, sequence, -1, -1)  # shared, not copied: the cache is unified
                self._length[sequence] = self._length[first]
            first += len(group.after)

    def prefill_prefix(self, sequence: int, group: PrefixGroup, on_progress: Callable[[str], None]) -> None:
        """Append a group's tokens and then its song's embeddings to a sequence."""
        for start in range(0, len(group.before), BATCH):
            self._decode_tokens([(sequence, token) for token in group.before[start : start + BATCH]], [])
        embeddings: Floats = np.empty((0, self._model.sizes.d_model), np.float32) if group.embeddings is None else group.embeddings
        for start in range(0, len(embeddings), BATCH):
            on_progress(f"{100 * start // len(embeddings)} % of the song read")
            rows = np.ascontiguousarray(embeddings[start : start + BATCH], np.float32)
            self._decode(None, rows.ctypes.data, [sequence] * len(rows), [])

    def truncate(self, length: int) -> None:
        """Remove what comes after so many positions from every sequence."""
        for sequence in range(len(self._length)):
            self._llama.llama_memory_seq_rm(self._memory, sequence, length, -1)
            self._length[sequence] = length

    def prefill_prompts(self, prompts: Sequence[list[int]]) -> list[Floats]:
        """Append its prompt's own tokens to each sequence and return the logits after each last one."""
        results: dict[int, Floats] = {}
        entries = [(sequence, token) for sequence, own in enumerate(prompts) for token in own]
        ends = np.cumsum([len(own) for own in prompts]) - 1
        for start in range(0, len(entries), BATCH):
            part = entries[start : start + BATCH]
            wanted = [int(end) - start for end in ends if start <= end < start + len(part)]
            for row, logits in zip(wanted, self._decode_tokens(part, wanted), strict=True):
                results[part[row][0]] = logits
        return [results[sequence] for sequence in range(len(prompts))]

    def force(self, sequence: int, prompt: list[int], answer: list[int]) -> ForcedAnswer:
        """Append a prompt and all but the last token of an answer to a sequence, and compare the answer with what was expected."""
        tokens, first = prompt + answer[:-1], len(prompt) - 1
        likeliest: list[int] = []
        log_probs: list[float] = []
        for start in range(0, len(tokens), FORCED_BATCH):
            part = [(sequence, token) for token in tokens[start : start + FORCED_BATCH]]
            for logits in self._decode_tokens(part, list(range(max(0, first - start), len(part)))):
                token = answer[len(likeliest)]
                likeliest.append(int(np.argmax(logits)))
                relative = (logits - logits.max()).astype(np.float64)
                log_probs.append(relative[token] - np.log(np.exp(relative).sum()))
        return ForcedAnswer(np.array(likeliest, np.int64), np.array(log_probs, np.float32))

    def step(self, entries: list[tuple[int, int]]) -> list[Floats]:
        """Append one token to each named sequence, (sequence, token), and return the logits after each."""
        return self._decode_tokens(entries, list(range(len(entries))))

    def _decode_tokens(self, entries: list[tuple[int, int]], wanted: list[int]) -> list[Floats]:
        """Append (sequence, token) entries; logits after the wanted ones."""
        tokens = np.array([token for _, token in entries], np.int32)
        self._decode(tokens.ctypes.data, None, [sequence for sequence, _ in entries], wanted)
        pointers = (self._llama.llama_get_logits_ith(self._context, row) for row in wanted)
        return [np.ctypeslib.as_array(pointer, (self._model.n_vocab,)).copy() for pointer in pointers]

    def _decode(self, tokens: int | None, embeddings: int | None, sequences: list[int], wanted: list[int]) -> None:
        n = len(sequences)
        positions, outputs = np.empty(n, np.int32), np.zeros(n, np.int8)
        outputs[wanted] = 1
        ids = np.array(sequences, np.int32)
        for row, sequence in enumerate(sequences):
            positions[row] = self._length[sequence]
            self._length[sequence] += 1
        one = np.ones(n, np.int32)
        rows = ids.ctypes.data + ids.itemsize * np.arange(n, dtype=np.uintp)  # of pointers, one to each entry's list of sequences
        arrays = (positions, one, rows, outputs)
        batch = Batch(n, tokens, embeddings, *(array.ctypes.data for array in arrays))
        errors_logged.clear()
        status = self._llama.llama_decode(self._context, batch)
        if status != 0:
            raise ModelError(f"llama.cpp stopped with status {status} ({first_error()})", code="failed")

    def close(self) -> None:
        """Free the cache."""
        self._llama.llama_free(self._context)
