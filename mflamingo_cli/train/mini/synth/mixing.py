"""What recording and distribution do to music: rooms, equalisation, compression, noise, codecs. Mono float32 at 16 kHz; NumPy only."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
CLEAN = 0.2  # share of clips that only get a level
BANDS_HZ = (60, 150, 400, 1000, 2500, 5000, 7500)  # of the random equaliser
BLOCK = 160  # samples; 10 ms steps of the compressor
MP3_DELAY = 1105  # samples: encoder and decoder together, where no header says how much to skip (LAME's figures: 576 + 529)
WRITTEN = 1 << 16  # samples handed to an encoder at once; libsndfile 1.2.2 crashes on minutes of Vorbis in one piece
CODECS = (("MP3", "MPEG_LAYER_III", 0.5, 0.92), ("OGG", "VORBIS", 0.3, 1.0))  # and the range of libsndfile's compression level


def master(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Treat a mix: -> samples of the same length, and what was done."""
    done: dict[str, Any] = {}
    peak = float(np.abs(samples).max()) or 1.0
    samples = samples / peak
    if rng.random() > CLEAN:
        for share, treat in ((0.85, _linear), (0.5, compress), (0.2, saturate), (0.5, add_noise), (0.35, encode)):
            if rng.random() < share:
                samples, facts = treat(rng, samples)
                done.update(facts)
    done["peak_db"] = round(float(rng.uniform(-15, -0.3)), 1)
    top = float(np.abs(samples).max()) or 1.0
    return (samples * (10 ** (done["peak_db"] / 20) / top)).astype(np.float32), done


def _linear(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Equaliser, band limits and a room, in one convolution."""
    done: dict[str, Any] = {}
    least, unit = len(samples) + 2 * SAMPLE_RATE, 1 << 17  # the FFT likes small multiples of a power of two
    size = 1 << int(np.ceil(np.log2(least))) if len(samples) < 1 << 19 else -(-least // unit) * unit
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(hz, 20) / 1000)
    tilt, bands = float(rng.normal(0, 1.2)), rng.normal(0, 3, len(BANDS_HZ))
    gain_db = tilt * octaves + np.interp(octaves, np.log2(np.array(BANDS_HZ) / 1000), bands)
    done["tilt_db_octave"] = round(tilt, 1)
    if rng.random() < 0.25:
        done["low_pass_hz"] = cut = round(float(np.exp(rng.uniform(np.log(2500), np.log(7000)))))
        gain_db -= 24 * np.maximum(np.log2(np.maximum(hz, 20) / cut), 0)
    if rng.random() < 0.2:
        done["high_pass_hz"] = cut = round(float(np.exp(rng.uniform(np.log(40), np.log(250)))))
        gain_db -= 12 * np.maximum(np.log2(cut / np.maximum(hz, 20)), 0)
    response = (10 ** (gain_db / 20)).astype(np.complex64)
    if rng.random() < 0.65:
        impulse, done["reverb_s"], done["reverb_db"] = room(rng)
        response *= np.fft.rfft(impulse, size)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)].astype(np.float32), done


def room(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """A dry impulse followed by decaying noise: -> (impulse response, seconds to -60 dB, level of the room in dB)."""
    seconds, level = float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))), float(rng.uniform(-26, -8))
    t = np.arange(int(min(seconds, 1.9) * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    tail[: int(rng.uniform(0.002, 0.03) * SAMPLE_RATE)] = 0
    colour = np.exp(-np.arange(24) / rng.uniform(0.5, 5))  # walls swallow the treble
    tail = np.convolve(tail, colour)[: len(t)]
    tail *= 10 ** (level / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail, round(seconds, 2), round(level, 1)


def compress(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """A compressor: what exceeds the threshold grows more slowly; quick to act, slow to let go."""
    count = -(-len(samples) // BLOCK)
    blocks = np.pad(samples, (0, count * BLOCK - len(samples))).reshape(count, BLOCK)
    level = 10 * np.log10((blocks**2).mean(1) + 1e-9)
    threshold, ratio = float(np.percentile(level, 95) - rng.uniform(3, 18)), float(rng.uniform(1.5, 8))
    release = 1 - np.exp(-0.01 / rng.uniform(0.05, 0.5))
    wanted = np.minimum(0, (threshold - level) * (1 - 1 / ratio)).tolist()
    gain, now = [], 0.0
    for target in wanted:
        now += (target - now) * (0.7 if target < now else release)
        gain.append(now)
    curve = np.interp(np.arange(len(samples)), (np.arange(count) + 0.5) * BLOCK, gain)
    return (samples * 10 ** (curve / 20)).astype(np.float32), {"compressor": [round(threshold, 1), round(ratio, 1)]}


def saturate(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Soft clipping."""
    drive = float(rng.uniform(1, 4)) / max(float(np.abs(samples).max()), 1e-6)
    return np.tanh(samples * drive), {"saturation": round(drive, 1)}


def noise(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """Noise of RMS 1: white, pink, brown (1/f and 1/f^2 power) or hum (mains and its overtones); ten seconds repeated."""
    size = min(count, 10 * SAMPLE_RATE)
    if kind == "hum":
        t, mains = np.arange(size) / SAMPLE_RATE, float(rng.choice([50, 60]))
        found = sum(np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 6.28)) / k ** rng.uniform(0.5, 1.5) for k in range(1, 9))
    else:
        power = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        spectrum = np.fft.rfft(rng.standard_normal(size)) / np.maximum(np.arange(size // 2 + 1), 20.0) ** power
        found = np.fft.irfft(spectrum, size)
    found = np.resize(found, count)
    return (found / np.sqrt((found**2).mean())).astype(np.float32)


def add_noise(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Noise 20-60 dB below the music."""
    kind, below = str(rng.choice(["white", "pink", "brown", "hum"], p=[0.4, 0.3, 0.2, 0.1])), float(rng.uniform(20, 60))
    rms = float(np.sqrt((samples**2).mean()))
    added = noise(rng, kind, len(samples)) * rms * 10 ** (-below / 20)
    return samples + added, {"noise": kind, "noise_db": round(-below, 1)}


def encode(rng: np.random.Generator, samples: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Through MP3 or Vorbis at a low rate and back, in place to the sample."""
    container, subtype, low, high = CODECS[rng.integers(len(CODECS))]
    level = float(rng.uniform(low, high))
    safe = (samples * (0.9 / max(float(np.abs(samples).max()), 1e-6))).astype(np.float32)
    buffer = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT"} if container == "MP3" else {}
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 1, subtype, format=container, compression_level=level, **options) as file:
        for at in range(0, len(safe), WRITTEN):
            file.write(safe[at : at + WRITTEN])
    rate = buffer.tell() * 8 * SAMPLE_RATE / len(samples) / 1000
    buffer.seek(0)
    decoded = soundfile.read(buffer, dtype="float32")[0]
    if container == "MP3" and len(decoded) > len(samples):
        decoded = decoded[MP3_DELAY:]
    decoded = np.pad(decoded, (0, max(0, len(samples) - len(decoded))))[: len(samples)]
    return decoded, {"codec": container.lower(), "codec_kbps": round(rate)}
