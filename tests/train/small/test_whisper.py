"""Whisper's encoder out of a CTranslate2 file has transformers' own weights; what is not Whisper's is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.train.small.whisper import read_encoder
from quant.errors import QuantError
from tests.quant.ct2_files import content, write
from tests.train.small.conftest import MELS, SIZES, TinyWhisper


def test_weights_are_read_under_the_towers_names(tiny: TinyWhisper) -> None:
    encoder = read_encoder(tiny.path)
    assert (encoder.sizes, encoder.n_mels) == (SIZES, MELS)
    state = {f"audio_tower.{name}": weight.numpy() for name, weight in tiny.encoder.state_dict().items()}
    assert encoder.weights.keys() == state.keys()
    for name, weight in state.items():
        np.testing.assert_array_equal(encoder.weights[name], weight)


FAULTS = {
    "encoder/conv1/weight": (None, r"lacks encoder/conv1/weight"),
    "encoder/num_heads": (np.array(5, np.int16), "5 heads in 2 layers of 32 channels are no Whisper encoder"),
    "encoder/layer_1/ffn/linear_0/bias": (np.zeros(65, np.float16), r"layers\.1\.fc1\.bias has shape \[65\], not \[64\]"),
    "encoder/layer_0/self_attention/linear_0/weight": (np.zeros((95, 32), np.float16), "linear_0/weight has 95 rows, not 96"),
    "encoder/layer_0/self_attention/linear_0/bias": (np.ones(96, np.float16), "has a bias of keys"),
    "encoder/position_encodings/encodings": (np.zeros(7, np.float16), "other dimensions than Whisper's"),
    "encoder/layer_norm/gamma": (np.full(32, np.inf, np.float16), "contains NaN or infinite weights"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_whispers_is_refused(name: str, tiny: TinyWhisper, tmp_path: Path) -> None:
    value, sentence = FAULTS[name]
    changed = {key: values for key, values in tiny.variables.items() if key != name} | ({} if value is None else {name: value})
    path = write(tmp_path / "model.bin", content(changed.items()))
    with pytest.raises(QuantError, match=sentence) as raised:
        read_encoder(path)
    assert str(raised.value).startswith(str(path))


def test_a_model_of_another_kind_is_refused(tiny: TinyWhisper, tmp_path: Path) -> None:
    with pytest.raises(QuantError, match="of kind 'TransformerSpec', not WhisperSpec"):
        read_encoder(write(tmp_path / "model.bin", content(tiny.variables.items(), kind="TransformerSpec")))
