"""One family of errors: the same damage is one sentence everywhere, with the code and exit code of what was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mflamingo_cli import load
from mflamingo_cli.cli import app
from mflamingo_cli.errors import MFlamingoError, ModelError
from quant.convert import convert
from quant.errors import QuantError
from tests import checkpoints


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, and the sentence that ends the program or what is on stderr."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if isinstance(done.exception, MFlamingoError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose weights are cut short."""
    directory = checkpoints.write(tmp_path_factory.mktemp("hf") / "cut", "musicflamingo")
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[:-9])
    return directory


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the text part of a pair and no audio part."""
    folder = tmp_path_factory.mktemp("text_only")
    text, audio = convert(checkpoints.write(folder / "hf", "musicflamingo"), folder, "Q8_0")
    audio.unlink()
    shutil.rmtree(folder / "hf")
    return text.parent


def test_a_damaged_checkpoint_has_the_exit_code_of_what_was_asked(cut: Path, tmp_path: Path, tmp_song: Path) -> None:
    for arguments, code in (
        (("models", "info", cut), 69),
        (("models", "convert", cut, "-o", tmp_path), 1),
        (("models", "verify", cut), 1),
        (("analyze", "--json", "-m", cut, tmp_song), 69),
    ):
        found, out, said = run(*arguments)
        assert found == code, arguments
        record = json.loads(out)["error"] if out else {"message": said}
        assert record.get("code", "model_unavailable") == "model_unavailable"
        assert "no GGUF files found" in record["message"] if "verify" in arguments else "cut short" in record["message"]


def test_a_pair_without_its_audio_part_is_an_unavailable_model(text_only: Path, tmp_path: Path, tmp_song: Path) -> None:
    for arguments, code in (
        (("models", "info", text_only), 69),
        (("models", "convert", text_only, "-o", tmp_path), 69),
        (("models", "verify", text_only), 1),
        (("ask", "--json", "-m", text_only, "Key?", tmp_song), 69),
    ):
        found, out, said = run(*arguments)
        assert (found, "no audio part beside it" in out + said) == (code, True), arguments


def test_users_of_the_api_catch_what_it_promises(text_only: Path) -> None:
    with pytest.raises(ModelError, match="no audio part beside it") as caught:
        load(str(text_only))
    assert type(caught.value) is QuantError
    assert isinstance(caught.value, MFlamingoError)
    assert (caught.value.code, caught.value.exit_code, caught.value.retryable) == ("model_unavailable", 69, False)
