"""Settings keep their values, refuse values out of range, and name the wrong one."""

import math
from dataclasses import fields

import pytest

from sdf_backend.errors import InputError
from sdf_backend.settings import Axis, Pose, Quality, TaskSettings, bounds_of, help_of
from sdf_backend.wire.settings import Bounds, Choice


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 15),
        ("resolution", 1025),
        ("resolution", -1),
        ("refine", -0.1),
        ("refine", 1.1),
        ("refine", math.nan),
        ("candidates", 0),
        ("candidates", 17),
        ("seed", -1),
    ],
)
def test_a_number_out_of_bounds_is_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; use "):
        TaskSettings(**{name: value})


@pytest.mark.parametrize(
    ("bounds", "words"),
    [(Bounds(), ""), (Bounds(1), "1 or more"), (Bounds(0, 2**32 - 1), "0 to 4294967295"), (Bounds(0, 0.5), "0 to 0.5")],
)
def test_bounds_in_words_have_all_digits(bounds: Bounds, words: str) -> None:
    assert str(bounds) == words


@pytest.mark.parametrize("name", ["resolution", "refine", "candidates"])
def test_bounds_are_inclusive(name: str) -> None:
    for bound in bounds_of(name):
        assert getattr(TaskSettings(**{name: bound}), name) == bound


def test_choices_are_converted_from_their_values() -> None:
    settings = TaskSettings(pose="aligned", up="y", front="-Z", quality="fine")
    assert (settings.pose, settings.up, settings.front) == (Pose.ALIGNED, Axis.POSITIVE_Y, Axis.NEGATIVE_Z)
    assert settings.quality is Quality.FINE
    assert isinstance(settings.up, Axis)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("pose", "sideways", "unknown pose 'sideways'; use one of known, aligned, upright, free"),
        ("quality", "best", "unknown quality 'best'; use one of preview, standard, fine"),
        ("up", "w", "'w' is not an axis"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(name: str, value: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TaskSettings(**{name: value})


def test_up_and_front_must_be_perpendicular_where_the_front_is_used() -> None:
    with pytest.raises(InputError, match="are parallel"):
        TaskSettings(pose="aligned", up="+y", front="-y")
    for pose in ("known", "upright", "free"):
        assert TaskSettings(pose=pose, up="+y", front="-y").up is Axis.POSITIVE_Y


def test_seeds_beyond_64_bits_are_refused_with_the_range() -> None:
    assert TaskSettings(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(InputError, match="seed is 9223372036854775808; use 0 to 9223372036854775807"):
        TaskSettings(seed=2**63)


def test_every_field_and_every_choice_has_a_help_text() -> None:
    for one in fields(TaskSettings):
        assert help_of(one.name)
        if isinstance(one.default, Choice):
            assert all(member.help for member in type(one.default))
