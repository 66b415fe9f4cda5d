"""What can be read from an audio encoder, layer by layer, by a linear reading: voice, its language, genre, instruments, key, chords, beat.

    python -m tests.bench.probe encode MODEL [--music FOLDER] [--clips FOLDER [--voices FOLDER]] --out FEATURES
    python -m tests.bench.probe read FEATURES...
    python -m tests.bench.probe measure FEATURES --music FOLDER

MODEL is a checkpoint directory of any family. `--music` holds a folder for each unpacked Debian package, as for `ears`, whose weak labels
are used; `--clips` is a split that `train run` rendered, whose labels are exact. One window is encoded of each file, once: what is needed
of it is kept in FEATURES, so a run that was stopped goes on. Every reading is a ridge regression that is scored on packages (recordings)
or soundfonts (clips) that it was not fitted on; singing in recordings, of which one package has most, on single recordings left out.
`measure` scores what the program measures of the same windows without a model.

`--voices` holds the unpacked Debian packages fillets-ng-data-cs and fillets-ng-data-nl: the same dialogues, spoken in Czech and in
Dutch by two actors each. They are laid over the clips, and their language is read of the role that was not fitted on, so of other people.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from mflamingo_cli.core.audio import Audio, checked_windows, load
from mflamingo_cli.core.mel import LogMel
from mflamingo_cli.errors import AudioError
from tests.bench.ears import LEAST_BYTES, SUFFIXES, labels

WINDOW_S = 30.0
PER_PACKAGE = 12  # tracks
FRAMES = 48  # of a window that are kept for what changes from moment to moment
LABEL_S = 0.04
RIDGE = 1.0  # of every reading, beside features of variance 1: chosen before anything was read
GENRES = ("metal", "rock", "classical", "electronic", "ambient")
LANGUAGES = ("cs", "nl")
VOICED, LINES = 24, 6  # windows of an actor, and lines in each
FEWEST = 8  # windows of either kind, from which a reading is scored


@dataclass(frozen=True)
class Source:
    """A window of music: where it is, the group that is left out together, and what is known of it."""

    name: str
    path: Path
    start_s: float
    group: str
    known: dict[str, object]
    spoken: tuple[Path, ...] = ()  # lines that are laid over it, one after another


def recordings(music: Path) -> Iterator[Source]:
    """A window from the middle of some files of every package for which `ears.LABELS` has words."""
    import soundfile

    for package in sorted(path for path in music.iterdir() if path.is_dir()):
        files = sorted(path for path in package.rglob("*") if path.suffix in SUFFIXES and path.stat().st_size >= LEAST_BYTES)
        found = []
        for path in files:
            try:
                with soundfile.SoundFile(path) as file:
                    genre, duration = file.copy_metadata().get("genre"), file.frames / file.samplerate
            except soundfile.LibsndfileError:
                continue
            if (words := labels(path.relative_to(music), genre)) and duration >= WINDOW_S:
                found.append((path, middle(path), words))
        for path, start_s, words in found[:: max(1, len(found) // PER_PACKAGE)][: PER_PACKAGE + 1]:
            name = hashlib.sha256(str(path.relative_to(music)).encode()).hexdigest()[:12]
            yield Source(name, path, start_s, package.name, {"words": sorted(words), "file": str(path.relative_to(music))})


def middle(path: Path) -> float:
    """Where the window in the middle of a file begins."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        return max(0.0, file.frames / file.samplerate / 2 - WINDOW_S / 2)


def clips(folder: Path) -> Iterator[Source]:
    """The beginning of every rendered clip with music."""
    from mflamingo_cli.train.mini.manifest import read_manifest

    for row in sorted(read_manifest(folder), key=lambda row: row["index"]):
        if row.get("soundfont"):
            yield Source(f"clip-{row['index']:06d}", folder / row["audio"], 0.0, row["soundfont"], {"row": row, "folder": str(folder)})


def voices(folder: Path, rendered: Sequence[Source]) -> Iterator[Source]:
    """Rendered clips over which one actor speaks: `VOICED` for each language and role."""
    for role, actor in itertools.product("mv", LANGUAGES):
        lines = sorted(folder.glob(f"**/sound/*/{actor}/*-{role}-*.ogg"), key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
        for number in range(VOICED):
            under = rendered[(number * 7) % len(rendered)]  # the same music for all of them
            own = tuple(lines[LINES * number : LINES * (number + 1)])
            yield Source(f"voice-{actor}-{role}-{number:02d}", under.path, under.start_s, role, {"language": actor}, own)


def heard(source: Source) -> Audio:
    """The window of a source, with what is spoken over it: speech and music with the same RMS."""
    audio = load(source.path, start_s=source.start_s, end_s=source.start_s + WINDOW_S)
    if not source.spoken:
        return audio
    said = np.concatenate([load(path).samples for path in source.spoken])[: len(audio.samples)]
    mixed = audio.samples.copy()
    mixed[: len(said)] += said * (rms(audio.samples) / rms(said))
    return replace(audio, samples=mixed / max(1.0, float(np.abs(mixed).max())))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


# --- encoding ------------------------------------------------------------------------------------------------------------------------


class LayerReader:
    """A checkpoint's encoder, all layers of which are seen: behind the convolutions, behind each layer, and at the end."""

    def __init__(self, directory: Path) -> None:
        import torch

        from mflamingo_cli.core.model import load as load_model
        from quant.config import read_geometry

        torch.set_num_threads(1)
        self.geometry = read_geometry(directory)
        self.tower = load_model(directory).model.audio_tower
        self.mel = LogMel(self.geometry.mel)

    def __call__(self, audio: Audio) -> list[np.ndarray]:
        """Encode the first window: -> for every layer (tokens, d) float32, positions averaged in pairs as the encoder does at its end."""
        import torch

        window = next(iter(checked_windows(audio, self.geometry)))
        seen: list[np.ndarray] = []

        def keep(hidden: torch.Tensor) -> None:
            pairs = hidden[0, : 2 * window.n_tokens]
            seen.append(pairs.reshape(window.n_tokens, 2, -1).mean(1).numpy())

        hooks = [self.tower.layers[0].register_forward_pre_hook(lambda module, inputs: keep(inputs[0]))]
        hooks += [
            layer.register_forward_hook(lambda module, inputs, output: keep(output if torch.is_tensor(output) else output[0]))
            for layer in self.tower.layers
        ]
        try:
            with torch.inference_mode():
                mel = torch.from_numpy(self.mel(window.samples))[None]
                mask = torch.arange(mel.shape[-1])[None] < window.n_frames
                last = self.tower(mel, input_features_mask=mask, return_dict=True).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return [*seen, last[0, : window.n_tokens].numpy()]


def encode(model: Path, sources: list[Source], out: Path) -> None:
    """Keep of every window the mean and the deviation of each layer, and some of its frames."""
    out.mkdir(parents=True, exist_ok=True)
    reader: LayerReader | None = None
    for number, source in enumerate(sources, 1):
        path = out / f"{source.name}.npz"
        if path.exists():
            continue
        reader = reader or LayerReader(model)
        try:
            layers = reader(heard(source))
        except AudioError as error:
            print(f"{source.path}: {error}")
            continue
        seconds = WINDOW_S / reader.geometry.tokens_per_window  # of a token
        at = np.linspace(0.03, 0.97, FRAMES) * len(layers[0]) * seconds
        rows = np.minimum((at / seconds).astype(int), len(layers[0]) - 1)
        kept = {f"mean{i}": np.concatenate([layer.mean(0), layer.std(0)]) for i, layer in enumerate(layers)}
        kept |= {f"frames{i}": layer[rows].astype(np.float16) for i, layer in enumerate(layers)}
        with path.with_suffix(".part").open("wb") as file:
            known = json.dumps({"group": source.group, **source.known})
            np.savez_compressed(file, known=known, seconds=rows * seconds, token_s=seconds, **kept)
        path.with_suffix(".part").replace(path)
        print(f"{number}/{len(sources)} {source.group} {source.name}", flush=True)


# --- reading -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """What was kept of the windows of one model."""

    name: str
    known: list[dict]
    arrays: list[dict[str, np.ndarray]]

    @property
    def n_layers(self) -> int:
        return sum(name.startswith("mean") for name in self.arrays[0])


def read(folder: Path, names: set[str]) -> Features:
    """Read what was kept of the windows of these names."""
    known, arrays = [], []
    for name in sorted(names):
        with np.load(folder / name) as file:
            known.append(json.loads(str(file["known"])))
            arrays.append({name: file[name] for name in file.files if name != "known"})
    return Features(folder.name, known, arrays)


def fit(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a linear reading, (n, d) and (n, k) -> of other rows (m, k), by ridge regression in the smaller of both dimensions.

    NaN in `y` is not known: it stands for the mean of its column.
    """
    y = np.where(np.isnan(y), np.nanmean(y, axis=0), y)
    middle, scale, mean = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    scaled = (x - middle) / scale
    if len(x) < x.shape[1]:
        weights = scaled.T @ np.linalg.solve(scaled @ scaled.T + RIDGE * len(x) * np.eye(len(x)), y - mean)
    else:
        weights = np.linalg.solve(scaled.T @ scaled + RIDGE * len(x) * np.eye(x.shape[1]), scaled.T @ (y - mean))
    return lambda other: (other - middle) / scale @ weights + mean


def left_out(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Readings of every row by a fit on the other groups."""
    found = np.zeros_like(y, dtype=float)
    for group in np.unique(groups):
        inside = groups != group
        found[~inside] = fit(x[inside], y[inside])(x[~inside])
    return found


def auc(found: np.ndarray, right: np.ndarray) -> float:
    """Mean over columns of the area under the curve, of those that have both kinds."""
    values = []
    for column in range(right.shape[1]):
        positive, negative = found[right[:, column] > 0.5, column], found[right[:, column] <= 0.5, column]
        if len(positive) and len(negative):
            order = np.argsort(np.concatenate([positive, negative]), kind="stable")
            ranks = np.empty(len(order))
            ranks[order] = np.arange(1, len(order) + 1)
            values.append((ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))
    return float(np.mean(values)) if values else float("nan")


def accuracy(found: np.ndarray, right: np.ndarray) -> float:
    return float((found.argmax(1) == right.argmax(1)).mean())


def one_hot(values: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size)[values]


@dataclass(frozen=True)
class Task:
    """What is read: from which windows, of what kind (a window's mean or its frames), and how it is scored."""

    name: str
    frames: bool
    target: Callable[[dict, dict[str, np.ndarray]], np.ndarray | None]  # (k,), or (frames, k) with NaN where nothing is known
    score: Callable[[np.ndarray, np.ndarray], float]
    by_window: bool = False  # each window is left out alone: where one package has nearly all there is of a kind


def words_of(*names: str) -> Callable[[dict, dict[str, np.ndarray]], np.ndarray | None]:
    def target(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
        words = known.get("words", ())
        return np.array([float(name in words) for name in names]) if {*names} & {*words} else None

    return target


def sung(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    words = known.get("words", ())
    return np.array([float("sung" in words)]) if {"sung", "unsung"} & {*words} else None


def sung_clip(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    return np.array([float(known["row"]["vocals"])]) if "row" in known else None


def key(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    row = known.get("row", {})
    return (
        one_hot(np.array(row["tonic"] + 12 * (row["mode"] == "minor")), 24) if row.get("mode") and len(row.get("keys", ())) == 1 else None
    )


@cache
def clip_labels(folder: str, row: str) -> dict[str, np.ndarray]:
    """Dense labels of a rendered clip."""
    from mflamingo_cli.train.mini.frames import Clip, exact_labels

    return exact_labels(Clip(json.loads(row), Path(folder)))


def at_frames(name: str, convert: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict, dict[str, np.ndarray]], np.ndarray | None]:
    """A dense label of a rendered clip at the frames that were kept."""

    def target(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
        if "row" not in known:
            return None
        found = clip_labels(known["folder"], json.dumps(known["row"])).get(name)
        if found is None:
            return None
        reach = max(1, round(float(arrays["token_s"]) / LABEL_S))  # labels of a token
        at = np.minimum((arrays["seconds"] / LABEL_S).astype(int), len(found) - reach)
        return convert(np.stack([found[first : first + reach] for first in at]))

    return target


def flags(values: np.ndarray) -> np.ndarray:
    middle = values[:, values.shape[1] // 2].astype(float)
    return np.where(middle == 255, np.nan, middle)


def root(values: np.ndarray) -> np.ndarray:
    middle = values[:, values.shape[1] // 2].astype(int)
    return np.where((middle < 0)[:, None], np.nan, one_hot(np.maximum(middle, 0), 13))


def beat(values: np.ndarray) -> np.ndarray:
    return (values > 0).any(1).astype(float)[:, None]


def language(known: dict, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    return np.array([float(known["language"] == LANGUAGES[0])]) if "language" in known else None


TASKS = (
    Task("voice, recordings", False, sung, auc, by_window=True),
    Task("voice, rendered", False, sung_clip, auc),
    Task("language, spoken over rendered music", False, language, auc),
    Task("genre, recordings", False, words_of(*GENRES), auc),
    Task("instruments, rendered, by moment", True, at_frames("families", flags), auc),
    Task("key, rendered", False, key, accuracy),
    Task("root of the chord, rendered, by moment", True, at_frames("root", root), accuracy),
    Task("beat, rendered, by moment", True, at_frames("beat", beat), auc),
)


def table(features: Features, task: Task) -> list[float]:
    """Scores of every layer; empty where too few windows are known."""
    targets = [(index, target) for index, known in enumerate(features.known)
               if (target := task.target(known, features.arrays[index])) is not None]  # fmt: skip
    if len(targets) < FEWEST:
        return []
    scores = []
    for layer in range(features.n_layers):
        if task.frames:
            x = np.concatenate([features.arrays[index][f"frames{layer}"].astype(np.float32) for index, _ in targets])
            groups = np.concatenate([[features.known[index]["group"]] * len(target) for index, target in targets])
        else:
            x = np.stack([features.arrays[index][f"mean{layer}"] for index, _ in targets])
            groups = np.array([features.known[index]["group"] for index, _ in targets])
        if task.by_window:
            groups = np.arange(len(x))
        y = np.concatenate([np.atleast_2d(target) for _, target in targets])
        clear = ~np.isnan(y).all(1)
        scores.append(task.score(left_out(x[clear], y[clear], groups[clear]), y[clear]))
    return scores


def measured(folder: Path, music: Path) -> dict[str, float]:
    """What the program measures of the windows of FEATURES, scored as the readings are; what it does not say is wrong, or even."""
    from mflamingo_cli.measure import measure
    from mflamingo_cli.measure.facts import pitch_class

    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    features = read(folder, {path.name for path in folder.glob("*.npz")})
    for known, arrays in zip(features.known, features.arrays, strict=True):
        targets = {task.name: target for task in TASKS if (target := task.target(known, arrays)) is not None}
        path = Path(known["folder"]) / known["row"]["audio"] if "row" in known else music / known["file"]
        start_s = 0.0 if "row" in known else middle(path)
        facts = measure(load(path, start_s=start_s, end_s=start_s + WINDOW_S), only=("key", "chords", "beats", "vocals"))
        at = arrays["seconds"] + start_s
        sure = facts.confidence.vocals or 0.5
        said: dict[str, np.ndarray] = {name: np.array([{True: sure, None: 0.5, False: 1 - sure}[facts.vocals.present]]) for name in VOICES}
        key_class = 24 if facts.key is None else facts.key.pitch + 12 * (facts.key.mode == "minor")
        said["key, rendered"] = one_hot(np.array(key_class), 25)  # the last: none
        labels_at = [next((chord.label for chord in facts.chords if chord.start <= time < chord.end), "N") for time in at]
        said["root of the chord, rendered, by moment"] = one_hot(
            np.array([12 if label in ("N", "X") else pitch_class(label.partition(":")[0]) for label in labels_at]), 13
        )
        beats = np.array([time for time, _ in facts.beats] or [-1.0])
        half = float(arrays["token_s"]) / 2
        said["beat, rendered, by moment"] = (np.abs(at[:, None] + half - beats).min(1) <= half).astype(float)[:, None]
        for name, target in targets.items():
            if name in said:
                found.setdefault(name, []).append((np.atleast_2d(said[name]), np.atleast_2d(target)))
    scores = {}
    for task in TASKS:
        if len(found.get(task.name, ())) >= FEWEST:
            values, right = (np.concatenate(rows) for rows in zip(*found[task.name], strict=True))
            clear = ~np.isnan(right).any(1)
            scores[task.name] = round(task.score(values[clear], right[clear]), 3)
    return scores


VOICES = ("voice, recordings", "voice, rendered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("encode")
    made.add_argument("model", type=Path)
    made.add_argument("--music", type=Path)
    made.add_argument("--clips", type=Path)
    made.add_argument("--voices", type=Path)
    made.add_argument("--most", type=int, default=1000, help="windows of either kind")
    made.add_argument("--out", type=Path, required=True)
    reading = commands.add_parser("read")
    reading.add_argument("features", type=Path, nargs="+")
    reading.add_argument("--task", default="", help="only readings whose name begins so")
    facts = commands.add_parser("measure")
    facts.add_argument("features", type=Path)
    facts.add_argument("--music", type=Path, required=True)
    asked = parser.parse_args()
    if asked.command == "encode":
        found = [
            list(recordings(asked.music))[: asked.most] if asked.music else [],
            list(clips(asked.clips))[: asked.most] if asked.clips else [],
        ]
        found.append(list(voices(asked.voices, found[1])) if asked.voices else [])
        mixed = sorted(
            itertools.chain(*found), key=lambda source: hashlib.sha256(source.name.encode()).hexdigest()
        )  # of all kinds from the start
        encode(asked.model, mixed, asked.out)
        return
    if asked.command == "measure":
        print(json.dumps(measured(asked.features, asked.music)))
        return
    rows = {}
    names = set.intersection(*({path.name for path in folder.glob("*.npz")} for folder in asked.features))
    print(f"{len(names)} windows that all of them have")
    for folder in asked.features:
        features = read(folder, names)
        for task in (task for task in TASKS if task.name.startswith(asked.task)):
            scores = table(features, task)
            rows[f"{folder.name}: {task.name}"] = [round(score, 3) for score in scores]
            print(f"{folder.name:16s} {task.name:40s} " + " ".join(f"{score:.3f}" for score in scores), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
