"""Laws of the command line, tried as a user would: in a process of its own, with real files, pipes and signals."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mflamingo_cli.commands import inputs
from mflamingo_cli.commands.terminal import Wrapped
from mflamingo_cli.commands.values import parse_time

pytestmark = pytest.mark.slow

SHORT = ("--max-tokens", "4")  # noise is not worth more
TIMEOUT_S = 120  # generous: the machine may be busy


def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mflamingo_cli", *(a if isinstance(a, bytes) else str(a) for a in arguments)]
    settings.setdefault("stdin", subprocess.DEVNULL) if "input" not in settings else None
    return subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, **settings)


def records(done: subprocess.CompletedProcess[bytes]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def one_sentence(stderr: bytes) -> str:
    text = stderr.decode()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("mflamingo: ")]  # others are progress, on a busy machine
    assert len(lines) == 1, text
    return lines[0]


# --- results -------------------------------------------------------------------------------------------------------------


def test_json_has_one_record_per_input_and_says_what_failed(tiny_model, tmp_song, tmp_path):
    missing = tmp_path / "missing.wav"
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, tmp_song, missing, tmp_song)
    assert done.returncode == 3
    assert [record["status"] for record in records(done)] == ["ok", "error", "ok"]
    assert records(done)[1]["error"]["code"] == "not_found"
    assert records(done)[0]["result"] == records(done)[2]["result"]
    assert str(missing) in one_sentence(done.stderr)


def test_a_table_in_a_pipe_is_80_columns_without_escapes(tiny_model, tmp_song):
    env = {**os.environ, "FORCE_COLOR": "", "COLUMNS": "80"}
    done = run("analyze", "-m", tiny_model, *SHORT, tmp_song, env=env)
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "tempo" in text


@pytest.mark.parametrize("arguments", [("--color", "never"), ("--color", "always")])
def test_color_is_a_choice(tiny_model, tmp_song, arguments):
    done = run("analyze", "-m", tiny_model, *SHORT, *arguments, tmp_song, env={**os.environ, "TERM": "xterm"})
    assert (b"\x1b[" in done.stdout) is (arguments[1] == "always")


def test_an_option_beats_no_color(tiny_model, tmp_song):
    done = run("analyze", "-m", tiny_model, *SHORT, "--color", "always", tmp_song, env={**os.environ, "NO_COLOR": "1", "TERM": "xterm"})
    assert b"\x1b[36m" in done.stdout  # cyan, not only bold and dim


def test_no_color_beats_force_color(tiny_model, tmp_song):
    done = run("analyze", "-m", tiny_model, *SHORT, tmp_song, env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm"})
    assert b"\x1b" not in done.stdout


def test_stdout_is_only_the_answer(tiny_model, tmp_song):
    done = run("ask", "Which key?", "-vv", "-m", tiny_model, *SHORT, tmp_song)
    asked = run("ask", "Which key?", "--json", "-m", tiny_model, *SHORT, tmp_song)
    assert done.stdout.decode().strip() == (records(asked)[0]["text"] or "")
    assert b"gguf" in done.stderr  # said with -v, on stderr


def test_thinking_goes_to_stderr_and_can_be_hidden(tiny_model, tmp_song):
    shown = run("think", "Why?", "--json", "-m", tiny_model, *SHORT, tmp_song)
    hidden = run("think", "Why?", "--hide-thinking", "--json", "-m", tiny_model, *SHORT, tmp_song)
    assert (shown.returncode, hidden.returncode) == (0, 0)
    assert records(hidden)[0]["thinking"] is None


def test_stdin_is_a_song_when_it_is_named(tiny_model, tmp_song):
    done = run("ask", "Which key?", "--json", "-m", tiny_model, *SHORT, "-", input=tmp_song.read_bytes())
    assert done.returncode == 0
    assert records(done)[0]["path"] == "-"
    assert records(done)[0]["audio"]["duration"] == pytest.approx(4.0, abs=0.01)


def test_output_is_written_whole_or_not_at_all(tiny_model, tmp_song, tmp_path):
    target = tmp_path / "out.jsonl"
    done = run("ask", "Which key?", "--json", "-o", target, "-m", tiny_model, *SHORT, tmp_song)
    assert (done.returncode, done.stdout) == (0, b"")
    assert json.loads(target.read_text())["status"] == "ok"
    assert list(tmp_path.iterdir()) == [target]
    assert run("ask", "Which key?", "-o", tmp_path / "no" / "out", "-m", tiny_model, tmp_song).returncode == 2


@pytest.mark.parametrize("kind", ["itself", "link", "playlist", "list", "stdin"])
def test_output_never_overwrites_an_input(tiny_model, tmp_song, tmp_path, kind):
    song, target = tmp_path / "song.wav", tmp_path / "song.wav"
    shutil.copy(tmp_song, song)
    arguments: tuple = (song,)
    if kind == "link":
        target = tmp_path / "link.wav"
        target.symlink_to(song)
    elif kind in ("playlist", "list"):
        target = tmp_path / "list.m3u"
        target.write_text("song.wav\n")
        arguments = (target,) if kind == "playlist" else ("--files-from", target)
    before = target.read_bytes()
    if kind == "stdin":
        with song.open("rb") as stdin:
            done = run("ask", "Why?", "-o", target, "-m", tiny_model, *SHORT, "-", stdin=stdin)
    else:
        done = run("ask", "Why?", "-o", target, "-m", tiny_model, *SHORT, *arguments)
    assert done.returncode == 2
    assert "this is one of the inputs" in one_sentence(done.stderr)
    assert target.read_bytes() == before


def test_output_to_what_is_no_file_is_written_there(tiny_model, tmp_song, tmp_path):
    arguments = ("ask", "Why?", "--json", "-m", tiny_model, *SHORT, tmp_song)
    for name in ("-", "/dev/stdout"):
        assert records(run(*arguments, "-o", name, cwd=tmp_path))[0]["status"] == "ok"
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["cat", tmp_path / "fifo"], stdout=subprocess.PIPE) as reader:
        assert run(*arguments, "-o", tmp_path / "fifo").returncode == 0
        assert json.loads(reader.communicate(timeout=TIMEOUT_S)[0])["status"] == "ok"
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_output_to_stdout_by_name_keeps_what_a_log_holds(tiny_model, tmp_path, name):
    with (tmp_path / "log").open("ab") as log:
        log.write(b"old\n")
        log.flush()
        command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", "-m", str(tiny_model), "-o", name, "missing.wav"]
        assert subprocess.run(command, stdout=log, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False).returncode == 66
    first, record = (tmp_path / "log").read_bytes().splitlines()
    assert (first, json.loads(record)["status"]) == (b"old", "error")


def test_a_link_stays_a_link_and_its_target_is_written(tiny_model, tmp_song, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    assert run("ask", "Why?", "--json", "-o", link, "-m", tiny_model, *SHORT, tmp_song).returncode == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["status"] == "ok"


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_output_stays_as_it_was_when_nothing_succeeded(tmp_song, tmp_path, format_name):
    target = tmp_path / "out"
    target.write_text("old")
    assert run("analyze", "-f", format_name, "-o", target, "-m", "no-such-model", tmp_song).returncode == 69
    assert target.read_text() == "old"
    part = tmp_path / "out.part"
    assert part.exists() is (format_name == "json")  # it holds the records of what failed


def test_jobs_change_nothing_but_time(tiny_model, tmp_song):
    plain = run("analyze", "--json", "-m", tiny_model, *SHORT, *[tmp_song] * 3)
    ahead = run("analyze", "--json", "-m", tiny_model, *SHORT, "-j", "2", *[tmp_song] * 3)
    assert [r["result"] for r in records(plain)] == [r["result"] for r in records(ahead)]


def test_songs_answered_together_are_written_as_each_alone(tiny_model, tmp_song):
    songs = [tmp_song, "missing.wav", tmp_song]
    alone = run("analyze", "--json", "--no-cache", "-m", tiny_model, *SHORT, *songs)
    batch = run("analyze", "--json", "--no-cache", "-m", tiny_model, *SHORT, "--batch-size", "3", *songs)
    assert [replace_timing(r) for r in records(alone)] == [replace_timing(r) for r in records(batch)]
    assert (alone.returncode, batch.returncode) == (3, 3)


def replace_timing(record: dict) -> dict:
    return record | {"timing": None}


@pytest.mark.parametrize("size", ["0", "-1", "x", ""])
def test_a_batch_is_a_number_of_songs(size, tmp_song):
    done = run("analyze", "--batch-size", size, tmp_song)
    assert done.returncode == 2
    assert b"is not a number of songs; write 4 or auto" in done.stderr


# --- inputs ---------------------------------------------------------------------------------------------------------------


def named(*arguments: object, **settings: object) -> list[str]:
    done = run("analyze", "--dry-run", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.wav", "b/1.FLAC", "a.mp3", ".hidden.wav", "b/.git/x.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folders_are_searched_sorted_without_hidden_files(tiny_model, tree):
    assert named("-m", tiny_model, tree) == [str(tree / name) for name in ("a.mp3", "b/1.FLAC", "b/2.wav")]


def test_playlists_are_relative_to_themselves(tiny_model, tree):
    (tree / "list.m3u8").write_bytes("\ufeff#EXTM3U\r\n#EXTINF:1,x\r\nb/2.wav\r\n\r\na.mp3\r\n".encode())
    assert named("-m", tiny_model, tree / "list.m3u8") == [str(tree / "b/2.wav"), str(tree / "a.mp3")]


def test_playlists_lead_nowhere_but_to_files(tiny_model, tree):
    (tree / "list.m3u").write_text("http://example.com/a.mp3\n")
    done = run("analyze", "-m", tiny_model, tree / "list.m3u")
    assert done.returncode == 66
    assert "playlists may list only files" in one_sentence(done.stderr)


def test_what_a_playlist_names_in_vain_costs_no_other_song(tiny_model, tmp_song, tmp_path):
    shutil.copy(tmp_song, tmp_path / "a b.wav")
    (tmp_path / "list.m3u").write_text("http://radio.example/x\na%20b.wav\nmissing.wav\n")
    (tmp_path / "stream.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\na%20b.wav\n")
    done = run("analyze", "--json", "-m", tiny_model, *SHORT, tmp_path / "list.m3u", tmp_path / "stream.m3u8")
    assert done.returncode == 3
    expected = [("http://radio.example/x", "error"), ("a b.wav", "ok"), ("missing.wav", "error"), ("stream.m3u8", "error")]
    assert [(record["path"], record["status"]) for record in records(done)] == [(f"{tmp_path}/{name}", status) for name, status in expected]


@pytest.mark.parametrize(("content", "arguments"), [(b"one.wav\ntwo\xe9.wav\n", ()), (b"one.wav\0two\xe9.wav\0", ("-0",))])
def test_files_from_reads_lines_or_null_ended_paths(tiny_model, content, arguments):
    assert named("-m", tiny_model, "--files-from", "-", *arguments, input=content) == ["one.wav", "two\\xe9.wav"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("83.5", 83.5), ("1:23.5", 83.5), ("1:02:03", 3723.0), ("0", 0.0), ("75:00", 4500.0), ("90", 90.0)]
)
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-1", "1:99:00", "1:60:00", "1:75", "1e3"])
def test_what_is_no_time_is_refused(tiny_model, tmp_song, text):
    done = run("analyze", f"--start={text}", "-m", tiny_model, tmp_song)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_null_bytes_in_a_list_are_explained(tree):
    done = run("analyze", "--files-from", "-", input=b"a.wav\0b.wav\0")
    assert done.returncode == 2
    assert "add -0" in one_sentence(done.stderr)
    (tree / "list.m3u").write_bytes(b"a.mp3\0b.mp3\n")
    done = run("analyze", tree / "list.m3u")
    assert "list.m3u: not a recognised audio file" in one_sentence(done.stderr)


@pytest.mark.skipif(not os.path.isfile("/proc/self/mem"), reason="no file here that even root cannot read")
def test_an_unreadable_playlist_is_said(tree):
    (tree / "list.m3u").symlink_to("/proc/self/mem")
    done = run("analyze", tree / "list.m3u")
    assert done.returncode == 66
    assert "Input/output error" in one_sentence(done.stderr)


@pytest.mark.parametrize("arguments", [("-f", "labels", "a.wav", "b.wav"), ("--json", "-f", "csv", "a.wav")])
def test_formats_that_cannot_be_are_refused(tiny_model, arguments):
    done = run("analyze", "-m", tiny_model, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    one_sentence(done.stderr)


# --- failures ---------------------------------------------------------------------------------------------------------------


def test_nothing_named_is_wrong_usage():
    done = run("analyze")
    assert done.returncode == 2
    assert "name a file" in one_sentence(done.stderr)


def test_what_is_no_file_in_a_folder_is_left_out_and_what_cannot_be_read_is_not(tmp_path, monkeypatch):
    for name in ("a.wav", "closed/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / "endless.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    look = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert inputs.collect([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.wav", "gone.wav", "closed")]


def test_an_empty_folder_is_no_input(tmp_path):
    done = run("analyze", tmp_path)
    assert (done.returncode, done.stdout) == (66, b"")
    assert "no audio files" in one_sentence(done.stderr)


def test_a_missing_file_is_no_input(tiny_model, tmp_path):
    done = run("analyze", "--json", "-m", tiny_model, tmp_path / "x.wav")
    assert done.returncode == 66
    assert records(done)[0]["error"]["code"] == "not_found"


def test_a_file_that_is_not_audio_fails_alone(tiny_model, tmp_path):
    path = tmp_path / "x.flac"
    path.write_text("just words " * 500)
    done = run("analyze", "--json", "-m", tiny_model, path)
    assert done.returncode == 1
    assert records(done)[0]["status"] == "error"
    one_sentence(done.stderr)


@pytest.mark.parametrize("format_name", ["table", "text", "csv"])
def test_a_failure_is_said_once_on_stderr_in_every_format(tiny_model, tmp_song, format_name):
    done = run("analyze", "-f", format_name, "-m", tiny_model, *SHORT, "missing.wav")
    assert "missing.wav" in one_sentence(done.stderr)
    done = run("analyze", "-f", format_name, "-m", "no-such-model", tmp_song, tmp_song)
    assert "no-such-model" in one_sentence(done.stderr)


@pytest.mark.parametrize("model", ["nobody/nothing", "no-such-model", "/no/such/dir", "x.gguf"])
def test_an_unknown_model_is_unavailable_and_every_input_says_so(tmp_song, model):
    done = run("analyze", "--json", "--offline", "-m", model, tmp_song, tmp_song)
    assert done.returncode == 69
    assert [record["error"]["code"] for record in records(done)] == ["model_unavailable"] * 2
    assert b"Traceback" not in done.stderr
    one_sentence(done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("--format", "xml"),
        ("--backend", "x"),
        ("--start", "3", "--end", "2"),
        ("--max-tokens", "0"),
        ("--device", "tpu"),
        ("--seed", "-1"),
        ("--threads", "100000"),
    ],
)
def test_wrong_options_are_usage_errors(tmp_song, tiny_model, arguments):
    done = run("analyze", "-m", tiny_model, *arguments, tmp_song)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said(tiny_model, tmp_song):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "mflamingo_cli", "ask", "Why?", "--json", "-m", str(tiny_model), *SHORT, str(tmp_song)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert "No space left" in one_sentence(done.stderr)


# --- names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"a[red]b[bold].wav", b"a\x1b[31mb.wav", b"-x.wav", b"line\nbreak.wav", "♥.wav".encode()])
def test_names_are_shown_safely_and_kept_exactly(tiny_model, tmp_song, tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(tmp_song, path)
    done = run("ask", "Why?", "--json", "-m", tiny_model, *SHORT, "--", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = records(done)[0]
    kept = base64.b64decode(record["path_b64"]) if record["path_b64"] else record["path"].encode()
    assert kept == name


def test_a_table_shows_a_hostile_name_harmlessly(tiny_model, tmp_song, tmp_path):
    shutil.copy(tmp_song, tmp_path / "a[red]b\x1b[31m\u202ec.wav")
    done = run("analyze", "-m", tiny_model, *SHORT, "--color", "never", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert "a[red]b\\x1b[31m\\u202ec.wav" in done.stdout.decode()
    assert b"\x1b" not in done.stdout


# --- pipes, signals, terminals ------------------------------------------------------------------------------------------------


def test_a_closed_pipe_is_quiet(tiny_model, tmp_song):
    command = [sys.executable, "-m", "mflamingo_cli", "analyze", "--json", "-m", str(tiny_model), *SHORT, *[str(tmp_song)] * 3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 141
    assert stderr == b""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["--version", "analyze missing.wav", "ask Why? -", "analyze --files-from -", "schema"])
def test_closed_streams_break_nothing(tiny_model, command, closed):
    script = f"{sys.executable} -m mflamingo_cli {command} {closed}"
    env = {**os.environ, "MFLAMINGO_MODEL": str(tiny_model)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, env=env)
    assert done.returncode in (0, 1, 66), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_results_are_written_to_a_file_without_any_stream(tiny_model, tmp_song, tmp_path):
    script = f"{sys.executable} -m mflamingo_cli ask Why? --json -m {tiny_model} --max-tokens 4 -o out {tmp_song} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], check=False, timeout=TIMEOUT_S, cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "out").read_text())["status"] == "ok"


def test_help_into_a_closed_pipe_is_quiet():
    script = f"{sys.executable} -m mflamingo_cli schema | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == b""


def test_ctrl_c_stops_cleanly_and_says_what_is_left(tiny_model, tmp_song):
    command = [
        sys.executable,
        "-m",
        "mflamingo_cli",
        "ask",
        "Why?",
        "--json",
        "-m",
        str(tiny_model),
        "--max-tokens",
        "2000",
        *[str(tmp_song)] * 50,
    ]
    # a test run in the background of a shell ignores Ctrl-C, and children inherit that
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    assert re.search(rb"stopped, \d+ done, \d+ left", stderr)


def on_a_terminal(*arguments: object) -> tuple[int, str]:
    """Run with a pseudo terminal as stdin, stdout and stderr; all it drew."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80")
        os.execv(sys.executable, [sys.executable, "-m", "mflamingo_cli", *map(str, arguments)])
    drawn, until = b"", time.monotonic() + TIMEOUT_S
    with contextlib.suppress(OSError):  # Linux says EIO when the other side has closed
        while time.monotonic() < until:
            if select.select([descriptor], [], [], 1.0)[0]:
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    break
                drawn += chunk
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), drawn.decode("utf-8", "replace")


def test_a_terminal_gets_colours_and_a_spinner(tiny_model, tmp_song):
    code, drawn = on_a_terminal("analyze", "-m", tiny_model, *SHORT, tmp_song)
    assert code == 0
    assert "\x1b[" in drawn
    assert "╭" in drawn


def test_a_terminal_sees_the_same_answer_as_a_pipe(tiny_model, tmp_song):
    code, drawn = on_a_terminal(
        "ask", "Why?", "-q", "--color", "never", "--progress", "none", "-m", tiny_model, "--max-tokens", 12, tmp_song
    )
    piped = run("ask", "Why?", "-q", "-m", tiny_model, "--max-tokens", 12, tmp_song)
    assert code == 0
    assert drawn.split() == piped.stdout.decode().split()


def test_a_stream_breaks_between_words_however_it_arrives(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    for size in (1, 3, 100):
        out: list[str] = []
        wrapped, text = Wrapped(out.append), "one two three\nfour  音楽音楽 seventeenletters"
        for at in range(0, len(text), size):
            wrapped.feed(text[at : at + size])
        wrapped.flush()
        assert "".join(out) == "one two\nthree\nfour\n音楽音楽\nseventeenletters"


# --- models, doctor, schema ---------------------------------------------------------------------------------------------------


def test_models_list_needs_nothing():
    done = run("models", "list", "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert [(row["name"], row["state"]) for row in rows[:2]] == [("mini", "embedded"), ("small", "embedded")]


def test_models_info_reads_headers(tiny_model):
    done = run("models", "info", tiny_model, "--json")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["abilities"], len(facts["files"])) == (0, "all", 2)


def test_models_info_says_how_weights_are_quantised(tiny_model, tmp_path):
    pytest.importorskip("torch")
    from tests import checkpoints

    for layout, words in {
        "fine-grained": "FP8 (E4M3) with a scale per 32 x 16 block (quant_method fp8)",
        "channel": "FP8 (E4M3) with a scale per row (quant_method compressed-tensors)",
    }.items():
        directory, twin = checkpoints.write_fp8(tiny_model.parent / "tiny", tmp_path / layout, layout)
        quantized, dense = (json.loads(run("models", "info", path, "--json").stdout) for path in (directory, twin))
        assert (dense["checkpoint"], quantized["parameters"]) == ("100 % BF16", dense["parameters"])
        assert words in quantized["checkpoint"]
    (directory / "config.json").write_text((directory / "config.json").read_text().replace("compressed-tensors", "awq"))
    done = run("models", "info", directory)
    assert done.returncode == 69
    assert b"quantised by 'awq', which cannot be read" in done.stderr


def test_models_convert_and_verify(tiny_model, tmp_path):
    source = tiny_model.parent / "tiny"
    made = run("models", "convert", source, "-o", tmp_path, "--type", "Q8_0")
    assert made.returncode == 0, made.stderr
    assert all(os.path.exists(line) for line in made.stdout.decode().splitlines())
    assert run("models", "verify", tmp_path, "--against", source).returncode == 0
    assert run("models", "verify", tmp_path / "nothing").returncode == 1


def test_schema_is_the_schema_of_the_records(tiny_model, tmp_song):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(run("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    found = records(run("analyze", "--json", "-v", "-m", tiny_model, *SHORT, tmp_song, "missing.wav"))
    assert [record["status"] for record in found] == ["ok", "error"]
    assert [list(validator.iter_errors(record)) for record in found] == [[], []]
    for wrong in ({**found[0], "status": "fine"}, {**found[0], "usage": 3}, {key: found[0][key] for key in found[0] if key != "path"}):
        assert not validator.is_valid(wrong)


def test_doctor_opens_the_embedded_model():
    done = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == (0 if all(finding["ok"] is not False for finding in findings.values()) else 69)
    assert "model mini" in findings
