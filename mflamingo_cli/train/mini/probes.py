"""Linear probes of the encoder: what they read from audio tokens, their labels and losses; and the encoder on whole songs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F

from mflamingo_cli.core.model import Model, encode_crops, load
from mflamingo_cli.errors import ModelError
from mflamingo_cli.files import write_atomic
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.mini.frames import FRAMES_PER_TOKEN, NO_CHORD, ONSETS, WINDOW_TOKENS, Clip, resample, window_frames
from mflamingo_cli.train.mini.synth.grooves import STYLES as STYLE_TABLE
from mflamingo_cli.train.mini.synth.harmony import QUALITIES
from mflamingo_cli.train.mini.synth.parts import FAMILIES

METERS = ("4/4", "3/4", "6/8")
STYLES = tuple(dict.fromkeys(style for _, style, *_ in STYLE_TABLE if style))  # of the synthetic clips
UNKNOWN_CLASS, UNKNOWN_FLAG = -1, 255  # labels that no loss counts: of a class, of a yes-or-no
HEAD_SIZES = {
    "root": 13, "quality": len(QUALITIES), "bass": 13, "chroma": 12, "beat": 3, "onsets": len(ONSETS), "families": len(FAMILIES) + 1,
    "vocals": 1, "tags": len(TAG_NAMES), "key": 24, "meter": len(METERS), "style": len(STYLES),
}  # fmt: skip
MINOR_QUALITIES = ("min", "min7", "dim")
FLAGS = ("chroma", "onsets", "families", "vocals", "tags")  # read by sigmoids; the other heads by a softmax
SOFT = ("tags", "vocals")  # flags whose labels are a teacher's probabilities, of 255
WHOLE = ("key", "meter", "style")  # one label for the clip: learned from every token and from their mean
PROBE_WEIGHTS = {  # of the terms of the loss, where a stage names no others
    "root": 1.0, "quality": 0.7, "bass": 0.5, "chroma": 3.0, "beat": 0.5, "onsets": 1.0, "families": 3.0, "vocals": 0.5, "tags": 4.0,
    "key": 0.5, "meter": 0.2, "style": 0.15, "clip_key": 0.5, "clip_meter": 0.4, "clip_style": 0.35,
}  # fmt: skip


class LinearProbes(nn.Module):
    """Linear probes of audio tokens, through a projector of their own shape: what the encoder is trained with and measured by."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        width, config = model.config.audio_config.hidden_size, copy.deepcopy(model.config)
        self.project = copy.deepcopy(model.model.multi_modal_projector)  # a language model as wide starts from this one
        if config.text_config.hidden_size != width:
            config.text_config.hidden_size = width
            self.project = type(self.project)(config)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEAD_SIZES.items()})

    def forward(self, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encoder output after RoTE (B, T, d_audio) -> per head logits (B, T, classes)."""
        tokens = self.norm(self.project(hidden))
        return {name: head(tokens) for name, head in self.heads.items()}


HEADS = "heads.safetensors"  # of a checkpoint directory: what its encoder was trained with, for evaluation


def save_probes(heads: LinearProbes, directory: Path) -> None:
    """Write heads in bf16 beside a checkpoint."""
    with write_atomic(directory / HEADS) as file:
        file.write(save({name: value.to(torch.bfloat16).contiguous() for name, value in heads.state_dict().items()}))


def load_probes(directory: Path, model: Model) -> LinearProbes:
    """The heads beside a checkpoint; those of another version of the program have other shapes and are refused."""
    heads = LinearProbes(model)
    try:
        heads.load_state_dict({name: value.float() for name, value in load_file(directory / HEADS).items()})
    except RuntimeError as error:
        raise ModelError(f"{directory / HEADS}: not the heads of this version; export the checkpoint again, or delete them") from error
    return heads.eval()


@torch.no_grad()
def probe_logits(heads: LinearProbes, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of every head for the tokens of an excerpt: (T, d_audio) -> (T, classes) each."""
    device = heads.norm.weight.device
    logits = heads(torch.from_numpy(tokens.astype(np.float32)).to(device)[None])
    return {name: value[0].float().cpu().numpy() for name, value in logits.items()}


def labels_of(clip: Clip, start: int, length: int, rate: float = 1.0) -> dict[str, np.ndarray]:
    """All labels of `length` tokens of a clip from token `start`, (length, …) int64, the clip played at a rate.

    Keys: 0-11 major by tonic, 12-23 minor.
    """
    source_length = round(length * rate)
    known, found = {name: values[start : start + source_length] for name, values in clip.token_labels().items()}, {}
    if rate != 1.0:
        at = np.minimum(((np.arange(length) + 0.5) * rate).astype(int), source_length - 1)
        known = resample(known, at, np.minimum(((np.arange(source_length) + 0.5) / rate).astype(int), length - 1))
    for name, size in HEAD_SIZES.items():
        if name in WHOLE:
            continue
        shape = (length, size) if name in FLAGS else (length,)
        unknown = UNKNOWN_FLAG if name in FLAGS else UNKNOWN_CLASS
        values = known[name].astype(np.int64) if name in known else np.full(shape, unknown)
        found[name] = values.reshape(shape) if name in FLAGS else np.where(values == UNKNOWN_FLAG, UNKNOWN_CLASS, values)
    found["vocals"] = _singing(known, found["vocals"])
    for name, names in (("meter", METERS), ("style", STYLES)):
        found[name] = np.full(length, names.index(clip.row[name]) if clip.row.get(name) in names else UNKNOWN_CLASS)
    key = clip.row["tonic"] + 12 * (clip.row["mode"] == "minor") if clip.row.get("mode") is not None else UNKNOWN_CLASS
    return found | {"key": known["key"].astype(np.int64) if "key" in known else np.full(length, key)}  # the one of the moment, if known


def _singing(known: dict[str, np.ndarray], vocals: np.ndarray) -> np.ndarray:
    """Probabilities of singing, (T, 1) of 255: the teacher's of a recording, or whether it is known that someone sings."""
    if "singing" in known:
        return known["singing"].astype(np.int64).reshape(vocals.shape)
    return np.where(vocals == 1, UNKNOWN_FLAG - 1, vocals)


def probe_losses(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One term per head over its known labels; quality counts only where there is a chord, WHOLE heads also for their mean."""
    terms = {}
    for name, value in logits.items():
        value, label = value.float(), labels[name]
        if name in FLAGS:
            known = (label != UNKNOWN_FLAG).float()
            target = label.float() / UNKNOWN_FLAG if name in SOFT else label.float()
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
def probe_accuracies(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, float]:
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


# --- songs ---------------------------------------------------------------------------------------------------------------


def encode_songs(model: Model, frames: torch.Tensor) -> torch.Tensor:
    """Encoder output after RoTE of songs of one length, window by window: (B, n_mels, 4 T) -> (B, T, d_audio)."""
    parts = []
    for index, window in enumerate(frames.split(FRAMES_PER_TOKEN * WINDOW_TOKENS, dim=2)):
        parts.append(encode_crops(model, window, torch.full((len(frames),), index), torch.zeros(len(frames), dtype=torch.long)))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def encode_samples(model: Model, samples: np.ndarray) -> np.ndarray:
    """Audio as the language model's projector receives it: (n,) -> (T, d_audio) float16, windows of 30 s as at inference."""
    frames = window_frames(samples).astype(np.float32)
    whole = frames[: len(frames) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN].T[None]
    return encode_songs(model, torch.from_numpy(whole).to(model.device))[0].half().cpu().numpy()


class ProbedEncoder:
    """The encoder of a checkpoint directory that holds `heads.safetensors`, read by these probes."""

    def __init__(self, directory: Path) -> None:
        self.model = load(directory).eval()
        self.probes = load_probes(directory, self.model)

    def logits(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """What each probe reads from audio: (n,) -> (T, classes) each."""
        return probe_logits(self.probes, encode_samples(self.model, samples))
