"""How good a small model is: keys and chords it names, facts it copies, what it admits not to know, beside constant answers and librosa.

Accuracies are shares with their standard error; MIREX weights are those of the audio key detection task.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import MusicFlamingoForConditionalGeneration

from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.measure.facts import pitch_class
from mflamingo_cli.tasks import TASKS, parse_chords, parse_key, parse_meter, parse_tempo, split_thinking, think_prompt
from mflamingo_cli.train import build
from mflamingo_cli.train.compose import QUALITIES
from mflamingo_cli.train.data import CANNOT, UNKNOWN, Facts, Turn, heard_facts, make_turn, random_facts, spoken_list
from mflamingo_cli.train.frames import FRAMES_PER_TOKEN, MINI_MEL, NO_CHORD, Clip, prepared, window_frames
from mflamingo_cli.train.loop import CHECKPOINT
from mflamingo_cli.train.objectives import DenseHeads, Excerpt, Speech

CLAIM_SIGMAS = 2.0  # an ability is claimed when it beats its constant answer by this many standard errors
MIREX = {0: 1.0, "fifth": 0.5, "relative": 0.3, "parallel": 0.2}
KOSTKA_PAYNE = {
    "major": (0.748, 0.060, 0.488, 0.082, 0.670, 0.460, 0.096, 0.715, 0.104, 0.366, 0.057, 0.400),
    "minor": (0.712, 0.084, 0.474, 0.618, 0.049, 0.460, 0.105, 0.747, 0.404, 0.067, 0.133, 0.330),
}  # key profiles of Temperley after Kostka & Payne, the best of the published ones on chroma_cqt


@dataclass(frozen=True)
class Score:
    """One figure with its constant answer; both are means over `n` items, `margin_se` is the standard error of their paired difference."""

    name: str
    value: float
    constant: float | None
    n: int
    margin_se: float | None = None

    @property
    def error(self) -> float:
        """Standard error of a share."""
        return math.sqrt(max(self.value * (1 - self.value), 1e-9) / max(self.n, 1))

    @property
    def claimed(self) -> bool:
        """Whether it beats the constant answer clearly."""
        if self.constant is None:
            return False
        return self.value - self.constant > CLAIM_SIGMAS * (self.error if self.margin_se is None else self.margin_se)


def paired(name: str, values: Sequence[float], constants: Sequence[float]) -> Score:
    """A score from item values of the model and of the constant answer."""
    difference = np.asarray(values, dtype=float) - np.asarray(constants, dtype=float)
    return Score(
        name, float(np.mean(values)), float(np.mean(constants)), len(values), float(difference.std() / math.sqrt(max(len(difference), 1)))
    )


# --- hearing and speaking ------------------------------------------------------------------------------------------


@torch.no_grad()
def hear(model: MusicFlamingoForConditionalGeneration, log_mel: LogMel, samples: np.ndarray) -> np.ndarray:
    """Audio as the language model's projector receives it: (n,) -> (T, d_audio) float16, windows of 30 s as at inference."""
    size, table, tower, parts = log_mel.config.window_samples, build.rote_of(model), model.model.audio_tower, []
    for index, at in enumerate(range(0, len(samples), size)):
        frames = window_frames(log_mel, samples[at : at + size]).astype(np.float32)
        tokens = len(frames) // FRAMES_PER_TOKEN
        hidden = torch.nn.functional.gelu(tower.conv1(torch.from_numpy(frames[: tokens * FRAMES_PER_TOKEN].T[None])))
        hidden = torch.nn.functional.gelu(tower.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + tower.embed_positions.weight[: hidden.shape[1]]
        for layer in tower.layers:
            hidden = layer(hidden, None)
        hidden = tower.layer_norm(tower.avg_pooler(hidden.permute(0, 2, 1)).permute(0, 2, 1))
        parts.append(build.turn(hidden, table, torch.tensor([index]), torch.tensor([0]))[0])
    return torch.cat(parts).half().numpy()


@torch.no_grad()
def speak(
    model: MusicFlamingoForConditionalGeneration, speech: Speech, prompts: Sequence[tuple[np.ndarray | None, str]], max_new: int = 220
) -> list[str]:
    """Greedy answers to (audio, question) pairs, left-padded in one batch."""
    rows = []
    for audio, question in prompts:
        turn = speech.branch(Turn(question, ""), audio is not None)
        ids = turn.ids[: turn.mask.index(True)]
        embeds = model.model.language_model.embed_tokens(torch.tensor(ids))
        if audio is not None:
            at = ids.index(speech.ids["<sound>"])
            heard = model.model.multi_modal_projector(torch.from_numpy(audio.astype(np.float32)))
            embeds = torch.cat([embeds[:at], heard, embeds[at + 1 :]])
        rows.append(embeds)
    longest = max(len(row) for row in rows)
    embeds = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    ids = model.generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=max_new, do_sample=False, use_cache=True,
        eos_token_id=speech.ids["<|im_end|>"], pad_token_id=speech.ids["<|endoftext|>"],
    )  # fmt: skip
    return [speech.tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in ids]


# --- music -----------------------------------------------------------------------------------------------------------


def parsed_key(text: str | None) -> tuple[int, str] | None:
    """Pitch class and mode of a named key."""
    name = parse_key(text or "")
    if name is None:
        return None
    tonic, mode = name.split()
    return pitch_class(tonic), mode


def mirex(truth: tuple[int, str], claim: tuple[int, str] | None) -> float:
    """1 exact, .5 a fifth away (same mode), .3 relative, .2 parallel."""
    if claim is None:
        return 0.0
    step = (claim[0] - truth[0]) % 12
    if claim[1] == truth[1]:
        return MIREX[0] if step == 0 else MIREX["fifth"] if step in (5, 7) else 0.0
    if step == (9 if truth[1] == "major" else 3):
        return MIREX["relative"]
    return MIREX["parallel"] if step == 0 else 0.0


def chord_set(names: Sequence[str]) -> set[tuple[int, str]]:
    """Chords without their spelling."""
    found = set()
    for name in names:
        match = re.fullmatch(r"([A-G][#b]?)(.*)", name)
        if match:
            found.add((pitch_class(match[1]), match[2]))
    return found


def set_f1(truth: set[Any], claim: set[Any]) -> float:
    """F1 of two sets."""
    return 2 * len(truth & claim) / max(1, len(truth) + len(claim))


def key_scores(prefix: str, truths: Sequence[tuple[int, str]], claims: Sequence[tuple[int, str] | None]) -> list[Score]:
    """Exact and MIREX-weighted, each beside the commonest key of the truth."""
    constant = Counter(truths).most_common(1)[0][0]
    weights = [mirex(truth, claim) for truth, claim in zip(truths, claims, strict=True)]
    best = max(set(truths), key=lambda k: sum(mirex(t, k) for t in truths))
    return [
        paired(f"{prefix} exact", [float(t == c) for t, c in zip(truths, claims, strict=True)], [float(t == constant) for t in truths]),
        paired(f"{prefix} MIREX", weights, [mirex(t, best) for t in truths]),
    ]


def chord_scores(prefix: str, truths: Sequence[Sequence[str]], claims: Sequence[Sequence[str]]) -> list[Score]:
    """Main chords as a set (F1) and the first of them, beside the best constant answers found among the truths."""
    sets, said = [chord_set(t) for t in truths], [chord_set(c) for c in claims]
    candidates = [set(c) for c in {frozenset(s) for s in sets}]
    best = max(candidates, key=lambda c: sum(set_f1(s, c) for s in sets))
    firsts = [next(iter(chord_set(t[:1])), None) for t in truths]
    first = Counter(firsts).most_common(1)[0][0]
    named = [next(iter(chord_set(c[:1])), None) for c in claims]
    return [
        paired(f"{prefix} F1", [set_f1(t, c) for t, c in zip(sets, said, strict=True)], [set_f1(t, best) for t in sets]),
        paired(f"{prefix} first", [float(t == c) for t, c in zip(firsts, named, strict=True)], [float(t == first) for t in firsts]),
    ]


def excerpts(
    model: MusicFlamingoForConditionalGeneration, clips: Sequence[Clip], seconds: float, anywhere: bool = False
) -> Iterator[tuple[Excerpt, np.ndarray]]:
    """The first `seconds` of every clip that is long enough, or any, with the samples; for 60 s shorter clips are looped."""
    log_mel = LogMel(MINI_MEL)
    for clip in clips:
        samples, count = clip.samples(), int(seconds * 16_000)
        if len(samples) < count:
            if seconds <= 30:
                continue
            samples = np.tile(samples, -(-count // len(samples)))
        start = int(np.random.default_rng(clip.row["index"]).integers(len(samples) - count + 1)) if anywhere else 0
        part, at = samples[start : start + count], start / 16_000
        heard = heard_facts(clip.row, at, min(at + seconds, clip.row["duration"])) if seconds <= 30 else heard_facts(clip.row, 0.0, seconds)
        yield Excerpt(hear(model, log_mel, part), heard), part


def spoken(
    model: MusicFlamingoForConditionalGeneration, speech: Speech, clips: Sequence[Clip], seconds: float, anywhere: bool, batch: int = 16
) -> list[Score]:
    """Key and chords as the language model answers them, without any fact in the prompt."""
    heard = [excerpt for excerpt, _ in excerpts(model, clips, seconds, anywhere)]
    label = f"{seconds:g} s" + (" anywhere" if anywhere else "")
    answers: dict[str, list[str]] = {"key": [], "chords": []}
    for at in range(0, len(heard), batch):
        part = heard[at : at + batch]
        for name, found in answers.items():
            found += speak(model, speech, [(e.tokens, TASKS[name].prompt) for e in part], 40)
    keys = [parsed_key(e.heard["key"]) for e in heard]
    assert all(keys)
    scores = key_scores(f"key {label}", [k for k in keys if k], [parsed_key(a) for a in answers["key"]])
    return scores + chord_scores(
        f"chords {label}", [e.heard["chords"].split() for e in heard], [parse_chords(a) for a in answers["chords"]]
    )


@torch.no_grad()
def dense(model: MusicFlamingoForConditionalGeneration, heads: DenseHeads, clips: Sequence[Clip], seconds: float) -> list[Score]:
    """Readings of the training heads on whole excerpts: root, major/minor, key."""
    minor = np.array([name in ("min", "min7", "dim") for name in QUALITIES])
    roots, majmins, roots_0, majmins_0, truths, claims = [], [], [], [], [], []
    labels_all: Counter[tuple[int, bool]] = Counter()
    rows = []
    for clip, (excerpt, _) in zip(clips, excerpts(model, clips, seconds), strict=False):
        tokens = model.model.multi_modal_projector(torch.from_numpy(excerpt.tokens.astype(np.float32))[None])
        logits = {name: value[0].float().numpy() for name, value in heads(tokens).items()}
        labels = {name: value[: len(excerpt.tokens)] for name, value in clip.labels().items()}
        size = len(labels["root"])
        on = labels["root"] != NO_CHORD
        root = (logits["root"][:size].argmax(-1) == labels["root"])[on]
        mode = (minor[logits["quality"][:size].argmax(-1)] == minor[labels["quality"]])[on]
        labels_all.update(zip(labels["root"][on].tolist(), minor[labels["quality"]][on].tolist(), strict=True))
        rows.append((labels["root"][on], minor[labels["quality"]][on]))
        roots.append(float(root.mean()))
        majmins.append(float((root & mode).mean()))
        best = int(logits["key"].mean(0).argmax())
        truths.append((clip.row["tonic"], clip.row["mode"]))
        claims.append((best % 12, "major" if best < 12 else "minor"))
    common = labels_all.most_common(1)[0][0]
    for root, is_minor in rows:
        roots_0.append(float((root == common[0]).mean()))
        majmins_0.append(float(((root == common[0]) & (is_minor == common[1])).mean()))
    return [
        paired(f"head root {seconds:g} s", roots, roots_0),
        paired(f"head majmin {seconds:g} s", majmins, majmins_0),
        *key_scores(f"head key {seconds:g} s", truths, claims),
    ]


def librosa_key(samples: np.ndarray) -> tuple[int, str]:
    """The baseline: mean chroma_cqt correlated with Kostka-Payne profiles."""
    import librosa

    chroma = librosa.feature.chroma_cqt(y=samples, sr=16_000).mean(axis=1)
    best = max(
        ((np.corrcoef(np.roll(profile, tonic), chroma)[0, 1], tonic, mode) for mode, profile in KOSTKA_PAYNE.items() for tonic in range(12))
    )
    return int(best[1]), str(best[2])


# --- facts ---------------------------------------------------------------------------------------------------------------

_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "tempo": lambda text, value: parse_tempo(text) == float(value) and f"{value} BPM" in text,
    "key": lambda text, value: parse_key(text) == value,
    "meter": lambda text, value: parse_meter(text) == value,
    "chords": lambda text, value: re.search(r"chords? |through |around ", text) is not None and _bounded(spoken_list(value.split()), text),
    "sections": lambda text, value: re.search(rf"(?<![\d.]){value} sections?\b", text) is not None,
    "loudness": lambda text, value: re.search(rf"(?<![\d.\-]){re.escape(value)} LUFS", text) is not None,
    "duration": lambda text, value: re.search(rf"(?<![\d.]){value} s\b", text) is not None,
}


def _bounded(phrase: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z#]){re.escape(phrase)}(?![A-Za-z0-9#])", text) is not None


def copied(text: str, facts: Facts) -> dict[str, bool]:
    """Which given facts a caption says exactly."""
    return {name: _CHECKS[name](text, value) for name, value in facts.items()}


def invented(text: str, facts: Facts) -> bool:
    """Whether a caption holds a number or a key that no fact gave."""
    given = " ".join(facts.values())
    numbers = set(re.findall(r"\d+(?:\.\d+)?", re.sub(r"[A-G][#b]?[A-Za-z]*\d\w*", "", text)))
    known = set(re.findall(r"\d+(?:\.\d+)?", given))
    key = parse_key(text)
    return bool(numbers - known) or (key is not None and "key" in facts and key != facts["key"])


def grounding(
    model: MusicFlamingoForConditionalGeneration, speech: Speech, audio: Sequence[Excerpt], n: int, seed: int = 99, batch: int = 12
) -> list[Score]:
    """Random facts in prompts of all caption styles, with and without audio: facts copied, captions without a slip, inventions."""
    rng = np.random.default_rng(seed)
    fields: dict[str, list[float]] = {}
    facts_right: list[float] = []
    whole: list[float] = []
    false: list[float] = []
    jobs = []
    for index in range(n):
        facts = random_facts(rng, float(rng.choice([0.5, 1.0]))) or random_facts(rng, 1.0)
        turn = make_turn(rng, "caption:" + ("full", "short", "technical", "critic")[index % 4], facts, None)
        sound = audio[int(rng.integers(len(audio)))].tokens if len(audio) and index % 2 else None
        jobs.append((facts, sound, turn.question))
    for at in range(0, n, batch):
        part = jobs[at : at + batch]
        for (facts, _, _), text in zip(part, speak(model, speech, [(sound, question) for _, sound, question in part]), strict=True):
            said = split_thinking(text).answer or ""
            marks = copied(said, facts)
            facts_right += [float(ok) for ok in marks.values()]
            for name, ok in marks.items():
                fields.setdefault(name, []).append(float(ok))
            whole.append(float(all(marks.values())))
            false.append(float(invented(said, facts)))
    return [
        Score("facts copied exactly", float(np.mean(facts_right)), 0.0, len(facts_right)),
        *(Score(f"copied {name}", float(np.mean(marks)), 0.0, len(marks)) for name, marks in sorted(fields.items())),
        Score("captions with every fact exact", float(np.mean(whole)), 0.0, len(whole)),
        Score("captions with an invented number or key", float(np.mean(false)), None, len(false)),
    ]


def honesty(
    model: MusicFlamingoForConditionalGeneration, speech: Speech, audio: Sequence[Excerpt], n: int, seed: int = 5, batch: int = 16
) -> list[Score]:
    """Questions the ears cannot answer, and the format of thinking."""
    rng = np.random.default_rng(seed)
    questions = [UNKNOWN[i % len(UNKNOWN)].format(m=1, s="30") for i in rng.permutation(n)]
    sounds = [audio[int(rng.integers(len(audio)))].tokens for _ in questions]
    silent: list[float] = []
    formed: list[float] = []
    for at in range(0, n, batch):
        pairs = list(zip(sounds[at : at + batch], questions[at : at + batch], strict=True))
        silent += [float(text.strip() == CANNOT) for text in speak(model, speech, pairs, 60)]
    for at in range(0, n // 2, batch):
        pairs = [(sound, think_prompt(TASKS["key"].prompt)) for sound in sounds[at : at + batch]]
        for text in speak(model, speech, pairs, 90):
            thought = split_thinking(text)
            formed.append(float(bool(thought.thinking) and not thought.truncated and parsed_key(thought.answer) is not None))
    return [
        Score("unanswerable questions admitted", float(np.mean(silent)), 0.0, len(silent)),
        Score("think format kept", float(np.mean(formed)), 0.0, len(formed)),
    ]


@dataclass(frozen=True)
class EvalConfig:
    """What to measure: `clips` of a split at lengths of `seconds`, `facts` grounded captions, dense `heads` of a run, librosa beside."""

    split: str = "test"
    clips: int | None = None
    seconds: tuple[float, ...] = (20.0,)
    anywhere: bool = False  # excerpts from anywhere in a clip, not from its start
    facts: int = 400
    heads: str | None = None
    baseline: int = 0


def report(directory: Path, work: Path, config: EvalConfig) -> Iterator[Score]:
    """All figures of a checkpoint directory that are asked for, in the order of the card."""
    from mflamingo_cli.core.model import load
    from mflamingo_cli.train.stages import load_parts

    model = load(directory)
    speech = Speech(Tokenizer.from_file(str(directory / "tokenizer.json")), (directory / "chat_template.jinja").read_text(encoding="utf-8"))
    clips = prepared(work / "data" / config.split, config.clips)
    for seconds in config.seconds:
        yield from spoken(model, speech, clips, seconds, config.anywhere)
        if config.heads is not None:
            reader = DenseHeads(model.config.text_config.hidden_size).eval()
            load_parts(model, work / "runs" / config.heads / CHECKPOINT, reader)  # with the projector that the heads were trained on
            yield from dense(model, reader, clips, seconds)
            model = load(directory)
    if config.facts:
        audio = [excerpt for excerpt, _ in excerpts(model, clips[:40], 20)]
        yield from grounding(model, speech, audio, config.facts)
        yield from honesty(model, speech, audio, max(16, config.facts // 3))
    if config.baseline:
        rows = [(clip.row, clip.samples()[: 20 * 16_000]) for clip in clips[: config.baseline]]
        keys = [(row["tonic"], row["mode"]) for row, _ in rows]
        yield from key_scores("librosa key 20 s", keys, [librosa_key(samples) for _, samples in rows])
