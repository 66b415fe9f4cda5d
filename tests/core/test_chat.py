"""Prompts come out of the checkpoint's template; loss falls on answers and their end tokens, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mflamingo_cli.core.chat import ChatTemplate, Message, build_messages, indices_by_prefix
from mflamingo_cli.errors import ModelError, UsageError
from quant.config import read_geometry
from quant.geometry import AudioTokens
from tests import checkpoints

KINDS = ("musicflamingo", "audioflamingo3")


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf"), request.param)


def template_of(checkpoint: Path) -> ChatTemplate:
    source = (checkpoint / "chat_template.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, read_geometry(checkpoint).tokens)


@pytest.mark.parametrize(("kind", "bos", "eos"), [("musicflamingo", "<|sound_bos|>", "<|sound_eos|>"), ("audioflamingo3", "", "")])
def test_markers_stand_around_the_audio_only_where_the_checkpoint_has_them(kind: str, bos: str, eos: str, tmp_path: Path) -> None:
    prompt = template_of(checkpoints.write(tmp_path, kind)).render_prompt(build_messages("Key?", audio=True))
    assert prompt.before.endswith(f"<|im_start|>user\n{bos}")
    assert prompt.after == f"{eos}Key?<|im_end|>\n<|im_start|>assistant\n"


def test_loss_falls_on_answers_and_their_end_tokens_only(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    messages = [
        *build_messages("What key?", audio=True, history=(("Tempo?", "120 BPM, of course."),)),
        Message(role="assistant", content="A minor.\nSurely."),
    ]
    ids, mask = template_of(checkpoint).training_ids(messages, 5, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    learned = [token for token, wanted in zip(ids, mask, strict=True) if wanted]
    assert tokenizer.decode(learned, skip_special_tokens=False) == "120 BPM, of course.<|im_end|>A minor.\nSurely.<|im_end|>"
    assert len(learned) == sum(mask)


def test_training_ids_read_as_the_processor_writes_them(checkpoint: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    turns = [
        {"role": "user", "content": [{"type": "audio", "path": None}, {"type": "text", "text": "What key?"}]},
        {"role": "assistant", "content": "A minor, 120 BPM."},
    ]
    text = processor.apply_chat_template(turns, tokenize=False)
    expected = processor.tokenizer.encode(template_of(checkpoint).expand(text, 7), add_special_tokens=False)
    messages = [*build_messages("What key?", audio=True), Message(role="assistant", content="A minor, 120 BPM.")]
    ids, _ = template_of(checkpoint).training_ids(messages, 7, lambda text: processor.tokenizer.encode(text, add_special_tokens=False))
    assert ids == expected


def test_a_template_of_strings_gets_the_placeholder_in_front() -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    prompt = ChatTemplate(source, AudioTokens()).render_prompt(build_messages("Key?", audio=True))
    assert prompt.after.startswith("Key?<|im_end|>")


def test_without_a_template_ours_is_used() -> None:
    prompt = ChatTemplate(None, AudioTokens()).render_prompt(build_messages("Key?", audio=True))
    assert prompt.before == "<|im_start|>user\n"
    assert prompt.after == "Key?<|im_end|>\n<|im_start|>assistant\n"


def test_a_placeholder_in_the_question_is_refused() -> None:
    with pytest.raises(UsageError, match="must not contain <sound>"):
        ChatTemplate(None, AudioTokens()).render_prompt(build_messages("What is <sound>?", audio=True))


def test_a_template_without_a_place_for_audio_is_named() -> None:
    with pytest.raises(ModelError, match="no place for <sound>"):
        ChatTemplate("{{ 'hello' }}", AudioTokens()).render_prompt(build_messages("Key?", audio=True))


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ messages[99].role }}", "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"]
)
def test_a_broken_or_hostile_template_is_one_error(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source, AudioTokens()).render_prompt(build_messages("Key?", audio=True))


def test_prompts_are_grouped_by_what_stands_before_the_audio() -> None:
    template = ChatTemplate(None, AudioTokens())
    prompts = [template.render_prompt(build_messages("Key?", audio=True, system=system)) for system in (None, "a", None, None)]
    assert list(indices_by_prefix(prompts, at_most=2)) == [[0, 2], [3], [1]]
