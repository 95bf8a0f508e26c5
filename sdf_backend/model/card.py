"""The card of a model file: what the file says of itself, in JSON.

Cards come from strangers too, so `parse_card` checks every field: one table says what each may hold. What it lets pass
other modules use without a thought.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.settings import Axis

# Lists in lists: a card has five levels, and what copies or writes one calls itself for each.
DEEPEST_NESTING = 32


@dataclass(frozen=True)
class ModelCard:
    """The metadata of a model file."""

    name: str
    """the category, lower-case plural"""
    up: str
    """canonical up axis"""
    front: str
    """canonical front axis"""
    clamp: float
    """training clamped distances to this magnitude, canonical units; the decoder does not know larger ones"""
    decoder: dict
    """DecoderSettings as a dictionary"""
    reach: float = 1 / 1.03
    """radius of shapes about the centre of their bounding box, canonical units; prepared shapes fill that sphere"""
    training: dict = field(default_factory=dict)
    """training settings"""
    shapes: list[str] = field(default_factory=list)
    """names of the training shapes, one for each code"""
    sources: list[dict] = field(default_factory=list)
    """licence, creator and number of shapes of each source"""
    licence: str = ""
    """the licence that the file must be passed on under, because that of its data is share-alike; empty for none"""
    accuracy: dict = field(default_factory=dict)
    """measured accuracy on the test split, by task"""
    encoder: dict = field(default_factory=dict)
    """EncoderSettings as a dictionary; empty for a model without an encoder"""


class Rule(NamedTuple):
    """What a field may hold: in words, and as a test."""

    words: str
    allows: Callable[[Any], bool]
    required: bool = True

    def or_missing(self) -> "Rule":
        """The same for a field that may be left out."""
        return self._replace(required=False)

    def or_null(self) -> "Rule":
        """The same for a field that may be null or left out."""
        return Rule(f"{self.words} or null", lambda value: value is None or self.allows(value), required=False)


def text(longest: int) -> Rule:
    """Text."""
    return Rule(f"text of at most {longest} characters", lambda value: isinstance(value, str) and len(value) <= longest)


def whole_number(least: int, most: int) -> Rule:
    """A whole number; true and false are none."""
    return Rule(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def number(most: float) -> Rule:
    """A finite number above 0."""
    return Rule(f"a number above 0 and at most {most:g}", lambda value: is_number(value) and 0 < value <= most)


def share() -> Rule:
    """A number from 0 to just below 1."""
    return Rule("a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1)


def one_of(*choices: object) -> Rule:
    """One of some values, of the same type."""
    known = {(type(choice), choice) for choice in choices}
    words = "one of " + ", ".join(json.dumps(choice) for choice in choices)
    return Rule(words, lambda value: isinstance(value, str | int | None) and (type(value), value) in known)


def mapping() -> Rule:
    """An object with any content."""
    return Rule("an object", lambda value: isinstance(value, dict))


def list_of(least: int, most: int, item: Rule) -> Rule:
    """A list of so many items."""

    def allows(value: Any) -> bool:
        return isinstance(value, list) and least <= len(value) <= most and all(map(item.allows, value))

    return Rule(f"a list of {least} to {most}, each {item.words}", allows)


def is_number(value: object) -> bool:
    """Whether a value is a finite number, true and false not among them."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


SOURCE_RULES = {"licence": text(200), "creator": text(1000).or_missing(), "shapes": whole_number(0, 10**9)}
DECODER_RULES = {
    "code_length": whole_number(1, 4096),
    "width": whole_number(1, 16384),
    "layers": whole_number(2, 64),
    "skip_at": whole_number(1, 63),
    "dropout": share().or_missing(),
    "weight_norm": one_of(True, False).or_missing(),
    "mirror_axis": one_of(None, 0, 1, 2).or_missing(),
}
ENCODER_RULES = {
    "code_length": whole_number(1, 4096),
    "points": whole_number(1, 65536),
    "point_widths": list_of(1, 16, whole_number(1, 16384)),
    "width": whole_number(1, 16384),
    "codes": whole_number(1, 256),
}
CARD_RULES = {
    "name": text(200),
    "up": one_of(*map(str, Axis)),
    "front": one_of(*map(str, Axis)),
    "clamp": number(10),
    "decoder": mapping(),
    "reach": number(10).or_missing(),
    "training": mapping().or_missing(),
    "shapes": list_of(1, 1_000_000, text(1000)),
    "sources": list_of(0, 100_000, mapping()).or_missing(),
    "licence": text(200).or_missing(),
    "accuracy": mapping().or_missing(),
    "encoder": mapping().or_missing(),
}


def parse_card(content: str) -> ModelCard:
    """A card from its JSON. A card of a newer version may say more, but of the decoder all must be known.

    Raises `ValueError` for content that is not a card, with the field, its value and what it may hold.
    """
    card = parse_object(content)
    check_fields(card, CARD_RULES, "")
    if card.get("encoder"):
        check_fields(card["encoder"], ENCODER_RULES, "encoder.")
        if card["encoder"]["code_length"] != card["decoder"]["code_length"]:
            raise ValueError("encoder.code_length is not decoder.code_length")
    for index, source in enumerate(card.get("sources", [])):
        check_fields(source, SOURCE_RULES, f"sources[{index}].")
    check_decoder(card["decoder"])
    try:
        axis_rotation(card["up"], card["front"], "-z")
    except InputError as error:
        raise ValueError(str(error)) from error
    return ModelCard(**{name: card[name] for name in CARD_RULES if name in card})


def check_fields(content: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> None:
    """Raise `ValueError` for the first field that is missing or breaks its rule; `where` precedes its name."""
    for name, rule in rules.items():
        if name not in content:
            if rule.required:
                raise ValueError(f"it has no {where}{name}")
        elif not rule.allows(content[name]):
            shown = repr(content[name])
            raise ValueError(f"{where}{name} is {shown if len(shown) <= 60 else shown[:57] + '...'}, not {rule.words}")


def check_decoder(decoder: Mapping[str, Any]) -> None:
    """Raise `ValueError` for settings of a decoder that cannot be made."""
    check_fields(decoder, DECODER_RULES, "decoder.")
    if newer := decoder.keys() - DECODER_RULES:
        raise ValueError(f"the decoder has unknown settings ({', '.join(sorted(newer))}); update this program")
    if decoder["skip_at"] >= decoder["layers"]:
        raise ValueError(f"decoder.skip_at is {decoder['skip_at']}; it must be below {decoder['layers']}, the layers")
    if decoder["width"] <= decoder["code_length"] + 3:
        raise ValueError(
            f"decoder.width is {decoder['width']}; it must be above {decoder['code_length'] + 3}, code and point"
        )


def parse_object(content: str) -> dict[str, Any]:
    """An object from its JSON; raises `ValueError` for anything else, and for one that is nested too deeply to copy."""
    try:
        card = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(card, dict):
        raise ValueError("it is not an object")
    _check_nesting(card)
    return card


def _check_nesting(card: dict[str, Any]) -> None:
    """Raise `ValueError` for lists in lists that are too deep to be copied."""
    level: Iterable[Any] = [card]
    for _ in range(DEEPEST_NESTING):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("it is nested too deeply")
