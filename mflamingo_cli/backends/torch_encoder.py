"""The audio part of a GGUF pair on torch's kernels, for processors that multiply BF16: theirs are quicker there than ggml's.

The same network that the torch back end runs, so that it hears the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mflamingo_cli.errors import ModelError
from quant import layout, reader, types

if TYPE_CHECKING:
    import torch

    from mflamingo_cli.backends.ggml import Weights
    from quant.geometry import Geometry

Floats = npt.NDArray[np.float32]

PAYS_BYTES = 256 << 20  # of weights: loading torch takes some seconds
BLOCK_WEIGHTS = 1 << 22  # decoded at once


def quicker_in_torch(weights: Weights) -> bool:
    """Whether torch is here, the weights are BF16 all the same, and large enough."""
    worth = weights.all_bf16 and weights.n_bytes >= PAYS_BYTES
    return worth and all(find_spec(name) for name in ("torch", "transformers", "accelerate"))


class TorchEncoder:
    """Log-mel windows -> embeddings of the language model, as `ggml.Encoder`."""

    def __init__(self, audio: Path, geometry: Geometry, threads: int) -> None:
        import torch
        import transformers

        from mflamingo_cli.core.model import build_ears

        torch.set_num_threads(threads)
        self.versions = f"torch {torch.__version__} {transformers.__version__}"
        self._geometry = geometry
        self._model = build_ears(geometry, _weights(audio, geometry, threads))

    def window(self, mel: Floats, n_frames: int, index: int) -> Floats:
        """Encode one window: (n_mels, frames) log-mel, `n_frames` of them valid, at a place in its song -> (n_audio_tokens, d_text)."""
        import torch

        from mflamingo_cli.core.model import encode_windows

        with torch.inference_mode():
            features, lengths, places = torch.from_numpy(mel)[None].bfloat16(), torch.tensor([n_frames]), torch.tensor([index])
            [embedded] = encode_windows(self._model, self._geometry, features, lengths, places)
            return np.asarray(embedded.float().numpy())

    def close(self) -> None:
        """Give the weights back."""
        del self._model


def _weights(audio: Path, geometry: Geometry, threads: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Name on the hub and weights in BF16 of every tensor of an audio part. Raises QuantError for a file that is damaged."""
    import torch

    file = reader.read(audio)

    def decoded(tensor: layout.Tensor) -> tuple[str, torch.Tensor]:
        stored = file.tensors.get(tensor.gguf)
        if stored is None or stored.storage is None:
            raise ModelError(f"the audio GGUF lacks tensor {tensor.gguf}")
        weights, first = torch.empty(prod(tensor.shape), dtype=torch.bfloat16), 0
        for _, data in file.blocks(tensor.gguf, max(1, BLOCK_WEIGHTS // stored.shape[-1])):
            numbers = torch.from_numpy(types.decode(np.frombuffer(bytearray(data), np.uint8), stored.storage))
            weights[first : first + len(numbers)] = numbers
            first += len(numbers)
        return tensor.hf, weights.reshape(tensor.shape)

    with ThreadPoolExecutor(threads) as pool:  # ggml, NumPy and torch release the interpreter
        yield from pool.map(decoded, layout.tensors("audio", geometry))
