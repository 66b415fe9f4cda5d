"""A text model of any family in libllama, such as an instruct model that writes captions from facts: one prompt at a time, no audio."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.generation import PrefixGroup, Sampler, TextStream
from mflamingo_cli.backends.ggml.binding import Device
from mflamingo_cli.backends.llama import Context, LanguageModel
from mflamingo_cli.backends.options import GenerateOptions
from mflamingo_cli.backends.threads import useful_threads
from mflamingo_cli.core.sandbox import Template
from mflamingo_cli.errors import ModelError
from quant import reader
from quant.geometry import TextSizes

MOST_CONTEXT = 8192  # positions: prompts are a page, and a model of long texts would reserve memory for a book


class TextModel:
    """An instruct model by its own chat template; a context manager that frees it."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load a GGUF file. Raises ModelError for one that is no text model, and for one without a chat template."""
        keys = reader.read(path).keys
        source = keys.get("tokenizer.chat_template")
        if not isinstance(source, str):
            raise ModelError(f"{path}: has no chat template; name an instruct model")
        self._template, sizes, threads = Template(source, path), _sizes(path, keys), useful_threads(memory.file_bytes(path))
        names, first, last = keys["tokenizer.ggml.tokens"], keys.get("tokenizer.ggml.bos_token_id"), keys.get("tokenizer.ggml.eos_token_id")
        self._named = {name: names[number] for name, number in (("bos_token", first), ("eos_token", last)) if number is not None}
        with ExitStack() as opened:
            self._device = opened.enter_context(closing(Device(device, threads)))
            memory.require_bytes(path.stem, memory.file_bytes(path), self._device.free_bytes(), "choose a smaller one")
            self._language = opened.enter_context(closing(LanguageModel(path, self._device, threads, "auto", sizes)))
            self._opened = opened.pop_all()
        self._sizes = sizes

    def complete(self, system: str, prompt: str, options: GenerateOptions) -> str:
        """Return the answer to a prompt. Raises ModelError where the prompt leaves no room for one."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        tokens = self._language.tokenize(self._template.render(messages=messages, add_generation_prompt=True, **self._named))
        group = PrefixGroup([(0, 0)], [], None, [tokens])
        group.check(self._sizes.context_length)
        answer = TextStream(options, self._language.end_ids, len(tokens))
        sampler, texts = Sampler(options, tokens), []
        with closing(Context(self._language, group.n_needed(options, self._sizes.context_length), 1)) as context:
            [logits] = context.prefill_prompts([tokens])
            for _ in range(min(options.max_new_tokens, self._sizes.context_length - len(tokens))):
                token = sampler.pick(logits)
                chunk = answer.add(token, self._language.piece(token))
                texts.append(chunk.text)
                if chunk.finish:
                    break
                [logits] = context.step([(0, token)])
        return "".join(texts)

    def close(self) -> None:
        """Free the model."""
        self._opened.close()

    def __enter__(self) -> TextModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sizes(path: Path, keys: Mapping[str, Any]) -> TextSizes:
    """Read the sizes of a text model of any family. Raises ModelError for a file that holds none."""
    family = keys.get("general.architecture")
    try:
        heads = int(keys[f"{family}.attention.head_count"])
        context = min(MOST_CONTEXT, int(keys[f"{family}.context_length"]))
        return TextSizes(
            int(keys[f"{family}.embedding_length"]), int(keys[f"{family}.block_count"]), heads,
            int(keys.get(f"{family}.attention.head_count_kv", heads)), 0, context,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a text model that can generate text ({error} is not known)") from error
