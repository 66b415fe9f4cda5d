"""`models imatrix` and `models verify` on songs. In this process: importing torch takes longer than all the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mflamingo_cli.cli import app
from mflamingo_cli.errors import MFlamingoError
from mflamingo_cli.models import agreement
from quant import imatrix, reader

pytestmark = pytest.mark.slow

SHORT = ("--max-tokens", "4")  # noise is not worth more


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, and stderr or the error that ends the program."""
    done = CliRunner().invoke(app, ["models", *map(str, arguments)])
    if isinstance(done.exception, MFlamingoError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def source(tiny_model: Path) -> Path:
    return tiny_model.parent / "tiny"


@pytest.fixture(scope="module")
def collected(source: Path, tmp_song: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An importance matrix from one song and one file that is none."""
    folder = tmp_path_factory.mktemp("collected")
    (folder / "noise.wav").write_bytes(b"no sound")
    code, out, err = run("imatrix", source, tmp_song, folder / "noise.wav", "-o", folder / "i.gguf", *SHORT)
    assert (code, out) == (3, f"{folder / 'i.gguf'}\n")
    assert "noise.wav" in err
    assert "tokens, 1 song\n" in err
    return folder / "i.gguf"


def test_an_importance_matrix_fits_the_model_it_was_collected_on(collected: Path, source: Path, tmp_path: Path) -> None:
    read = imatrix.read(collected)
    assert read.datasets == ("song.wav",)
    assert len(read.means) == 2 * 7  # layers, matrices in each
    code, out, err = run("convert", source, "-o", tmp_path, "--type", "Q4_0", "--imatrix", collected)
    assert code == 0, err
    assert reader.read(Path(out.split()[0])).keys["quantize.imatrix.dataset"] == "song.wav"


def test_ctrl_c_keeps_what_whole_songs_gave(source: Path, tmp_song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, heard = agreement.collect, []

    def collect(song: str, *others: Any) -> Any:
        if heard:
            raise KeyboardInterrupt
        heard.append(song)
        return whole(song, *others)

    monkeypatch.setattr(agreement, "collect", collect)
    CliRunner().invoke(app, ["models", "imatrix", str(source), str(tmp_song), str(tmp_song), "-o", str(tmp_path / "i.gguf"), *SHORT])
    assert imatrix.read(tmp_path / "i.gguf").datasets == ("song.wav",)


def test_what_cannot_be_collected_is_told_and_leaves_nothing(source: Path, tiny_model: Path, tmp_song: Path, tmp_path: Path) -> None:
    out, noise = tmp_path / "i.gguf", tmp_path / "noise.wav"
    noise.write_bytes(b"no sound")
    for arguments, code, words in (
        ((tiny_model, tmp_song, "-o", out), 69, "contains only GGUF files"),
        ((source, noise, "-o", out), 1, "noise.wav"),
        ((source, "-", "-o", out), 2, "stdin"),
        ((source, tmp_song, "-o", tmp_song), 2, "is one of the inputs"),
        ((source, tmp_song, "-o", tmp_path / "no" / "x.gguf"), 2, "this must be a file name in an existing folder"),
        ((source, tmp_song, "-o", out, "--start", "3", "--end", "2"), 2, "--end must be later"),
        ((source, tmp_path / "nowhere.wav", "-o", out), 1, "nowhere.wav"),
    ):
        found, _, error = run("imatrix", *arguments)
        assert (found, words in error) == (code, True), error
    assert [path.name for path in tmp_path.iterdir()] == ["noise.wav"]


def test_an_importance_matrix_that_is_none_is_one_sentence(source: Path, collected: Path, tmp_song: Path, tmp_path: Path) -> None:
    for type_name, file, words in (("Q4_K_M", tmp_song, "not an importance matrix"), ("Q8_0", collected, "does not use")):
        code, _, error = run("convert", source, "-o", tmp_path / "pair", "--type", type_name, "--imatrix", file)
        assert (code, words in error) == (1, True), error
    assert not (tmp_path / "pair").exists()


def test_verify_says_how_exact_each_type_is_and_how_often_the_pair_agrees(source: Path, tmp_song: Path, tmp_path: Path) -> None:
    for type_name in ("F32", "Q8_0"):
        run("convert", source, "-o", tmp_path, "--type", type_name)
    compared = ("verify", tmp_path, "--against", source, "--on", tmp_song, *SHORT)
    code, out, err = run(*compared, "--json")
    record = json.loads(out)
    assert code == 0, err
    assert {(os.path.basename(one["file"]), one["type"]) for one in record["types"]} == {
        ("tiny-F32.gguf", "F32"), ("mmproj-tiny-F32.gguf", "F32"),
        ("tiny-Q8_0.gguf", "F32"), ("tiny-Q8_0.gguf", "Q8_0"), ("mmproj-tiny-Q8_0.gguf", "F32"), ("mmproj-tiny-Q8_0.gguf", "Q8_0"),
    }  # fmt: skip
    exact, rounded = record["agreement"]
    assert [os.path.basename(one["file"]) for one in (exact, rounded)] == ["tiny-F32.gguf", "tiny-Q8_0.gguf"]
    assert exact["n_same"] >= rounded["n_same"]
    assert exact["n_tokens"] == rounded["n_tokens"] >= 9  # one place at least for each question
    assert exact["n_same"] >= 0.9 * exact["n_tokens"]  # not all: the gguf back end's memory is F16
    lines = run(*compared)[1].splitlines()
    n_same, n_tokens = rounded["n_same"], rounded["n_tokens"]
    assert lines[-1] == f"tiny-Q8_0.gguf on {tmp_song}: {100 * n_same / n_tokens:.1f} % of next tokens agree ({n_same} of {n_tokens})"
    assert lines[-3].endswith("with problems")


def test_a_damaged_pair_is_not_tried_on_songs(source: Path, tmp_song: Path, tmp_path: Path) -> None:
    text = Path(run("convert", source, "-o", tmp_path, "--type", "Q8_0")[1].split()[0])
    with text.open("r+b") as file:
        file.seek(reader.read(text).tensors["blk.0.attn_norm.weight"].offset)
        file.write(b"\xff\xff\xff\x7f")
    code, out, _ = run("verify", tmp_path, "--against", source, "--on", tmp_song, *SHORT, "--json")
    record = json.loads(out, parse_constant=pytest.fail)  # JSON has no infinity
    assert (code, record["agreement"]) == (1, [])
    assert [one["name"] for one in record["tensors"] if one["problem"]] == ["blk.0.attn_norm.weight"]


def test_a_pair_of_another_model_is_told_by_its_tensors_and_a_song_needs_a_checkpoint(
    tiny_model: Path, tmp_song: Path, tmp_path: Path
) -> None:
    assert run("verify", tiny_model, "--on", tmp_song)[0::2] == (2, "--on needs a checkpoint to compare with; name it with --against")
    assert run("verify", tiny_model, "--against", "mini", "--on", tmp_song)[0] == 1
    assert run("verify", tiny_model, "--against", tiny_model)[0] == 69
