"""The PyTorch back end: transformers' class, windows of songs encoded in batches, all prompts of all songs decoded together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.base import Chunk, Encoded, GenerateOptions, OpenOptions, SongPrompts, stamp
from mflamingo_cli.backends.batch_decoder import BatchDecoder, cache_length, free_bytes, longest_answer, memory_errors
from mflamingo_cli.backends.generation import FORCED_BATCH, ForcedAnswer, LocalBackend, PrefixGroup, Sampler, batches, model_info
from mflamingo_cli.backends.pytorch_loading import load_network, load_tokenizer
from mflamingo_cli.backends.threads import physical_cores
from mflamingo_cli.core.audio import Audio, Window, checked_windows
from mflamingo_cli.core.chat import END_TOKENS, ChatTemplate
from mflamingo_cli.core.kv_cache import MLP_TOKENS, SCORE_BYTES
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.core.model import encode_windows, is_out_of_memory
from mflamingo_cli.errors import ModelError
from quant.config import read_card, read_geometry
from quant.json_files import read_json
from quant.layout import hub_identity
from quant.vocabulary import is_control, token_ids

WINDOW_BATCH = {"cuda": 16}  # encoder windows in one batch
OTHER_WINDOW_BATCH = 4
TYPICAL_POSITIONS = 6000 + 8 * 1024  # four minutes of music, and eight answers as long as they may be
MAX_BATCH_SIZE = 16  # songs; with more the first one would only wait longer
PREFILL_ARRAYS = (8, 3)  # of (tokens, d_model), and of (tokens, d_ffn) for MLP_TOKENS at most, that prefilling a song takes at once
CURE = "choose a part with --start and --end, or lower --max-tokens"


class TorchBackend(LocalBackend):
    """`Backend` on a checkpoint directory, with a LoRA adapter merged where one is given."""

    def __init__(self, directory: Path, options: OpenOptions | None = None, adapter: Path | None = None) -> None:
        options = options or OpenOptions()
        threads = options.threads or physical_cores()
        torch.set_num_threads(threads)
        folders = [directory, adapter] if adapter else [directory]
        weights = stamp(path for folder in folders for path in folder.iterdir() if path.is_file())  # before they are read
        geometry, (self._tokenizer, template) = read_geometry(directory), load_tokenizer(directory)
        self._chat, self._end_ids = ChatTemplate(template, geometry.tokens, directory), _end_ids(self._tokenizer, directory)
        place, card = adapter or directory, read_card(directory)
        if adapter:  # the base's card says what it can do, not its name
            card = {key: value for key, value in card.items() if key not in ("name", "revision")} | read_card(adapter)
        if (geometry.mel.n_frames + 1) // 2 != geometry.encoder.n_positions:  # transformers' encoder takes whole windows only
            window = f"windows of {geometry.mel.window_s} s do not fill the encoder's {geometry.encoder.n_positions} positions"
            raise ModelError(f"{directory}: {window}; download it again")
        loaded = load_network(directory, options, adapter)  # when all that is small has been checked
        self.network = loaded.network
        self._devices = list(dict.fromkeys(parameter.device for parameter in self.network.parameters()))
        text = geometry.text
        self._layer_bytes = int(memory.kv_bytes(1, text.n_kv_heads, text.d_head, self.network.dtype.itemsize))  # of a position
        self._layers = Counter(layer.self_attn.o_proj.weight.device for layer in self.network.model.language_model.layers)
        self._window_batch = WINDOW_BATCH.get(loaded.device.type, OTHER_WINDOW_BATCH)
        self._mel = LogMel(geometry.mel)
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = {index: b"" if is_control(token.content, token.special) else token.content.encode() for index, token in added.items()}
        self.info = model_info(
            geometry,
            card,
            hub_identity(place) or (place.resolve().name, None),
            backend="torch",
            device=str(loaded.device),
            dtype=loaded.stored,
            reason=loaded.reason,
            encoder_fingerprint=f"{weights} torch {torch.__version__} {transformers.__version__} {loaded.device} {loaded.dtype} {threads}",
            batch_size=self._batch_size(),
        )

    def _batch_size(self) -> int:
        """Return how many songs to answer at once: on GPUs, whose steps cost the same for many, what fits into half of the free memory."""
        if self._devices[0].type != "cuda":
            return 1
        typical = 2 * TYPICAL_POSITIONS * self._layer_bytes
        return max(1, min(MAX_BATCH_SIZE, *((free_bytes(device) or 0) // (typical * n) for device, n in self._layers.items())))

    @torch.inference_mode()
    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        """Encode every window of all songs, in batches across them.

        Raises AudioError(code="too_long") beyond the model's limit and ModelError(code="oom") when not even one window fits.
        """
        windows = [(index, window) for audio in audios for index, window in enumerate(checked_windows(audio, self.info.geometry))]
        embedded: list[torch.Tensor] = []
        while len(embedded) < len(windows):
            self.on_progress(f"window {len(embedded) + 1} of {len(windows)}")
            try:
                embedded += self._encode(windows[len(embedded) : len(embedded) + self._window_batch])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._window_batch == 1:
                    raise ModelError(
                        "not enough memory to encode 30 s of music; use a smaller --dtype or --quantize", code="oom"
                    ) from error
                self._window_batch //= 2
        firsts = [number for number, (index, _) in enumerate(windows) if index == 0]
        songs = [self._finite(torch.cat(embedded[first:end])) for first, end in zip(firsts, [*firsts[1:], None], strict=True)]
        return [Encoded(len(song), song) for song in songs]

    def _encode(self, windows: Sequence[tuple[int, Window]]) -> list[torch.Tensor]:
        """Encode windows with their numbers in their songs: (n_tokens, d_text) each."""
        mels = torch.from_numpy(np.stack([self._mel(window.samples) for _, window in windows])).to(self.network.device, self.network.dtype)
        n_frames = torch.tensor([window.n_frames for _, window in windows])
        return encode_windows(self.network, self.info.geometry, mels, n_frames, torch.tensor([index for index, _ in windows]))

    def generate(self, songs: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer all prompts of as many songs together as memory allows; those with the same text in front of the audio share it.

        Raises ModelError(code="too_long") for a prompt that leaves no room to answer, ModelError(code="oom") when one song does not fit.
        """
        for batch in batches(self._checked_groups(songs), lambda some: self._fit(some, options)):
            yield from self._answer(batch, options)

    def _fit(self, groups: Sequence[PrefixGroup], options: GenerateOptions) -> bool:
        return all(free is None or needed <= free for needed, free in self._memory_needs(groups, options))

    def _memory_needs(self, groups: Sequence[PrefixGroup], options: GenerateOptions) -> list[tuple[int, int | None]]:
        """Return the bytes that songs take on each device, for KV cache and prefill of the longest, and the bytes left there."""
        positions = len(groups) * cache_length(groups, longest_answer(groups, options, self.info.context_length), self._devices[0])
        text, longest = self.info.geometry.text, max(group.n_shared for group in groups)
        prefill = PREFILL_ARRAYS[0] * longest * text.d_model + PREFILL_ARRAYS[1] * min(longest, MLP_TOKENS) * text.d_ffn
        work = prefill * self.network.dtype.itemsize + min(2 * SCORE_BYTES, positions * text.n_heads * 4)
        return [(positions * n_layers * self._layer_bytes + work, free_bytes(device)) for device, n_layers in self._layers.items()]

    @torch.inference_mode()
    def _answer(self, groups: list[PrefixGroup], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        """Answer songs together, or each half of them alone where they do not fit after all."""
        prefilled = self._prefill(groups, options)
        if prefilled is None:
            for half in (groups[: len(groups) // 2], groups[len(groups) // 2 :]):
                yield from self._answer(half, options)
            return
        decoder, logits = prefilled

        def step(entries: list[tuple[int, int]]) -> torch.Tensor:
            with memory_errors("to continue the answers", CURE):
                return decoder.step(entries)

        yield from self._stream(groups, options, logits, choose, step)

    def _prefill(self, groups: list[PrefixGroup], options: GenerateOptions) -> tuple[BatchDecoder, torch.Tensor] | None:
        """Prefill songs, with the logits after each prompt; None where several do not fit. Raises ModelError where one does not."""
        if len(groups) == 1:
            for needed, free in self._memory_needs(groups, options):
                memory.require_bytes(f"a prompt of {groups[0].n_shared} tokens", needed, free, CURE)
        try:
            decoder = BatchDecoder(self.network, groups, longest_answer(groups, options, self.info.context_length))
            logits = decoder.prefill()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(groups) == 1:
                raise ModelError(f"not enough memory to read {groups[0].n_shared} tokens; {CURE}", code="oom") from error
            return None
        return decoder, logits

    def _finite(self, numbers: Any) -> Any:
        if not torch.isfinite(numbers).all():
            cure = "choose a --dtype with a larger range, such as bf16, or download the model again if its weights are damaged"
            raise ModelError(f"the model's values are too large for {self.info.dtype}; {cure}", code="failed")
        return numbers

    @torch.inference_mode()
    def _force_group(self, group: PrefixGroup, answers: list[list[int]]) -> list[ForcedAnswer]:
        """Read answers; every position, also of a shared prefix, passes the language model once."""
        whole = [own + answer[:-1] for own, answer in zip(group.after, answers, strict=True)]
        hidden = BatchDecoder(self.network, [replace(group, after=whole)], 0).prefill_song(0).split([len(tokens) for tokens in whole])
        return [self._compare(states[len(own) - 1 :], answer) for own, states, answer in zip(group.after, hidden, answers, strict=True)]

    def _compare(self, hidden: torch.Tensor, answer: list[int]) -> ForcedAnswer:
        """Compare an answer with the hidden states in front of each of its tokens, (tokens, d)."""
        likeliest, log_probs = [], []
        for states, tokens in zip(hidden.split(FORCED_BATCH), torch.tensor(answer).split(FORCED_BATCH), strict=True):
            logits = self.network.lm_head(states).float()
            likeliest.append(logits.argmax(-1))
            log_probs.append(logits.log_softmax(-1).gather(1, tokens[:, None].to(logits.device))[:, 0])
        return ForcedAnswer(torch.cat(likeliest).cpu().numpy(), torch.cat(log_probs).cpu().numpy())

    def pack(self, encoded: Encoded) -> np.ndarray:
        """Return the bytes of the embeddings, whose dtype NumPy may lack, (n_tokens, d_model * bytes) uint8."""
        assert encoded.payload.dtype == self.network.dtype, "unpack() takes the model's dtype"
        packed: np.ndarray = encoded.payload.cpu().contiguous().view(torch.uint8).numpy()
        return packed

    def unpack(self, numbers: np.ndarray) -> Encoded:
        """Return packed embeddings as an encoding on the model's device."""
        return Encoded(len(numbers), torch.from_numpy(numbers).view(self.network.dtype).to(self.network.device))

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens are recognised by name; nothing is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; special tokens have none."""
        if token in self._added:
            return self._added[token]
        table, text = byte_alphabet(), self._tokenizer.id_to_token(token) or ""  # or a padding row of the embedding
        return bytes(table[character] for character in text if character in table)

    def close(self) -> None:
        """Free the model."""
        del self.network
        if self.info.device.startswith("cuda"):
            torch.cuda.empty_cache()


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Choose a token from each row of (n, vocabulary) logits; the likeliest ones are found on the device of the logits."""
    if all(sampler.is_greedy for sampler in samplers):
        return logits.argmax(-1).tolist()
    return [sampler.pick(row) for sampler, row in zip(samplers, logits.cpu().numpy(), strict=True)]


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """Return character -> byte of byte-level BPE vocabularies: printable Latin-1 is itself, the rest is moved above U+0100 (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _end_ids(tokenizer: Any, directory: Path) -> frozenset[int]:
    """Return the ids that end an answer: the end of a turn and what generation_config.json names."""
    path, found = directory / "generation_config.json", [tokenizer.token_to_id(name) for name in END_TOKENS]
    return frozenset([index for index in found if index is not None] + token_ids(path, read_json(path, required=False), "eos_token_id"))
