"""Songs of rows as the encoder takes them, by the same front end as inference; read ahead by threads while a step is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from mflamingo_cli.core.audio import checked_windows, load
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.files import write_atomic
from mflamingo_cli.train.data.row import AudioPart
from mflamingo_cli.train.network import Features, MelWindows
from quant.geometry import Geometry

ENCODED = "encoded"


class SongReader:
    """Decodes songs; with a `cache`, gives what the encoder made of a song that it was given back before."""

    def __init__(self, geometry: Geometry, cache: Path | None = None) -> None:
        self._geometry, self._mel, self._cache = geometry, LogMel(geometry.mel), cache

    def read(self, part: AudioPart) -> Features:
        """Return the windows of a song, or its encoding. Raises AudioError for one that cannot be read, or is too long."""
        if (known := self._file(part)) is not None and known.exists():
            return load_file(known)["encoded"]
        windows = list(checked_windows(load(part.path, start_s=part.start_s, end_s=part.end_s), self._geometry))
        mels = np.stack([self._mel(window.samples) for window in windows])
        return MelWindows(torch.from_numpy(mels), torch.tensor([window.n_frames for window in windows]))

    def encoded(self, part: AudioPart, features: Features, encode: Callable[[Features], torch.Tensor]) -> Features:
        """Return what the encoder makes of a song, kept for the next time; the windows themselves without a cache."""
        file = self._file(part)
        if file is None or isinstance(features, torch.Tensor):
            return features
        with torch.no_grad():
            made = encode(features).cpu()
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomic(file) as stream:
            stream.write(to_bytes({"encoded": made.contiguous()}))
        return made

    def _file(self, part: AudioPart) -> Path | None:
        if self._cache is None:
            return None
        state = part.path.stat()
        key = f"{part.path.resolve()} {state.st_size} {state.st_mtime_ns} {part.start_s} {part.end_s}"
        return self._cache / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.safetensors"
