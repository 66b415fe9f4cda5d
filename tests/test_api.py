"""Laws of the Python API: the command line's records, typed, and a song that is asked about twice is heard once."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from mflamingo_cli import AudioError, ModelError, Piece, Step, UsageError, api, load
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions
from mflamingo_cli.requests import Request
from mflamingo_cli.schema import Analysis, Result, TempoInfo
from tests.docs import ROOT

SHORT = api.Asking(max_new_tokens=4)
USE = """
    from mflamingo_cli import AudioError, Piece, load

    with load("mini", device="cpu", threads=1) as model:
        record = model.analyze("a.mp3", start_s=10.0, max_new_tokens=64)
        reveal_type(record.tempo.bpm)
        reveal_type(record.chords[0].label)
        reveal_type(model.ask("a.mp3", "Which key?").text)
        for event in model.stream_caption("a.mp3", "short"):
            if isinstance(event, Piece):
                reveal_type(event.text)
"""
REVEALED = ['"float | None"', '"str"', '"str | None"', '"str"']
WRONG = """
    import mflamingo_cli
    from mflamingo_cli import load

    mflamingo_cli.laod
    load("mini", devise="cpu")
    load().ask("a.mp3", "Which key?", seeds=1)
    load().analyze("a.mp3").tempo.bpn
"""


LIGHT = """
    [mypy]
    strict = true
    [mypy-numpy.*,mflamingo_cli.backends.pytorch,mflamingo_cli.backends.gguf,mflamingo_cli.core.decode,rich.*,typer.*]
    follow_imports = skip
"""  # what no user's program touches: the whole tree is checked elsewhere


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> dict[str, list[str]]:
    """What mypy says of two programs of users."""
    folder = tmp_path_factory.mktemp("programs")
    for name, text in (("mypy.ini", LIGHT), ("use.py", USE), ("wrong.py", WRONG)):
        (folder / name).write_text(textwrap.dedent(text))
    programs = [str(folder / name) for name in ("use.py", "wrong.py")]
    command = [sys.executable, "-m", "mypy", "--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache"), *programs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    return {
        program: [line for line in done.stdout.splitlines() if f"{program}:" in line and "defined in" not in line]
        for program in ("use.py", "wrong.py")
    }


@pytest.fixture(scope="module")
def model(tiny_model):
    with load(str(tiny_model), threads=1) as opened:
        yield opened


def without_times(record: Analysis) -> Analysis:
    return replace(record, timing=None)


@pytest.mark.slow
def test_a_user_s_program_is_typed(checked):
    notes = [line.rpartition("Revealed type is ")[2].replace("builtins.", "") for line in checked["use.py"]]
    assert notes == REVEALED


@pytest.mark.slow
def test_wrong_names_are_found_by_a_type_checker(checked):
    for name, line in zip(("laod", "devise", "seeds", "bpn"), checked["wrong.py"], strict=True):
        assert f'"{name}"' in line


def test_keywords_are_those_of_the_dataclasses():
    assert api.Opening.__annotations__.keys() == {field.name for field in dataclasses.fields(OpenOptions)}
    asked = {field.name for kind in (Request, GenerateOptions) for field in dataclasses.fields(kind)}
    of_analyze = {"only", "tempo_range"}
    assert api.Asking.__annotations__.keys() == asked - {"command", "tasks", "options", "question"} - of_analyze
    settings = api._settings(api.Asking(start_s=1.0, end_s=2.0, keep_raw=True, seed=3, stop=("x",)))
    assert settings == {"start_s": 1.0, "end_s": 2.0, "keep_raw": True, "options": GenerateOptions(seed=3, stop=("x",))}


def test_a_keyword_that_there_is_not_is_an_error(model, tmp_song):
    with pytest.raises(TypeError, match="seeds"):
        model.ask(tmp_song, "Which key?", seeds=1)
    with pytest.raises(TypeError, match="devise"):
        load("mini", devise="cpu")


def test_what_is_known_is_at_hand_and_empty_where_nothing_is():
    result = Result(tempo=TempoInfo(120.0), genre=("House",), caption="A calm piece.")
    for field in dataclasses.fields(Result):
        assert getattr(Analysis("analyze", "ok", "a.mp3", result=result), field.name) == getattr(result, field.name)
        assert getattr(Analysis("ask", "ok", "a.mp3"), field.name) == getattr(Result(), field.name)


def test_the_records_are_the_command_line_s(tiny_model, model, tmp_song):
    command = ["analyze", "--json", "-m", str(tiny_model), "--threads", "1", "--max-tokens", "4", str(tmp_song)]
    done = subprocess.run([sys.executable, "-m", "mflamingo_cli", *command], capture_output=True, text=True, check=True)
    record = model.analyze(tmp_song, **SHORT)
    assert without_times(Analysis.from_json(done.stdout)) == without_times(record)
    assert record.tempo.bpm == json.loads(done.stdout)["result"]["tempo"]["bpm"]


def test_several_questions_about_a_song_hear_it_once(model, tmp_song):
    model.analyze(tmp_song, **SHORT)
    second = model.ask(tmp_song, "Which key?", **SHORT)
    assert (second.timing.decode_s, second.timing.measure_s, second.timing.encode_s) == (None, None, None)
    assert second.timing.generate_s is not None


def test_a_model_that_shall_not_remember_hears_again(tiny_model, tmp_song):
    with load(str(tiny_model), remember=False, threads=1) as forgetful:
        times = [forgetful.ask(tmp_song, "Which key?", **SHORT).timing for _ in range(2)]
    assert None not in [time.encode_s for time in times]


def test_a_stream_of_bytes_is_a_song_too(model, tmp_song):
    named, unnamed = model.ask(tmp_song, "Which key?", **SHORT), model.ask(io.BytesIO(tmp_song.read_bytes()), "Which key?", **SHORT)
    assert unnamed.path == "-"
    assert (unnamed.audio_id, unnamed.text) == (named.audio_id, named.text)


@pytest.mark.parametrize(("stream", "words"), [("stream_caption", ["short"]), ("stream_ask", ["Which?"]), ("stream_think", ["Which?"])])
def test_a_stream_ends_with_the_record_that_its_method_returns(model, tmp_song, stream, words):
    *events, record = getattr(model, stream)(tmp_song, *words, keep_raw=True, **SHORT)
    whole = getattr(model, stream.removeprefix("stream_"))(tmp_song, *words, keep_raw=True, **SHORT)
    assert {type(event) for event in events} == {Step, Piece}
    [written] = record.raw.values()
    assert "".join(event.text for event in events if isinstance(event, Piece)).strip() == written.strip()
    assert without_times(record) == without_times(whole)


def test_errors_are_raised_and_say_the_cure(model, tmp_path, tmp_song):
    with pytest.raises(AudioError, match="there is no such file"):
        model.analyze(tmp_path / "none.mp3")
    with pytest.raises(UsageError, match="style long: choose one of full, short"):
        model.caption(tmp_song, "long")
    with pytest.raises(ModelError, match="nonsense"):
        load("nonsense")


def test_a_closed_model_says_so(tiny_model, tmp_song):
    with load(str(tiny_model), threads=1) as model:
        pass
    for ask in (lambda: model.ask(tmp_song, "Key?"), lambda: model.analyze(tmp_song)):
        with pytest.raises(ModelError, match="closed; load it again"):
            ask()


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(model, tmp_song, question):
    with pytest.raises(UsageError, match="the question is empty"):
        model.ask(tmp_song, question)
