"""Bad input through the real command line: the right exit code, one sentence, valid JSON Lines, no traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.slow

RATE_HZ = 22_050
EMBEDDED = Path(__file__).parent.parent / "mflamingo_cli" / "mini"
DEADLINE_S = 300  # of one command, on a machine that does other things too
WORDS = ("--max-tokens", "8")  # the answers do not matter here


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> str:
    """The embedded model; where it is not built yet, a small one of its layout with random weights."""
    return "mini" if list(EMBEDDED.glob("*.gguf")) else str(request.getfixturevalue("tiny_model"))


def music(seconds: float = 4.0) -> np.ndarray:
    """Two notes and a click twice a second: (n,) float32."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    click = np.random.default_rng(0).standard_normal(t.size) * (t % 0.5 < 0.02)
    return (0.2 * np.sin(2 * np.pi * 220.0 * t) + 0.2 * np.sin(2 * np.pi * 330.0 * t) + 0.3 * click).astype(np.float32)


def good(path: Path) -> None:
    soundfile.write(path, music(), RATE_HZ)


def not_finite(path: Path) -> None:
    samples = music()
    samples[10_000] = np.nan
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")


def cut(path: Path) -> None:
    soundfile.write(path, music(12.0), RATE_HZ)
    os.truncate(path, path.stat().st_size // 2)


def cut_short(path: Path) -> None:
    soundfile.write(path, music(), RATE_HZ)
    os.truncate(path, 60)


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    records: list[dict[str, Any]]
    complaints: list[str]


def run(*args: str | bytes, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
    """Run `analyze --json`; every line of stdout must be JSON that a strict reader takes, and no traceback may show anywhere."""
    command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", *WORDS, *args]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE_S, env={**os.environ, **(env or {})})
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert "Traceback" not in out + err, err
    records = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert all(record["schema"].startswith("mflamingo/") for record in records)
    return Ran(done.returncode, records, err.splitlines())


def one_sentence(complaint: str) -> None:
    assert complaint.isprintable()
    assert not re.search(r"\bError\b|Exception|0x[0-9a-f]{4}|\[src/", complaint), complaint
    assert len(complaint) < 400


# name of the file, what makes it, exit code, error code, words of the sentence
FAILURES: dict[str, tuple[str, Callable[[Path], object] | bytes | None, int, str, str]] = {
    "missing": ("a.flac", None, 66, "not_found", "no such file"),
    "empty": ("a.wav", b"", 1, "not_audio", "empty"),
    "text renamed": ("a.flac", b"Dear diary, no music today.\n" * 500, 1, "not_audio", "not a recognised audio file"),
    "random bytes": ("a.mp3", np.random.default_rng(1).bytes(100_000), 1, "not_audio", "not a recognised audio file"),
    "MIDI": ("a.mid", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk", 1, "not_audio", "notes and no audio"),
    "not a number": ("a.wav", not_finite, 1, "not_finite", "not a number"),
    "silence": ("a.wav", lambda path: soundfile.write(path, np.zeros(RATE_HZ), RATE_HZ), 1, "silent", "silent"),
    "too short": ("a.wav", lambda path: soundfile.write(path, music(0.3), RATE_HZ), 1, "too_short", "too short"),
    "cut at the beginning": ("a.mp3", cut_short, 1, "", ""),
    "markup and escapes in the name": ("[red]a\x1b[31m\n\u202e.wav", b"", 1, "not_audio", "empty"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_bad_file_is_one_record_and_one_sentence(tmp_path: Path, model: str, case: str) -> None:
    name, content, exit_code, code, words = FAILURES[case]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content(path)
    ran = run("--model", model, str(path))
    (record,) = ran.records
    (complaint,) = ran.complaints
    one_sentence(complaint)
    assert ran.code == exit_code
    assert record["status"] == ("skipped" if code in ("silent", "too_short") else "error")
    assert code in ("", record["error"]["code"])
    assert words in complaint
    assert words in record["error"]["message"]
    assert record["result"] is None


def test_a_file_cut_in_the_middle_is_analysed_with_a_warning(tmp_path: Path, model: str) -> None:
    cut(tmp_path / "a.flac")
    ran = run("--model", model, str(tmp_path / "a.flac"))
    (record,) = ran.records
    assert (ran.code, record["status"], record["error"]) == (0, "ok", None)
    assert 3.0 < record["audio"]["duration"] < 9.0
    assert any("cut or damaged" in warning for warning in record["warnings"])


def test_an_empty_folder_is_no_input(tmp_path: Path, model: str) -> None:
    ran = run("--model", model, str(tmp_path))
    assert (ran.code, ran.records) == (66, [])
    (complaint,) = ran.complaints
    one_sentence(complaint)


def test_an_unknown_model_offline_is_one_sentence_with_a_cure(tmp_path: Path) -> None:
    good(tmp_path / "a.wav")
    ran = run("--offline", "--model", "nobody/no-such-model", str(tmp_path / "a.wav"))
    (record,) = ran.records
    (complaint,) = ran.complaints
    one_sentence(complaint)
    assert (ran.code, record["status"]) == (69, "error")
    assert record["error"]["code"].startswith("model")
    assert "nobody/no-such-model" in complaint


def test_one_good_and_one_bad_give_both_records(tmp_path: Path, model: str) -> None:
    good(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"no sound here")
    ran = run("--model", model, str(tmp_path / "bad.wav"), str(tmp_path / "good.wav"))
    assert ran.code == 3
    assert [(Path(r["path"]).name, r["status"]) for r in ran.records] == [("bad.wav", "error"), ("good.wav", "ok")]
    complaint, count = ran.complaints
    one_sentence(complaint)
    assert count == "1 of 2 songs failed: 1 not audio"


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise here")
def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path, model: str) -> None:
    good(tmp_path / "a.wav")
    command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", *WORDS, "--model", model, str(tmp_path / "a.wav")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(DEADLINE_S) == 141
    assert complaint == b""


@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux only")
def test_a_name_that_is_not_utf8_keeps_its_bytes_in_the_record(tmp_path: Path, model: str) -> None:
    import base64

    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    good(tmp_path / "a.wav")
    os.rename(tmp_path / "a.wav", odd)
    ran = run("--model", model, odd)
    (record,) = ran.records
    assert (ran.code, record["status"], ran.complaints) == (0, "ok", [])
    assert base64.b64decode(record["path_b64"]) == odd


@pytest.mark.skipif(sys.platform != "linux", reason="file names are any bytes on Linux only")
def test_a_missing_name_that_is_not_utf8_is_shown_safely(tmp_path: Path, model: str) -> None:
    ran = run("--model", model, os.fsencode(tmp_path) + b"/caf\xe9.wav")
    assert ran.code == 66
    (complaint,) = ran.complaints
    one_sentence(complaint)
    assert "no such file" in complaint


@pytest.mark.parametrize(("stdin", "words"), [(b"", "empty"), (b"no music in this pipe\n" * 99, "not a recognised audio file")])
def test_stdin_without_music_is_named(model: str, stdin: bytes, words: str) -> None:
    ran = run("--model", model, "-", stdin=stdin)
    assert ran.code == 1
    assert ran.records[0]["path"] == "-"
    (complaint,) = ran.complaints
    assert "standard input" in complaint
    assert words in complaint
