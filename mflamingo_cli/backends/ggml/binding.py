"""The ctypes binding to ggml and llama.cpp: the functions of the installed shared libraries, their devices and log.

Sizes are bytes; handles of C objects are integers.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.ggml import llama_abi
from mflamingo_cli.errors import ModelError
from quant import providers
from quant.errors import QuantError

log = logging.getLogger(__name__)

T = c_void_p  # ggml_tensor *

GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16 = 0, 1, 30
DEVICE_CPU, DEVICE_GPU = 0, 1  # enum ggml_backend_dev_type


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`: with `no_alloc`, a pool of tensor descriptors whose data lies in a device's buffer."""

    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


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
    "ggml_set_name": (T, [T, c_char_p]),
    "ggml_fp32_to_bf16_row": (None, [c_void_p, c_void_p, c_int64]),
    "ggml_type_name": (c_char_p, [c_int]),
    "ggml_blck_size": (c_int64, [c_int]),
    "ggml_new_tensor": (T, [c_void_p, c_int, c_int, POINTER(c_int64)]),
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
}


class Library:
    """The functions of ggml's and llama.cpp's PROTOTYPES as typed attributes, by their own names."""

    def __init__(self, libraries: providers.Libraries) -> None:
        self._libraries = libraries
        self.provider = libraries.provider
        self._functions = libraries.bind(PROTOTYPES | llama_abi.PROTOTYPES)
        llama_abi.check_layout(libraries, self.llama_model_default_params(), llama_abi.MODEL_ROWS)
        llama_abi.check_layout(libraries, self.llama_context_default_params(), llama_abi.CONTEXT_ROWS)
        callback = ctypes.cast(log_callback, c_void_p)
        self.ggml_log_set(callback, None)
        self.llama_log_set(callback, None)
        if self.ggml_backend_dev_count() == 0:  # a build whose back ends are plug-ins
            self.ggml_backend_load_all_from_path(os.fsencode(libraries.directory))
        self.llama_backend_init()

    def files(self) -> list[Path]:
        """Return the files that an encoding depends on: the libraries and their plug-ins."""
        return [path for path in self._libraries.directory.iterdir() if path.is_file()]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_functions"][name]
        except KeyError:
            raise AttributeError(f"{name} is not in PROTOTYPES") from None


@lru_cache(maxsize=1)
def library() -> Library:
    """Load ggml and llama.cpp, once in a process. Raises ModelError when they are missing or their structures are not as tested."""
    try:
        return Library(providers.libraries())
    except QuantError as error:
        raise ModelError(str(error)) from error


LOG_ERROR = 4  # enum ggml_log_level
LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
errors_logged: deque[str] = deque(maxlen=4)  # what C++ logged before it failed: the cause in our error messages


@LogCallback  # type: ignore[untyped-decorator]
def log_callback(level: int, text: bytes, _data: Any) -> None:
    """Send a log line of the C++ libraries to Python's logging instead of stderr."""
    line = text.decode("utf-8", "replace").strip()
    log.debug("%s", line)
    if level == LOG_ERROR and line:
        errors_logged.append(line)


def first_error() -> str:
    """Return the first error line of the C++ libraries since `errors_logged` was emptied: the cause, where others say what followed."""
    return errors_logged[0] if errors_logged else "no reason given"


class Device:
    """A ggml device, opened; `name` as ggml names it (CPU, CUDA0, Metal)."""

    def __init__(self, wanted: str, threads: int) -> None:
        self.ggml = library()
        self.handle, self.is_gpu, self.gpu_index = self._find(wanted)
        self.name: str = self.ggml.ggml_backend_dev_name(self.handle).decode()
        self.backend = self.ggml.ggml_backend_dev_init(self.handle, None)
        if not self.backend:
            raise ModelError(f"ggml could not open device {self.name}; try --device cpu")
        self._registry = self.ggml.ggml_backend_dev_backend_reg(self.handle)
        if set_threads := self._optional_function("ggml_backend_set_n_threads", None, c_void_p, c_int):
            set_threads(self.backend, threads)

    def _find(self, wanted: str) -> tuple[int, bool, int]:
        """Return the handle of a device, whether it is a GPU, and its number among them."""
        devices = list_devices()
        gpus = [handle for handle, kind in devices if kind == DEVICE_GPU]
        family, _, number = wanted.partition(":")
        if family == "cpu" or (family == "auto" and not gpus):
            return next(handle for handle, kind in devices if kind == DEVICE_CPU), False, 0
        index = int(number) if number.isdigit() else 0
        if index >= len(gpus):
            raise ModelError(f"the installed {self.ggml.provider.name} has no device {wanted}; for GPUs build llama-cpp-python")
        return gpus[index], True, index

    def _optional_function(self, name: str, result: Any, *arguments: Any) -> Any:
        """Return a function that only some devices have, or None."""
        address = self.ggml.ggml_backend_reg_get_proc_address(self._registry, name.encode())
        return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None

    def features(self) -> set[str]:
        """Return what the device's kernels were built for and find on this machine, by ggml's names."""
        get_features = self._optional_function("ggml_backend_get_features", POINTER(Feature), c_void_p)
        if not get_features:
            return set()
        listed = takewhile(lambda feature: feature.name, map(get_features(self._registry).__getitem__, count()))
        return {feature.name.decode() for feature in listed if feature.value == b"1"}

    def supports(self, operation: int) -> bool:
        """Return whether the device has a kernel for an operation on these tensors; computing one that it lacks ends the process."""
        return bool(self.ggml.ggml_backend_supports_op(self.backend, operation))

    def free_bytes(self) -> int | None:
        """Return the memory that is left on the device; None where the system does not say."""
        if not self.is_gpu:
            return memory.available_memory()
        free, total = c_size_t(), c_size_t()
        self.ggml.ggml_backend_dev_memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value

    def close(self) -> None:
        """Free the device."""
        if self.backend:
            self.ggml.ggml_backend_free(self.backend)
            self.backend = None


def list_devices() -> list[tuple[int, int]]:
    """Return (handle, kind) of every device the installed build has."""
    ggml = library()
    handles = map(ggml.ggml_backend_dev_get, range(ggml.ggml_backend_dev_count()))
    return [(handle, ggml.ggml_backend_dev_type(handle)) for handle in handles]
