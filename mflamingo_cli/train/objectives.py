"""What a stage learns: dense labels for the ears (`DenseObjective`), text for the language model (`TextObjective`, `AlignObjective`).

An objective draws a batch and gives its loss; a batch is a pure function of (seed, step), so that a resumed run is the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F
from transformers import MusicFlamingoForConditionalGeneration

from mflamingo_cli.core.chat import ChatTemplate, conversation
from mflamingo_cli.core.geometry import AudioTokens
from mflamingo_cli.errors import UsageError
from mflamingo_cli.train import build
from mflamingo_cli.train.compose import QUALITIES
from mflamingo_cli.train.data import Turn, audio_turns, text_turn
from mflamingo_cli.train.frames import FRAMES_PER_TOKEN, NO_CHORD, Clip
from mflamingo_cli.train.synth import FAMILIES

METERS = ("4/4", "3/4", "6/8")
TOKENS_PER_S = 25  # audio tokens of 40 ms
DENSE_WEIGHTS = {
    "root": 1.0,
    "quality": 0.7,
    "bass": 0.5,
    "chroma": 3.0,
    "beat": 0.3,
    "families": 2.0,
    "key": 0.5,
    "clip_key": 0.5,
    "meter": 0.1,
}


HEAD_SIZES = {
    "root": 13,
    "quality": len(QUALITIES),
    "bass": 13,
    "chroma": 12,
    "beat": 3,
    "families": len(FAMILIES) + 1,
    "key": 24,
    "meter": len(METERS),
}


class Objective(Protocol):
    """One way to learn; `module` holds the parts it trains, by their names in a checkpoint."""

    module: nn.ModuleDict

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a batch."""
        ...

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch with the numbers worth logging."""
        ...


def augment(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Change level, tilt, equalisation, noise floor and band limit of log-mel frames (T, n_mels); 0.25 is 10 dB."""
    n_mels = frames.shape[1]
    bands = np.arange(n_mels, dtype=np.float32)
    shape = np.interp(bands, np.linspace(0, n_mels - 1, 8), rng.normal(0, 0.07, 8))
    frames = frames + (rng.uniform(-0.4, 0.15) + rng.normal(0, 0.08) * (bands / n_mels - 0.5) + shape).astype(np.float32)
    top = float(frames.max())
    if rng.random() < 0.3:
        cut = int(rng.integers(n_mels * 5 // 8, n_mels))
        frames[:, cut:] -= 1.0
    floor = top - rng.uniform(0.9, 2.0)
    frames = np.maximum(frames, floor + rng.normal(0, 0.04, frames.shape).astype(np.float32))
    if rng.random() < 0.4:
        at, width = int(rng.integers(n_mels - 24)), int(rng.integers(4, 24))
        frames[:, at : at + width] = floor
    return frames.astype(np.float32)


@dataclass(frozen=True)
class Crops:
    """A batch of crops of one length; labels are (B, T, …)."""

    frames: torch.Tensor
    windows: torch.Tensor
    offsets: torch.Tensor
    labels: dict[str, torch.Tensor]


class DenseHeads(nn.Module):
    """Linear readings of the projected audio tokens; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEAD_SIZES.items()})

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, T, d) -> per head (B, T, classes)."""
        tokens = self.norm(tokens)
        return {name: head(tokens) for name, head in self.heads.items()}


def key_class(row: dict[str, Any]) -> int:
    """0-11 major by tonic, 12-23 minor."""
    return row["tonic"] + 12 * (row["mode"] == "minor")


def crop(clip: Clip, start: int, length: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames and labels of `length` tokens of a clip from token `start` (tokens never cross a window)."""
    frames = np.asarray(clip.mel()[start * FRAMES_PER_TOKEN : (start + length) * FRAMES_PER_TOKEN], dtype=np.float32)
    return frames, {name: values[start : start + length] for name, values in clip.labels().items()}


def _n_tokens(clip: Clip) -> int:
    return int(clip.row["duration"] * TOKENS_PER_S) - 1


def draw_crops(rng: np.random.Generator, clips: Sequence[Clip], length: int, count: int, augmented: bool = True) -> Crops:
    """`count` random crops of `length` tokens, each anywhere in a window of a random clip and placed anywhere in time."""
    long_enough = [clip for clip in clips if min(_n_tokens(clip), build.WINDOW_TOKENS) >= length]
    if not long_enough:
        raise UsageError(f"no clip is as long as the stage's crops of {length / TOKENS_PER_S:.0f} s; make more with `train data synth`")
    frames, labels, windows, offsets = [], [], [], []
    for _ in range(count):
        clip = long_enough[rng.integers(len(long_enough))]
        total = _n_tokens(clip)
        spans = [(w, min(total - w * build.WINDOW_TOKENS, build.WINDOW_TOKENS)) for w in range(total // build.WINDOW_TOKENS + 1)]
        spans = [(w, size) for w, size in spans if size >= length]
        window, size = spans[rng.integers(len(spans))]
        start = window * build.WINDOW_TOKENS + int(rng.integers(size - length + 1))
        mel, truth = crop(clip, start, length)
        frames.append(augment(rng, mel).T if augmented else mel.T)
        labels.append({**truth, "key": np.full(length, key_class(clip.row)), "meter": np.full(length, METERS.index(clip.row["meter"]))})
        windows.append(int(rng.integers(2)) if rng.random() < 0.3 else 0)
        offsets.append(int(rng.integers(build.WINDOW_TOKENS - length + 1)))
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels]).astype(np.int64)) for name in labels[0]}
    return Crops(torch.from_numpy(np.stack(frames)), torch.tensor(windows), torch.tensor(offsets), stacked)


class DenseObjective:
    """Frame-wise chords, bass, chroma, beats, families, key and meter, read from projected audio tokens."""

    def __init__(self, model: MusicFlamingoForConditionalGeneration, clips: Sequence[Clip], lengths: Sequence[tuple[int, int]]) -> None:
        self.model, self.clips, self.lengths = model, clips, lengths  # lengths: (tokens, crops in a batch), drawn in turn
        self.heads = DenseHeads(model.config.text_config.hidden_size)
        self.module = nn.ModuleDict(
            {"audio_tower": model.model.audio_tower, "multi_modal_projector": model.model.multi_modal_projector, "heads": self.heads}
        )
        model.model.audio_tower.embed_positions.weight.requires_grad_(False)

    def draw(self, rng: np.random.Generator) -> Crops:
        """Draw a batch."""
        length, count = self.lengths[rng.integers(len(self.lengths))]
        return draw_crops(rng, self.clips, length, count)

    def loss(self, batch: Crops) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        logits = self.heads(build.encode(self.model, batch.frames, batch.windows, batch.offsets))
        terms = dense_losses(logits, batch.labels)
        total = sum(DENSE_WEIGHTS[name] * term for name, term in terms.items())
        numbers = {name: float(term.detach()) for name, term in terms.items()}
        return total, {**numbers, **dense_scores(logits, batch.labels)}


def dense_losses(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One term per head; quality counts only where there is a chord, the key also for the whole crop."""
    logits = {name: value.float() for name, value in logits.items()}
    terms = {name: F.cross_entropy(logits[name].flatten(0, 1), labels[name].flatten()) for name in ("root", "bass", "beat", "key", "meter")}
    quality = F.cross_entropy(logits["quality"].flatten(0, 1), labels["quality"].flatten(), reduction="none")
    sounding = (labels["root"] != NO_CHORD).flatten().float()
    terms["quality"] = (quality * sounding).sum() / sounding.sum().clamp(min=1)
    for name in ("chroma", "families"):
        terms[name] = F.binary_cross_entropy_with_logits(logits[name], labels[name].float())
    terms["clip_key"] = F.cross_entropy(logits["key"].mean(1), labels["key"][:, 0])
    return terms


@torch.no_grad()
def dense_scores(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, float]:
    """Accuracies of a batch: root, root with major/minor, key of the crop."""
    sounding = labels["root"] != NO_CHORD
    root = (logits["root"].argmax(-1) == labels["root"])[sounding]
    minor = torch.tensor([name in ("min", "min7", "dim") for name in QUALITIES])
    mode = (minor[logits["quality"].argmax(-1)] == minor[labels["quality"]])[sounding]
    key = (logits["key"].float().mean(1).argmax(-1) == labels["key"][:, 0]).float().mean()
    return {"root_acc": float(root.float().mean()), "majmin_acc": float((root & mode).float().mean()), "key_acc": float(key)}


# --- text --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """One conversation after the audio: ids and a mask that is True on the assistant's text and its end token."""

    ids: list[int]
    mask: list[bool]


class Speech:
    """Turns -> ids by the checkpoint's own template; the text up to the end of the audio is shared by all branches of a song."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self.tokenizer = tokenizer
        self.chat = ChatTemplate(template, AudioTokens("<sound>", "<|sound_bos|>", "<|sound_eos|>"))
        self.ids = {
            name: tokenizer.token_to_id(name) for name in ("<sound>", "<|sound_bos|>", "<|sound_eos|>", "<|im_end|>", "<|endoftext|>")
        }

    def encode(self, text: str) -> list[int]:
        """Ids of a text with special tokens; nothing is added."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def branch(self, turn: Turn, audio: bool) -> Branch:
        """A whole conversation; with audio, one `<sound>` stands for all of it."""
        messages = conversation(turn.question, history=turn.history, audio=audio)
        ids, mask = self.chat.training_ids([*messages, {"role": "assistant", "content": turn.answer}], 1, self.encode)
        return Branch(ids, mask)


def answer_weights(mask: Sequence[bool]) -> np.ndarray:
    """Weights of a branch's answer tokens: short answers count for more per token, long ones for more in all."""
    marked = np.asarray(mask, dtype=np.float32)
    return marked / max(1.0, float(marked.sum())) ** 0.5


def next_token_loss(
    model: MusicFlamingoForConditionalGeneration, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Cross-entropy of the marked tokens, summed; their weight; how many are right: hidden (B, T, d), ids and weights (B, T)."""
    marked = weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][marked]).float()
    target, weight = ids[:, 1:][marked], weights[:, 1:][marked]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum()
    return loss, weight.sum(), int((logits.detach().argmax(-1) == target).sum())


class TextObjective:
    """Grounding without audio: facts in the prompt, answers and captions that repeat them."""

    def __init__(self, model: MusicFlamingoForConditionalGeneration, speech: Speech, batch: int = 48, chunks: int = 3) -> None:
        self.model, self.speech, self.batch, self.chunks = model, speech, batch, chunks
        self.module = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})

    def draw(self, rng: np.random.Generator) -> list[Branch]:
        """Draw a batch."""
        return sorted((self.speech.branch(text_turn(rng), audio=False) for _ in range(self.batch)), key=lambda b: len(b.ids))

    def loss(self, batch: list[Branch]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        size = -(-len(batch) // self.chunks)
        total, weight, right, count = torch.zeros(()), torch.zeros(()), 0, 0
        for at in range(0, len(batch), size):
            ids, weights = _padded(batch[at : at + size], self.speech.ids["<|endoftext|>"])
            hidden = self.model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
            part, part_weight, part_right = next_token_loss(self.model, hidden, ids, weights)
            total, weight, right, count = total + part, weight + part_weight, right + part_right, count + int((weights[:, 1:] > 0).sum())
        return total / weight, {"token_acc": right / count}


def _padded(branches: Sequence[Branch], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(b.ids) for b in branches)
    ids = torch.full((len(branches), length), pad)
    weights = torch.zeros(len(branches), length)
    for i, branch in enumerate(branches):
        ids[i, : len(branch.ids)] = torch.tensor(branch.ids)
        weights[i, : len(branch.ids)] = torch.from_numpy(answer_weights(branch.mask))
    return ids, weights


@dataclass(frozen=True)
class Excerpt:
    """A piece of a clip as the language model hears it: encoder output after RoTE (T, d_audio) float16, and what the ears can be asked."""

    tokens: np.ndarray
    heard: dict[str, str]


@dataclass(frozen=True)
class Packed:
    """A song's audio followed by several conversations about it, which see the audio and themselves only."""

    ids: torch.Tensor  # (B, T)
    weights: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    mask: torch.Tensor  # (B, 1, T, T) True where attended
    audio: torch.Tensor  # (B, n, d_audio)
    audio_at: int


def pack(speech: Speech, excerpts: Sequence[Excerpt], turns: Sequence[Sequence[Turn]]) -> Packed:
    """Rows of one audio length: shared prefix up to the audio's end, then branches that restart their positions after it."""
    n_audio = len(excerpts[0].tokens)
    rows = [[speech.branch(turn, audio=True) for turn in some] for some in turns]
    at = rows[0][0].ids.index(speech.ids["<sound>"])
    prefix = rows[0][0].ids[:at] + [speech.ids["<sound>"]] * n_audio + [speech.ids["<|sound_eos|>"]]
    length = len(prefix) + max(sum(len(b.ids) - at - 2 for b in row) for row in rows)
    ids = torch.full((len(rows), length), speech.ids["<|endoftext|>"])
    weights, positions = torch.zeros(len(rows), length), torch.zeros(len(rows), length, dtype=torch.long)
    group = torch.full((len(rows), length), -1)
    for i, row in enumerate(rows):
        ids[i, : len(prefix)], positions[i, : len(prefix)], group[i, : len(prefix)] = torch.tensor(prefix), torch.arange(len(prefix)), 0
        start = len(prefix)
        for number, branch in enumerate(row, 1):
            tail, marks = branch.ids[at + 2 :], branch.mask[at + 2 :]
            span = slice(start, start + len(tail))
            ids[i, span], group[i, span] = torch.tensor(tail), number
            positions[i, span] = torch.arange(len(prefix), len(prefix) + len(tail))
            weights[i, span] = torch.from_numpy(answer_weights(marks))
            start += len(tail)
    same = (group[:, :, None] == group[:, None, :]) | (group[:, None, :] == 0)
    mask = (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    audio = torch.from_numpy(np.stack([e.tokens for e in excerpts]).astype(np.float32))
    return Packed(ids, weights, positions, mask, audio, at)


class AlignObjective:
    """Questions about audio: cached ears, many conversations to a song; some text alone keeps the grounding."""

    def __init__(
        self,
        model: MusicFlamingoForConditionalGeneration,
        speech: Speech,
        excerpts: dict[int, list[Excerpt]],
        *,
        tokens: int = 4500,
        turns: int = 6,
        text_batch: int = 28,
    ) -> None:
        self.model, self.speech, self.tokens, self.turns = model, speech, tokens, turns
        self.excerpts = {length: items for length, items in excerpts.items() if items}
        self.text = TextObjective(model, speech, text_batch, 1)
        self.module = nn.ModuleDict({"multi_modal_projector": model.model.multi_modal_projector, **self.text.module})

    def draw(self, rng: np.random.Generator) -> tuple[Packed, list[Branch]]:
        """Draw a batch."""
        lengths = sorted(self.excerpts)
        sizes = np.array([len(self.excerpts[length]) for length in lengths], dtype=np.float64) ** 0.5
        length = lengths[rng.choice(len(lengths), p=sizes / sizes.sum())]
        count = max(1, min(12, self.tokens // (length + 45 * self.turns)))
        chosen = [self.excerpts[length][rng.integers(len(self.excerpts[length]))] for _ in range(count)]
        return pack(self.speech, chosen, [audio_turns(rng, e.heard, self.turns) for e in chosen]), self.text.draw(rng)

    def loss(self, batch: tuple[Packed, list[Branch]]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        packed, texts = batch
        hidden = packed_hidden(self.model, packed)
        loss, weight, right = next_token_loss(self.model, hidden, packed.ids, packed.weights)
        count = int((packed.weights[:, 1:] > 0).sum())
        text_loss, numbers = self.text.loss(texts)
        return loss / weight + text_loss, {
            "token_acc": right / count,
            "text_acc": numbers["token_acc"],
            "audio_tokens": packed.audio.shape[1],
        }


def packed_hidden(model: MusicFlamingoForConditionalGeneration, packed: Packed) -> torch.Tensor:
    """Last hidden states of packed rows, (B, T, d)."""
    embeds = model.model.language_model.embed_tokens(packed.ids)
    heard = model.model.multi_modal_projector(packed.audio).to(embeds.dtype)
    end = packed.audio_at + packed.audio.shape[1]
    embeds = torch.cat([embeds[:, : packed.audio_at], heard, embeds[:, end:]], dim=1)
    return model.model.language_model(
        inputs_embeds=embeds, attention_mask=packed.mask, position_ids=packed.positions, use_cache=False
    ).last_hidden_state
