"""Checkpoint directory -> text GGUF and audio GGUF, in one pass over the weights.

Memory is bounded by a few blocks of rows, whatever the tensors' size; sizes are bytes.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import TypeAlias

from quant import config, encoding, heads, keys, layout, types, vocabulary
from quant.arrays import Bytes, Floats
from quant.checkpoint import Checkpoint
from quant.errors import QuantError
from quant.geometry import Geometry
from quant.imatrix import Imatrix
from quant.imatrix import read as read_imatrix
from quant.layout import PARTS, Part
from quant.lora import Adapted
from quant.types import Mix
from quant.writer import GgufWriter, Slot, Value

BLOCK_WEIGHTS = 1 << 22  # 16 MiB as float32: long enough to hide Python, short enough to forget
Block: TypeAlias = tuple[GgufWriter, Slot, int, Future[Bytes]]  # its offset in the file
MAX_THREADS = 8  # beyond it the disk is slower than the encoding


@dataclass(frozen=True)
class BlockWritten:
    """How far a conversion is, after a block of `tensor` (its GGUF name) was written."""

    tensor: str
    done: int
    total: int


@dataclass(frozen=True)
class Conversion:
    """A conversion that was checked and not yet begun."""

    checkpoint: Checkpoint
    writers: Mapping[Part, GgufWriter]
    importance: Mapping[str, Floats] = field(default_factory=dict)  # by GGUF name, of the text part

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files to be: text part, audio part."""
        return self.writers["text"].path, self.writers["audio"].path

    @property
    def n_bytes(self) -> int:
        """Size of both files together."""
        return sum(writer.n_bytes for writer in self.writers.values())

    def run(self, n_threads: int | None = None) -> Iterator[BlockWritten]:
        """Write both files; they get their names together at the end, or not at all."""
        self._make_room()
        try:
            with ExitStack() as stack:
                stack.enter_context(self.checkpoint)
                for writer in self.writers.values():
                    stack.enter_context(writer)
                yield from _copy(self, n_threads or min(MAX_THREADS, os.cpu_count() or 1))
                for writer in self.writers.values():
                    writer.finish()
                for writer in self.writers.values():
                    writer.commit()
        except BlockingIOError as error:
            raise QuantError(f"{error.filename}: another run is writing this file; wait for it") from error
        except OSError as error:
            raise QuantError(f"{error.filename or self.paths[0].parent}: {error.strerror}") from error

    def _make_room(self) -> None:
        out = self.paths[0].parent
        try:
            out.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(out).free
        except OSError as error:
            raise QuantError(f"{out}: cannot be written to ({error.strerror})") from error
        if free < self.n_bytes:
            raise QuantError(f"{out}: {self.n_bytes / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB are free")


def convert(src: Path, out: Path, type: str, audio_type: str | None = None, imatrix: Path | None = None) -> tuple[Path, Path]:
    """Convert a checkpoint directory into a GGUF pair in `out` and return the paths: text part, audio part.

    `type` is one of `quant.TYPES`; the audio part takes the same, but never below Q8_0 unless `audio_type` says so.
    `imatrix` is an importance matrix of the language model. Raises QuantError. To show progress or the sizes beforehand use `plan`.
    """
    made = plan(src, out, type, audio_type, imatrix=imatrix)
    for _ in made.run():
        pass
    return made.paths


def plan(
    src: Path, out: Path, type: str, audio_type: str | None = None, *, imatrix: Path | None = None, adapter: Path | None = None
) -> Conversion:
    """Read all but most of the weights, and check that source and target fit together; a LoRA in the directory `adapter` is merged."""
    mixes: dict[Part, Mix] = {
        "text": types.mix(type),
        "audio": types.mix(audio_type or layout.audio_type(type.upper()), "audio"),
    }
    weights = _weights(imatrix, mixes["text"])
    info = config.read(src, adapter)
    geometry = info.geometry
    checkpoint = Adapted(src, adapter) if adapter else Checkpoint(src)
    vocab = vocabulary.read(src, checkpoint.config)
    missing = [token for token in vars(geometry.tokens).values() if token is not None and token not in vocab.tokens]
    if missing:
        raise QuantError(f"{src}: the tokenizer lacks {', '.join(missing)}, which mark the audio in a prompt")
    tensors = checkpoint.check(geometry)
    if weights:
        weights.check(tensors["text"])
    with checkpoint:
        same = {keys.KEY_CHECKPOINT: checkpoint.identity()}
    found: dict[Part, dict[str, Value]] = {
        "text": keys.text_keys(info, mixes["text"]) | same | vocab.keys(geometry.text.n_vocab) | (weights.keys() if weights else {}),
        "audio": keys.audio_keys(info, mixes["audio"]) | same,
    }
    writers = {}
    for part in PARTS:
        traits = _traits(part, geometry, checkpoint.tied, weights)
        path = out / layout.file_name(part, info.name.rpartition("/")[2], mixes[part].name)
        stored = [(tensor, types.storage_for(tensor, mixes[part], traits)) for tensor in tensors[part]]
        writers[part] = GgufWriter(path, found[part], stored)
    return Conversion(checkpoint, writers, weights.means if weights else {})


def _weights(path: Path | None, mix: Mix) -> Imatrix | None:
    if path and mix.base not in types.WEIGHED:
        raise QuantError(f"{mix.name} does not use an importance matrix; choose a smaller type, such as Q4_K_M, or leave it out")
    return read_imatrix(path) if path else None


def _traits(part: Part, geometry: Geometry, tied: bool, weights: Imatrix | None) -> types.Traits:
    """What the mixes look at."""
    if part == "audio":
        return types.Traits(geometry.encoder.n_layers)
    text = geometry.text
    return types.Traits(text.n_layers, text.n_heads // text.n_kv_heads, tied, has_imatrix=weights is not None)


def _copy(made: Conversion, n_threads: int) -> Iterator[BlockWritten]:
    """Read in file order, encode in threads (ggml and NumPy release the interpreter), write in order."""
    total, done = sum(slot.n_bytes for writer in made.writers.values() for slot in writer.slots.values()), 0
    waiting: deque[Block] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for block in chain(_blocks(made, pool), repeat(None, n_threads)):  # the last ones have none behind them
            if block:
                waiting.append(block)
            if waiting and (len(waiting) > n_threads or block is None):
                writer, slot, offset, future = waiting.popleft()
                writer.write(offset, future.result())
                done += future.result().nbytes
                yield BlockWritten(slot.tensor.gguf, done, total)


def _blocks(made: Conversion, pool: ThreadPoolExecutor) -> Iterator[Block]:
    """Blocks of rows that are being encoded, with their places."""
    slots = {hf: (writer, slot) for writer in made.writers.values() for hf, slot in writer.slots.items()}
    for hf in made.checkpoint.entries:
        writer, slot = slots[hf]
        offset, name = slot.offset, f"{made.checkpoint.directory}: {hf}"
        for found in made.checkpoint.blocks(hf, BLOCK_WEIGHTS, slot.tensor.d_head or 1):
            rows = heads.to_pairs(found, slot.tensor.d_head) if slot.tensor.d_head else found
            yield writer, slot, offset, pool.submit(encoding.encode, rows, slot.storage, made.importance.get(slot.tensor.gguf), name)
            offset += slot.storage.n_bytes(rows.size)
