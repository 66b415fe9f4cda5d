"""Turns of a conversation -> prompt text -> token ids and loss mask, by the checkpoint's own chat template.

Special tokens are written and looked up by name; ids differ between checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from mflamingo_cli.errors import ModelError, UsageError

if TYPE_CHECKING:  # nothing here needs NumPy, and the command line reads defaults through here
    from quant.geometry import AudioTokens

END_OF_TURN = "<|im_end|>"
END_TOKENS = (END_OF_TURN, "<|endoftext|>")  # either ends an answer, whatever else a checkpoint's files name

# Only for checkpoints that carry none (a GGUF made without it): Qwen2's turn markers, audio in front of the text.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'audio' %}<sound>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Encode = Callable[[str], list[int]]  # text with special tokens -> ids, nothing added


class Message(TypedDict):
    """One turn, as chat templates expect it."""

    role: str
    content: str | list[dict[str, str]]


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt split where the audio goes; without audio `before` is empty."""

    before: str
    after: str


def build_messages(text: str, *, system: str | None = None, history: Sequence[tuple[str, str]] = (), audio: bool) -> list[Message]:
    """Turns of a prompt with its history; the audio belongs to the first user turn and stands first there, as checkpoints were trained."""
    messages: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    questions = [question for question, _ in history] + [text]
    for index, question in enumerate(questions):
        with_audio = [{"type": "audio"}, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": with_audio if audio and index == 0 else question})
        if index < len(history):
            messages.append({"role": "assistant", "content": history[index][1]})
    return messages


class ChatTemplate:
    """A checkpoint's Jinja template together with its audio tokens; `where` it comes from stands in errors."""

    def __init__(self, source: str | None, tokens: AudioTokens, where: object = "this model") -> None:
        from mflamingo_cli.core.sandbox import Template

        self._template = Template(source or FALLBACK_TEMPLATE, where)
        self.tokens, self._where = tokens, where

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Render turns to text in which one placeholder stands for all audio.

        Raises UsageError when a turn itself contains the placeholder, ModelError when the template has no place for audio.
        """
        if any(self.tokens.audio in text for message in messages for text in _texts(message)):
            raise UsageError(f"the prompt must not contain {self.tokens.audio}; this token stands for the audio and is added automatically")
        n_audio = sum(isinstance(message["content"], list) for message in messages)
        rendered = self._render(messages, add_generation_prompt)
        if rendered.count(self.tokens.audio) != n_audio:  # a template of a text model: it knows strings only
            flat = [_flatten(message, self.tokens.audio) for message in messages]
            rendered = self._render(flat, add_generation_prompt)
        if rendered.count(self.tokens.audio) != n_audio:
            raise ModelError(f"{self._where}: the chat template has no place for {self.tokens.audio}")
        return rendered

    def render_prompt(self, messages: Sequence[Message]) -> RenderedPrompt:
        """Render for generation and split at the audio, with the markers that stand around it in this checkpoint."""
        text = self.text(messages)
        before, found, after = text.partition(self.tokens.audio)
        if not found:
            return RenderedPrompt("", text)
        return RenderedPrompt(before + (self.tokens.bos or ""), (self.tokens.eos or "") + after)

    def expand(self, text: str, n_audio_tokens: int) -> str:
        """Replace the placeholder of a rendered text as the checkpoint's processor does."""
        audio = (self.tokens.bos or "") + self.tokens.audio * n_audio_tokens + (self.tokens.eos or "")
        return text.replace(self.tokens.audio, audio)

    def training_ids(self, messages: Sequence[Message], n_audio_tokens: int, encode: Encode) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation and a mask that is True on assistant text and its end token, and nowhere else.

        Each assistant turn is encoded by itself, as it is at inference: there the model continues after the
        generation prompt, and no token may span that border.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for text, is_answer in self._pieces(messages):
            piece = encode(self.expand(text, n_audio_tokens))
            ids += piece
            mask += [is_answer] * len(piece)
        return ids, mask

    def _pieces(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        whole = self.text(messages, add_generation_prompt=False)
        pieces: list[tuple[str, bool]] = []
        done = 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            head = self.text(messages[:index], add_generation_prompt=True)
            answer = f"{message['content']}{END_OF_TURN}"
            if not whole.startswith(head + answer):
                raise ModelError(f"{self._where}: the chat template does not write assistant turns as text followed by {END_OF_TURN}")
            pieces += [(whole[done : len(head)], False), (answer, True)]
            done = len(head) + len(answer)
        return [*pieces, (whole[done:], False)]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt)


def indices_by_prefix(prompts: Sequence[RenderedPrompt], at_most: int = 16) -> Iterator[list[int]]:
    """Indices of prompts that can share one prefill, at most so many at once: that bounds the KV cache."""
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.before, []).append(index)
    for group in groups.values():
        for start in range(0, len(group), at_most):
            yield group[start : start + at_most]


def _texts(message: Message) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [part.get("text", "") for part in content]


def _flatten(message: Message, placeholder: str) -> Message:
    return message if isinstance(message["content"], str) else {"role": message["role"], "content": placeholder + "".join(_texts(message))}
