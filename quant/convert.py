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
from pathlib import Path
from typing import TYPE_CHECKING

from quant import layout, model, types, vocabulary
from quant.checkpoint import Checkpoint, read_json
from quant.imatrix import Imatrix
from quant.imatrix import read as read_imatrix
from quant.layout import PARTS, Part, QuantError
from quant.lora import Adapted
from quant.types import Mix
from quant.writer import GgufWriter, Slot, Value

if TYPE_CHECKING:
    from quant.types import Bytes, Floats

BLOCK_WEIGHTS = 1 << 22  # 16 MiB as float32: long enough to hide Python, short enough to forget
MAX_THREADS = 8  # beyond it the disk is slower than the encoding


@dataclass(frozen=True)
class Progress:
    """How far a conversion is, after a block of `tensor` (its GGUF name) was written."""

    tensor: str
    done: int
    total: int


@dataclass(frozen=True)
class Plan:
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

    def run(self, n_threads: int | None = None) -> Iterator[Progress]:
        """Write both files; they get their names together at the end, or not at all."""
        self._make_room()
        try:
            with ExitStack() as stack:
                stack.enter_context(self.checkpoint)
                for writer in self.writers.values():
                    stack.enter_context(writer)
                yield from _copy(self, n_threads or min(MAX_THREADS, os.cpu_count() or 1))
                for writer in self.writers.values():
                    writer.close()
                for writer in self.writers.values():
                    writer.commit()
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
            raise QuantError(f"{out}: {self.n_bytes / 1e9:.1f} GB are needed but only {free / 1e9:.1f} GB are free")


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
) -> Plan:
    """Read everything but the weights, and check that source and target fit together; a LoRA in the directory `adapter` is merged."""
    mixes: dict[Part, Mix] = {
        "text": types.mix(type),
        "audio": types.mix(audio_type or layout.audio_type(type.upper()), "audio"),
    }
    weights = _weights(imatrix, mixes["text"])
    source = model.read(src, adapter)
    vocab = vocabulary.read(src, read_json(src / "config.json"))
    missing = [token for token in source.tokens.values() if token not in vocab.tokens]
    if missing:
        raise QuantError(f"{src}: the tokenizer lacks {', '.join(missing)}, which the processor puts around audio")
    checkpoint = Adapted(src, adapter) if adapter else Checkpoint(src)
    tied = is_tied(checkpoint, read_json(src / "config.json"))
    tensors = {part: list(layout.tensors(part, source.sizes, tied=tied)) for part in PARTS}
    check_tensors(checkpoint, [tensor for part in PARTS for tensor in tensors[part]])
    if weights:
        weights.check(tensors["text"])
    keys: dict[Part, dict[str, Value]] = {
        "text": source.text_keys(mixes["text"]) | vocab.keys(source.sizes["n_vocab"]) | (weights.keys() if weights else {}),
        "audio": source.audio_keys(mixes["audio"]),
    }
    writers = {
        part: GgufWriter(
            out / layout.file_name(part, source.name.rpartition("/")[2], mixes[part].name),
            keys[part],
            [(tensor, types.storage_for(tensor, mixes[part], _choice(part, source.sizes, tied, weights))) for tensor in tensors[part]],
        )
        for part in PARTS
    }
    return Plan(checkpoint, writers, weights.means if weights else {})


def _weights(path: Path | None, mix: Mix) -> Imatrix | None:
    if path and mix.base not in types.WEIGHED:
        raise QuantError(f"{mix.name} makes no use of an importance matrix; choose a smaller type, such as Q4_K_M, or leave it out")
    return read_imatrix(path) if path else None


def _choice(part: Part, sizes: Mapping[str, int], tied: bool, weights: Imatrix | None) -> types.Traits:
    """What the mixes look at."""
    if part == "audio":
        return types.Traits(sizes["n_audio_layers"])
    return types.Traits(sizes["n_text_layers"], sizes["n_heads"] // sizes["n_kv_heads"], tied, has_imatrix=weights is not None)


def is_tied(checkpoint: Checkpoint, config: Mapping[str, object]) -> bool:
    """Say whether the embedding serves as output matrix too: it is then stored once."""
    text = config.get("text_config")
    says_so = bool(config.get("tie_word_embeddings")) or (isinstance(text, dict) and bool(text.get("tie_word_embeddings")))
    return says_so and "language_model.lm_head.weight" not in checkpoint.entries


def check_tensors(checkpoint: Checkpoint, tensors: list[layout.Tensor]) -> None:
    """Compare names and shapes of a checkpoint with what its configuration asks for. Raises QuantError that names the tensors."""
    wanted, found = {tensor.hf for tensor in tensors}, set(checkpoint.entries)
    for names, verb in ((wanted - found, "lacks"), (found - wanted, "holds unexpected")):
        if names:
            raise QuantError(f"{checkpoint.directory}: the checkpoint {verb} {layout.some(names)}")
    for tensor in tensors:
        shape = checkpoint.entries[tensor.hf].shape
        if shape != tensor.shape:
            raise QuantError(f"{checkpoint.directory}: {tensor.hf} has shape {list(shape)}, but config.json says {list(tensor.shape)}")


def _copy(made: Plan, n_threads: int) -> Iterator[Progress]:
    """Read in file order, encode in threads (ggml and NumPy release the interpreter), write in order."""
    slots = {hf: (writer, slot) for writer in made.writers.values() for hf, slot in writer.slots.items()}
    total = sum(slot.n_bytes for _, slot in slots.values())
    pending: deque[tuple[GgufWriter, Slot, int, Future[Bytes]]] = deque()
    done = 0

    def write_one() -> Progress:
        nonlocal done
        writer, slot, offset, future = pending.popleft()
        try:
            data = future.result()
        except QuantError as error:
            raise QuantError(f"{made.checkpoint.directory}: {slot.tensor.hf}: {error}") from error
        writer.write(offset, data)
        done += data.nbytes
        return Progress(slot.tensor.gguf, done, total)

    with ThreadPoolExecutor(n_threads) as pool:
        for hf in made.checkpoint.entries:
            writer, slot = slots[hf]
            offset = slot.offset
            for rows in made.checkpoint.blocks(hf, BLOCK_WEIGHTS):
                pending.append((writer, slot, offset, pool.submit(_encode, rows, slot, made.importance.get(slot.tensor.gguf))))
                offset += slot.storage.n_bytes(rows.size)
                if len(pending) > n_threads:
                    yield write_one()
        while pending:
            yield write_one()


def _encode(rows: Floats, slot: Slot, importance: Floats | None) -> Bytes:
    return types.encode(rows, slot.storage, importance)
