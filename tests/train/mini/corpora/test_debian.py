"""Packages are fetched and unpacked once, and who cannot be helped is told what to do. No network: packages are made here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mflamingo_cli.errors import ModelError
from mflamingo_cli.train.mini.corpora.debian import unpacked

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are built with dpkg-deb")


def make_deb(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A package with these files, by their paths."""
    build = folder / "build"
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n"
    for path, text in {"DEBIAN/control": control, **files}.items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_text(text)
    deb = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(build), str(deb)], check=True, capture_output=True)
    shutil.rmtree(build)
    return deb


@needs_dpkg
def test_a_package_is_unpacked_once(tmp_path):
    deb = make_deb(tmp_path, "tiny", {"usr/share/song.mid": "MThd"})
    found = unpacked(tmp_path, "tiny")
    assert found == tmp_path / "unpacked/tiny"
    assert (found / "usr/share/song.mid").read_text() == "MThd"
    deb.unlink()
    assert unpacked(tmp_path, "tiny", lambda _: pytest.fail("it was complete")) == found


@needs_dpkg
def test_what_was_not_finished_is_begun_again(tmp_path):
    make_deb(tmp_path, "tiny", {"usr/share/a": "a"})
    with pytest.raises(ZeroDivisionError):
        unpacked(tmp_path, "tiny", lambda _: 1 // 0)
    found = unpacked(tmp_path, "tiny", lambda folder: shutil.copy(folder / "usr/share/a", folder / "b"))
    assert (found / "b").read_text() == "a"


@needs_dpkg
def test_a_broken_package_is_named(tmp_path):
    (tmp_path / "tiny_1_all.deb").write_bytes(b"half a packa")
    with pytest.raises(ModelError, match=r"tiny_1_all\.deb: dpkg cannot unpack"):
        unpacked(tmp_path, "tiny")


def test_without_apt_the_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"tiny: .*no apt-get; put the Debian"):
        unpacked(tmp_path, "tiny")


def test_a_package_that_apt_lacks_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 100))
    with pytest.raises(ModelError, match="tiny: apt-get cannot download"):
        unpacked(tmp_path, "tiny")


def test_without_dpkg_files_are_put_there_by_hand(tmp_path, monkeypatch):
    (tmp_path / "tiny_1_all.deb").touch()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"no dpkg; unpack tiny_1_all\.deb elsewhere"):
        unpacked(tmp_path, "tiny")
    (tmp_path / "unpacked/tiny/usr").mkdir()
    assert unpacked(tmp_path, "tiny") == tmp_path / "unpacked/tiny"
