"""The graph of one encoder window in ggml, following transformers' `AudioFlamingo3Encoder`, RoTE and projector operation by operation.

Shapes are written as NumPy sees them, slowest axis first; ggml counts the other way round, so (n, d) here is ne = [d, n] there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mflamingo_cli.backends.ggml.binding import GGML_TYPE_F16, GGML_TYPE_F32, Device, InitParams
from mflamingo_cli.backends.ggml.weights import Weights
from mflamingo_cli.core import rote
from mflamingo_cli.core.mel import n_audio_tokens
from mflamingo_cli.errors import ModelError
from quant.families import FAMILIES
from quant.geometry import Geometry

Floats = npt.NDArray[np.float32]

GRAPH_SIZE = 8192  # nodes; 32 layers need about 1000
EPS = 1e-5  # torch.nn.LayerNorm's default, which Whisper keeps


class Graph:
    """The operations of one window: each method appends some and returns the tensor that holds their result."""

    def __init__(self, weights: Weights, geometry: Geometry, device: Device, exact: bool) -> None:
        self.ggml, self.weights, self.sizes, self.device, self.exact = weights.ggml, weights, geometry.encoder, device, exact
        size = GRAPH_SIZE * self.ggml.ggml_tensor_overhead() + self.ggml.ggml_graph_overhead_custom(GRAPH_SIZE, False)
        self.context = self.ggml.ggml_init(InitParams(size, None, True))
        self.inputs: list[tuple[int, Floats]] = []

    def input(self, values: Floats) -> int:
        """Add a (rows, columns) array as an input."""
        rows, columns = values.shape
        tensor = self.ggml.ggml_new_tensor_2d(self.context, GGML_TYPE_F32, columns, rows)
        self.ggml.ggml_set_input(tensor)
        self.inputs.append((tensor, np.ascontiguousarray(values, dtype=np.float32)))
        return int(tensor)

    def op(self, name: str, *arguments: Any) -> int:
        """Append `ggml_<name>`."""
        return int(getattr(self.ggml, f"ggml_{name}")(self.context, *arguments))

    def linear(self, name: str, x: int) -> int:
        """Append a linear layer, with a bias where the file has one: (n, in) -> (n, out)."""
        y = self.op("mul_mat", self.weights[f"{name}.weight"], x)
        bias = f"{name}.bias"
        return self.op("add", y, self.weights[bias]) if bias in self.weights else y

    def layer_norm(self, name: str, x: int) -> int:
        """Append a layer norm: (n, d) -> (n, d)."""
        y = self.op("mul", self.op("norm", x, EPS), self.weights[f"{name}.weight"])
        return self.op("add", y, self.weights[f"{name}.bias"])

    def convolution(self, name: str, x: int, n_in: int, n_out: int, stride: int) -> int:
        """Append a convolution (kernel 3, padding 1) and GELU, as one product in float32: (n_in, t) -> (ceil(t / stride), n_out)."""
        kernel = self.weights[f"{name}.weight"]
        columns = self.op("im2col", kernel, x, stride, 0, 1, 0, 1, 0, False, GGML_TYPE_F32)
        y = self.op("mul_mat", self.op("reshape_2d", kernel, 3 * n_in, n_out), columns)
        bias = self.op("reshape_2d", self.weights[f"{name}.bias"], n_out, 1)
        return self.op("gelu_erf", self.op("add", y, bias))

    def attention(self, name: str, x: int, n: int) -> int:
        """Append unmasked self-attention: (n, d) -> (n, d). The query is scaled before the product, as transformers does."""
        heads = self.sizes.n_heads
        width = self.sizes.d_model // heads

        def split(y: int) -> int:
            return self.op("permute", self.op("reshape_3d", y, width, heads, n), 0, 2, 1, 3)

        q = split(self.op("scale", self.linear(f"{name}.attn_q", x), width**-0.5))
        k, v = split(self.linear(f"{name}.attn_k", x)), split(self.linear(f"{name}.attn_v", x))
        fused = None if self.exact else self._flash_attention(q, k, v)
        if fused is None:
            scores = self.op("soft_max", self.op("mul_mat", self.op("cont", k), self.op("cont", q)))
            y = self.op("mul_mat", self.op("cont", self.op("transpose", v)), scores)
            y = self.op("cont_2d", self.op("permute", y, 0, 2, 1, 3), self.sizes.d_model, n)
        else:
            y = self.op("reshape_2d", fused, self.sizes.d_model, n)
        return self.linear(f"{name}.attn_out", y)

    def _flash_attention(self, q: int, k: int, v: int) -> int | None:
        """Append flash attention, (n, heads, width), or return None where the device has no kernel for this head size."""
        if self.device.is_gpu:  # a CPU would convert them back to float32 for every block of queries
            k, v = self.op("cast", k, GGML_TYPE_F16), self.op("cast", v, GGML_TYPE_F16)
        y = self.op("flash_attn_ext", q, k, v, None, 1.0, 0.0, 0.0)
        return y if self.device.supports(y) else None

    def block(self, name: str, x: int, n: int) -> int:
        """Append a pre-norm transformer layer: (n, d) -> (n, d)."""
        x = self.op("add", x, self.attention(name, self.layer_norm(f"{name}.ln1", x), n))
        y = self.linear(f"{name}.ffn_up", self.layer_norm(f"{name}.ln2", x))
        return self.op("add", x, self.linear(f"{name}.ffn_down", self.op("gelu_erf", y)))

    def pool(self, x: int, m: int) -> int:
        """Append the mean of neighbouring positions: (2m or 2m + 1, d) -> (m, d)."""
        d = self.sizes.d_model
        even, odd = (self.op("view_2d", x, d, m, 2 * 4 * d, offset) for offset in (0, 4 * d))
        return self.op("scale", self.op("add", even, odd), 0.5)

    def rotate(self, x: int, cos: Floats, sin: Floats) -> int:
        """Append a rotation of channel pairs (2k, 2k + 1) of (m, d) by tables of (m, r <= d); channels from r on are not rotated."""
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


class GgmlEncoder:
    """Encodes log-mel windows to embeddings of the language model on one ggml device."""

    def __init__(self, weights: Weights, geometry: Geometry, device: Device) -> None:
        self.weights, self.geometry, self.device = weights, geometry, device
        self.ggml = self.device.ggml
        self.versions = f"ggml {self.ggml.ggml_version().decode()}"
        self.weights.load()
        self.exact = self.weights.types == {GGML_TYPE_F32}  # weights that were not rounded: then K and V are not rounded to F16 either
        self._allocator = self.ggml.ggml_gallocr_new(self.ggml.ggml_backend_get_default_buffer_type(self.device.backend))

    def window(self, mel: Floats, n_frames: int, index: int) -> Floats:
        """Encode one window: (n_mels, frames) log-mel, the first `n_frames` valid -> (n_audio_tokens, d_text) float32.

        `index` is the window's number in its song. Positions beyond the valid ones are cut before the transformer, which equals masking.
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
        for node in (self.ggml.ggml_graph_node(cgraph, index) for index in range(self.ggml.ggml_graph_n_nodes(cgraph))):
            if not self.device.supports(node):
                operation = self.ggml.ggml_op_desc(node).decode()
                raise ModelError(f"{self.device.name} cannot compute {operation} of this encoder; use --device cpu")
        if not self.ggml.ggml_gallocr_alloc_graph(self._allocator, cgraph):
            raise ModelError(f"not enough memory for the audio encoder's work space on {self.device.name}", code="oom")
        for tensor, values in graph.inputs:
            self.ggml.ggml_backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)
        status = self.ggml.ggml_backend_graph_compute(self.device.backend, cgraph)
        if status != 0:
            raise ModelError(f"ggml stopped with status {status} while encoding audio on {self.device.name}", code="failed")
        result = np.empty(shape, np.float32)
        self.ggml.ggml_backend_tensor_get(output, result.ctypes.data, 0, result.nbytes)
        return result

    def close(self) -> None:
        """Free the work space; the weights belong to their owner."""
        if self._allocator:
            self.ggml.ggml_gallocr_free(self._allocator)
            self._allocator = None
