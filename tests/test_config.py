"""Laws of settings: who outranks whom, what is unknown is said with the nearest name, and what `config show` prints is a configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from mflamingo_cli import cli, config, trust
from mflamingo_cli.backends.base import GenerateOptions
from mflamingo_cli.errors import ConfigError

TIMEOUT_S = 300
SETTABLE = config.settable(typer.main.get_command(cli.app))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty folder to work in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "mflamingo").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(place: Path, home: str = "", here: str = "") -> None:
    for path, text in ((place / "home" / "mflamingo" / "config.toml", home), (place / "work" / "mflamingo.toml", here)):
        if text:
            path.write_text(text, encoding="utf-8")


def held(command: str, key: str) -> tuple[object, str]:
    setting = config.load(SETTABLE)[command][key]
    return setting.value, setting.origin


def run(*words: object, stdin: Any = subprocess.DEVNULL, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mflamingo_cli", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **env}
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=env, stdin=stdin)


def test_the_nearer_outranks_the_farther(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert held("ask", "max-tokens") == (GenerateOptions.max_new_tokens, "default")
    write(place, home="max-tokens = 10")
    assert held("ask", "max-tokens") == (10, str(place / "home" / "mflamingo" / "config.toml"))
    write(place, here="max-tokens = 20")
    assert held("ask", "max-tokens") == (20, "mflamingo.toml")
    monkeypatch.setenv("MFLAMINGO_MAX_TOKENS", "30")
    assert held("ask", "max-tokens") == (30, "MFLAMINGO_MAX_TOKENS")


def test_a_commands_own_table_outranks_the_top_of_its_file_and_touches_no_other(place: Path) -> None:
    write(place, here='max-tokens = 20\n[ask]\nmax-tokens = 40\n[caption]\nstyle = "short"')
    assert (held("ask", "max-tokens")[0], held("think", "max-tokens")[0]) == (40, 20)
    assert held("caption", "style") == ("short", "mflamingo.toml")


def test_the_top_of_a_nearer_file_outranks_a_table_of_a_farther_one(place: Path) -> None:
    write(place, home="[ask]\nmax-tokens = 40", here="max-tokens = 20")
    assert held("ask", "max-tokens")[0] == 20


WRONG = {
    "max_tokens = 3": ": there is no setting max_tokens; did you mean max-tokens?",
    '[captoin]\nstyle = "short"': ": there is no setting captoin; did you mean caption?",
    '[ask]\nstyle = "short"': ", table ask: there is no setting style",
    'style = "shot"': ": style: 'shot' is not one of full, short",
    "max-tokens = 0": ": max-tokens: ",
    "max-tokens = [1, 2]": ": max-tokens: takes a single value",
    "temperature = 'warm'": ": temperature: ",
    "start = 3": ": there is no setting start",
    'tempo-range = "160-80"': ": tempo-range: ",
    'only = "tempi"': ": only: tempi: no such fact or answer",
    'only = " , "': ": only: names no fact",
    'fields = "path,bmp"': ": fields: there is no field bmp; did you mean bpm?",
    'sort = "-tempo"': ": sort: tempo is not a single value",
    "a = ": ": cannot be read as TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_the_user_s_file_is_one_sentence_with_its_name(place: Path, text: str) -> None:
    write(place, home=text)
    with pytest.raises(ConfigError) as caught:
        config.load(SETTABLE)
    assert str(caught.value).startswith(f"{place / 'home' / 'mflamingo' / 'config.toml'}{WRONG[text]}")


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_folder_one_enters_stops_nothing_and_is_said(place: Path, text: str) -> None:
    write(place, home="max-tokens = 7", here=f"hide-thinking = true\n{text}")
    found = config.find(lambda: SETTABLE)
    [note] = found.notes
    assert note.startswith(f"mflamingo.toml{WRONG[text]}")
    assert note.endswith("(this file is not used)")
    settings = config.load(SETTABLE, found)["think"]
    assert (settings["max-tokens"].value, settings["hide-thinking"].origin) == (7, "default")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lab", "acestep", "m3u"])
def test_a_format_that_is_set_and_does_not_suit_is_a_warning(place: Path, tmp_song: Path, form: str) -> None:
    """Whoever enters the folder has not chosen it: several songs, a song on stdin."""
    write(place, here=f'format = "{form}"')
    words = (tmp_song, tmp_song) if form == "lab" else (tmp_song,)
    songs = ["-"] if form == "m3u" else words
    with open(tmp_song, "rb") as stdin:
        done = run("analyze", "--only", "loudness", *songs, stdin=stdin)
    assert (done.returncode, done.stdout != "") == (0, True), done.stderr
    assert f"--format {form}" in done.stderr
    assert "(the setting format is ignored)" in done.stderr
    with open(tmp_song, "rb") as stdin:
        assert run("analyze", "--only", "loudness", "-f", form, *songs, stdin=stdin).returncode == 2


def test_a_trusted_file_that_is_broken_is_said_as_the_user_s_own(place: Path) -> None:
    write(place, here="modle = 3")
    trust.trust(config.HERE, b"modle = 3")
    with pytest.raises(ConfigError, match=r"mflamingo\.toml: there is no setting modle"):
        config.load(SETTABLE)


def test_an_unknown_variable_is_suggested_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFLAMINGO_MODLE", "mini")
    with pytest.raises(ConfigError, match="there is no setting MFLAMINGO_MODLE; did you mean MFLAMINGO_MODEL"):
        config.load(SETTABLE)


def test_show_prints_a_configuration_that_changes_nothing(place: Path) -> None:
    write(place, home='model = "x y"\nquiet = true\n[caption]\nstyle = "short"')
    before = config.load(SETTABLE)
    done = run("config", "show")
    assert done.returncode == 0, done.stderr
    write(place, home=done.stdout)
    after = config.load(SETTABLE)
    assert {command: {key: s.value for key, s in held.items()} for command, held in after.items()} == {
        command: {key: s.value for key, s in held.items()} for command, held in before.items()
    }


def test_show_says_where_a_value_comes_from(place: Path) -> None:
    write(place, here="verbose = 2")
    lines = run("config", "show", "--origin", MFLAMINGO_SEED="7").stdout.splitlines()
    assert {line.partition(" ")[0]: line.rpartition("# ")[2] for line in lines if line.startswith(("verbose", "seed", "model"))} == {
        "verbose": "mflamingo.toml",
        "seed": "MFLAMINGO_SEED",
        "model": "default",
    }
    assert tomllib.loads("\n".join(lines))["seed"] == 7


@pytest.mark.slow
def test_a_command_obeys_and_an_option_that_is_given_wins(place: Path, tiny_model: Path, tmp_song: Path) -> None:
    write(place, home=f'model = {json.dumps(str(tiny_model))}\nformat = "csv"\nmax-tokens = 2\nprogress = "none"')
    as_set, given, as_json = (run("ask", "Why?", *words, tmp_song) for words in ((), ("-f", "text"), ("--json",)))
    assert as_set.stdout.startswith("path,"), as_set.stderr
    assert not given.stdout.startswith("path,")
    assert json.loads(as_json.stdout)["status"] == "ok", as_json.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_what_is_set_takes_no_option_away(place: Path, flag: str) -> None:
    done = run("analyze", flag, MFLAMINGO_THREADS="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--threads" in done.stdout


def test_what_is_set_for_other_formats_stops_none(place: Path, tmp_song: Path) -> None:
    write(place, here='fields = "tempo.bpm"\nmodel = "none"')
    rows, table, typed = (run("analyze", *words, tmp_song) for words in (("-f", "csv"), (), ("--fields", "tempo.bpm", "-f", "table")))
    assert rows.stdout.splitlines()[0] == "tempo.bpm"
    assert "model 'none' is not a directory" in table.stderr
    assert "--fields works with" in typed.stderr


def test_what_is_set_for_runs_here_is_a_warning_on_a_cluster(place: Path, tmp_song: Path) -> None:
    pytest.importorskip("ray")
    write(place, home="jobs = 3")
    done = run("analyze", "--engine", "ray", "-n", "-o", "out", tmp_song)
    assert (done.returncode, done.stdout) == (0, f"{tmp_song}\n")
    assert "the setting jobs is ignored with --engine ray" in done.stderr


def test_a_wrong_setting_stops_a_command_before_it_works_only_where_the_user_made_it(place: Path, tmp_song: Path) -> None:
    write(place, here="modle = 3")
    done = run("analyze", "--only", "loudness", tmp_song)
    assert (done.returncode, done.stdout != "") == (0, True)
    assert done.stderr == "mflamingo: mflamingo.toml: there is no setting modle; did you mean model? (this file is not used)\n"
    write(place, home="modle = 3")
    done = run("analyze", tmp_song)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.count("\n") == 1
    assert "did you mean model?" in done.stderr


# --- whom it trusts --------------------------------------------------------------------------------------------------------

REACHES_OUT = {  # what a folder's file must not do: write, load, connect, use the machine up, hide what is said
    "analyze": {"album", "write-tags", "overwrite-tags", "tag-bpm", "tag-confidence", "tag-key-notation"},
    "caption": set(),
    "ask": set(),
    "think": set(),
}
REACHES_OUT_ALWAYS = set(
    "backend batch-size device dtype engine fail-fast jobs kv-type max-failures no-cache offline quantize quiet ray-address threads".split()
)
HOSTILE = """
write-tags = "all"
overwrite-tags = "all"
engine = "ray"
ray-address = "evil.example:6379"
model = "weights"
format = "json"
"""


def test_json_that_is_typed_outranks_a_format_that_is_set(place: Path) -> None:
    write(place, home='format = "csv"')
    done = run("analyze", "--no-model", "--json", "missing.wav", XDG_CONFIG_HOME=str(place / "home"))
    assert json.loads(done.stdout)["path"] == "missing.wav", done.stderr
    done = run("analyze", "--no-model", "--json", "--format", "tsv", "missing.wav", XDG_CONFIG_HOME=str(place / "home"))
    assert "--json contradicts --format tsv; leave one out" in done.stderr


def test_every_option_is_known_to_be_one_that_a_folder_may_set_or_may_not() -> None:
    """A new option is not in the table, so that it is left out; whoever adds one decides it here."""
    for command, options in SETTABLE.items():
        assert options.keys() - config.FOLDER_MAY_SET.keys() == REACHES_OUT[command] | REACHES_OUT_ALWAYS
    assert config.FOLDER_MAY_SET.keys() <= {key for options in SETTABLE.values() for key in options}


def test_a_folder_one_enters_sets_looks_and_formats_only(place: Path) -> None:
    (place / "work" / "weights").mkdir()
    write(place, here=HOSTILE)
    settings = config.load(SETTABLE)["analyze"]
    assert settings["format"] == config.Setting("json", "mflamingo.toml")
    assert {settings[key].origin for key in ("write-tags", "overwrite-tags", "engine", "ray-address", "model")} == {"default"}
    [note] = config.find(lambda: SETTABLE).notes
    assert note.startswith("mflamingo.toml: write-tags, overwrite-tags, engine, ray-address, model: not used")
    assert "`mflamingo config trust`" in note


@pytest.mark.parametrize("home", ["home", "environment"])
def test_the_user_s_own_settings_are_not_asked(place: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    if home == "home":
        write(place, home=HOSTILE)
    else:
        monkeypatch.setenv("MFLAMINGO_ENGINE", "ray")
    assert held("analyze", "engine")[0] == "ray"
    assert config.find(lambda: SETTABLE).notes == ()


def test_a_model_is_named_by_a_folder_only_where_it_is_no_path(place: Path) -> None:
    write(place, here='model = "nvidia/music-flamingo-2601-hf"')
    assert held("ask", "model") == ("nvidia/music-flamingo-2601-hf", "mflamingo.toml")
    (place / "work" / "nvidia" / "music-flamingo-2601-hf").mkdir(parents=True)
    assert held("ask", "model") == ("mini", "default")


def test_a_table_of_a_command_is_left_out_as_the_top_is(place: Path) -> None:
    write(place, here='[analyze]\nwrite-tags = "true"\n[ask]\nengine = "ray"')
    assert (held("analyze", "write-tags")[1], held("ask", "engine")[1]) == ("default", "default")
    assert "write-tags, engine: not used" in config.find(lambda: SETTABLE).notes[0]


def test_a_trusted_file_sets_everything_until_it_changes(place: Path) -> None:
    write(place, here=HOSTILE)
    done = run("config", "trust")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{place / 'work' / 'mflamingo.toml'} is trusted until it changes; "
        "it sets write-tags, overwrite-tags, engine, ray-address, model, format\n"
    )
    assert held("analyze", "engine") == ("ray", "mflamingo.toml")
    assert config.find(lambda: SETTABLE).notes == ()
    write(place, here=HOSTILE + "# a word more")
    assert held("analyze", "engine") == ("local", "default")
    assert "the file has changed since you trusted it" in config.find(lambda: SETTABLE).notes[0]


def test_trust_is_of_one_place_and_can_be_revoked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, here="jobs = 2")
    trust.trust(config.HERE, b"jobs = 2")
    assert held("ask", "jobs")[0] == 2
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "mflamingo.toml").write_text("jobs = 2")
    monkeypatch.chdir(place / "elsewhere")
    assert held("ask", "jobs") == (None, "default")
    monkeypatch.chdir(place / "work")
    done = run("config", "trust", "--revoke")
    assert (done.returncode, done.stdout) == (0, f"{place / 'work' / 'mflamingo.toml'} is no longer trusted\n")
    assert held("ask", "jobs") == (None, "default")
    again = run("config", "trust", "--revoke")
    assert (again.returncode, again.stdout) == (78, "")
    assert "is not trusted" in again.stderr


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b'{"a": 3}', b"[" * 100_000, b"\xff"])
def test_a_damaged_list_of_trusted_files_trusts_nothing(place: Path, content: bytes) -> None:
    write(place, here="jobs = 2")
    (place / "home" / "mflamingo" / "trusted.json").write_bytes(content)
    assert held("ask", "jobs") == (None, "default")


def test_what_is_left_out_is_said_by_a_command_and_shown(place: Path, tmp_song: Path) -> None:
    write(place, here='write-tags = "true"\nformat = "text"')
    before = tmp_song.read_bytes()
    done = run("analyze", tmp_song)
    assert (done.returncode, tmp_song.read_bytes() == before) == (0, True)
    assert done.stdout.startswith("tempo: ")
    [said] = done.stderr.splitlines()
    assert said.startswith(
        "mflamingo: mflamingo.toml: write-tags: not used, because a folder's settings file may only set looks and formats"
    )
    assert run("analyze", "-q", tmp_song).stderr == ""
    shown = run("config", "show").stdout
    assert f"# {said.removeprefix('mflamingo: ')}" in shown
    assert tomllib.loads(shown)["format"] == "text"


def test_without_a_file_there_is_nothing_to_trust(place: Path) -> None:
    done = run("config", "trust")
    assert (done.returncode, done.stdout) == (78, "")
    assert "there is no such file" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a = " + b"[" * 10_000, "cannot be read as TOML"), (bytes(2 << 20), "too large"), (b"a = '\xff'", "cannot be read as TOML")],
)
def test_a_file_made_to_hurt_is_one_sentence(place: Path, content: bytes, said: str) -> None:
    (place / "work" / "mflamingo.toml").write_bytes(content)
    [note] = config.find(lambda: SETTABLE).notes
    assert said in note
    (place / "home" / "mflamingo" / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        config.find(lambda: SETTABLE)


def test_a_pipe_in_the_place_of_a_file_is_no_file(place: Path) -> None:
    os.mkfifo(place / "work" / "mflamingo.toml")
    assert config.find(lambda: SETTABLE) == config.SettingFiles(())
