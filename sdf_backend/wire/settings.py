"""What a user may ask of a task: one dataclass, one enum a choice.

This is the only declaration. The command line, the messages of the wire, the panel and evaluation read names, types,
defaults, bounds and help texts from it by `dataclasses.fields`. It lies in the wire because the Blender extension ships
nothing else of the backend; everybody else imports `sdf_backend.settings`.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, Self

from .errors import InputError


class Choice(StrEnum):
    """An enum whose members carry a line of help: `NAME = "value", "help"`."""

    help: str

    def __new__(cls, value: str, help: str) -> Self:
        """Make a member of a value and its help text."""
        member = str.__new__(cls, value)
        member._value_, member.help = value, help
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self:
        raise InputError(f"unknown {cls.__name__.lower()} {value!r}; use one of {', '.join(cls)}")


class Pose(Choice):
    """What is known of the input's pose; the rest is solved for together with the code."""

    KNOWN = "known", "The input is in the model's canonical frame and scale already"
    ALIGNED = "aligned", "Up and front are given; scale and position are found"
    UPRIGHT = "upright", "Up is given; rotation about it, scale and position are found"
    FREE = "free", "Orientation unknown; rotation, scale and position are found"


class Quality(Choice):
    """How long a fit may take."""

    PREVIEW = "preview", "A first look in a third of the time of standard"
    STANDARD = "standard", "The default balance of detail and time"
    FINE = "fine", "The most detail; uses more observations and more steps"


class Axis(Choice):
    """A signed coordinate axis."""

    POSITIVE_X = "+x", "The positive x axis"
    NEGATIVE_X = "-x", "The negative x axis"
    POSITIVE_Y = "+y", "The positive y axis"
    NEGATIVE_Y = "-y", "The negative y axis"
    POSITIVE_Z = "+z", "The positive z axis"
    NEGATIVE_Z = "-z", "The negative z axis"

    @classmethod
    def _missing_(cls, value: object) -> Self:
        """Take `x` and `X` for `+x`."""
        text = str(value).lower()
        signed = text if text[:1] in "+-" else f"+{text}"
        for axis in cls:
            if axis.value == signed:
                return axis
        raise InputError(f"{value!r} is not an axis; use one of {', '.join(cls)}")


class Bounds(NamedTuple):
    """The smallest and the largest value of a number, both allowed; None is no bound."""

    least: float | None = None
    most: float | None = None


def option(default: Any, help: str, least: float | None = None, most: float | None = None) -> Any:
    """A field with its line of help and its bounds, read by `help_of` and `bounds_of`."""
    return field(default=default, metadata={"help": help, "bounds": Bounds(least, most)})


@dataclass(frozen=True)
class TaskSettings:
    """What a user may ask of a task. Raises `InputError` for a value that is out of its bounds or no choice."""

    resolution: int = option(256, "cells per axis of the canonical cube, 16 to 1024", 16, 1024)
    pose: Pose = option(Pose.UPRIGHT, "what is known of the input's pose")
    up: Axis = option(Axis.POSITIVE_Z, "the input's axis that points up; not used if the pose is known")
    front: Axis = option(Axis.NEGATIVE_Y, "the input's axis that points ahead; used if the pose is aligned")
    quality: Quality = option(Quality.STANDARD, "how long the fit may take")
    seed: int = option(0, "seed of new shapes and of further candidates; the best result does not depend on it", 0)
    refine: float = option(1.0, "strength of the residual field: 0 ignores observed detail, 1 follows all of it", 0, 1)
    candidates: int = option(1, "results for each input, 1 to 16: the best first, then alternatives", 1, 16)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(one.default, Choice):
                object.__setattr__(self, one.name, type(one.default)(value))
                continue
            least, most = one.metadata["bounds"]
            if (least is not None and not value >= least) or (most is not None and not value <= most):
                span = f"{least:g} to {most:g}" if most is not None else f"{least:g} or more"
                raise InputError(f"{one.name} is {value}; use {span}")
        if self.pose is not Pose.KNOWN and self.up[1] == self.front[1]:
            raise InputError(f"up {self.up} and front {self.front} lie along one line; they must be perpendicular")


_FIELDS = {one.name: one for one in fields(TaskSettings)}


def help_of(name: str) -> str:
    """The line of help of a field of `TaskSettings`."""
    return _FIELDS[name].metadata["help"]


def bounds_of(name: str) -> Bounds:
    """The bounds of a number among the fields of `TaskSettings`."""
    return _FIELDS[name].metadata["bounds"]
