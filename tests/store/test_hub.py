"""Anything may lie in the Hugging Face cache: `models list` and `models info` say what is wrong with an entry, and show the others."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.cli import app
from mflamingo_cli.errors import MFlamingoError
from mflamingo_cli.models.registry import PUBLISHED
from mflamingo_cli.store import hub

NAME = "nvidia/music-flamingo-hf"  # which is always listed
OTHER = "somebody/flamingo"
COMMIT = "abc123"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(name: str) -> Path:
    """The folder of the one commit of a model, which main names."""
    home = hub.repository(name)
    folder = home / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    return folder


def config(text: str | bytes) -> Callable[[Path], None]:
    """A checkpoint with weights, and this config.json."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(bytes(8))
        (folder / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def file(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A whole checkpoint in which one file is another thing."""

    def write(folder: Path) -> None:
        config('{"model_type": "musicflamingo"}')(folder)
        path = folder / name if "/" not in name else folder.parents[1] / name
        path.unlink(missing_ok=True)
        make(path)

    return write


def rubbish(path: Path) -> None:
    path.write_bytes(b"GGUF" + bytes(range(256)) * 20)


def gguf(folder: Path) -> None:
    """A pair of nothing."""
    rubbish(folder / "a-F16.gguf")
    rubbish(folder / "mmproj-a-F16.gguf")


# What lies there, and what the line of the entry says, by itself or of a model that nobody knows (None: it is passed over)
ENTRIES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "binary branch": (file("refs/main", lambda path: path.write_bytes(b"\xff\x00\x9b1m")), "damaged", "refs/main: not UTF-8"),
    "branch that leaves": (file("refs/main", lambda path: path.write_text("../../../etc")), "damaged", "refs/main: names no commit"),
    "absolute branch": (file("refs/main", lambda path: path.write_text("/etc")), "damaged", "refs/main: names no commit"),
    "branch that is a pipe": (file("refs/main", os.mkfifo), "damaged", "refs/main: not a file"),
    "branch that is a loop": (file("refs/main", lambda path: path.symlink_to(path)), "downloaded", ""),
    "list": (config("[]"), "damaged", "config.json: the whole is [], not a JSON object"),
    "no JSON": (config("{"), "damaged", "config.json: not readable as JSON"),
    "bytes": (config(b"\xff\xfe{}"), "damaged", "config.json: not UTF-8"),
    "deep": (config("[" * 100_000), "damaged", "config.json: nested too deeply"),
    "unhashable type": (config('{"model_type": ["musicflamingo"]}'), "damaged", "not a Music Flamingo model"),
    "another type": (config('{"model_type": "bert"}'), "damaged", "not a Music Flamingo model"),
    "pipe": (file("config.json", os.mkfifo), "damaged", "config.json: not a file"),
    "folder": (file("config.json", os.mkdir), "damaged", "config.json: not a file"),
    "gone": (file("config.json", lambda path: path.symlink_to("nowhere")), "partial", ""),
    "index of nothing": (file("model.safetensors.index.json", lambda path: path.write_text('{"weight_map": 5}')), "downloaded", ""),
    "rubbish as GGUF": (gguf, "damaged", "mmproj-a-F16.gguf: GGUF version 50462976 is not supported"),
    "folders as GGUF": (lambda folder: [(folder / f"{name}a.gguf").mkdir() for name in ("", "mmproj-")] and None, "damaged", "not a file"),
}  # fmt: skip
UNKNOWN = {"unhashable type", "another type", "gone"}  # of which nobody can tell that they were ours


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_wrong_with_an_entry_is_in_its_line(entry: str, cache: Path) -> None:
    make, state, problem = ENTRIES[entry]
    for name in (NAME, OTHER):
        make(snapshot(name))
    done = CliRunner().invoke(app, ["models", "list", "--json"])
    assert done.exit_code == 0, done.exception
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {*EMBEDDED, *PUBLISHED, *([] if entry in UNKNOWN else [OTHER])}
    for name in rows.keys() & {NAME, OTHER}:
        assert rows[name]["state"] == state
        assert (rows[name]["problem"] or "").startswith(problem) or problem in rows[name]["problem"]
        assert str(cache) not in (rows[name]["problem"] or ""), "the line is about its own entry"
    table = CliRunner().invoke(app, ["models", "list"])
    assert (table.exit_code, NAME in table.stdout, "mini" in table.stdout) == (0, True, True)


@pytest.mark.parametrize("entry", ENTRIES)
def test_info_on_it_is_one_sentence(entry: str, cache: Path) -> None:
    ENTRIES[entry][0](snapshot(NAME))
    for asked in (NAME, str(hub.repository(NAME) / "snapshots" / COMMIT)):
        done = CliRunner().invoke(app, ["models", "info", asked])
        assert isinstance(done.exception, MFlamingoError), (asked, done.exception)
        assert (done.exception.exit_code, "\n" in str(done.exception)) == (69, False)


@pytest.mark.parametrize(
    "name", ["models--a--\udcff", "models--a--\x1b[2J", "models--a--b c", "models--a--b", "models--", "models--..--.."]
)
def test_folders_with_other_names_and_files_in_their_place_are_passed_over(name: str, cache: Path) -> None:
    cache.mkdir()
    if name == "models--a--b":
        (cache / name).write_text("a file")
    else:
        config('{"model_type": "musicflamingo"}')(_made(cache / name / "snapshots" / COMMIT))
    done = CliRunner().invoke(app, ["models", "list", "--json"])
    assert [row["name"] for row in json.loads(done.stdout)] == [*EMBEDDED, *PUBLISHED]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_branch_of_bytes_is_removed_with_its_model(cache: Path) -> None:
    ENTRIES["binary branch"][0](snapshot(NAME))
    other = snapshot(OTHER).with_name("def456")
    other.mkdir()
    ENTRIES["binary branch"][0](other)
    done = CliRunner().invoke(app, ["models", "rm", f"{OTHER}@{COMMIT}", "--yes"])
    assert (done.exit_code, [path.name for path in other.parent.iterdir()]) == (0, ["def456"])
    assert CliRunner().invoke(app, ["models", "rm", NAME, "--yes"]).exit_code == 0
    assert not hub.repository(NAME).exists()


def test_info_names_the_context_and_the_longest_audio() -> None:
    done = CliRunner().invoke(app, ["models", "info", "--json"])
    facts = json.loads(done.stdout)
    assert (facts["context_tokens"], facts["longest_audio_s"]) == (6144, 60.0)
    lines = [line.split("  ") for line in CliRunner().invoke(app, ["models", "info"]).stdout.splitlines()]
    shown = {line[0]: line[-1].strip() for line in lines if len(line) > 1 and line[0]}
    assert {row.strip() for line in lines for row in line} >= {"6,144 tokens", "1:00"}, shown


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ({"abilities": 5}, r"mflamingo\.json: abilities is 5, not a list"),
        ({"abilities": ["ask", 5]}, r"mflamingo\.json: an item of abilities is 5, not a text"),
        ({"grounded": "yes"}, r"mflamingo\.json: grounded is 'yes', not true or false"),
        ({"revision": [1]}, r"mflamingo\.json: revision is \[1\], not a text"),
    ],
)
def test_a_card_of_other_types_is_one_sentence(card: dict[str, object], sentence: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedded_directory() / "hf", tmp_path / "hf"))
    (folder / "mflamingo.json").write_text(json.dumps(card))
    done = CliRunner().invoke(app, ["models", "info", str(folder)])
    assert isinstance(done.exception, MFlamingoError)
    assert re.search(sentence, str(done.exception)), done.exception
