"""The audio encoder on ggml: a small ctypes binding to the libraries that llama-cpp-python installs, and the graph.

Shapes are written as NumPy sees them, slowest axis first; ggml counts the other way round, so (n, d) here is ne = [d, n] there.
Follows transformers' `AudioFlamingo3Encoder`, rotary time embedding and projector operation by operation.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends import memory
from mflamingo_cli.core import rote
from mflamingo_cli.core.mel import n_audio_tokens
from mflamingo_cli.errors import ModelError
from quant import types
from quant.families import FAMILIES
from quant.geometry import Geometry

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
T = c_void_p  # ggml_tensor *

LLAMA_CPP_PYTHON = ((0, 3, 36), (0, 4, 0))  # tested from, not yet released: structures change between versions
GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16 = 0, 1, 30
DEVICE_CPU, DEVICE_GPU = 0, 1  # enum ggml_backend_dev_type
GRAPH_SIZE = 8192  # nodes; 32 layers need about 1000
GGUF_FLOAT, GGUF_STRING = 6, 8  # enum gguf_type
GGUF_SCALARS: dict[int, Any] = {
    0: ctypes.c_uint8, 1: ctypes.c_int8, 2: ctypes.c_uint16, 3: ctypes.c_int16, 4: ctypes.c_uint32, 5: ctypes.c_int32,
    6: ctypes.c_float, 7: ctypes.c_bool, 10: ctypes.c_uint64, 11: ctypes.c_int64, 12: ctypes.c_double,
}  # fmt: skip
LONGEST_ARRAY = 1000  # our own lists are short; token lists are not wanted
QUICK_BF16 = "AVX512_BF16"  # as ggml names the feature: products in BF16 take 0.5 of the time of F16 and Q8_0 (d = 1280, 1500 positions)
F16_BEYOND_BF16, F16_EXPONENT = 0x0007, 0x7C00  # bits of a half: those that BF16 has no room for; those that are 0 in tiny numbers
EPS = 1e-5  # torch.nn.LayerNorm's default, which Whisper keeps


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`: a pool of descriptors only, data lives in back end buffers."""

    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class GgufParams(ctypes.Structure):
    """`struct gguf_init_params`: read names and shapes into `*ctx`, not the data."""

    _fields_ = [("no_alloc", c_bool), ("ctx", POINTER(c_void_p))]


class Feature(ctypes.Structure):
    """`struct ggml_backend_feature`; an array of them ends with a null name."""

    _fields_ = [("name", c_char_p), ("value", c_char_p)]


# name -> (result, arguments): every ggml function that is called here
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_version": (c_char_p, []),
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead_custom": (c_size_t, [c_size_t, c_bool]),
    "ggml_nbytes": (c_size_t, [T]),
    "ggml_nelements": (c_int64, [T]),
    "ggml_nrows": (c_int64, [T]),
    "ggml_n_dims": (c_int, [T]),
    "ggml_dup_tensor": (T, [c_void_p, T]),
    "ggml_set_name": (T, [T, c_char_p]),
    "ggml_fp32_to_bf16_row": (None, [c_void_p, c_void_p, c_int64]),
    "ggml_get_tensor": (T, [c_void_p, c_char_p]),
    "ggml_new_tensor_2d": (T, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_set_input": (None, [T]),
    "ggml_set_output": (None, [T]),
    "ggml_add": (T, [c_void_p, T, T]),
    "ggml_mul": (T, [c_void_p, T, T]),
    "ggml_scale": (T, [c_void_p, T, c_float]),
    "ggml_norm": (T, [c_void_p, T, c_float]),
    "ggml_gelu_erf": (T, [c_void_p, T]),
    "ggml_mul_mat": (T, [c_void_p, T, T]),
    "ggml_soft_max": (T, [c_void_p, T]),
    "ggml_cont": (T, [c_void_p, T]),
    "ggml_cont_2d": (T, [c_void_p, T, c_int64, c_int64]),
    "ggml_cast": (T, [c_void_p, T, c_int]),
    "ggml_concat": (T, [c_void_p, T, T, c_int]),
    "ggml_transpose": (T, [c_void_p, T]),
    "ggml_permute": (T, [c_void_p, T, c_int, c_int, c_int, c_int]),
    "ggml_reshape_2d": (T, [c_void_p, T, c_int64, c_int64]),
    "ggml_reshape_3d": (T, [c_void_p, T, c_int64, c_int64, c_int64]),
    "ggml_view_2d": (T, [c_void_p, T, c_int64, c_int64, c_size_t, c_size_t]),
    "ggml_view_3d": (T, [c_void_p, T, c_int64, c_int64, c_int64, c_size_t, c_size_t, c_size_t]),
    "ggml_im2col": (T, [c_void_p, T, T, c_int, c_int, c_int, c_int, c_int, c_int, c_bool, c_int]),
    "ggml_flash_attn_ext": (T, [c_void_p, T, T, T, T, c_float, c_float, c_float]),
    "ggml_new_graph_custom": (c_void_p, [c_void_p, c_size_t, c_bool]),
    "ggml_build_forward_expand": (None, [c_void_p, T]),
    "ggml_log_set": (None, [c_void_p, c_void_p]),
    "ggml_gallocr_new": (c_void_p, [c_void_p]),
    "ggml_gallocr_free": (None, [c_void_p]),
    "ggml_gallocr_alloc_graph": (c_bool, [c_void_p, c_void_p]),
    "ggml_backend_load_all_from_path": (None, [c_char_p]),
    "ggml_backend_dev_count": (c_size_t, []),
    "ggml_backend_dev_get": (c_void_p, [c_size_t]),
    "ggml_backend_dev_type": (c_int, [c_void_p]),
    "ggml_backend_dev_name": (c_char_p, [c_void_p]),
    "ggml_backend_dev_description": (c_char_p, [c_void_p]),
    "ggml_backend_dev_memory": (None, [c_void_p, POINTER(c_size_t), POINTER(c_size_t)]),
    "ggml_backend_dev_init": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_dev_backend_reg": (c_void_p, [c_void_p]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_free": (None, [c_void_p]),
    "ggml_backend_get_default_buffer_type": (c_void_p, [c_void_p]),
    "ggml_backend_alloc_ctx_tensors": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_tensor_set": (None, [T, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_get": (None, [T, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
    "ggml_backend_supports_op": (c_bool, [c_void_p, T]),
    "ggml_graph_n_nodes": (c_int, [c_void_p]),
    "ggml_graph_node": (T, [c_void_p, c_int]),
    "ggml_op_desc": (c_char_p, [T]),
    "gguf_init_from_file": (c_void_p, [c_char_p, GgufParams]),
    "gguf_free": (None, [c_void_p]),
    "gguf_get_n_tensors": (c_int64, [c_void_p]),
    "gguf_get_tensor_name": (c_char_p, [c_void_p, c_int64]),
    "gguf_get_tensor_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_tensor_offset": (c_size_t, [c_void_p, c_int64]),
    "gguf_get_data_offset": (c_size_t, [c_void_p]),
    "gguf_get_n_kv": (c_int64, [c_void_p]),
    "gguf_get_key": (c_char_p, [c_void_p, c_int64]),
    "gguf_get_kv_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_arr_type": (c_int, [c_void_p, c_int64]),
    "gguf_get_arr_n": (c_size_t, [c_void_p, c_int64]),
    "gguf_get_arr_str": (c_char_p, [c_void_p, c_int64, c_size_t]),
    "gguf_get_val_str": (c_char_p, [c_void_p, c_int64]),
    "gguf_get_val_data": (c_void_p, [c_void_p, c_int64]),
}


class Library:
    """The ggml symbols of the installed llama-cpp-python, typed; attribute access by ggml's own names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._libraries = [ctypes.CDLL(str(_shared_object(directory, name))) for name in ("ggml-base", "ggml")]
        missing = [name for name in PROTOTYPES if not self._bind(name)]
        if missing:
            raise ModelError(f"the installed llama-cpp-python lacks {', '.join(missing)}; {_version_cure()}")
        self.ggml_log_set(ctypes.cast(log_callback, c_void_p), None)
        if self.ggml_backend_dev_count() == 0:  # a build whose back ends are plug-ins
            self.ggml_backend_load_all_from_path(os.fsencode(directory))

    def files(self) -> list[Path]:
        """Everything that computes: the libraries themselves and their plug-ins."""
        return [path for path in self._directory.iterdir() if path.is_file()]

    def _bind(self, name: str) -> bool:
        for library in self._libraries:
            try:
                function = getattr(library, name)
            except AttributeError:
                continue
            function.restype, function.argtypes = PROTOTYPES[name]
            setattr(self, name, function)
            return True
        return False

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not in PROTOTYPES")


def _shared_object(directory: Path, name: str) -> Path:
    patterns = (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll")
    found = [directory / pattern for pattern in patterns if (directory / pattern).exists()]
    if not found:
        raise ModelError(f"{directory}: no {name} library in the installed llama-cpp-python; {_version_cure()}")
    return found[0]


def _version_cure() -> str:
    low = ".".join(map(str, LLAMA_CPP_PYTHON[0]))
    high = ".".join(map(str, LLAMA_CPP_PYTHON[1][:2]))
    return f"install one that was tested: pip install 'llama-cpp-python>={low},<{high}'"


@lru_cache(maxsize=1)
def library() -> Library:
    """Load ggml once. Raises ModelError when llama-cpp-python is missing or of an untested version."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"the gguf back end needs llama-cpp-python ({error}); {_version_cure()}") from error
    version = tuple(int(part) for part in llama_cpp.__version__.split(".")[:3])
    if not LLAMA_CPP_PYTHON[0] <= version < LLAMA_CPP_PYTHON[1]:
        raise ModelError(f"llama-cpp-python {llama_cpp.__version__} is installed, which was not tested; {_version_cure()}")
    return Library(Path(llama_cpp.__file__).parent / "lib")


LOG_ERROR = 4  # enum ggml_log_level
LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
errors_logged: deque[str] = deque(maxlen=4)  # what C++ said before it failed: the cause in our error messages


@LogCallback  # type: ignore[untyped-decorator]
def log_callback(level: int, text: bytes, _data: Any) -> None:
    """Route C++ log lines into Python's logging, away from both standard streams."""
    line = text.decode("utf-8", "replace").strip()
    log.debug("%s", line)
    if level == LOG_ERROR and line:
        errors_logged.append(line)


def as_log_callback(kind: Any) -> Any:
    """Our log callback as another ctypes function type of the same signature."""
    return ctypes.cast(log_callback, kind)


def last_error() -> str:
    """The newest error line of the C++ libraries, for a message."""
    return errors_logged[-1] if errors_logged else "no reason given"


class Device:
    """A ggml device, opened; `name` as ggml names it (CPU, CUDA0, Metal)."""

    def __init__(self, wanted: str, threads: int) -> None:
        self.ggml = library()
        self.handle, self.is_gpu, self.gpu_index = self._find(wanted)
        self.name: str = self.ggml.ggml_backend_dev_name(self.handle).decode()
        self.backend = self.ggml.ggml_backend_dev_init(self.handle, None)
        if not self.backend:
            raise ModelError(f"ggml could not open device {self.name}; try --device cpu")
        self._set_threads(threads)

    def _find(self, wanted: str) -> tuple[int, bool, int]:
        devices = list_devices()
        gpus = [handle for handle, kind, _ in devices if kind == DEVICE_GPU]
        family, _, number = wanted.partition(":")
        if family == "cpu" or (family == "auto" and not gpus):
            return next(handle for handle, kind, _ in devices if kind == DEVICE_CPU), False, 0
        index = int(number) if number.isdigit() else 0
        if index >= len(gpus):
            raise ModelError(f"the installed llama-cpp-python has no device {wanted}; `mflamingo doctor` lists what it has")
        return gpus[index], True, index

    def _set_threads(self, threads: int) -> None:
        address = self._special("ggml_backend_set_n_threads")
        if address:
            ctypes.CFUNCTYPE(None, c_void_p, c_int)(address)(self.backend, threads)

    def _special(self, name: str) -> int | None:
        """Address of a function that only some devices have."""
        registry = self.ggml.ggml_backend_dev_backend_reg(self.handle)
        address: int | None = self.ggml.ggml_backend_reg_get_proc_address(registry, name.encode())
        return address

    def features(self) -> set[str]:
        """What the device's kernels were built for and find here, by ggml's names."""
        address = self._special("ggml_backend_get_features")
        if not address:
            return set()
        registry = self.ggml.ggml_backend_dev_backend_reg(self.handle)
        listed = ctypes.CFUNCTYPE(POINTER(Feature), c_void_p)(address)(registry)
        return {feature.name.decode() for feature in iter_until_null(listed) if feature.value == b"1"}

    def has(self, operation: int) -> bool:
        """Whether the device has kernels for an operation on such tensors; it ends the program when it is given another."""
        return bool(self.ggml.ggml_backend_supports_op(self.backend, operation))

    def room(self) -> int | None:
        """Bytes that can still be had on the device; None where the system does not tell."""
        if not self.is_gpu:
            return memory.available_memory()
        free, total = c_size_t(), c_size_t()
        self.ggml.ggml_backend_dev_memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value

    def close(self) -> None:
        """Give the device back."""
        if self.backend:
            self.ggml.ggml_backend_free(self.backend)
            self.backend = None


def iter_until_null(features: Any) -> Iterator[Feature]:
    """The elements of a C array up to the one without a name."""
    index = 0
    while features[index].name:
        yield features[index]
        index += 1


def list_devices() -> list[tuple[int, int, str]]:
    """(handle, kind, "NAME (description)") of every device the installed build has."""
    ggml = library()
    devices = []
    for index in range(ggml.ggml_backend_dev_count()):
        handle = ggml.ggml_backend_dev_get(index)
        name, description = ggml.ggml_backend_dev_name(handle).decode(), ggml.ggml_backend_dev_description(handle).decode()
        devices.append((handle, ggml.ggml_backend_dev_type(handle), f"{name} ({description.strip()})"))
    return devices


def read_metadata(path: Path) -> dict[str, Any]:
    """Keys and values of a GGUF file; arrays only of strings and numbers that are short, vocabularies are left out.

    Raises ModelError when the file is not GGUF.
    """
    ggml = library()
    gguf = ggml.gguf_init_from_file(os.fsencode(path), GgufParams(True, None))
    if not gguf:
        raise ModelError(f"{path}: not a GGUF file that ggml can read")
    try:
        keys = range(ggml.gguf_get_n_kv(gguf))
        values = {ggml.gguf_get_key(gguf, index).decode(): _value(ggml, gguf, index) for index in keys}
    finally:
        ggml.gguf_free(gguf)
    return {key: value for key, value in values.items() if value is not None}


def _value(ggml: Library, gguf: int, index: int) -> Any:
    kind = ggml.gguf_get_kv_type(gguf, index)
    if kind == GGUF_STRING:
        return ggml.gguf_get_val_str(gguf, index).decode("utf-8")
    if kind in GGUF_SCALARS:
        value = ctypes.cast(ggml.gguf_get_val_data(gguf, index), POINTER(GGUF_SCALARS[kind])).contents.value
        return float(str(np.float32(value))) if kind == GGUF_FLOAT else value  # the number that was written: 0.01, not 0.00999…
    count = ggml.gguf_get_arr_n(gguf, index)
    if ggml.gguf_get_arr_type(gguf, index) == GGUF_STRING and count <= LONGEST_ARRAY:
        return [ggml.gguf_get_arr_str(gguf, index, item).decode("utf-8") for item in range(count)]
    return None


class Weights:
    """The tensors of an audio GGUF, named and sized, then loaded into one buffer of a device.

    Where the processor is quicker in BF16, matrices that lose nothing by it are kept so: quantised ones (ggml would round what they are
    multiplied with to 8 bits), and halves that were BF16 before.
    """

    def __init__(self, path: Path, device: Device) -> None:
        self.ggml, self._path, self._device = device.ggml, path, device
        self._described = c_void_p()
        self._gguf = self.ggml.gguf_init_from_file(os.fsencode(path), GgufParams(True, ctypes.pointer(self._described)))
        if not self._gguf:
            raise ModelError(f"{path}: not a GGUF file that ggml can read")
        self._names: list[bytes] = [self.ggml.gguf_get_tensor_name(self._gguf, i) for i in range(self.ggml.gguf_get_n_tensors(self._gguf))]
        self.types = {self._type(index) for index in range(len(self._names))}
        self._quick_bf16 = QUICK_BF16 in device.features()
        self._data: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        self.context = self.ggml.ggml_init(InitParams((len(self._names) + 1) * self.ggml.ggml_tensor_overhead(), None, True))
        self._tensors = [self._kept(index) for index in range(len(self._names))]
        self.n_bytes = sum(self.ggml.ggml_nbytes(tensor) for tensor in self._tensors)
        self.widened = any(self._widens(index) for index in range(len(self._names)))
        self.all_bf16 = self._quick_bf16 and all(self._is_bf16(index) for index in range(len(self._names)) if self._is_linear(index))
        self.buffer: int | None = None

    def _type(self, index: int) -> int:
        kind: int = self.ggml.gguf_get_tensor_type(self._gguf, index)
        return kind

    def _found(self, index: int) -> int:
        tensor: int = self.ggml.ggml_get_tensor(self._described, self._names[index])
        return tensor

    def _kept(self, index: int) -> int:
        """The tensor that a file's tensor becomes."""
        described = self._found(index)
        if self._widens(index):
            rows = self.ggml.ggml_nrows(described)
            columns = self.ggml.ggml_nelements(described) // rows
            tensor = self.ggml.ggml_new_tensor_2d(self.context, GGML_TYPE_BF16, columns, rows)
        else:
            tensor = self.ggml.ggml_dup_tensor(self.context, described)
        self.ggml.ggml_set_name(tensor, self._names[index])
        return int(tensor)

    def _widens(self, index: int) -> bool:
        """Whether a matrix is kept in BF16 instead."""
        kind, described = self._type(index), self._found(index)
        if not self._quick_bf16 or self.ggml.ggml_n_dims(described) != 2 or kind in (GGML_TYPE_F32, GGML_TYPE_BF16):
            return False
        if kind not in types.STORAGES:
            return False
        if kind != GGML_TYPE_F16:
            return True
        columns = self.ggml.ggml_nelements(described) // self.ggml.ggml_nrows(described)
        row = self._bytes(index, 2 * columns).view(np.uint16)  # of numbers with more bits one row tells
        return not np.any((row & F16_BEYOND_BF16 != 0) & (row & F16_EXPONENT != 0))

    def _is_bf16(self, index: int) -> bool:
        return self._widens(index) or self._type(index) == GGML_TYPE_BF16

    def _is_linear(self, index: int) -> bool:
        """Whether a tensor is the matrix of a linear layer: not a position table, not a bias with two extents."""
        name = self._names[index]
        return name.endswith(b".weight") and b"embd" not in name and bool(self.ggml.ggml_n_dims(self._found(index)) == 2)

    def _bytes(self, index: int, size: int) -> npt.NDArray[np.uint8]:
        offset = self.ggml.gguf_get_data_offset(self._gguf) + self.ggml.gguf_get_tensor_offset(self._gguf, index)
        if offset + size > self._data.size:
            raise ModelError(f"{self._path}: the file is cut short; convert or download it again")
        return self._data[offset : offset + size]

    def load(self) -> None:
        """Read the file into the device. Raises ModelError where there is no memory."""
        self.buffer = self.ggml.ggml_backend_alloc_ctx_tensors(self.context, self._device.backend)
        if not self.buffer:
            raise ModelError(f"{self._path}: no memory for the audio encoder on {self._device.name}", code="oom")
        for index, tensor in enumerate(self._tensors):
            data = self._bytes(index, self.ggml.ggml_nbytes(self._found(index)))
            if self._widens(index):
                data = self._in_bf16(self._type(index), data).view(np.uint8)
            self.ggml.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
        self._data = np.empty(0, np.uint8)  # the file's pages are not needed any more

    def _in_bf16(self, kind: int, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        numbers = types.decode(data, types.STORAGES[kind])
        halves = np.empty(numbers.size, np.uint16)
        self.ggml.ggml_fp32_to_bf16_row(numbers.ctypes.data, halves.ctypes.data, numbers.size)
        return halves

    def __getitem__(self, name: str) -> int:
        tensor = self.ggml.ggml_get_tensor(self.context, name.encode())
        if not tensor:
            raise ModelError(f"the audio GGUF lacks tensor {name}")
        return int(tensor)

    def __contains__(self, name: str) -> bool:
        return bool(self.ggml.ggml_get_tensor(self.context, name.encode()))

    def close(self) -> None:
        """Free buffer and descriptors."""
        if not self.context:
            return
        if self.buffer:
            self.ggml.ggml_backend_buffer_free(self.buffer)
        for descriptors in (self.context, self._described):
            self.ggml.ggml_free(descriptors)
        self.ggml.gguf_free(self._gguf)
        self.context = self.buffer = None


class Graph:
    """Operations of one window in ggml's context, written short: `g.mul_mat(w, x)`."""

    def __init__(self, weights: Weights, geometry: Geometry, device: Device, exact: bool) -> None:
        self.ggml, self.weights, self.sizes, self.device, self.exact = weights.ggml, weights, geometry.encoder, device, exact
        size = GRAPH_SIZE * self.ggml.ggml_tensor_overhead() + self.ggml.ggml_graph_overhead_custom(GRAPH_SIZE, False)
        self.context = self.ggml.ggml_init(InitParams(size, None, True))
        self.inputs: list[tuple[int, Floats]] = []

    def input(self, values: Floats) -> int:
        """A (rows, columns) array as a graph input."""
        rows, columns = values.shape
        tensor = self.ggml.ggml_new_tensor_2d(self.context, GGML_TYPE_F32, columns, rows)
        self.ggml.ggml_set_input(tensor)
        self.inputs.append((tensor, np.ascontiguousarray(values, dtype=np.float32)))
        return int(tensor)

    def op(self, name: str, *arguments: Any) -> int:
        """Append `ggml_<name>`."""
        return int(getattr(self.ggml, f"ggml_{name}")(self.context, *arguments))

    def linear(self, name: str, x: int) -> int:
        """(n, in) -> (n, out), with a bias where the file has one."""
        y = self.op("mul_mat", self.weights[f"{name}.weight"], x)
        bias = f"{name}.bias"
        return self.op("add", y, self.weights[bias]) if bias in self.weights else y

    def layer_norm(self, name: str, x: int) -> int:
        """(n, d) -> (n, d)."""
        y = self.op("mul", self.op("norm", x, EPS), self.weights[f"{name}.weight"])
        return self.op("add", y, self.weights[f"{name}.bias"])

    def convolution(self, name: str, x: int, n_in: int, n_out: int, stride: int) -> int:
        """Kernel 3, padding 1, GELU: (n_in, t) -> (ceil(t / stride), n_out), as one matrix product in float32."""
        kernel = self.weights[f"{name}.weight"]
        columns = self.op("im2col", kernel, x, stride, 0, 1, 0, 1, 0, False, GGML_TYPE_F32)
        y = self.op("mul_mat", self.op("reshape_2d", kernel, 3 * n_in, n_out), columns)
        bias = self.op("reshape_2d", self.weights[f"{name}.bias"], n_out, 1)
        return self.op("gelu_erf", self.op("add", y, bias))

    def attention(self, name: str, x: int, n: int) -> int:
        """Unmasked self-attention over (n, d); the query is scaled before the product, as transformers does."""
        heads = self.sizes.n_heads
        width = self.sizes.d_model // heads

        def split(y: int) -> int:
            return self.op("permute", self.op("reshape_3d", y, width, heads, n), 0, 2, 1, 3)

        q = split(self.op("scale", self.linear(f"{name}.attn_q", x), width**-0.5))
        k, v = split(self.linear(f"{name}.attn_k", x)), split(self.linear(f"{name}.attn_v", x))
        fused = None if self.exact else self._fused(q, k, v)
        if fused is None:
            scores = self.op("soft_max", self.op("mul_mat", self.op("cont", k), self.op("cont", q)))
            y = self.op("mul_mat", self.op("cont", self.op("transpose", v)), scores)
            y = self.op("cont_2d", self.op("permute", y, 0, 2, 1, 3), self.sizes.d_model, n)
        else:
            y = self.op("reshape_2d", fused, self.sizes.d_model, n)
        return self.linear(f"{name}.attn_out", y)

    def _fused(self, q: int, k: int, v: int) -> int | None:
        """Attention in one kernel, (n, heads, width); None where the device has none for heads so wide."""
        if self.device.is_gpu:  # a CPU would make float32 of them again, for every block of queries
            k, v = self.op("cast", k, GGML_TYPE_F16), self.op("cast", v, GGML_TYPE_F16)
        y = self.op("flash_attn_ext", q, k, v, None, 1.0, 0.0, 0.0)
        return y if self.device.has(y) else None

    def block(self, name: str, x: int, n: int) -> int:
        """One pre-norm transformer layer on (n, d)."""
        x = self.op("add", x, self.attention(name, self.layer_norm(f"{name}.ln1", x), n))
        y = self.linear(f"{name}.ffn_up", self.layer_norm(f"{name}.ln2", x))
        return self.op("add", x, self.linear(f"{name}.ffn_down", self.op("gelu_erf", y)))

    def pool(self, x: int, m: int) -> int:
        """Mean of neighbouring positions: (2m or 2m + 1, d) -> (m, d)."""
        d = self.sizes.d_model
        even, odd = (self.op("view_2d", x, d, m, 2 * 4 * d, offset) for offset in (0, 4 * d))
        return self.op("scale", self.op("add", even, odd), 0.5)

    def rotate(self, x: int, cos: Floats, sin: Floats) -> int:
        """Turn channel pairs (2k, 2k + 1) of (m, d) by tables of (m, r <= d); the rest stays."""
        m, r = cos.shape
        d = self.sizes.d_model
        whole_cos, whole_sin = np.ones((m, d), np.float32), np.zeros((m, d), np.float32)
        whole_cos[:, :r], whole_sin[:, :r] = cos, sin
        whole_sin[:, 0:r:2] *= -1  # the pair is swapped below: (x0, x1) -> (x1, x0)
        first, second = (self.op("view_3d", x, 1, d // 2, m, 8, 4 * d, offset) for offset in (0, 4))
        swapped = self.op("reshape_2d", self.op("concat", second, first, 0), d, m)
        return self.op("add", self.op("mul", x, self.input(whole_cos)), self.op("mul", swapped, self.input(whole_sin)))

    def close(self) -> None:
        """Free the descriptors."""
        self.ggml.ggml_free(self.context)


class Encoder:
    """Log-mel windows -> embeddings of the language model, on one ggml device."""

    def __init__(self, weights: Weights, geometry: Geometry, device: Device) -> None:
        self.weights, self.geometry, self.device = weights, geometry, device
        self.ggml = self.device.ggml
        self.versions = f"ggml {self.ggml.ggml_version().decode()}"
        self.weights.load()
        self.exact = self.weights.types == {GGML_TYPE_F32}  # nothing was rounded: then the attention's K and V are not either
        self._allocator = self.ggml.ggml_gallocr_new(self.ggml.ggml_backend_get_default_buffer_type(self.device.backend))

    def window(self, mel: Floats, n_frames: int, index: int) -> Floats:
        """Encode one window: (n_mels, frames) log-mel, `n_frames` of them valid -> (n_audio_tokens, d_text) float32.

        `index` is the window's place in its song; positions beyond the valid ones are cut before the transformer,
        which equals masking them.
        """
        m = n_audio_tokens(n_frames)
        graph = Graph(self.weights, self.geometry, self.device, self.exact)
        try:
            output = self._build(graph, mel, (n_frames - 1) // 2 + 1, m, index)
            return self._compute(graph, output, (m, self.geometry.text.d_model))
        finally:
            graph.close()

    def _build(self, g: Graph, mel: Floats, n: int, m: int, index: int) -> int:
        d = self.geometry.encoder.d_model
        x = g.convolution("a.conv1d.1", g.input(mel), self.geometry.mel.n_mels, d, 1)
        x = g.convolution("a.conv1d.2", g.op("cont", g.op("transpose", x)), d, d, 2)
        positions = g.op("view_2d", self.weights["a.position_embd.weight"], d, n, 4 * d, 0)
        x = g.op("add", g.op("view_2d", x, d, n, 4 * d, 0), positions)
        for layer in range(self.geometry.encoder.n_layers):
            x = g.block(f"a.blk.{layer}", x, n)
        x = g.layer_norm("a.post_ln", g.pool(x, m))
        if self.geometry.rote is not None:
            x = g.rotate(x, *rote.tables(self.geometry.rote, index, m, self.geometry.tokens_per_window))
        for place, (_, name) in enumerate(FAMILIES[self.geometry.architecture].projector.layers):
            x = g.linear(name, g.op("gelu_erf", x) if place else x)
        return x

    def _compute(self, graph: Graph, output: int, shape: tuple[int, int]) -> Floats:
        cgraph = self.ggml.ggml_new_graph_custom(graph.context, GRAPH_SIZE, False)
        self.ggml.ggml_set_output(output)
        self.ggml.ggml_build_forward_expand(cgraph, output)
        self._check(cgraph)
        if not self.ggml.ggml_gallocr_alloc_graph(self._allocator, cgraph):
            raise ModelError(f"no memory for the audio encoder's work space on {self.device.name}", code="oom")
        for tensor, values in graph.inputs:
            self.ggml.ggml_backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)
        status = self.ggml.ggml_backend_graph_compute(self.device.backend, cgraph)
        if status != 0:
            raise ModelError(f"ggml stopped with status {status} while encoding audio on {self.device.name}", code="failed")
        result = np.empty(shape, np.float32)
        self.ggml.ggml_backend_tensor_get(output, result.ctypes.data, 0, result.nbytes)
        return result

    def _check(self, cgraph: int) -> None:
        """Raise ModelError for what the device has no kernel for."""
        nodes = (self.ggml.ggml_graph_node(cgraph, index) for index in range(self.ggml.ggml_graph_n_nodes(cgraph)))
        for node in nodes:
            if not self.device.has(node):
                operation = self.ggml.ggml_op_desc(node).decode()
                raise ModelError(f"{self.device.name} cannot compute {operation} of this encoder; use --device cpu")

    def close(self) -> None:
        """Give the work space back; the weights are their owner's."""
        if self._allocator:
            self.ggml.ggml_gallocr_free(self._allocator)
            self._allocator = None
