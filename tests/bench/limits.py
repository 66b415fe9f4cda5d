"""The physical limits that a figure stands beside: bytes read per second, and operations per second of ggml's matrix products."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one for each of our own threads
import numpy as np

from mflamingo_cli.backends.ggml.binding import GGML_TYPE_F32, Device, InitParams

READ_BYTES = 1 << 29  # each thread's own: no cache holds it
ROWS, COLUMNS, BATCH = 4096, 4096, 512  # of a product as in a language model that reads
TYPES = {"f32": 0, "f16": 1, "bf16": 30}  # enum ggml_type


def limits(threads: int) -> dict[str, float]:
    """GB read per second from memory, and 10^9 operations per second of products by matrices of each type, with so many threads."""
    products = {f"{name}_gflops": round(product(kind, threads) / 1e9, 1) for name, kind in TYPES.items()}
    return {"threads": threads, "read_gb_per_s": round(reading(threads) / 1e9, 1), **products}


def reading(threads: int) -> float:
    """Bytes per second that dot products of long vectors read."""
    vectors = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return threads * READ_BYTES / best(lambda: list(pool.map(lambda x: x @ x, vectors)))


def product(kind: int, threads: int) -> float:
    """Operations per second of one product, two for each weight and column."""
    device = Device("cpu", threads)
    library = device.ggml
    context = library.ggml_init(InitParams(1 << 20, None, True))
    weights, x = (library.ggml_new_tensor_2d(context, *shape) for shape in ((kind, COLUMNS, ROWS), (GGML_TYPE_F32, COLUMNS, BATCH)))
    graph = library.ggml_new_graph_custom(context, 16, False)
    library.ggml_build_forward_expand(graph, library.ggml_mul_mat(context, weights, x))
    buffer = library.ggml_backend_alloc_ctx_tensors(context, device.backend)
    try:
        for tensor in (weights, x):
            zeros = np.zeros(library.ggml_nbytes(tensor), np.uint8)
            library.ggml_backend_tensor_set(tensor, zeros.ctypes.data, 0, zeros.nbytes)
        return 2 * ROWS * COLUMNS * BATCH / best(lambda: library.ggml_backend_graph_compute(device.backend, graph))
    finally:
        library.ggml_backend_buffer_free(buffer)
        library.ggml_free(context)
        device.close()


def best(work: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the quickest of a few runs."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    print({threads: limits(threads) for threads in (1, os.cpu_count() or 1)})
