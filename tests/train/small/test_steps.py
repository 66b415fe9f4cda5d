"""The recipe `small` from packages to GRPO on a tiny Whisper and a tiny language model: every step runs, learns what it says, resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from mflamingo_cli.errors import UsageError
from mflamingo_cli.train.mini import recipe
from mflamingo_cli.train.mini.dialogue.exchanges import CAPTION_PROMPTS
from mflamingo_cli.train.mini.frames import Clip, prepared
from mflamingo_cli.train.mini.kitchen import Kitchen
from mflamingo_cli.train.mini.manifest import append_row
from mflamingo_cli.train.mini.synth.parts import FAMILIES
from mflamingo_cli.train.parallel import Processes
from mflamingo_cli.train.small import build, packages, steps
from mflamingo_cli.train.small.rows import exchange_rows, prompt_rows, text_rows
from quant.geometry import TextSizes
from tests.clips import audio
from tests.train.small.conftest import TinyWhisper

LENGTHS = (6.0, 40.0)  # seconds of the clips


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path, torch.device("cpu"), Processes())


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Two prepared clips in A minor and in C major."""
    folder = tmp_path / "data" / "train"
    (folder / "cache").mkdir(parents=True)
    for index, seconds in enumerate(LENGTHS):
        name = f"{index:06d}"
        soundfile.write(folder / f"{name}.flac", audio(seconds).samples, 16_000)
        key = {"tonic": 9, "mode": "minor"} if index == 0 else {"tonic": 0, "mode": "major"}
        count = int(seconds / 0.04)
        np.savez(
            folder / "cache" / f"{name}.labels.npz",
            version=4,
            vocals=np.zeros(count, np.uint8),
            families=np.zeros((count, len(FAMILIES) + 1), np.uint8),
        )
        keys = [[0.0, seconds, key["tonic"], key["mode"]]]
        append_row(
            folder, {"index": index, "audio": f"{name}.flac", "kind": "synth", "duration": seconds, "meter": "3/4", "keys": keys, **key}
        )
    return prepared(folder)


def test_rows_are_about_excerpts_and_the_same_for_a_seed(clips: list[Clip]) -> None:
    rows = list(exchange_rows(clips, 1, 4, 0.0))
    assert rows == list(exchange_rows(clips, 1, 4, 0.0))
    assert rows != list(exchange_rows(clips, 2, 4, 0.0))
    assert [row["id"] for row in rows] == [f"train/{index}/{number}" for index in (0, 1) for number in range(4)]
    assert {(row["start"], row["end"]) for row in rows[:4]} == {(0.0, 6.0)}
    [(start, end)] = {(row["start"], row["end"]) for row in rows[4:]}
    assert 0 <= start < end <= 40.0
    assert end - start == pytest.approx(30.0) or (start, end) == (0.0, 40.0)  # of a whole minute
    assert all([message["role"] for message in row["messages"]] == ["user", "assistant"] for row in rows)


def test_prompts_have_their_facts_beside_them_and_no_answer(clips: list[Clip]) -> None:
    rows = list(prompt_rows(clips, 1))
    assert [row["facts"]["key"]["value"] for row in rows] == ["A minor", "C major"]
    assert [row["facts"]["meter"]["value"] for row in rows] == ["3/4", "3/4"]
    for row in rows:
        [message] = row["messages"]
        assert message["role"] == "user"
        assert "A minor" not in message["content"]
        assert "C major" not in message["content"]


@pytest.mark.parametrize(("unheard", "expected"), [(frozenset(), True), (frozenset({"key"}), False)])
def test_what_the_ears_cannot_hear_is_neither_asked_for_nor_mentioned(clips: list[Clip], unheard: frozenset[str], expected: bool) -> None:
    rows = [row["messages"] for seed in range(12) for row in exchange_rows(clips, seed, 6, 0.0, unheard)]
    by_ear = [" ".join(message["content"] for message in row) for row in rows if "Measured facts" not in row[0]["content"]]
    assert len(by_ear) > 30
    assert any("A minor" in text or "C major" in text for text in by_ear) is expected
    given = [row[0]["content"] for row in rows if "Measured facts" in row[0]["content"]]
    assert sum("key A minor" in text or "key C major" in text for text in given) > 5  # as it would be measured


def test_silence_is_left_out_because_no_command_reads_it(clips: list[Clip]) -> None:
    soundfile.write(clips[0].folder / clips[0].row["audio"], np.zeros(96_000), 16_000)
    assert {row["id"].split("/")[1] for row in exchange_rows(clips, 1, 2, 0.0)} == {"1"}


def test_excerpts_of_another_seed_lie_where_they_did_so_that_they_are_encoded_once(clips: list[Clip]) -> None:
    places = [{(row["audio"], row["start"], row["end"]) for row in exchange_rows(clips, seed, 2, 0.0)} for seed in (1, 2)]
    assert places[0] == places[1]


def test_many_captions_may_be_asked_for(clips: list[Clip]) -> None:
    asked = [[row["messages"][0]["content"] for row in exchange_rows(clips, 1, 24, 0.0, captions=share)] for share in (0.0, 0.9)]
    prompts = [prompt for some in CAPTION_PROMPTS.values() for prompt in some]
    few, many = (sum(any(prompt in text for prompt in prompts) for text in texts) / len(texts) for texts in asked)
    assert few < 0.3
    assert many > 0.7


def test_text_rows_have_no_audio() -> None:
    rows = list(text_rows(20, 1))
    assert len({row["id"] for row in rows}) == 20
    assert not any("audio" in row for row in rows)


def test_the_built_in_recipe_uses_only_what_earlier_steps_make() -> None:
    made: dict[str, set[str]] = {"exchanges": set(), "checkpoint": set()}
    found = recipe.read("small")
    for step in found:
        if "after" in step.options:
            assert step.options["after"] in made["checkpoint"]
            assert step.options.get("rows") in {None, *made["exchanges"]}
        made["exchanges" if step.does == "exchanges" else "checkpoint"].add(step.name)
    assert [step.name for step in found if step.does in ("base", "tune", "reinforce")] == ["base", "align", "sft", "think", "grpo"]


@pytest.mark.parametrize(
    ("does", "options", "sentence"),
    [
        ("base", {"language": "latin"}, "language is 'latin', neither own nor smollm2 nor a stage that was trained"),
        ("exchanges", {"splits": ["nowhere"]}, "no prepared clips of nowhere"),
        ("tune", {"after": "base", "rows": "x"}, r"x\.jsonl: there are no such rows"),
    ],
)
def test_what_a_step_lacks_is_one_sentence(does: str, options: dict, sentence: str, kitchen: Kitchen) -> None:
    with pytest.raises(UsageError, match=sentence):
        list(recipe.cook(recipe.RecipeStep("x", does, options), kitchen))


def test_a_run_after_a_step_that_was_not_done_is_refused(kitchen: Kitchen) -> None:
    list(recipe.cook(recipe.RecipeStep("text", "exchanges", {"text": 3}), kitchen))
    with pytest.raises(UsageError, match="there is no checkpoint of a step 'base'"):
        list(recipe.cook(recipe.RecipeStep("words", "tune", {"after": "base", "rows": "text"}), kitchen))


@pytest.mark.slow
def test_a_short_run_from_packages_to_grpo(tiny: TinyWhisper, clips: list[Clip], kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "fetch", lambda weights, folder: tiny.path)
    own, sizes = build.own_language, TextSizes(32, 1, 2, 2, 64, 8192, rope_theta=1e6)
    monkeypatch.setattr(steps.build, "own_language", lambda texts, vocab: own(texts, vocab, sizes))
    few = {"lr": 1e-2, "batch": 1, "context": 2048}
    recipe_steps = [
        ("base", "base", {"texts": 300, "vocab": 700}),
        ("text", "exchanges", {"text": 8}),
        ("words", "tune", {"after": "base", "rows": "text", "parts": ["language"], "steps": 2, **few}),
        ("rows", "exchanges", {"splits": ["train"], "turns": 2}),
        ("align", "tune", {"after": "words", "rows": "rows", "parts": ["projector"], "steps": 3, **few}),
        ("sft", "tune", {"after": "align", "rows": "rows", "steps": 1, **few}),
        ("prompts", "exchanges", {"splits": ["train"], "prompts": True}),
        ("grpo", "reinforce", {"after": "sft", "rows": "prompts", "steps": 1, "prompts": 1, "group": 2, "max_tokens": 4}),
    ]
    said = {name: list(recipe.cook(recipe.RecipeStep(name, does, options), kitchen)) for name, does, options in recipe_steps}
    assert said["grpo"][-1] == str(kitchen.work / "runs" / "grpo" / "checkpoint")
    weights = {
        name: load_file(kitchen.work / "runs" / name / "checkpoint" / "model.safetensors") for name in ("words", "align", "sft", "grpo")
    }
    weights["base"] = load_file(kitchen.work / "base" / "base" / "model.safetensors")
    learned = {"words": "language_model", "align": "multi_modal_projector", "sft": ("language_model", "multi_modal_projector")}
    for (name, parts), before in zip(learned.items(), ("base", "words", "align"), strict=True):
        changed = {key for key, values in weights[name].items() if not torch.equal(values, weights[before][key])}
        assert changed
        assert all(key.startswith(parts) for key in changed), name
    card = json.loads((kitchen.work / "runs" / "grpo" / "checkpoint" / "mflamingo.json").read_text())
    assert card == {"abilities": [], "grounded": True}
    released = list(recipe.cook(recipe.RecipeStep("new", "release", {"after": "sft", "abilities": ["vocals"], "revision": "1"}), kitchen))
    assert released == [str(kitchen.work / "new")]
    card = json.loads((kitchen.work / "new" / "mflamingo.json").read_text())
    assert card == {"name": "new", "revision": "1", "abilities": ["vocals"], "grounded": True}
    encoded = [list((kitchen.work / "runs" / name / "encoded").iterdir()) for name in ("align", "sft")]
    assert [path.stat().st_ino for path in sorted(encoded[0])] == [path.stat().st_ino for path in sorted(encoded[1])]
    again = list(recipe.cook(recipe.RecipeStep("align", "tune", recipe_steps[4][2]), kitchen))
    assert len(again) == 2  # its plan and its result: it is done
