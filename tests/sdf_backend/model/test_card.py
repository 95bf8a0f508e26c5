"""Cards of models: every field is checked when one is read."""

import json
from dataclasses import asdict, fields

import pytest

from sdf_backend.model.card import CARD_RULES, DECODER_RULES, ModelCard, parse_card
from sdf_backend.model.decoder import DecoderSettings
from sdf_backend.model.store import Model


def test_the_tables_have_a_rule_for_every_field() -> None:
    assert CARD_RULES.keys() == {field.name for field in fields(ModelCard)}
    assert DECODER_RULES.keys() == {field.name for field in fields(DecoderSettings)}


def test_a_written_card_is_read(spheres: Model) -> None:
    assert parse_card(json.dumps(asdict(spheres.card))) == spheres.card


NESTED = "[" * 100_000 + "]" * 100_000
CHANGES = [
    ("name", "4", "name is 4, not text of at most 200 characters"),
    ("name", json.dumps("x" * 201), "not text of at most 200"),
    ("up", '["+y"]', "up is ['+y'], not one of"),
    ("front", '"+y"', "parallel"),
    ("clamp", "NaN", "clamp is nan, not a number above 0"),
    ("clamp", "Infinity", "clamp is inf"),
    ("clamp", "-1", "clamp is -1"),
    ("clamp", "true", "clamp is True"),
    ("clamp", '"0.1"', "clamp is '0.1'"),
    ("clamp", "1" + 400 * "0", "clamp is 1000"),
    ("reach", "NaN", "reach is nan"),
    ("reach", "1e9", "at most 10"),
    ("decoder", "null", "decoder is None, not an object"),
    ("training", "5", "training is 5, not an object"),
    ("training", '{"a": ' + NESTED + "}", "nested too deeply"),
    ("accuracy", '{"a": ' + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
    ("shapes", "[]", "shapes is [], not a list of 1"),
    ("shapes", '["a", 5]', "not a list of 1 to 1000000, each text"),
    ("sources", '{"licence": "CC0-1.0"}', "not a list"),
    ("sources", "[5]", "not a list of 0 to 100000, each an object"),
    ("sources", '[{"licence": "CC0-1.0"}]', "it has no sources[0].shapes"),
    ("sources", '[{"licence": ["CC0-1.0"], "shapes": 5}]', "sources[0].licence is ['CC0-1.0']"),
    ("sources", '[{"licence": "CC0-1.0", "shapes": 1e400}]', "sources[0].shapes is inf"),
    ("licence", "null", "licence is None"),
]


@pytest.mark.parametrize(("name", "value", "said"), CHANGES, ids=lambda value: str(value)[:40])
def test_a_field_of_a_wrong_type_or_size_is_refused(spheres: Model, name: str, value: str, said: str) -> None:
    card = json.dumps({**asdict(spheres.card), name: "HERE"}).replace('"HERE"', value)
    with pytest.raises(ValueError) as refusal:
        parse_card(card)
    assert said in str(refusal.value)
    assert len(str(refusal.value)) < 300


DECODER_CHANGES = [
    ("code_length", '"3"', "decoder.code_length is '3', not a whole number from 1 to 4096"),
    ("code_length", "null", "decoder.code_length is None"),
    ("code_length", "Infinity", "decoder.code_length is inf"),
    ("code_length", "3.0", "decoder.code_length is 3.0"),
    ("code_length", "0", "decoder.code_length is 0"),
    ("code_length", "48", "width is 48; it must be above 51"),
    ("width", "true", "decoder.width is True"),
    ("width", "1000000", "from 1 to 16384"),
    ("layers", "100000", "decoder.layers is 100000"),
    ("skip_at", "4", "skip_at is 4; it must be below 4"),
    ("dropout", "NaN", "decoder.dropout is nan"),
    ("weight_norm", "1", "decoder.weight_norm is 1, not one of true, false"),
    ("mirror_axis", "3", "decoder.mirror_axis is 3, not one of null, 0, 1, 2"),
    ("mirror_axis", "false", "decoder.mirror_axis is False"),
    ("mirror_axis", "[0]", "decoder.mirror_axis is [0]"),
]


@pytest.mark.parametrize(("name", "value", "said"), DECODER_CHANGES, ids=str)
def test_a_setting_of_the_decoder_of_a_wrong_type_or_size_is_refused(
    spheres: Model, name: str, value: str, said: str
) -> None:
    decoder = {**spheres.card.decoder, name: "HERE"}
    card = json.dumps({**asdict(spheres.card), "decoder": decoder}).replace('"HERE"', value)
    with pytest.raises(ValueError) as refusal:
        parse_card(card)
    assert said in str(refusal.value)


@pytest.mark.parametrize("name", ["name", "up", "front", "clamp", "decoder", "shapes"])
def test_a_missing_field_is_refused(spheres: Model, name: str) -> None:
    card = asdict(spheres.card)
    del card[name]
    with pytest.raises(ValueError, match=f"it has no {name}"):
        parse_card(json.dumps(card))


def test_a_decoder_without_code_length_is_refused(spheres: Model) -> None:
    card = asdict(spheres.card)
    del card["decoder"]["code_length"]
    with pytest.raises(ValueError, match=r"it has no decoder\.code_length"):
        parse_card(json.dumps(card))
