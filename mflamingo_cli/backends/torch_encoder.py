"""The audio part of a GGUF pair on torch's kernels, for processors that multiply BF16: there they are faster than ggml's.

The same network as in the torch back end, so both encode alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mflamingo_cli.errors import ModelError
from quant import encoding, layout

if TYPE_CHECKING:
    import torch

    from mflamingo_cli.backends.ggml.weights import Weights
    from quant.geometry import Geometry
    from quant.reader import GgufFile

Floats = npt.NDArray[np.float32]

MIN_BYTES = 256 << 20  # of weights; for fewer, loading torch takes longer than it saves
BLOCK_WEIGHTS = 1 << 22  # decoded at once


def faster_in_torch(weights: Weights) -> bool:
    """Return whether torch is installed, all matrices are BF16 in memory, and there are enough of them."""
    pays = weights.all_bf16 and weights.n_bytes >= MIN_BYTES
    return pays and all(find_spec(name) for name in ("torch", "transformers", "accelerate"))


class TorchEncoder:
    """Encodes log-mel windows to embeddings of the language model, as `GgmlEncoder` does."""

    def __init__(self, audio: GgufFile, geometry: Geometry, threads: int) -> None:
        import torch
        import transformers

        from mflamingo_cli.core.model import build_audio_encoder

        torch.set_num_threads(threads)
        self.versions = f"torch {torch.__version__} {transformers.__version__}"
        self._geometry = geometry
        self._model = build_audio_encoder(geometry, _weights(audio, geometry, threads))

    def window(self, mel: Floats, n_frames: int, index: int) -> Floats:
        """Encode one window: (n_mels, frames) log-mel, the first `n_frames` valid, its number in the song -> (n_audio_tokens, d_text)."""
        import torch

        from mflamingo_cli.core.model import encode_windows

        with torch.inference_mode():
            features, lengths, indices = torch.from_numpy(mel)[None].bfloat16(), torch.tensor([n_frames]), torch.tensor([index])
            [embedded] = encode_windows(self._model, self._geometry, features, lengths, indices)
            return np.asarray(embedded.float().numpy())

    def close(self) -> None:
        """Free the weights."""
        del self._model


def _weights(file: GgufFile, geometry: Geometry, threads: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the hub's name and the weights in BF16 of every tensor of an audio part. Raises ModelError for one that is missing."""
    import torch

    def decoded(tensor: layout.Tensor) -> tuple[str, torch.Tensor]:
        stored = file.tensors.get(tensor.gguf)
        if stored is None or stored.storage is None:
            raise ModelError(f"the audio GGUF lacks tensor {tensor.gguf}")
        weights, first = torch.empty(prod(tensor.shape), dtype=torch.bfloat16), 0
        for _, data in file.blocks(tensor.gguf, max(1, BLOCK_WEIGHTS // stored.shape[-1])):
            numbers = torch.from_numpy(encoding.decode(np.frombuffer(bytearray(data), np.uint8), stored.storage))
            weights[first : first + len(numbers)] = numbers
            first += len(numbers)
        return tensor.hf, weights.reshape(tensor.shape)

    with ThreadPoolExecutor(threads) as pool:  # ggml, NumPy and torch release the interpreter
        yield from pool.map(decoded, layout.tensors("audio", geometry))
