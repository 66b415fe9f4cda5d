"""A model that has heard excerpts and is asked about them: the audio is encoded and read once, questions share its keys and values.

Decoding is greedy; everything is padded on the right and masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MusicFlamingoForConditionalGeneration
from transformers.cache_utils import DynamicCache

from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.train.evaluate.ground_truth import Item, item_of
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, MINI_MEL, Clip
from mflamingo_cli.train.mini.objectives import hear
from mflamingo_cli.train.rows import ChatEncoder, Turn

SAMPLE_RATE = 16_000
TOKEN_SAMPLES = FRAMES_PER_TOKEN * MINI_MEL.hop_length
DROP = 0.25  # finished answers leave a batch when they are more than this share of it


@dataclass(frozen=True)
class Cut:
    """Which part of every clip is heard: `seconds` from its start, or anywhere in it (shorter clips are left out); or all of it."""

    seconds: float = 20.0
    anywhere: bool = False
    whole: bool = False  # at most `seconds`


def cut(clip: Clip, how: Cut) -> tuple[np.ndarray, float] | None:
    """Samples and start (s) of the part of a clip that is heard; None when it is too short."""
    samples, count = clip.samples(), int(how.seconds * SAMPLE_RATE)
    if how.whole:
        return samples[:count], 0.0
    if len(samples) < count:
        return None
    spare = (len(samples) - count) // TOKEN_SAMPLES
    start = TOKEN_SAMPLES * int(np.random.default_rng(clip.row["index"]).integers(spare + 1)) if how.anywhere else 0
    return samples[start : start + count], start / SAMPLE_RATE


def items(model: MusicFlamingoForConditionalGeneration, clips: Sequence[Clip], how: Cut) -> Iterator[Item]:
    """What is heard of every clip that is long enough, with what is true of it."""
    log_mel = LogMel(MINI_MEL)
    for clip in clips:
        if (found := cut(clip, how)) is not None:
            samples, start = found
            yield item_of(clip, start, start + len(samples) / SAMPLE_RATE, hear(model, log_mel, samples))


class Listener:
    """A model that has heard some excerpts (None: nothing) and answers questions about each."""

    @torch.no_grad()
    def __init__(self, model: MusicFlamingoForConditionalGeneration, speech: ChatEncoder, heard: Sequence[np.ndarray | None]) -> None:
        self.model, self.speech, self.device = model, speech, model.device
        self.count = len(heard)
        self._begins = [self._start(audio is not None) for audio in heard]
        rows = [self._embedded(ids, audio) for ids, audio in zip(self._begins, heard, strict=True)]
        self._lengths = torch.tensor([len(row) for row in rows], device=self.device)
        output = model.model.language_model(inputs_embeds=pad_sequence(rows, batch_first=True), use_cache=True)
        self._layers = output.past_key_values.layers

    def ask(self, questions: Sequence[tuple[int, str]], max_new: int = 40) -> list[str]:
        """Answers to (number of the excerpt, question) pairs."""
        if not questions:
            return []
        ids = self._generate(questions, max_new)
        return [self.speech.tokenizer.decode(row, skip_special_tokens=True) for row in ids]

    @torch.no_grad()
    def yes(self, questions: Sequence[tuple[int, str]]) -> np.ndarray:
        """Probability that an answer begins with Yes, against No: (n,)."""
        logits, *_ = self._read(questions)
        yes, no = (sorted({self._first(word + end) for end in (".", ",", "")}) for word in ("Yes", "No"))
        both = torch.stack([logits[:, ids].logsumexp(-1) for ids in (no, yes)], dim=1)
        return both.softmax(-1)[:, 1].cpu().numpy()

    # --- parts ---

    def _start(self, audio: bool) -> list[int]:
        """Ids before the text of a question: up to the end of the audio, or the first token of a prompt without it."""
        ids = self.speech.branch(Turn("?", ""), audio).ids
        return ids[: ids.index(self.speech.tokenizer.token_to_id("<|sound_eos|>")) + 1] if audio else ids[:1]

    def _embedded(self, ids: list[int], audio: np.ndarray | None) -> torch.Tensor:
        embeds = self.model.model.language_model.embed_tokens(torch.tensor(ids, device=self.device))
        if audio is None:
            return embeds
        at = ids.index(self.speech.sound_id)
        heard = self.model.model.multi_modal_projector(torch.from_numpy(audio.astype(np.float32)).to(self.device))
        return torch.cat([embeds[:at], heard, embeds[at + 1 :]])

    def _first(self, answer: str) -> int:
        branch = self.speech.branch(Turn("?", answer), audio=False)
        return branch.ids[branch.mask.index(True)]

    def _read(self, questions: Sequence[tuple[int, str]]) -> tuple[torch.Tensor, DynamicCache, torch.Tensor, torch.Tensor]:
        """Read the questions: logits of the first token (n, vocab), the cache, its mask (n, T), the next positions (n,)."""
        which = torch.tensor([index for index, _ in questions], device=self.device)
        tails = []
        for index, text in questions:
            begin = self._begins[index]
            branch = self.speech.branch(Turn(text, ""), audio=len(begin) > 1)
            tails.append(torch.tensor(branch.ids[len(begin) : branch.mask.index(True)], device=self.device))
        cache = DynamicCache(config=self.model.config.text_config)
        for number, layer in enumerate(self._layers):
            cache.update(layer.keys[which], layer.values[which], number)
        past, sizes = self._lengths[which], torch.tensor([len(tail) for tail in tails], device=self.device)
        ids = pad_sequence(tails, batch_first=True)
        total, width = int(self._lengths.max()), ids.shape[1]
        steps = torch.arange(max(total, width), device=self.device)
        mask = torch.cat([steps[:total] < past[:, None], steps[:width] < sizes[:, None]], dim=1)
        hidden = self._hidden(ids, mask, past[:, None] + steps[:width], cache)[range(len(tails)), sizes - 1]
        return self.model.lm_head(hidden).float(), cache, mask, past + sizes

    def _hidden(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        return self.model.model.language_model(
            input_ids=ids, attention_mask=mask.long(), position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state

    @torch.no_grad()
    def _generate(self, questions: Sequence[tuple[int, str]], max_new: int) -> list[list[int]]:
        logits, cache, mask, position = self._read(questions)
        end, out = self.speech.tokenizer.token_to_id("<|im_end|>"), [[] for _ in questions]
        live = torch.arange(len(questions), device=self.device)
        done = torch.zeros_like(live, dtype=torch.bool)
        for _ in range(max_new):
            chosen = logits.argmax(-1)
            done = done | (chosen == end)
            for row, token in zip(live[~done].tolist(), chosen[~done].tolist(), strict=True):
                out[row].append(token)
            if done.all():
                break
            if done.float().mean() > DROP:
                cache.batch_select_indices((~done).nonzero()[:, 0])
                live, chosen, mask, position, done = (values[~done] for values in (live, chosen, mask, position, done))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self.model.lm_head(self._hidden(chosen[:, None], mask, position[:, None], cache)[:, -1]).float()
            position = position + 1
        return out
