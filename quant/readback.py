"""A text GGUF read back to what a checkpoint holds: sizes, weights as float32 under the hub's names, tokenizer.json.

For models that are published as GGUF only. The file may come from anywhere and is checked as a text part is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quant import encoding, heads, layout, reader, vocabulary
from quant.arrays import Floats
from quant.errors import QuantError
from quant.geometry import TextSizes, checked_text
from quant.keys import text_sizes
from quant.layout import Tensor
from quant.pair import as_ggml, check_derived, check_text
from quant.reader import GgufFile


@dataclass(frozen=True)
class TextModelFile:
    """A text model's file, and the sizes that its keys state; `tied` where the embedding is the output matrix too."""

    file: GgufFile
    sizes: TextSizes
    tied: bool

    def tensors(self) -> list[Tensor]:
        """The tensors that it has, in the order of `layout`."""
        return list(layout.text_tensors(self.sizes, tied=self.tied))

    def weights(self) -> Iterator[tuple[str, Floats]]:
        """Yield every tensor by the hub's name, in the checkpoint's shape and order of rows. Raises QuantError for NaN and infinity."""
        for tensor in self.tensors():
            stored = self.file.tensors[tensor.gguf]
            assert stored.storage is not None
            [(_, data)] = self.file.blocks(tensor.gguf, int(np.prod(tensor.shape[:-1])))
            values = encoding.decode(np.frombuffer(data, np.uint8), stored.storage).reshape(tensor.shape)
            if not np.isfinite(values).all():
                raise QuantError(f"{self.file.path}: {tensor.gguf} contains NaN or infinite weights")
            yield tensor.hf, heads.to_halves(values, tensor.d_head) if tensor.d_head else values

    def tokenizer(self) -> dict[str, Any]:
        """Return the content of its tokenizer.json."""
        return vocabulary.tokenizer_json(self.file)


def read_text_model(path: Path) -> TextModelFile:
    """Read the head of a text GGUF. Raises QuantError for one of another architecture, and for what does not fit together."""
    file = reader.read(path)
    check_text(file)
    sizes = checked_text(text_sizes(file.keys, path), path)
    check_derived(file, sizes)
    vocabulary.check(file, None)
    model = TextModelFile(file, sizes, "output.weight" not in file.tensors)
    wanted = {tensor.gguf: tensor for tensor in model.tensors()}
    for names, problem in ((wanted.keys() - file.tensors.keys(), "lacks"), (file.tensors.keys() - wanted.keys(), "holds unexpected")):
        if names:
            raise QuantError(f"{path}: {problem} {layout.some(names)}")
    for name, tensor in wanted.items():
        stored = file.tensors[name]
        if as_ggml(stored.shape) != as_ggml(tensor.shape):
            raise QuantError(f"{path}: {name} has shape {list(stored.shape)}, but the file's keys say {list(tensor.shape)}")
        if stored.storage is None:
            raise QuantError(f"{path}: {name} is stored as {stored.type_name}, which cannot be read back")
    return model
