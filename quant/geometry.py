"""Sizes, limits and token names of a checkpoint: what code needs to know of it besides its weights.

Rates are hertz, lengths seconds, everything else counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quant.errors import QuantError

LARGEST = 1 << 24  # no size of any model comes near it
MAX_FFT, MAX_MELS, MAX_POSITIONS = 1 << 14, 1024, 1 << 13  # five times and more those of the published models
MAX_ROTE = 100_000  # positions; the published models have 1,800
MIN_FRAMES_PER_S = 25  # of the front end: Whisper has 100; with fewer the shortest song that is measured has no token
ENCODER_STRIDE = 4  # mel frames per audio token: conv2 halves, the average pool halves again


@dataclass(frozen=True)
class MelConfig:
    """The front end; `processor_config.json` calls `n_mels` feature_size and `window_s` chunk_length."""

    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 128
    sample_rate: int = 16_000
    window_s: int = 30

    @property
    def window_samples(self) -> int:
        """Samples of a full window."""
        return self.window_s * self.sample_rate

    @property
    def n_frames(self) -> int:
        """Frames of a full window; one fewer than frame centres that fit, as in Whisper."""
        return (self.window_samples - self.n_fft % 2) // self.hop_length


@dataclass(frozen=True)
class Rote:
    """Rotary time embedding (transformers `MusicFlamingoRotaryEmbedding`).

    `dim` channels are rotated by the window's index and as many by the position inside the window;
    `n_positions` divides both and is the table's length.
    """

    theta: float
    dim: int
    n_positions: int
    frame_step_s: float


@dataclass(frozen=True)
class AudioTokens:
    """Names (never ids) of the audio placeholder and of the markers around it, where a family has them."""

    audio: str = "<sound>"
    bos: str | None = None
    eos: str | None = None


@dataclass(frozen=True)
class EncoderSizes:
    """The audio encoder."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    n_positions: int

    @property
    def extents(self) -> Mapping[str, int]:
        """The sizes of its tensors, as the shapes of `layout` name them; that of its input is the front end's."""
        return {"d_audio": self.d_model, "ffn_audio": self.d_ffn, "n_positions": self.n_positions}


@dataclass(frozen=True)
class TextSizes:
    """The language model."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ffn: int
    context_length: int
    rope_theta: float = 10_000.0
    model_type: str = "qwen2"  # a key of TEXT_FAMILIES
    rms_eps: float = field(default=1e-6, compare=False)  # GGUF keeps float32: 1e-6 reads back as 9.99999997e-7
    n_vocab: int = field(default=0, compare=False)  # 0: read from GGUF keys without the vocabulary

    @property
    def d_head(self) -> int:
        """Channels of an attention head: no other number is supported."""
        return self.d_model // self.n_heads

    @property
    def extents(self) -> Mapping[str, int]:
        """The sizes of its tensors, as the shapes of `layout` name them."""
        return {"d_text": self.d_model, "d_kv": self.d_head * self.n_kv_heads, "ffn_text": self.d_ffn, "n_vocab": self.n_vocab}


@dataclass(frozen=True)
class Geometry:
    """A checkpoint without its weights and its name."""

    architecture: str  # transformers' model_type: a key of FAMILIES
    mel: MelConfig
    max_audio_s: float
    encoder: EncoderSizes
    text: TextSizes
    rote: Rote | None
    tokens: AudioTokens

    @property
    def tokens_per_window(self) -> int:
        """Audio tokens of a full window: 750 for 30 s."""
        return self.mel.window_s * self.mel.sample_rate // self.mel.hop_length // ENCODER_STRIDE

    @property
    def longest_audio_s(self) -> float:
        """What the model takes at most: by its own limit, and by its context, in which its tokens must have room."""
        return min(self.max_audio_s, self.mel.window_s * self.text.context_length / self.tokens_per_window)

    @property
    def extents(self) -> Mapping[str, int]:
        """The sizes of tensors, as the shapes of `layout` name them."""
        return {**self.encoder.extents, "n_mels": self.mel.n_mels, **self.text.extents}


def checked(geometry: Geometry, where: object, *, front_end: bool = True) -> Geometry:
    """Return a geometry whose sizes, each positive and not absurd, fit together. Raises QuantError in which `where` names the files.

    Without `front_end` the mel spectrum is not the checkpoint's own and is not looked at.
    """
    encoder, mel, rote = geometry.encoder, geometry.mel, geometry.rote
    checked_text(geometry.text, where)
    faults: dict[str, object] = {
        f"{encoder.d_model} channels cannot be divided into {encoder.n_heads} heads": encoder.d_model % encoder.n_heads,
        f"{encoder.d_model} channels of the encoder are an odd number": encoder.d_model % 2,
        f"{rote.n_positions if rote else 0} positions of rotary time embedding are too many": rote and rote.n_positions > MAX_ROTE,
        f"{2 * rote.dim if rote else 0} of {encoder.d_model} channels cannot be rotated": rote and 4 * -(-rote.dim // 2) > encoder.d_model,
    } | (_front_end_faults(mel, encoder) if front_end else {})
    _refuse(faults, where)
    return geometry


def checked_text(text: TextSizes, where: object) -> TextSizes:
    """Return sizes of a text model that fit together. Raises QuantError in which `where` names the file."""
    faults: dict[str, object] = {
        f"{text.d_model} channels cannot be divided into {text.n_heads} heads": text.d_model % text.n_heads,
        f"{text.n_heads} heads cannot share {text.n_kv_heads} heads of keys and values": text.n_heads % text.n_kv_heads,
        f"heads of {text.d_head} channels cannot be rotated in pairs": text.d_head % 2,
    }
    _refuse(faults, where)
    return text


def _refuse(faults: Mapping[str, object], where: object) -> None:
    for fault, holds in faults.items():
        if holds:
            raise QuantError(f"{where}: {fault}")


def _front_end_faults(mel: MelConfig, encoder: EncoderSizes) -> dict[str, object]:
    """What may be wrong with a mel spectrum, and whether it is."""
    return {
        f"a sample rate of {mel.sample_rate} Hz is not the one that songs are decoded to": mel.sample_rate != MelConfig.sample_rate,
        f"a transform of {mel.n_fft} samples every {mel.hop_length} is none": (
            not mel.hop_length <= min(mel.n_fft, mel.sample_rate // MIN_FRAMES_PER_S) or mel.n_fft > MAX_FFT
        ),
        f"{mel.n_mels} mel bands cannot be computed from {mel.n_fft // 2 + 1} frequencies": not mel.n_mels
        <= min(mel.n_fft // 2 + 1, MAX_MELS),
        f"windows of {mel.window_s} s are longer than the encoder's {encoder.n_positions} positions": (
            not (mel.n_frames + 1) // 2 <= encoder.n_positions <= MAX_POSITIONS
        ),
    }
