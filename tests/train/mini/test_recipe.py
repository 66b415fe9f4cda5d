"""Recipes: what they say is checked before anything is made, and the built-in one makes the embedded model's stages in their order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from mflamingo_cli.backends import embedded_directory
from mflamingo_cli.core.model import load
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import checkpoints
from mflamingo_cli.train.mini import build, recipe, stages, tokens
from mflamingo_cli.train.mini.kitchen import Kitchen
from mflamingo_cli.train.parallel import Processes


def test_the_embedded_model_is_made_in_the_order_that_its_stages_need() -> None:
    steps = recipe.read("mini")
    assert [step.name for step in steps] == ["synth", "scores", "recordings", "encoder-short", "encoder", "text", "speech", "export"]
    done: set[str] = set()
    for step in steps:
        if step.does == "stage":
            config = stages.load_config(stages.CONFIGS / f"{step.name}.toml")
            assert set(config.init) <= done
            done.add(config.name)
    words = ["embedded", "synth", "recordings", "ears", "words", "words-speech", "export", "prompts", "grpo"]
    assert [step.name for step in recipe.read("mini-words")] == words
    assert {option for step in recipe.read("mini-test") for option in step.options} == {"split", "clips", "splits"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[step]]\nname = 'x'", "step 'x' does 'x', which is not one of synth, scores"),
        ("[[step]]\nname = 'synth'\nclip = 3", "step 'synth' has no option 'clip'; it has clips, split, seed, mma"),
        ("steps = 3", "a recipe contains only"),
        ("[step]\nname = 'synth'", "a recipe contains only"),
        ("=", "cannot be read as TOML"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=sentence):
        recipe.read(str(tmp_path / "r.toml"))


def test_an_unknown_recipe_names_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"maxi: there is no such recipe; name a \.toml file or one of mini, mini-test"):
        recipe.read("maxi")


@pytest.mark.slow
def test_a_stage_is_trained_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "words.toml").write_text(
        'name = "words"\nobjective = "text"\nbatch = 2\n'
        "[model]\nd_text = 64\ntext_layers = 1\ntext_heads = 1\ntext_kv_heads = 1\ntext_ffn = 64\n"
        "d_audio = 64\naudio_layers = 1\naudio_heads = 1\naudio_ffn = 64\n[loop]\nsteps = 2\nlr = 1e-3\nlog_every = 1\n",
        encoding="utf-8",
    )
    kitchen = Kitchen(tmp_path / "work", torch.device("cpu"), Processes())
    step = recipe.RecipeStep("words", "stage", {"config": str(tmp_path / "words.toml")})
    assert [line.split("  ")[0] for line in recipe.cook(step, kitchen)] == ["words 1/2", "words 2/2"]
    assert list(recipe.cook(step, kitchen)) == []  # it is done
    assert stages.encoder_stamp(kitchen.work, ("words",)) == ""  # what is encoded does not depend on it


@pytest.mark.slow
@pytest.mark.parametrize("old", [["data", "synth"], ["data", "scores"], ["data", "recordings"], ["export", "x"]])
def test_old_spellings_name_the_new_ones(old: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "mflamingo_cli", "train", *old], capture_output=True, text=True, check=False)
    name = old[1] if old[0] == "data" else old[0]
    assert done.returncode == 2
    assert f"{name!r} is now a step of a recipe: mflamingo train run mini --step {name}" in done.stderr


def test_the_embedded_model_is_begun_from_with_all_its_parts_and_more_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "sample_texts", lambda *_: ["A hurdy-gurdy, a theorbo. " * 20] * 20)
    kitchen = Kitchen(tmp_path, torch.device("cpu"), Processes())
    step = recipe.RecipeStep("embedded", "adopt", {"vocab": 1600})
    assert len(list(recipe.cook(step, kitchen))) == 1
    made = list((tmp_path / "runs" / "embedded").rglob("*.safetensors"))
    assert len(list(recipe.cook(step, kitchen))) == 1  # it is done
    assert list((tmp_path / "runs" / "embedded").rglob("*.safetensors")) == made
    assert stages.encoder_stamp(tmp_path, ("embedded",)).startswith("embedded-")
    config = stages.load_config(stages.CONFIGS / "words.toml")
    model, chat = stages.new_model(tmp_path, config)
    old = Tokenizer.from_file(str(embedded_directory() / "hf" / "tokenizer.json"))
    before, now = load(embedded_directory() / "hf"), chat.tokenizer.get_vocab()
    assert len(now) > old.get_vocab_size()
    for name, rows in (("embed_tokens", model.model.language_model.embed_tokens), ("lm_head", model.lm_head)):
        own = before.lm_head if name == "lm_head" else before.model.language_model.embed_tokens
        width = own.weight.shape[1]
        assert torch.equal(rows.weight[now["Ġthe"], :width], own.weight[old.token_to_id("Ġthe")])
    assert torch.equal(model.model.audio_tower.layers[0].fc1.weight, before.model.audio_tower.layers[0].fc1.weight)


def test_a_grown_model_computes_what_the_smaller_one_did() -> None:
    tiny = {"d_audio": 64, "audio_layers": 1, "audio_heads": 1, "audio_ffn": 64, "n_mels": 16}
    ids = {name: number for number, name in enumerate(tokens.SPECIALS)}
    small, large = (
        build.build(build.ModelSizes(**tiny, d_text=64 * n, text_layers=n, text_heads=n, text_kv_heads=n, text_ffn=64 * n), ids, 128, n)
        for n in (1, 3)
    )
    build.grow(small, large)
    heard = torch.randn(2, 5, 64)
    logits = []
    for model in (small, large):
        sound = model.model.multi_modal_projector(heard)
        words = model.get_input_embeddings()(torch.arange(18).reshape(2, 9))
        logits.append(model.lm_head(model.model.language_model(inputs_embeds=torch.cat([sound, words], dim=1)).last_hidden_state))
    torch.testing.assert_close(*logits, atol=2e-3, rtol=0)  # the small number that a normalisation adds counts for less among more channels
    assert logits[0].std() > 0.1


def test_an_adopted_model_may_grow_and_an_unknown_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "sample_texts", lambda *_: ["The key is A minor."])
    kitchen = Kitchen(tmp_path, torch.device("cpu"), Processes())
    with pytest.raises(UsageError, match="step 'embedded', model: unknown key width"):
        list(recipe.cook(recipe.RecipeStep("embedded", "adopt", {"model": {"width": 256}}), kitchen))
    wide = {"d_text": 256, "text_heads": 4, "text_kv_heads": 4}
    list(recipe.cook(recipe.RecipeStep("embedded", "adopt", {"model": wide}), kitchen))
    states = checkpoints.part_states(tmp_path / "runs" / "embedded")
    assert states["lm_head"]["weight"].shape[1] == 256
    assert states["multi_modal_projector"]["linear_1.weight"].shape == (256, 192)
