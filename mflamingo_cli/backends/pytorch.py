"""The PyTorch back end: transformers' class, one encoding per song, prompts decoded together on its shared prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, DynamicCache

from mflamingo_cli.backends.base import BackendInfo, Chunk, Encoded, GenerateOptions, OpenOptions, Prompt, stamp
from mflamingo_cli.backends.cores import physical_cores
from mflamingo_cli.backends.generation import Sampler, TextStream
from mflamingo_cli.core.audio import Audio
from mflamingo_cli.core.chat import END_TOKENS, ChatTemplate, RenderedPrompt, group_by_prefix
from mflamingo_cli.core.features import checked_windows
from mflamingo_cli.core.geometry import Geometry, read_json
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.core.model import encode_windows, load, open_weights
from mflamingo_cli.errors import ModelError
from quant.checkpoint import Checkpoint
from quant.layout import hub_identity
from quant.vocabulary import chat_template

WINDOWS_TOGETHER = 4  # encoder windows in one batch: two minutes of music
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP32_BYTES = 4  # of a weight


class TorchBackend:
    """`Backend` on a checkpoint directory, and a LoRA adapter's where there is one."""

    def __init__(self, directory: Path, options: OpenOptions | None = None, adapter: Path | None = None) -> None:
        options = options or OpenOptions()
        threads = options.threads or physical_cores()
        torch.set_num_threads(threads)
        folders = [directory, *([adapter] if adapter else [])]
        weights = stamp(path for folder in folders for path in folder.iterdir() if path.is_file())  # before they are read
        device, why_device = choose_device(options.device)
        checkpoint = open_weights(directory, adapter)
        dtype, why_dtype = choose_dtype(options.dtype, device, checkpoint)
        if checkpoint.scheme:
            why_dtype += f"; dequantised from {checkpoint.scheme}"
        if adapter:
            why_dtype += f"; {adapter} merged into {directory}"
        geometry = Geometry.from_directory(directory)
        self._model = load(directory, dtype=DTYPES[dtype], device=device, adapter=adapter)
        self._mel = LogMel(geometry.mel)
        self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        settings = directory / "tokenizer_config.json"
        self._chat = ChatTemplate(chat_template(directory, read_json(settings) if settings.exists() else {}), geometry.tokens)
        self._end_ids = _end_ids(self._tokenizer, directory)
        info = _info(directory, adapter, geometry, str(device), dtype, f"{why_device}; {why_dtype}")
        self.info = replace(info, ears=f"{weights} torch {torch.__version__} {transformers.__version__} {device} {dtype} {threads}")

    @property
    def network(self) -> Any:
        """The model itself, for those who look inside."""
        return self._model

    @torch.inference_mode()
    def encode(self, audio: Audio) -> Encoded:
        """Embed every window of a song; raises AudioError(code="too_long") beyond the model's limit."""
        windows = list(checked_windows(audio, self.info.geometry))
        parts: list[torch.Tensor] = []
        for first in range(0, len(windows), WINDOWS_TOGETHER):
            batch = windows[first : first + WINDOWS_TOGETHER]
            mels = torch.from_numpy(np.stack([self._mel(window.samples) for window in batch])).to(self._model.device, self._model.dtype)
            n_frames = torch.tensor([window.n_frames for window in batch])
            parts += encode_windows(self._model, self.info.geometry, mels, n_frames, first)
        embeddings = torch.cat(parts)
        return Encoded(len(embeddings), embeddings)

    def generate(self, encoded: Encoded | None, prompts: Sequence[Prompt], options: GenerateOptions) -> Iterator[tuple[int, Chunk]]:
        """Answer prompts together; those with the same text in front of the audio share one prefill."""
        audio = encoded is not None
        rendered = [self._chat.render_prompt(prompt.messages(audio=audio)) for prompt in prompts]
        embeddings = encoded.payload if encoded is not None else None
        for group in group_by_prefix(rendered):
            run = _Run(self, rendered[group[0]].before, embeddings, [rendered[index] for index in group], options)
            for index, chunk in run.stream():
                yield group[index], chunk

    @torch.inference_mode()
    def follow(self, encoded: Encoded | None, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[np.ndarray]:
        """Likeliest tokens along given answers; every position, also of a shared prefix, passes the language model once."""
        rendered = [self._chat.render_prompt(prompt.messages(audio=encoded is not None)) for prompt in prompts]
        choices: dict[int, np.ndarray] = {}
        for group in group_by_prefix(rendered):
            before = self.tokenize(rendered[group[0]].before)
            parts = [self._embed(before)] if before else []
            parts += [encoded.payload] if encoded is not None else []
            cache = DynamicCache(config=self._model.config.get_text_config())
            read = partial(self._model.model.language_model, past_key_values=cache, use_cache=True)
            if parts:
                read(inputs_embeds=torch.cat(parts)[None])
            for index in group:
                own, answer = self.tokenize(rendered[index].after), self.tokenize(answers[index])
                hidden = read(inputs_embeds=self._embed(own + answer)[None]).last_hidden_state[0, len(own) - 1 :]
                choices[index] = self._model.lm_head(hidden).argmax(-1).cpu().numpy()
                cache.crop(-len(own + answer))
        return [choices[index] for index in range(len(prompts))]

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._model.get_input_embeddings()(torch.tensor(ids, device=self._model.device))
        return embedded

    def pack(self, encoded: Encoded) -> np.ndarray:
        """The bytes of the embeddings, whatever their dtype, which may be one that NumPy lacks: (n_tokens, d_model * bytes) uint8."""
        assert encoded.payload.dtype == self._model.dtype, "unpack() takes the model's dtype"
        packed: np.ndarray = encoded.payload.cpu().contiguous().view(torch.uint8).numpy()
        return packed

    def unpack(self, numbers: np.ndarray) -> Encoded:
        """The same on the model's device."""
        return Encoded(len(numbers), torch.from_numpy(numbers).view(self._model.dtype).to(self._model.device))

    def tokenize(self, text: str) -> list[int]:
        """Ids of text in which special tokens are recognised by name; nothing is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def piece(self, token: int) -> bytes:
        """Bytes of a token; special tokens have none."""
        if token in self._tokenizer.all_special_ids or token >= len(self._tokenizer):  # or a padding row of the embedding
            return b""
        text = str(self._tokenizer.convert_ids_to_tokens([token])[0])
        table = byte_alphabet()
        if any(character not in table for character in text):  # an added token, stored as it reads
            return text.encode("utf-8")
        return bytes(table[character] for character in text)

    def close(self) -> None:
        """Free the model."""
        del self._model
        if self.info.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def __enter__(self) -> TorchBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Run:
    """One group of prompts with a common prefix: prefill once, widen the cache, continue all, step together."""

    def __init__(
        self,
        backend: TorchBackend,
        before: str,
        embeddings: torch.Tensor | None,
        prompts: Sequence[RenderedPrompt],
        options: GenerateOptions,
    ) -> None:
        self.backend, self.model = backend, backend._model
        self.before = backend.tokenize(before)
        self.after = [backend.tokenize(prompt.after) for prompt in prompts]
        self.embeddings = embeddings
        n_prefix = len(self.before) + (0 if embeddings is None else len(embeddings))
        self.limit = backend.info.context_length - n_prefix
        longest = max(map(len, self.after))
        if longest >= self.limit:
            sizes = f"{n_prefix + longest} tokens, the model holds {backend.info.context_length}"
            raise ModelError(f"the prompt needs {sizes}; shorten the question or use --start/--end", code="too_long")
        self.samplers = [Sampler(options, self.before + ids) for ids in self.after]
        self.streams = [TextStream(options, backend._end_ids, n_prefix + len(ids)) for ids in self.after]
        self.cache = DynamicCache(config=self.model.config.get_text_config())
        self.mask = torch.ones((1, 0), dtype=torch.long, device=self.model.device)  # (prompts, positions in the cache)

    @torch.inference_mode()
    def stream(self) -> Iterator[tuple[int, Chunk]]:
        """Yield (index in the group, chunk) until all have finished."""
        self._prefill()
        logits = self._continue()
        running = list(range(len(self.after)))
        room = [self.limit - len(ids) for ids in self.after]
        while running:
            tokens = [self.samplers[index].pick(row) for index, row in zip(running, logits, strict=True)]
            for index, token in zip(running, tokens, strict=True):
                room[index] -= 1
                chunk = self.streams[index].add(token, self.backend.piece(token), last=room[index] <= 0)
                if chunk.text or chunk.finish:
                    yield index, chunk
            keep = [row for row, index in enumerate(running) if self.streams[index].finish is None]
            if 0 < len(keep) < len(running):
                self.cache.batch_select_indices(torch.tensor(keep, device=self.model.device))
                self.mask = self.mask[keep]
            running = [running[row] for row in keep]
            if running:
                logits = self._step([tokens[row] for row in keep])

    def _prefill(self) -> None:
        parts = [self._embed(self.before)] if self.before else []
        if self.embeddings is not None:
            parts.append(self.embeddings)
        if parts:
            self._forward(torch.cat(parts)[None])
        if len(self.after) > 1 and parts:
            self.cache.batch_repeat_interleave(len(self.after))
        self.mask = self.mask.expand(len(self.after), -1)

    def _continue(self) -> list[np.ndarray]:
        """Append each prompt's own tokens, padded on the right and masked there; logits after each one's last."""
        lengths = torch.tensor([len(ids) for ids in self.after], device=self.model.device)
        width = int(lengths.max())
        filler = self.after[0][0]
        embedded = torch.stack([self._embed(ids + [filler] * (width - len(ids))) for ids in self.after])
        valid = torch.arange(width, device=self.model.device) < lengths[:, None]
        hidden = self._forward(embedded, valid)
        return self._logits(hidden[torch.arange(len(self.after)), lengths - 1])

    def _step(self, tokens: list[int]) -> list[np.ndarray]:
        return self._logits(self._forward(self._embed(tokens)[:, None])[:, -1])

    def _forward(self, embedded: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Run (B, T, d) through the language model on top of the cache; positions count valid tokens only."""
        new = torch.ones(embedded.shape[:2], dtype=torch.long, device=self.model.device) if valid is None else valid.long()
        positions = self.mask.sum(1, keepdim=True) + new.cumsum(1) - 1
        self.mask = torch.cat([self.mask, new], 1)
        return self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=self.mask,
            position_ids=positions.clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state

    def _embed(self, ids: list[int]) -> torch.Tensor:
        return self.model.get_input_embeddings()(torch.tensor(ids, device=self.model.device))

    def _logits(self, hidden: torch.Tensor) -> list[np.ndarray]:
        return list(self.model.lm_head(hidden).float().cpu().numpy())


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE vocabularies: printable Latin-1 stands for itself, the rest is moved above U+0100 (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """The device to run on and why. Raises ModelError when it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        family = next(name for name, there in available.items() if there)
        return torch.device(family), f"{family}: the first available of {', '.join(available)}"
    family = wanted.partition(":")[0]
    if not available.get(family, False):
        raise ModelError(f"torch has no device {wanted} here; try --device auto")
    device = torch.device(wanted)
    if device.index is not None and family == "cuda" and device.index >= torch.cuda.device_count():
        raise ModelError(f"there is no {wanted}: {torch.cuda.device_count()} CUDA devices are visible")
    return device, f"{wanted}: asked for"


def choose_dtype(wanted: str, device: torch.device, checkpoint: Checkpoint) -> tuple[str, str]:
    """Name of the dtype to compute in and why."""
    if wanted != "auto":
        return wanted, f"{wanted}: asked for"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return ("bf16", f"bf16: SM {major}{minor}") if major >= 8 else ("fp16", f"fp16: SM {major}{minor} has no bf16")
    if device.type == "mps":
        return "fp16", "fp16: MPS"
    n_bytes = FP32_BYTES * sum(prod(entry.shape) for entry in checkpoint.entries.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if memory and n_bytes > memory / 2:
        return "bf16", "bf16: fp32 weights would take more than half of the memory"
    return "fp32", "fp32: CPU"


def _end_ids(tokenizer: Any, directory: Path) -> frozenset[int]:
    """Ids that end an answer: the turn's end and what generation_config.json names."""
    vocabulary = tokenizer.get_vocab()
    ids = {vocabulary[name] for name in END_TOKENS if name in vocabulary}
    path = directory / "generation_config.json"
    named = read_json(path).get("eos_token_id") if path.exists() else None
    return frozenset(ids | set(named if isinstance(named, list) else [named] if named is not None else []))


def _card(directory: Path) -> dict[str, Any]:
    path = directory / "mflamingo.json"
    return read_json(path) if path.exists() else {}


def _info(directory: Path, adapter: Path | None, geometry: Geometry, device: str, dtype: str, reason: str) -> BackendInfo:
    name, revision = hub_identity(adapter or directory) or ((adapter or directory).resolve().name, None)
    ours = _card(directory)
    if adapter:  # the base's card says what it can, not what it is called
        ours |= {"name": name, "revision": revision} | _card(adapter)
    abilities = ours.get("abilities")
    return BackendInfo(
        model=ours.get("name", name),
        revision=ours.get("revision", revision),
        backend="torch",
        device=device,
        dtype=dtype,
        reason=reason,
        context_length=geometry.text.context_length,
        geometry=geometry,
        abilities=None if abilities is None else frozenset(abilities),
        grounded=bool(ours.get("grounded", False)),
    )
