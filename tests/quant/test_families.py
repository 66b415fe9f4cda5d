"""The table of families is what transformers' classes are; and a third family is a row, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from accelerate import init_empty_weights
from transformers import WhisperFeatureExtractor

from quant.config import MEL_FIELDS, geometry_of_json
from quant.families import FAMILIES, TEXT_FAMILIES, Family
from quant.layout import PARTS, canonical, tensors
from tests.third_family import registered

PROCESSOR = {"feature_extractor": {"feature_size": 128}}


@pytest.fixture(scope="module")
def third() -> Iterator[Family]:
    with registered() as row:
        yield row


@pytest.fixture(params=[*FAMILIES, "linearflamingo"])
def row(request: pytest.FixtureRequest, third: Family) -> Family:
    return FAMILIES[request.param]


def test_defaults_are_the_classs_own(row: Family) -> None:
    config = getattr(import_module("transformers"), row.config_class)()
    types = (config.model_type, config.audio_config.model_type, config.text_config.model_type)
    assert types == (row.model_type, row.encoder_type, row.text)
    for names, default in row.encoder.values():
        assert {getattr(config.audio_config, name) for name in names} == {default}
        assert names[-1] in type(config.audio_config)().to_dict()  # the last is the class's own name, the others its aliases
        assert set(names[:-1]) == {old for old, new in config.audio_config.attribute_map.items() if new == names[-1]}
    for section, name, value in row.fixed:
        assert getattr(getattr(config, section) if section else config, name) == value


def test_what_an_empty_config_means_is_what_transformers_takes_it_for(row: Family) -> None:
    config, geometry = (
        getattr(import_module("transformers"), row.config_class)(),
        geometry_of_json({"model_type": row.model_type}, PROCESSOR, Path("hf")),
    )
    assert geometry.text.rope_theta == config.text_config.rope_parameters["rope_theta"]
    assert geometry.text.rms_eps == config.text_config.rms_norm_eps
    assert (geometry.rote is None) == (getattr(config, "rope_parameters", None) is None)
    if geometry.rote:
        theta, factor = config.rope_parameters["rope_theta"], config.rope_parameters["partial_rotary_factor"]
        assert (geometry.rote.theta, geometry.rote.n_positions) == (theta, config.max_position_embeddings)
        assert geometry.rote.dim == int(config.head_dim * factor)
        assert geometry.rote.frame_step_s == config.audio_frame_step


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_what_an_empty_text_config_means_is_what_transformers_takes_it_for(row: Family, text: str) -> None:
    config = getattr(import_module("transformers"), row.config_class)(text_config={"model_type": text}).text_config
    sizes = geometry_of_json({"model_type": row.model_type, "text_config": {"model_type": text}}, PROCESSOR, Path("hf")).text
    assert sizes.model_type == config.model_type == text
    for size, (names, _) in TEXT_FAMILIES[text].fields.items():
        assert {getattr(config, name) for name in names} == {getattr(sizes, size)}
    assert (sizes.rope_theta, sizes.rms_eps) == (config.rope_parameters["rope_theta"], config.rms_norm_eps)
    for section, name, value in TEXT_FAMILIES[text].fixed:
        assert (section, getattr(config, name)) == ("text_config", value)


@pytest.mark.parametrize("text", TEXT_FAMILIES)
def test_tensors_are_the_classs_own(row: Family, text: str) -> None:
    asked = {"model_type": text, "num_hidden_layers": 2, "num_key_value_heads": 8}
    with init_empty_weights():
        config = getattr(import_module("transformers"), row.config_class)(text_config=asked)
        model = getattr(import_module("transformers"), row.model_class)(config)
    theirs = {canonical(name): tuple(weight.shape) for name, weight in model.named_parameters()}
    geometry = geometry_of_json({"model_type": row.model_type, "text_config": asked}, PROCESSOR, Path("hf"))
    assert {tensor.hf: tensor.shape for part in PARTS for tensor in tensors(part, geometry)} == theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_longest_audio_are_the_processors(name: str) -> None:
    row = FAMILIES[name]
    processor = getattr(import_module("transformers"), row.model_class.replace("ForConditionalGeneration", "Processor"))
    defaults = {name: parameter.default for name, parameter in signature(processor).parameters.items()}
    assert defaults["max_audio_len"] == row.max_audio_s
    markers = (defaults["audio_token"], defaults.get("audio_bos_token"), defaults.get("audio_eos_token"))
    assert markers == (row.tokens.audio, row.tokens.bos, row.tokens.eos)


def test_the_front_ends_defaults_are_the_feature_extractors() -> None:
    defaults = signature(WhisperFeatureExtractor).parameters
    for names, default in MEL_FIELDS.values():
        assert [defaults[name].default for name in names] == [default]


def test_no_two_families_share_a_projectors_name(third: Family) -> None:
    names = [name for row in FAMILIES.values() for name in (row.projector.name, row.projector.stock) if name]
    assert len(names) == len(set(names))
