"""A GGUF pair opened and checked as a whole.

`open_pair` is the border between files from anywhere and everything that believes them: libllama and ggml end the process at what they do
not expect, so nothing of a pair reaches them, NumPy or torch that has not passed here. What the files state is compared with what `keys`,
`vocabulary` and `layout` write for a model of these sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr
from typing import Any

from quant import layout, reader, vocabulary
from quant.errors import QuantError
from quant.families import TEXT_FAMILIES
from quant.geometry import LARGEST, Geometry, TextSizes, checked
from quant.keys import (
    ENCODER_KEYS,
    KEY_ABILITIES,
    KEY_ARCHITECTURE,
    KEY_D_TEXT,
    KEY_GROUNDED,
    KEY_LAYER_NORM_EPS,
    KEY_MAX_AUDIO,
    KEY_N_MELS,
    KEY_N_POSITIONS,
    KEY_NAME,
    KEY_PROJECTOR,
    KEY_REVISION,
    KEY_TOKENS,
    LAYER_NORM_EPS,
    MEL_KEYS,
    ROTE_KEYS,
    TOKEN_KEYS,
    geometry_of_keys,
    text_keys_of,
)
from quant.layout import AUDIO_ARCHITECTURE, PARTS, Part, Tensor
from quant.reader import GgufFile, GgufTensor
from quant.types import FLOATS, NOT_WEIGHTS

MAX_TEXT_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_ENCODER_LAYERS = 128  # about 32 nodes each, of the 8192 of our graph
DAY_S = 86_400.0


@dataclass(frozen=True)
class Numbers:
    """Values that a key may have: stored as one of these types (struct characters), from `low` to `high`."""

    types: str
    low: float
    high: float

    def admits(self, kind: str, value: Any) -> bool:
        """Whether a value of a key is one of them; NaN is none."""
        return kind in self.types and self.low <= value <= self.high

    def __str__(self) -> str:
        if isinstance(self.low, int):
            return f"a whole number from {self.low:,} to {self.high:,}"
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class OneOf:
    """The values that a key may have, as a stranger would name them."""

    values: Collection[Any]

    def admits(self, kind: str, value: Any) -> bool:
        """Whether a value of a key is one of them: True is not 1."""
        return any(value == one and type(value) is type(one) for one in self.values)

    def __str__(self) -> str:
        return " or ".join(map(repr, self.values))


@dataclass(frozen=True)
class Kind:
    """Any value of a type."""

    type: str
    name: str

    def admits(self, kind: str, value: Any) -> bool:
        """Whether a value of a key is of this type."""
        return kind == self.type or (value == [] and self.type.startswith("["))

    def __str__(self) -> str:
        return self.name


Rule = Numbers | OneOf | Kind

WHOLE, REAL = "BHIQbhiq", "BHIQbhiqfd"  # ours are read in Python, where one is as good as another; libllama's must be of its own type
COUNT, OWN_COUNT = Numbers("I", 1, LARGEST), Numbers(WHOLE, 1, LARGEST)
TEXT, TEXTS, YES_OR_NO = Kind("s", "a text"), Kind("[s", "a list of texts"), Kind("?", "true or false")

SPECIAL: Mapping[str, Rule] = {  # fields that are no plain counts
    "rope_theta": Numbers("f", 1.0, 1e12),
    "rms_eps": Numbers("f", 1e-12, 1e-2),
    "theta": Numbers(REAL, 1.0, 1e12),
    "frame_step_s": Numbers(REAL, 1e-6, 10.0),
}


def _rules(table: Mapping[str, str], count: Rule, **others: Rule) -> dict[str, Rule]:
    return {key: others.get(name) or SPECIAL.get(name) or count for name, key in table.items()}


GENERAL: Mapping[str, Rule] = {"general.name": TEXT, "general.file_type": Numbers("I", 0, LARGEST)}
TEXT_RULES: Mapping[str, Mapping[str, Rule]] = {
    model_type: _rules(text_keys_of(model_type), COUNT, n_layers=Numbers("I", 1, MAX_TEXT_LAYERS)) for model_type in TEXT_FAMILIES
}
RULES: Mapping[Part, Mapping[str, Rule]] = {
    "text": {
        "general.architecture": OneOf(tuple(TEXT_FAMILIES)),
        **GENERAL,
        **dict.fromkeys((vocabulary.KEY_MODEL, vocabulary.KEY_PRE, vocabulary.KEY_TEMPLATE), TEXT),
        **dict.fromkeys((KEY_TOKENS, vocabulary.KEY_MERGES), TEXTS),
        vocabulary.KEY_TYPES: Kind("[i", "a list of whole numbers"),
        vocabulary.KEY_SCORES: Kind("[f", "a list of numbers"),
    },
    "audio": {
        "general.architecture": OneOf((AUDIO_ARCHITECTURE,)),
        **GENERAL,
        KEY_PROJECTOR: TEXT,
        **_rules(ENCODER_KEYS, OWN_COUNT, n_layers=Numbers(WHOLE, 1, MAX_ENCODER_LAYERS)),
        **dict.fromkeys((KEY_D_TEXT, KEY_N_MELS, KEY_N_POSITIONS), OWN_COUNT),
        KEY_LAYER_NORM_EPS: OneOf((LAYER_NORM_EPS,)),
        **dict.fromkeys((KEY_ARCHITECTURE, KEY_NAME, KEY_REVISION, *TOKEN_KEYS.values()), TEXT),
        KEY_ABILITIES: TEXTS,
        KEY_GROUNDED: YES_OR_NO,
        KEY_MAX_AUDIO: Numbers(REAL, 1.0, DAY_S),
        **_rules(MEL_KEYS, OWN_COUNT),
        **_rules(ROTE_KEYS, OWN_COUNT),
    },
}


@dataclass(frozen=True)
class Pair:
    """The heads of both files, and the geometry that they state."""

    text: GgufFile
    audio: GgufFile
    geometry: Geometry

    @property
    def tied(self) -> bool:
        """Whether the embedding is the output matrix too."""
        return "output.weight" not in self.text.tensors

    def file(self, part: Part) -> GgufFile:
        """One of the files."""
        return self.text if part == "text" else self.audio

    def tensors(self, part: Part) -> Iterator[Tensor]:
        """The tensors that a part must have."""
        return layout.tensors(part, self.geometry, tied=self.tied)

    def problems(self, part: Part) -> Iterator[tuple[str, str]]:
        """What is wrong with the tensors of a part as the head describes them: (name, words that follow it)."""
        file = self.file(part)
        known = {tensor.gguf: tensor for tensor in self.tensors(part)}
        yield from ((name, "is missing") for name in known if name not in file.tensors)
        for name, stored in file.tensors.items():
            problem = _problem(stored, known[name]) if name in known else "is not part of this architecture"
            if problem:
                yield name, problem

    def check_weights(self) -> None:
        """Read all weights once, at about 10 GB a second from memory. Raises QuantError that names the tensor with NaN or infinity.

        What libllama makes of them is no text; where activations are rounded to 8 bits it may even look like some.
        """
        import numpy as np

        from quant.encoding import is_finite

        for file in (self.text, self.audio):
            data = np.memmap(file.path, np.uint8, "r")
            for name, tensor in file.tensors.items():
                if tensor.storage and not is_finite(data[tensor.offset : tensor.offset + (tensor.n_bytes or 0)], tensor.storage):
                    raise QuantError(f"{file.path}: {name} holds NaN or infinity; convert or download it again")


def open_pair(text: Path, audio: Path) -> Pair:
    """Read the heads of a pair and check all that can be known from them. Raises QuantError with the file, the name, and what is wrong."""
    pair = read_pair(text, audio)
    for part in PARTS:
        for name, problem in pair.problems(part):
            raise QuantError(f"{pair.file(part).path}: {name} {problem}; convert or download it again")
    return pair


def read_pair(text: Path, audio: Path) -> Pair:
    """Read and check a pair as `open_pair` does, all but its tensors: for those who show what is wrong with each."""
    files: dict[Part, GgufFile] = {"text": reader.read(text), "audio": reader.read(audio)}
    check_text(files["text"])
    _check(files["audio"], RULES["audio"])
    geometry = checked(geometry_of_keys(files["audio"].keys, files["text"].keys, text), text)
    check_derived(files["text"], geometry.text)
    _check(files["audio"], {KEY_N_MELS: OneOf((geometry.mel.n_mels,)), "clip.has_audio_encoder": OneOf((True,))})
    vocabulary.check(files["text"], geometry.tokens)
    return Pair(files["text"], files["audio"], geometry)


def check_text(file: GgufFile) -> None:
    """Check the types and the ranges of a text part's keys. Raises QuantError that names one."""
    _check(file, RULES["text"])
    _check(file, TEXT_RULES.get(file.keys.get("general.architecture", ""), {}))


def _check(file: GgufFile, rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        if key in file.keys and not rule.admits(file.types[key], file.keys[key]):
            raise QuantError(f"{file.path}: {key} is {repr(file.keys[key])}, not {rule}; convert or download it again")


def check_derived(file: GgufFile, text: TextSizes) -> None:
    """Check the keys of a text part whose values follow from its sizes. Raises QuantError that names one.

    libllama reads them for every architecture, and these values leave a text model of these sizes as it is. They are all that
    `llama_model_base::load_hparams` and the model's loader ask for; of others it takes no notice.
    """
    prefix = text.model_type
    rows: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("rope.dimension_count attention.key_length attention.value_length", (text.d_head,)),
        ("embedding_length_out", (text.d_model,)),
        ("vocab_size", (text.n_vocab,)),
        ("expert_count expert_used_count expert_group_count expert_group_used_count nextn_predict_layers pooling_type", (0,)),
        ("attention.causal", (True,)),
        ("classifier.output_labels", ([],)),
        ("rope.scaling.type", ("none", "linear")),
        ("rope.scaling.factor rope.scale_linear", (0.0, 1.0)),
        ("rope.scaling.attn_factor", (1.0,)),
    )
    neutral = {f"{prefix}.{name}": OneOf(values) for names, values in rows for name in names.split()}
    _check(file, {**neutral, "split.count": OneOf((0, 1))})


def _problem(stored: GgufTensor, tensor: Tensor) -> str | None:
    """What is wrong with a tensor's description, in words that follow its name."""
    if as_ggml(stored.shape) not in (as_ggml(tensor.gguf_shape), as_ggml(tensor.shape)):
        return f"has shape {list(stored.shape)}, but the file's keys say {list(tensor.gguf_shape)}"
    if tensor.role in ("vector", "positions", "kernel"):
        wanted = FLOATS if tensor.role == "kernel" else FLOATS[:1]  # added to and multiplied with float32
        return None if stored.storage in wanted else f"is stored as {stored.type_name}, not as {' or '.join(one.name for one in wanted)}"
    return f"is stored as {stored.type_name}, which is not a supported type of weights" if stored.type_name in NOT_WEIGHTS else None


def as_ggml(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones in front, which ggml does not tell from none."""
    return shape[next((axis for axis, size in enumerate(shape) if size != 1), len(shape) - 1) :]
