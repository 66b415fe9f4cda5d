"""The tensors of an audio GGUF, loaded into one buffer of a ggml device.

Shapes are written as NumPy sees them, slowest axis first; ggml counts the other way round, so (n, d) here is ne = [d, n] there.
"""

from __future__ import annotations

from ctypes import c_int64
from math import prod

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends.ggml.binding import GGML_TYPE_BF16, GGML_TYPE_F16, GGML_TYPE_F32, Device, InitParams
from mflamingo_cli.errors import ModelError
from quant import encoding
from quant.reader import GgufFile, GgufTensor

BF16_FEATURE = "AVX512_BF16"  # ggml's name; with it products in BF16 take half the time of F16 and Q8_0 (d = 1280, 1500 positions)
F16_BEYOND_BF16, F16_EXPONENT = 0x0007, 0x7C00  # bits of a half: those that BF16 has no room for; those that are 0 in subnormal numbers


class Weights:
    """The tensors of an audio GGUF: sized when this is made, in the device's memory after `load`.

    Where the processor multiplies BF16 natively, matrices that lose nothing by it are stored so: quantised ones (ggml would round what
    they are multiplied with to 8 bits), and halves that were BF16 before.
    """

    def __init__(self, file: GgufFile, device: Device) -> None:
        self.ggml, self._file, self._device = device.ggml, file, device
        self.types = {stored.number for stored in file.tensors.values()}
        self._has_bf16 = BF16_FEATURE in device.features()
        self._data: npt.NDArray[np.uint8] = np.memmap(file.path, np.uint8, "r")
        self.context = self.ggml.ggml_init(InitParams((len(file.tensors) + 1) * self.ggml.ggml_tensor_overhead(), None, True))
        self._converted = {name for name, stored in file.tensors.items() if self._gains_from_bf16(stored)}
        self._tensors = {name: self._describe(stored) for name, stored in file.tensors.items()}
        self.n_bytes = sum(map(self.ggml.ggml_nbytes, self._tensors.values()))
        self.buffer: int | None = None

    @property
    def converted(self) -> bool:
        """Whether any matrix is stored in BF16 that is of another type in the file."""
        return bool(self._converted)

    @property
    def all_bf16(self) -> bool:
        """Whether the matrices of all linear layers are BF16, on a processor that multiplies it natively."""
        linear = (stored for name, stored in self._file.tensors.items() if name.endswith(".weight") and "embd" not in name)
        matrices = [stored for stored in linear if _is_matrix(stored)]
        return self._has_bf16 and all(stored.number == GGML_TYPE_BF16 or stored.name in self._converted for stored in matrices)

    def _gains_from_bf16(self, stored: GgufTensor) -> bool:
        if not self._has_bf16 or not _is_matrix(stored) or not stored.storage or stored.number in (GGML_TYPE_F32, GGML_TYPE_BF16):
            return False
        if stored.number != GGML_TYPE_F16:
            return True
        row = self._bytes(stored, 2 * stored.shape[-1]).view(np.uint16)  # numbers with more bits show in any row
        return not np.any((row & F16_BEYOND_BF16 != 0) & (row & F16_EXPONENT != 0))

    def _describe(self, stored: GgufTensor) -> int:
        """Add a tensor to the context, without its data. Raises ModelError for a type or size that ggml would end the process at."""
        kind = GGML_TYPE_BF16 if stored.name in self._converted else stored.number
        block = self.ggml.ggml_blck_size(kind) if 0 <= kind < 1 << 31 and self.ggml.ggml_type_name(kind) != b"NONE" else 0
        if not block or stored.shape[-1] % block:
            raise ModelError(
                f"{self._file.path}: {stored.name} is stored as {stored.type_name}, which this ggml cannot read; convert it again"
            )
        extents = (c_int64 * len(stored.shape))(*reversed(stored.shape))
        tensor = self.ggml.ggml_new_tensor(self.context, kind, len(stored.shape), extents)
        self.ggml.ggml_set_name(tensor, stored.name.encode())
        return int(tensor)

    def _bytes(self, stored: GgufTensor, size: int) -> npt.NDArray[np.uint8]:
        if stored.offset + size > self._data.size:
            raise ModelError(f"{self._file.path}: the file is cut short; convert or download it again")
        return self._data[stored.offset : stored.offset + size]

    def load(self) -> None:
        """Copy the data from the file into the device's memory. Raises ModelError where there is not enough."""
        self.buffer = self.ggml.ggml_backend_alloc_ctx_tensors(self.context, self._device.backend)
        if not self.buffer:
            raise ModelError(f"{self._file.path}: not enough memory for the audio encoder on {self._device.name}", code="oom")
        for name, tensor in self._tensors.items():
            stored = self._file.tensors[name]
            if name in self._converted:
                assert stored.storage is not None
                numbers = encoding.decode(self._bytes(stored, stored.storage.n_bytes(prod(stored.shape))), stored.storage)
                data = np.empty(2 * numbers.size, np.uint8)
                self.ggml.ggml_fp32_to_bf16_row(numbers.ctypes.data, data.ctypes.data, numbers.size)
            else:
                data = self._bytes(stored, self.ggml.ggml_nbytes(tensor))
            self.ggml.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
        self._data = np.empty(0, np.uint8)  # the file's pages are not needed any more

    def __getitem__(self, name: str) -> int:
        if name not in self._tensors:
            raise ModelError(f"the audio GGUF lacks tensor {name}")
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def close(self) -> None:
        """Free buffer and descriptors."""
        if self.buffer:
            self.ggml.ggml_backend_buffer_free(self.buffer)
        if self.context:
            self.ggml.ggml_free(self.context)
        self.context = self.buffer = None


def _is_matrix(stored: GgufTensor) -> bool:
    """Return whether a tensor is the matrix of a linear layer or a table, not a bias or a convolution's kernel."""
    return len(stored.shape) - next((axis for axis, size in enumerate(stored.shape) if size > 1), len(stored.shape) - 1) == 2
