"""Laws of a library at the command line, tried with real processes, signals and files."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mflamingo_cli.files import Draft
from tests.bench.kill import LATEST, KilledRun, truth
from tests.test_cli import one_sentence, records, run

pytestmark = pytest.mark.slow

SHORT = ("--max-tokens", "4")
TIMEOUT_S = 300
CRASHING = """
import os, signal, sys
if "mflamingo_cli.library.worker" in sys.orig_argv:
    import soundfile

    real = soundfile.SoundFile.__init__

    def crash(self, file, *args, **options):
        if isinstance(file, int) and os.fstat(file).st_size == 500:
            os.kill(os.getpid(), signal.SIGSEGV)
        real(self, file, *args, **options)

    soundfile.SoundFile.__init__ = crash
"""


@pytest.fixture
def trial(tmp_path: Path, tiny_model: Path) -> KilledRun:
    made = KilledRun(tmp_path / "trial", ("-m", str(tiny_model), *SHORT))
    made.make_music(8)
    return made


@pytest.fixture
def songs(tmp_path: Path, tmp_song: Path) -> list[Path]:
    """A song, its copy and two that are broken between them."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for name in ("b.wav", "c.wav"):
        (folder / name).write_bytes(name.encode() * 100)
    return [
        Path(shutil.copy(tmp_song, folder / "a.wav")),
        folder / "b.wav",
        folder / "c.wav",
        Path(shutil.copy(tmp_song, folder / "d.wav")),
    ]


def test_a_run_that_is_killed_again_and_again_is_as_if_it_had_not_been(trial: KilledRun) -> None:
    whole_s = trial.until_done()
    expected = truth(trial.records())
    assert [record["status"] for record in expected].count("ok") == 6
    trial.forget()
    trial.until_done(LATEST * whole_s, 5)
    assert truth(trial.records()) == expected
    assert (trial.kills, trial.helpers()) == (5, 0)
    assert list(trial.folder.glob("*.part")) == []
    whole = trial.out.read_bytes()
    trial.until_done()
    assert trial.out.read_bytes() == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_order_and_the_next_goes_on(trial: KilledRun, number: int) -> None:
    heed = functools.partial(signal.signal, number, signal.SIG_DFL)
    command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", *trial.arguments, "-j", "2", "-o", trial.out, trial.music]
    part = trial.out.with_name("out.jsonl.part")
    with subprocess.Popen(command, env=trial.env, stderr=subprocess.PIPE, preexec_fn=heed) as process:
        while not any(path.stat().st_size for path in trial.folder.glob(".out.jsonl.mflamingo-*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + number
    assert b"left; run again to resume" in stderr
    assert b"Traceback" not in stderr
    assert not trial.out.exists()
    assert all(json.loads(line) for line in part.read_text().splitlines())
    assert trial.helpers() == 0
    trial.until_done()
    assert len(trial.records()) == 8
    assert list(trial.folder.glob("*.part")) == []


def test_duplicates_and_failures_are_remembered_across_runs(tiny_model, songs):
    first = run("analyze", "--json", "-m", tiny_model, *SHORT, *songs)
    again = run("analyze", "--json", "-j", "1", "-m", tiny_model, *SHORT, *songs)
    assert (first.returncode, again.returncode) == (3, 3)
    assert first.stdout == again.stdout
    assert [record["path"] for record in records(first)] == [str(song) for song in songs]
    assert records(first)[0]["timing"] == records(first)[3]["timing"]  # one was analysed for both


def test_verbose_and_format_are_as_asked_for_after_a_resume(tiny_model, songs):
    run("think", "Why?", "--hide-thinking", "--json", "-m", tiny_model, *SHORT, *songs)
    plain, wordy = (records(run("think", "Why?", "--json", *v, "-m", tiny_model, *SHORT, *songs)) for v in ((), ("-v",)))
    assert (plain[0]["raw"], list(wordy[0]["raw"])) == (None, ["think"])
    assert run("think", "Why?", "-f", "csv", "-m", tiny_model, *SHORT, *songs).stdout.count(b"\n") == 5


def test_no_cache_means_that_nothing_is_kept(tiny_model, songs):
    assert run("analyze", "--json", "--no-cache", "-m", tiny_model, *SHORT, *songs).returncode == 3
    assert not os.path.exists(os.environ["MFLAMINGO_STATE"])


@pytest.mark.parametrize(("option", "n_written"), [(("--fail-fast",), 2), (("--max-failures", "1"), 3), (("--max-failures", "25%"), 3)])
def test_too_many_failures_stop_a_run_that_can_go_on(tiny_model, songs, tmp_path, option, n_written):
    out = tmp_path / "out.jsonl"
    done = run("analyze", "--json", *option, "-m", tiny_model, *SHORT, "-o", out, *songs)
    assert done.returncode == 75
    assert f"{n_written} done, {4 - n_written} left; run again to resume".encode() in done.stderr
    assert not out.exists()
    assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == n_written
    done = run("analyze", "--json", "--max-failures", "1", "-m", tiny_model, *SHORT, "-o", out, *songs)  # what failed before stops no run
    assert done.returncode == 3
    assert len(out.read_text().splitlines()) == 4
    assert run("analyze", "--json", "--retry-failed", *option, "-m", tiny_model, *SHORT, "-o", out, *songs).returncode == 75


def test_shards_together_are_the_whole(tiny_model, songs, tmp_path):
    outs = [tmp_path / f"{n}.jsonl" for n in (1, 2, 3)]
    for n, out in enumerate(outs, start=1):
        assert run("analyze", "--json", "--shard", f"{n}/3", "-m", tiny_model, *SHORT, "-o", out, *songs).returncode in (0, 1, 3)
    parts = [path for out in outs for path in (out, out.with_name(out.name + ".part")) if path.exists()]
    written = [json.loads(line)["path"] for part in parts for line in part.read_text().splitlines()]
    assert sorted(written) == sorted(map(str, songs))


@pytest.mark.parametrize("wrong", ["--shard=0/3", "--shard=4/3", "--shard=x", "--max-failures=-1", "--max-failures=101%"])
def test_wrong_choices_are_usage_errors(tiny_model, songs, wrong):
    done = run("analyze", "-m", tiny_model, wrong, songs[0])
    assert (done.returncode, done.stdout) == (2, b"")


def test_two_runs_do_not_write_one_output(tiny_model, tmp_song, tmp_path):
    out = tmp_path / "out.jsonl"
    with Draft(out) as other:
        other.stream.write(b"half a line")
        other.stream.flush()
        done = run("analyze", "--json", "-m", tiny_model, *SHORT, "-o", out, tmp_song)
        assert done.returncode == 75
        assert "another run is writing this file" in one_sentence(done.stderr)
        assert other.part.read_text() == "half a line"
    assert run("analyze", "--json", "-m", tiny_model, *SHORT, "-o", out, tmp_song).returncode == 0
    assert json.loads(out.read_text())["status"] == "ok"


@pytest.mark.parametrize("option", [("-o", "out.jsonl"), ("--sidecar",), ("-f", "html", "-o", "out.html")])
def test_what_others_link_beside_an_output_is_not_written_to(tiny_model, tmp_song, tmp_path, option):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    song = Path(shutil.copy(tmp_song, tmp_path / "song.wav"))
    names = ("out.jsonl.part", "out2.jsonl.part", "out.html.part", "song.wav.mflamingo.json.part")
    for name in names:
        (tmp_path / name).hardlink_to(mine)
    assert run("analyze", "-q", "-m", tiny_model, *SHORT, *option, song, cwd=tmp_path).returncode == 0
    assert (mine.read_text(), mine.is_file()) == ("mine", True)
    (tmp_path / "broken.wav").write_text("no sound")  # a run that fails keeps what it wrote as FILE.part
    assert run("analyze", "-q", "--json", "-m", tiny_model, *SHORT, "-o", "out2.jsonl", "broken.wav", cwd=tmp_path).returncode == 1
    assert mine.read_text() == "mine"


def test_a_store_that_cannot_be_had_costs_no_result(tiny_model, songs, tmp_path, monkeypatch):
    monkeypatch.setenv("MFLAMINGO_STATE", "/proc/nothing")
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, *songs)
    assert [record["status"] for record in records(done)] == ["ok", "error", "error", "ok"]
    assert b"not kept for the next run: /proc/nothing/runs.db: No such file or directory" in done.stderr
    monkeypatch.setenv("MFLAMINGO_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "runs.db").write_text("no database" * 100)
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, *songs)
    assert [record["status"] for record in records(done)] == ["ok", "error", "error", "ok"]
    assert b"move it away" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_stops_a_run_that_can_go_on(tiny_model, songs):
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, "-o", "/dev/full", *songs)
    assert done.returncode == 75
    assert "No space left on device; " in one_sentence(done.stderr)


def test_a_process_that_dies_costs_its_song_only(tiny_model, songs, monkeypatch, tmp_path):
    """The real thing: a decoder that crashes, as those of C do; sitecustomize puts one into the processes that decode."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH")))))
    done = run("analyze", "--json", "-j", "2", "-m", tiny_model, *SHORT, *songs)
    assert [record["status"] for record in records(done)] == ["ok", "error", "error", "ok"]
    assert "the decoder crashed (signal 11)" in records(done)[1]["error"]["message"]


def test_a_store_survives_two_runs_at_once(trial: KilledRun) -> None:
    one, two = trial.start(), KilledRun(trial.folder, trial.arguments)
    two.out = trial.folder / "other.jsonl"
    other = two.start()
    assert [process.wait(TIMEOUT_S) for process in (one, other)] == [3, 3]
    assert truth(trial.records()) == truth(two.records())
    with sqlite3.connect(trial.state / "runs.db") as database:
        assert database.execute("SELECT count(*) FROM records").fetchone() == (7,)  # one is a copy
