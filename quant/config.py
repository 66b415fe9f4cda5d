"""A checkpoint's JSON files read, once for all: its geometry, its name, what its card says. What they leave out is the class's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr
from typing import Any

from quant.errors import QuantError
from quant.families import Family, Fields, Fixed, TextFamily, family, text_family
from quant.geometry import LARGEST, AudioTokens, EncoderSizes, Geometry, MelConfig, Rote, TextSizes, checked
from quant.json_files import get, items, read_json, section
from quant.layout import hub_identity

CARD = "mflamingo.json"
LIMITS: Mapping[str, int] = {"dropout": 1, "layerdrop": 1, "num_labels": 1000}  # by the ends of names
MAX_NUMBER = 1e18  # of seconds, angles and the like
MEL_FIELDS: Fields = {  # WhisperFeatureExtractor
    "n_fft": (("n_fft",), 400),
    "hop_length": (("hop_length",), 160),
    "n_mels": (("feature_size",), 80),
    "sample_rate": (("sampling_rate",), 16_000),
    "window_s": (("chunk_length",), 30),
}


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint without its weights."""

    name: str
    geometry: Geometry
    card: Mapping[str, Any]  # mflamingo.json, of our own models; else where it was downloaded from


def read(directory: Path, adapter: Path | None = None) -> CheckpointInfo:
    """Read config.json, processor_config.json and, where there is one, mflamingo.json; a LoRA `adapter` gives the model its own name.

    Raises QuantError for what is missing, of another model, or not to be converted.
    """
    if not directory.is_dir():
        raise QuantError(f"{directory}: no such directory; name a checkpoint directory, which contains config.json")
    config = read_json(directory / "config.json")
    geometry = read_geometry(directory)
    fixed = family(geometry.architecture, directory).fixed + text_family(geometry.text.model_type, directory).fixed
    _check_fixed(directory / "config.json", config, fixed)
    card: dict[str, Any] = {}
    for place in (directory, adapter) if adapter else (directory,):
        name, revision = hub_identity(place) or (place.resolve().name, None)
        card |= {"name": name, "revision": revision} | read_card(place)
    return CheckpointInfo(str(card["name"]), geometry, card)


def read_card(directory: Path) -> dict[str, Any]:
    """Read what a model of ours says of itself; nothing where there is no such file."""
    card = read_json(directory / CARD, required=False)
    for name, kind in (("name", str), ("revision", str), ("grounded", bool)):
        get(directory / CARD, card, name, kind, kind())
    items(directory / CARD, card, "abilities", str)
    return card


def read_geometry(directory: Path) -> Geometry:
    """Read the geometry of a checkpoint directory. Raises QuantError that names the file and what is wrong with it."""
    config = read_json(directory / "config.json")
    family(config.get("model_type"), directory)
    extractor = directory / "preprocessor_config.json"
    processor = read_json(directory / "processor_config.json", required=not extractor.exists())
    if "feature_extractor" not in processor:  # older layout
        processor |= {"feature_extractor": read_json(extractor)}
    return geometry_of_json(config, processor, directory)


def geometry_of_json(config: Mapping[str, Any], processor: Mapping[str, Any] | None, directory: Path) -> Geometry:
    """The geometry that the content of config.json and processor_config.json makes; `directory` is named in errors.

    Without a processor there is still what tensors depend on.
    """
    row = family(config.get("model_type"), directory)
    where = directory / "config.json"
    _check_limits(where, config)
    encoder = _sizes(where, "audio_config", section(where, config, "audio_config"), row.encoder)
    n_mels = encoder.pop("n_mels")
    sizes, text = EncoderSizes(**encoder), _text_sizes(where, section(where, config, "text_config"), row.text)
    rote = _rote(where, config, sizes.d_model, row)
    if processor is None:
        made = Geometry(row.model_type, MelConfig(n_mels=n_mels), row.max_audio_s, sizes, text, rote, row.tokens)
        return checked(made, where, front_end=False)
    beside = directory / "processor_config.json"
    mel = MelConfig(**_sizes(beside, "feature_extractor", section(beside, processor, "feature_extractor"), MEL_FIELDS))
    if mel.n_mels != n_mels:
        raise QuantError(f"{directory}: the feature extractor makes {mel.n_mels} mel bands, but the encoder takes {n_mels}")
    longest = _number(beside, "max_audio_len", processor.get("max_audio_len", row.max_audio_s))
    return checked(Geometry(row.model_type, mel, longest, sizes, text, rote, _tokens(beside, processor, row)), where)


def _text_sizes(where: Path, text: dict[str, Any], default: str) -> TextSizes:
    row = text_family(text.get("model_type", default), where)
    sizes = TextSizes(
        **_sizes(where, "text_config", text | _grouped(text, row), row.fields),
        model_type=row.model_type,
        rope_theta=_number(where, "text_config.rope_theta", _rope(where, text, 10_000.0)["rope_theta"]),
        rms_eps=_number(where, "text_config.rms_norm_eps", text.get("rms_norm_eps", 1e-6)),
    )
    if text.get("head_dim", sizes.d_head) not in (None, sizes.d_head):
        raise QuantError(f"{where}: {sizes.d_model} channels cannot be divided into {sizes.n_heads} heads of {repr(text['head_dim'])}")
    return sizes


def _sizes(where: Path, section: str, config: Mapping[str, Any], fields: Fields) -> dict[str, int]:
    found = {}
    for size, (names, default) in fields.items():
        name = next((name for name in names if name in config), names[-1])
        found[size] = config.get(name, default)
        if type(found[size]) is not int or not 1 <= found[size] < LARGEST:
            raise QuantError(f"{where}: {section}.{name} is {repr(found[size])}, not a positive whole number")
    return found


def _number(where: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_NUMBER:
        raise QuantError(f"{where}: {name} is {repr(value)}, not a positive number")
    return float(value)


def _grouped(text: Mapping[str, Any], row: TextFamily) -> dict[str, Any]:
    """Null heads of keys and values, which LlamaConfig has by default, are as many as there are of queries."""
    heads = text.get("num_attention_heads", row.fields["n_heads"][1])
    return {"num_key_value_heads": heads} if text.get("num_key_value_heads", row.fields["n_kv_heads"][1] or None) is None else {}


def _check_fixed(where: Path, config: Mapping[str, Any], fixed: Fixed) -> None:
    for place, name, value in fixed:
        found = (section(where, config, place) if place else config).get(name, value)
        if found != value:
            raise QuantError(f"{where}: {name} is {repr(found)}; only {repr(value)} can be converted")


def _check_limits(where: Path, config: Mapping[str, Any]) -> None:
    """Check what only transformers reads: it makes as many labels as are asked for, and looks at a dropout when a model is used."""
    for part in (config, section(where, config, "audio_config"), section(where, config, "text_config")):
        for name in part:
            largest = next((largest for ending, largest in LIMITS.items() if name.endswith(ending)), None)
            if largest is not None and not 0 <= get(where, part, name, float, 0.0) <= largest:
                raise QuantError(f"{where}: {name} is {repr(part[name])}, not a number from 0 to {largest}")


def _rope(where: Path, config: Mapping[str, Any], theta: float) -> dict[str, Any]:
    """Settings of rotary positions, under `rope_parameters` in new files, beside it in old ones; `theta` is the class's default."""
    rope = section(where, config, "rope_parameters") or section(where, config, "rope_scaling")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise QuantError(f"{where}: rope_type {repr(kind)} is not supported")
    return {"rope_theta": config.get("rope_theta", theta)} | rope


def _rote(where: Path, config: Mapping[str, Any], d_model: int, row: Family) -> Rote | None:
    if row.rote is None:
        return None
    rope = {"partial_rotary_factor": config.get("partial_rotary_factor", row.rote.factor)} | _rope(where, config, row.rote.theta)
    theta = _number(where, "rope_theta", rope["rope_theta"])
    dim = int(d_model * _number(where, "partial_rotary_factor", rope["partial_rotary_factor"]))
    step = _number(where, "audio_frame_step", config.get("audio_frame_step", row.rote.frame_step_s))
    return Rote(theta, dim, int(theta), step)  # transformers sets the table's length to theta, whatever the file says


def _tokens(where: Path, processor: Mapping[str, Any], row: Family) -> AudioTokens:
    audio, bos, eos = row.tokens.audio, row.tokens.bos, row.tokens.eos
    found = AudioTokens(
        get(where, processor, "audio_token", str, audio),
        bos and get(where, processor, "audio_bos_token", str, bos),
        eos and get(where, processor, "audio_eos_token", str, eos),
    )
    if "" in vars(found).values():
        raise QuantError(f"{where}: a token that stands for audio is empty")
    return found
