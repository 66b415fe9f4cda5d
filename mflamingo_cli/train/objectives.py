"""What a stage learns: dense labels for the ears (`DenseObjective`), text for the language model (`TextObjective`), questions about
audio with frozen ears (`AlignObjective`) or with all of the model (`JointObjective`).

An objective draws a batch and gives its loss; a batch is a pure function of (seed, step), so that a resumed run is the same run.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F
from transformers import MusicFlamingoForConditionalGeneration

from mflamingo_cli.core.chat import ChatTemplate, build_messages
from mflamingo_cli.core.geometry import AudioTokens
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.train.mini import build
from mflamingo_cli.train.mini.dialogue.exchanges import THOUGHTFUL, Turn, audio_turns, text_turn
from mflamingo_cli.train.mini.frames import (
    FRAMES_PER_TOKEN,
    NO_CHORD,
    ONSETS,
    TAG_NAMES,
    TOKEN_S,
    WINDOW_TOKENS,
    Clip,
    resample,
    window_frames,
)
from mflamingo_cli.train.mini.synth.compose import QUALITIES
from mflamingo_cli.train.mini.synth.grooves import STYLES as STYLE_TABLE
from mflamingo_cli.train.mini.synth.render import FAMILIES

METERS = ("4/4", "3/4", "6/8")
STYLES = tuple(dict.fromkeys(style for _, style, *_ in STYLE_TABLE if style))  # of the synthetic clips
UNKNOWN_CLASS, UNKNOWN_FLAG = -1, 255  # labels that no loss counts: of a class, of a yes-or-no
HEAD_SIZES = {
    "root": 13,
    "quality": len(QUALITIES),
    "bass": 13,
    "chroma": 12,
    "beat": 3,
    "onsets": len(ONSETS),
    "families": len(FAMILIES) + 1,
    "vocals": 1,
    "tags": len(TAG_NAMES),
    "key": 24,
    "meter": len(METERS),
    "style": len(STYLES),
}
MINOR_QUALITIES = ("min", "min7", "dim")
FLAGS = ("chroma", "onsets", "families", "vocals", "tags")  # read by sigmoids; the other heads by a softmax
WHOLE = ("key", "meter", "style")  # one label for the clip: learned from every token and from their mean
DENSE_WEIGHTS = {  # of the terms of the loss, where a stage names no others
    "root": 1.0, "quality": 0.7, "bass": 0.5, "chroma": 3.0, "beat": 0.5, "onsets": 1.0, "families": 3.0, "vocals": 0.5, "tags": 4.0,
    "key": 0.5, "meter": 0.2, "style": 0.15, "clip_key": 0.5, "clip_meter": 0.4, "clip_style": 0.35,
}  # fmt: skip
TEXT_CHUNKS = 3  # of a batch without audio, sorted by length: little of each is padding
STRETCH = float(np.log(1.25))  # tempo of a crop, its pitches kept: the natural logarithm, up and down


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
    """A batch of crops of one length; labels are (B, T, …), unknown ones hold UNKNOWN_CLASS or UNKNOWN_FLAG."""

    frames: torch.Tensor
    windows: torch.Tensor
    offsets: torch.Tensor
    labels: dict[str, torch.Tensor]


class DenseHeads(nn.Module):
    """Linear readings of audio tokens, through a projector of their own shape: what the ears are taught with and measured by."""

    def __init__(self, model: MusicFlamingoForConditionalGeneration) -> None:
        super().__init__()
        width = model.config.text_config.hidden_size
        self.project = copy.deepcopy(model.model.multi_modal_projector)  # the language model's own starts from this one
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEAD_SIZES.items()})

    def forward(self, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encoder output after RoTE (B, T, d_audio) -> per head logits (B, T, classes)."""
        tokens = self.norm(self.project(hidden))
        return {name: head(tokens) for name, head in self.heads.items()}


HEADS = "heads.safetensors"  # of a checkpoint directory: what its ears were taught with, for evaluation


def save_heads(heads: DenseHeads, directory: Path) -> None:
    """Write heads in bf16 beside a checkpoint."""
    save_file({name: value.to(torch.bfloat16).contiguous() for name, value in heads.state_dict().items()}, directory / HEADS)


def load_heads(directory: Path, model: MusicFlamingoForConditionalGeneration) -> DenseHeads:
    """The heads beside a checkpoint; those of another version of the program have other shapes and are refused."""
    heads = DenseHeads(model)
    try:
        heads.load_state_dict({name: value.float() for name, value in load_file(directory / HEADS).items()})
    except RuntimeError as error:
        raise ModelError(f"{directory / HEADS}: not the heads of this version; export the checkpoint again, or delete them") from error
    return heads.eval()


def whole_labels(row: dict[str, Any]) -> dict[str, int]:
    """The classes of a clip that hold for all of it: key (0-11 major by tonic, 12-23 minor), meter, style."""
    key = row["tonic"] + 12 * (row["mode"] == "minor") if row.get("mode") is not None else UNKNOWN_CLASS
    meter, style = row.get("meter"), row.get("style")
    return {
        "key": key,
        "meter": METERS.index(meter) if meter in METERS else UNKNOWN_CLASS,
        "style": STYLES.index(style) if style in STYLES else UNKNOWN_CLASS,
    }


def labels_of(clip: Clip, start: int, length: int, rate: float = 1.0) -> dict[str, np.ndarray]:
    """All labels of `length` tokens of a clip from token `start`, (length, …) int64, the clip played at a rate."""
    heard = round(length * rate)
    known, found = {name: values[start : start + heard] for name, values in clip.token_labels().items()}, {}
    if rate != 1.0:
        at = np.minimum(((np.arange(length) + 0.5) * rate).astype(int), heard - 1)
        known = resample(known, at, np.minimum(((np.arange(heard) + 0.5) / rate).astype(int), length - 1))
    for name, size in HEAD_SIZES.items():
        if name in WHOLE:
            continue
        shape = (length, size) if name in FLAGS else (length,)
        unknown = UNKNOWN_FLAG if name in FLAGS else UNKNOWN_CLASS
        values = known[name].astype(np.int64) if name in known else np.full(shape, unknown)
        found[name] = values.reshape(shape) if name in FLAGS else np.where(values == UNKNOWN_FLAG, UNKNOWN_CLASS, values)
    found |= {name: np.full(length, value) for name, value in whole_labels(clip.row).items()}
    return found | ({"key": known["key"].astype(np.int64)} if "key" in known else {})  # keys of the moment


def crop(clip: Clip, start: int, length: int, rate: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames and all labels of `length` tokens of a clip from token `start`, played at a rate (tokens never cross a window)."""
    heard = round(length * rate) * FRAMES_PER_TOKEN
    frames = np.asarray(clip.mel()[start * FRAMES_PER_TOKEN :][:heard], dtype=np.float32)
    if rate != 1.0:
        at = np.clip((np.arange(length * FRAMES_PER_TOKEN) + 0.5) * rate - 0.5, 0, len(frames) - 1)
        below = np.minimum(at.astype(int), len(frames) - 2)
        frames = frames[below] + (at - below).astype(np.float32)[:, None] * (frames[below + 1] - frames[below])
    return frames, labels_of(clip, start, length, rate)


def _n_tokens(clip: Clip) -> int:
    return int(clip.row["duration"] / TOKEN_S) - 1


def draw_crop(rng: np.random.Generator, clip: Clip, length: int, stretched: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random crop of `length` tokens anywhere in a window of a clip; a stretched one is played up to a quarter faster or slower."""
    total = _n_tokens(clip)
    spans = [(w, min(total - w * WINDOW_TOKENS, WINDOW_TOKENS)) for w in range(total // WINDOW_TOKENS + 1)]
    spans = [(w, size) for w, size in spans if size >= length]
    window, size = spans[rng.integers(len(spans))]
    rate = float(np.exp(rng.uniform(-STRETCH, STRETCH))) if stretched and rng.random() < 0.5 else 1.0
    rate = rate if round(length * rate) <= size else 1.0
    return crop(clip, window * WINDOW_TOKENS + int(rng.integers(size - round(length * rate) + 1)), length, rate)


def draw_crops(
    rng: np.random.Generator, sources: Sequence[tuple[Sequence[Clip], float]], length: int, count: int, augmented: bool = True
) -> Crops:
    """`count` random crops of `length` tokens from `(clips, share)` sources, each placed anywhere in time."""
    usable = [([c for c in clips if min(_n_tokens(c), WINDOW_TOKENS) >= length], share) for clips, share in sources]
    usable = [(clips, share) for clips, share in usable if clips and share]
    if not usable:
        raise UsageError(f"no clip is as long as the stage's crops of {length * TOKEN_S:.0f} s; make more with `train data synth`")
    shares = np.array([share for _, share in usable])
    frames, labels, windows, offsets = [], [], [], []
    for _ in range(count):
        clips = usable[rng.choice(len(usable), p=shares / shares.sum())][0]
        mel, truth = draw_crop(rng, clips[rng.integers(len(clips))], length, stretched=augmented)
        frames.append(augment(rng, mel).T if augmented else mel.T)
        labels.append(truth)
        windows.append(int(rng.integers(2)) if rng.random() < 0.3 else 0)
        offsets.append(int(rng.integers(WINDOW_TOKENS - length + 1)))
    stacked = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
    return Crops(torch.from_numpy(np.stack(frames)), torch.tensor(windows), torch.tensor(offsets), stacked)


class DenseObjective:
    """Frame-wise chords, bass, chroma, beats, onsets, families, voice and tags, with key, meter and style, read from audio tokens."""

    def __init__(
        self,
        model: MusicFlamingoForConditionalGeneration,
        sources: Sequence[tuple[Sequence[Clip], float]],
        lengths: Sequence[tuple[int, int]],
        weights: Mapping[str, float] = DENSE_WEIGHTS,
    ) -> None:
        self.model, self.sources, self.lengths = model, sources, lengths  # lengths: (tokens, crops in a batch), drawn in turn
        self.weights = weights
        self.heads = DenseHeads(model)
        self.module = nn.ModuleDict({"audio_tower": model.model.audio_tower, "heads": self.heads})
        model.model.audio_tower.embed_positions.weight.requires_grad_(False)

    def draw(self, rng: np.random.Generator) -> Crops:
        """Draw a batch."""
        length, count = self.lengths[rng.integers(len(self.lengths))]
        return draw_crops(rng, self.sources, length, count)

    def loss(self, batch: Crops) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        device = self.heads.norm.weight.device
        labels = {name: value.to(device) for name, value in batch.labels.items()}
        logits = self.heads(build.encode(self.model, batch.frames.to(device), batch.windows, batch.offsets))
        terms = dense_losses(logits, labels)
        total = sum(self.weights[name] * term for name, term in terms.items())
        numbers = {name: float(term.detach()) for name, term in terms.items()}
        return total, {**numbers, **dense_scores(logits, labels)}


def dense_losses(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One term per head over its known labels; quality counts only where there is a chord, WHOLE heads also for their mean."""
    terms = {}
    for name, value in logits.items():
        value, label = value.float(), labels[name]
        if name in FLAGS:
            known = (label != UNKNOWN_FLAG).float()
            target = label.float() / UNKNOWN_FLAG if name == "tags" else label.float()
            terms[name] = (
                F.binary_cross_entropy_with_logits(value, target.clamp(max=1), reduction="none") * known
            ).sum() / known.sum().clamp(min=1)
            continue
        if name == "quality":
            label = torch.where((labels["root"] == NO_CHORD) | (labels["root"] < 0), UNKNOWN_CLASS, label)
        terms[name] = _known_cross_entropy(value.flatten(0, 1), label.flatten())
        if name in WHOLE:
            terms[f"clip_{name}"] = _known_cross_entropy(value.mean(1), _whole(label))
    return terms


def _whole(label: torch.Tensor) -> torch.Tensor:
    """The class of crops that have one from end to end: (B, T) -> (B,)."""
    return torch.where((label == label[:, :1]).all(1), label[:, 0], UNKNOWN_CLASS)


def _known_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the known targets; 0 where there is none."""
    known = (target != UNKNOWN_CLASS).sum().clamp(min=1)
    return F.cross_entropy(logits, target, ignore_index=UNKNOWN_CLASS, reduction="sum") / known


@torch.no_grad()
def dense_scores(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, float]:
    """Accuracies of a batch over what is known: root, root with major/minor, families (F1), and of whole crops key, meter, style."""
    sounding = (labels["root"] != NO_CHORD) & (labels["root"] >= 0) & (labels["quality"] >= 0)
    root = (logits["root"].argmax(-1) == labels["root"])[sounding]
    minor = torch.tensor([name in MINOR_QUALITIES for name in QUALITIES], device=root.device)
    mode = (minor[logits["quality"].argmax(-1)] == minor[labels["quality"].clamp(min=0)])[sounding]
    numbers = {"root_acc": float(root.float().mean()), "majmin_acc": float((root & mode).float().mean())}
    known = labels["families"] != UNKNOWN_FLAG
    said, true = (logits["families"] > 0) & known, (labels["families"] == 1) & known
    numbers["families_f1"] = float(2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1))
    for name in WHOLE:
        truth = _whole(labels[name])
        right = (logits[name].float().mean(1).argmax(-1) == truth)[truth != UNKNOWN_CLASS]
        numbers[f"{name}_acc"] = float(right.float().mean())
    return {name: value for name, value in numbers.items() if value == value}


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
        messages = build_messages(turn.question, history=turn.history, audio=audio)
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

    def __init__(self, model: MusicFlamingoForConditionalGeneration, speech: Speech, batch: int = 48) -> None:
        self.model, self.speech, self.batch = model, speech, batch
        self.module = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})

    def draw(self, rng: np.random.Generator) -> list[Branch]:
        """Draw a batch."""
        return sorted((self.speech.branch(text_turn(rng), audio=False) for _ in range(self.batch)), key=lambda b: len(b.ids))

    def loss(self, batch: list[Branch]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        size = -(-len(batch) // TEXT_CHUNKS)
        total, weight, right, count = torch.zeros((), device=self.model.device), 0.0, 0, 0
        for at in range(0, len(batch), size):
            ids, weights = (part.to(self.model.device) for part in _padded(batch[at : at + size], self.speech.ids["<|endoftext|>"]))
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
    """A piece of a clip as the language model hears it: encoder output after RoTE (T, d_audio) float16, and what the ears can be asked.

    `certain` is what a caption may tell of it by ear, see `train.certain`; times are seconds of the clip.
    """

    clip: Clip
    start: float
    end: float
    tokens: np.ndarray
    heard: dict[str, str]
    certain: dict[str, str]


@dataclass(frozen=True)
class Packed:
    """Places for a song's audio, followed by several conversations about it, which see the audio and themselves only."""

    ids: torch.Tensor  # (B, T)
    weights: torch.Tensor  # (B, T)
    positions: torch.Tensor  # (B, T)
    mask: torch.Tensor  # (B, 1, T, T) True where attended
    audio: slice  # of T


def pack(speech: Speech, n_audio: int, turns: Sequence[Sequence[Turn]]) -> Packed:
    """Rows of one audio length: shared prefix up to the audio's end, then branches that restart their positions after it."""
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
    return Packed(ids, weights, positions, mask, slice(at, at + n_audio))


def packed_hidden(model: MusicFlamingoForConditionalGeneration, packed: Packed, audio: torch.Tensor) -> torch.Tensor:
    """Last hidden states (B, T, d_text) of packed rows with their audio (B, n, d_audio)."""
    device = audio.device
    embeds = model.model.language_model.embed_tokens(packed.ids.to(device))
    heard = model.model.multi_modal_projector(audio).to(embeds.dtype)
    embeds = torch.cat([embeds[:, : packed.audio.start], heard, embeds[:, packed.audio.stop :]], dim=1)
    return model.model.language_model(
        inputs_embeds=embeds, attention_mask=packed.mask.to(device), position_ids=packed.positions.to(device), use_cache=False
    ).last_hidden_state


def packed_loss(model: MusicFlamingoForConditionalGeneration, packed: Packed, audio: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Mean loss of the answers and the share of their tokens that is right."""
    hidden = packed_hidden(model, packed, audio)
    loss, weight, right = next_token_loss(model, hidden, packed.ids.to(hidden.device), packed.weights.to(hidden.device))
    return loss / weight, right / int((packed.weights[:, 1:] > 0).sum())


def rows_that_fit(length: int, tokens: int, turns: int) -> int:
    """Songs in a batch of about `tokens` positions, an exchange taking some 68."""
    return max(1, min(12, tokens // (length + 68 * turns)))


@torch.no_grad()
def hear(model: MusicFlamingoForConditionalGeneration, log_mel: LogMel, samples: np.ndarray) -> np.ndarray:
    """Audio as the language model's projector receives it: (n,) -> (T, d_audio) float16, windows of 30 s as at inference."""
    frames = window_frames(log_mel, samples).astype(np.float32)
    whole = frames[: len(frames) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN].T[None]
    return build.encode_windows(model, torch.from_numpy(whole).to(model.device))[0].half().cpu().numpy()


class AlignObjective:
    """Questions about audio with frozen ears: cached excerpts, many conversations to each; some text alone keeps the grounding."""

    def __init__(
        self,
        model: MusicFlamingoForConditionalGeneration,
        speech: Speech,
        sources: Sequence[tuple[dict[int, list[Excerpt]], float]],  # excerpts by their number of tokens, and the share of the source
        *,
        tokens: int = 4500,
        turns: int = 6,
        text_batch: int = 28,
        thinking: float = THOUGHTFUL,
    ) -> None:
        self.model, self.speech, self.tokens, self.turns, self.thinking = model, speech, tokens, turns, thinking
        self.sources = [(excerpts, share) for excerpts, share in sources if excerpts]
        self.text = TextObjective(model, speech, text_batch)
        self.module = nn.ModuleDict({"multi_modal_projector": model.model.multi_modal_projector, **self.text.module})

    def draw(self, rng: np.random.Generator) -> tuple[Packed, torch.Tensor, list[Branch]]:
        """Draw a batch."""
        shares = np.array([share for _, share in self.sources])
        excerpts = self.sources[rng.choice(len(self.sources), p=shares / shares.sum())][0]
        lengths = sorted(excerpts)
        sizes = np.array([len(excerpts[length]) for length in lengths], dtype=np.float64) ** 0.5
        length = lengths[rng.choice(len(lengths), p=sizes / sizes.sum())]
        count = rows_that_fit(length, self.tokens, self.turns)
        chosen = [excerpts[length][rng.integers(len(excerpts[length]))] for _ in range(count)]
        packed = pack(self.speech, length, [audio_turns(rng, e.heard, self.turns, self.thinking, e.certain) for e in chosen])
        return packed, torch.from_numpy(np.stack([e.tokens for e in chosen]).astype(np.float32)), self.text.draw(rng)

    def loss(self, batch: tuple[Packed, torch.Tensor, list[Branch]]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        packed, audio, texts = batch
        loss, right = packed_loss(self.model, packed, audio.to(self.model.device))
        text_loss, numbers = self.text.loss(texts)
        return loss + text_loss, {"token_acc": right, "text_acc": numbers["token_acc"], "audio_tokens": audio.shape[1]}


@dataclass(frozen=True)
class Song:
    """An excerpt that is still to be heard: frames (n_mels, 4 T), dense labels (T, …) and what it may be asked and told of."""

    frames: np.ndarray
    labels: dict[str, np.ndarray]
    heard: dict[str, str]
    certain: dict[str, str]


class JointObjective:
    """Ears, projector and language model together: questions about audio of whole windows, dense labels and text beside them."""

    def __init__(
        self,
        model: MusicFlamingoForConditionalGeneration,
        speech: Speech,
        draw_songs: Callable[[np.random.Generator], list[Song]],
        *,
        turns: int = 6,
        text_batch: int = 28,
        dense: float = 0.3,
        thinking: float = THOUGHTFUL,
    ) -> None:
        self.thinking = thinking
        self.model, self.speech, self.draw_songs, self.turns, self.dense = model, speech, draw_songs, turns, dense
        self.text, self.heads = TextObjective(model, speech, text_batch), DenseHeads(model)
        parts = {"audio_tower": model.model.audio_tower, "multi_modal_projector": model.model.multi_modal_projector, "heads": self.heads}
        self.module = nn.ModuleDict({**parts, **self.text.module})
        model.model.audio_tower.embed_positions.weight.requires_grad_(False)

    def draw(self, rng: np.random.Generator) -> tuple[list[Song], Packed, list[Branch]]:
        """Draw a batch of songs of one length."""
        songs = self.draw_songs(rng)
        n_audio = songs[0].frames.shape[1] // FRAMES_PER_TOKEN
        songs = [dataclasses.replace(song, frames=augment(rng, song.frames.T).T) for song in songs]
        turns = [audio_turns(rng, song.heard, self.turns, self.thinking, song.certain) for song in songs]
        return songs, pack(self.speech, n_audio, turns), self.text.draw(rng)

    def loss(self, batch: tuple[list[Song], Packed, list[Branch]]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, with numbers worth logging."""
        songs, packed, texts = batch
        device = self.model.device
        frames = torch.from_numpy(np.stack([song.frames for song in songs])).to(device)
        labels = {name: torch.from_numpy(np.stack([song.labels[name] for song in songs])).to(device) for name in songs[0].labels}
        hidden = build.encode_windows(self.model, frames)
        loss, right = packed_loss(self.model, packed, hidden)
        text_loss, numbers = self.text.loss(texts)
        logits = self.heads(hidden)
        dense = sum(DENSE_WEIGHTS[name] * term for name, term in dense_losses(logits, labels).items())
        known = {"token_acc": right, "text_acc": numbers["token_acc"], "dense": float(dense.detach()), "audio_tokens": hidden.shape[1]}
        return loss + text_loss + self.dense * dense, known | dense_scores(logits, labels)
