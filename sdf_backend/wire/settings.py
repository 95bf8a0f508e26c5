"""The settings of a task: one dataclass, and an enum for each choice; and the base of all settings that a user gives.

This is the only declaration. The command line, the messages of the wire, the panel and evaluation read names, types,
defaults, bounds and help texts from it by `dataclasses.fields`. It is part of the wire because the Blender extension
ships nothing else of the backend; everything else imports `sdf_backend.settings`.
"""

from collections.abc import Mapping
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
    def has_aliases(cls) -> bool:
        """Whether a member can be made from other text than its value."""
        return False

    @classmethod
    def _missing_(cls, value: object) -> Self:
        raise InputError(f"unknown {cls.__name__.lower()} {value!r}; use one of {', '.join(cls)}")


class Pose(Choice):
    """What is known about the pose of the input; the rest is fitted together with the code."""

    KNOWN = "known", "The input is already in the canonical frame and scale of the model"
    ALIGNED = "aligned", "Up and front are given; scale and position are estimated"
    UPRIGHT = "upright", "Up is given; the rotation about it, scale and position are estimated"
    FREE = "free", "Orientation unknown; rotation, scale and position are estimated"


class Quality(Choice):
    """How much effort goes into a fit."""

    PREVIEW = "preview", "A third of the time of standard, for a quick look"
    STANDARD = "standard", "Default"
    FINE = "fine", "More observations and more steps"


class Keep(Choice):
    """What of the input stays as it is."""

    NOTHING = "nothing", "The whole surface is new"
    INPUT = "input", "A mesh stays exactly as it is, and only what it lacks is added"


class Axis(Choice):
    """A signed coordinate axis."""

    POSITIVE_X = "+x", "Positive x"
    NEGATIVE_X = "-x", "Negative x"
    POSITIVE_Y = "+y", "Positive y"
    NEGATIVE_Y = "-y", "Negative y"
    POSITIVE_Z = "+z", "Positive z"
    NEGATIVE_Z = "-z", "Negative z"

    @classmethod
    def has_aliases(cls) -> bool:
        """`x` and `X` mean `+x`."""
        return True

    @classmethod
    def _missing_(cls, value: object) -> Self:
        text = str(value).lower()
        signed = text if text[:1] in "+-" else f"+{text}"
        for axis in cls:
            if axis.value == signed:
                return axis
        raise InputError(f"{value!r} is not an axis; use one of {', '.join(cls)}")


# What fits into 64 bits with a sign, as generators of random numbers take it.
LARGEST_SEED = 2**63 - 1


class Bounds(NamedTuple):
    """The range of a number, inclusive; None for no bound."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        """The range in words; empty if it has no lower bound."""
        if self.least is None:
            return ""
        least, most = (f"{end}" if isinstance(end, int) else f"{end:.10g}" for end in (self.least, self.most or 0))
        return f"{least} or more" if self.most is None else f"{least} to {most}"

    def contain(self, value: float) -> bool:
        """Whether a value is in the range; NaN is not."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)

    def check(self, name: str, value: float) -> None:
        """Raise `InputError` for a value out of the range."""
        if not self.contain(value):
            raise InputError(f"{name} is {value}; use {self}")


def option(default: Any, help: str, least: float | None = None, most: float | None = None) -> Any:
    """Declare a field with its help text and its bounds, read by `help_of` and `bounds_of`."""
    return field(default=default, metadata={"help": help, "bounds": Bounds(least, most)})


@dataclass(frozen=True)
class Settings:
    """The base of dataclasses whose fields are declared with `option`: an instance holds no value that is refused.

    Text that stands for a `Choice` is converted.

    Raises
    ------
    InputError : a number is out of its bounds, or text is not one of the choices
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(one.default, Choice):
                object.__setattr__(self, one.name, type(one.default)(value))
            elif "bounds" in one.metadata and value != one.default:  # a default may be None, which has no size
                one.metadata["bounds"].check(one.name, value)


@dataclass(frozen=True)
class TaskSettings(Settings):
    """The settings of a task. Of an aligned pose up and front must be perpendicular."""

    resolution: int = option(
        256, "cells along each side of the cube around a shape; more of them show finer detail", 16, 1024
    )
    pose: Pose = option(Pose.UPRIGHT, "what is known about the pose of the input")
    up: Axis = option(Axis.POSITIVE_Z, "the input's up axis; not used with a known pose")
    front: Axis = option(Axis.NEGATIVE_Y, "the input's front axis; used with an aligned pose")
    quality: Quality = option(Quality.STANDARD, "how much effort goes into the fit")
    seed: int = option(0, "random seed of samples and candidates; fits are deterministic", 0, LARGEST_SEED)
    refine: float = option(
        1.0, "how far the result follows the observed detail: 1 follows all of it, 0 is the category alone", 0, 1
    )
    candidates: int = option(1, "results for each input: the best first, then alternatives", 1, 16)
    keep: Keep = option(Keep.NOTHING, "what of the input stays as it is, when it is completed")
    triangles: int = option(0, "most triangles of a new surface, which stays closed; 0: all of them", 0)
    quads: int = option(0, "about how many quads a new surface has in place of triangles; 0: triangles", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pose is Pose.ALIGNED and self.up[1] == self.front[1]:
            raise InputError(f"up {self.up} and front {self.front} are parallel; they must be perpendicular")
        if self.triangles and self.quads:
            raise InputError(f"{self.triangles} triangles and {self.quads} quads were asked for; set one of them to 0")


def help_of(name: str, kind: type[Settings] = TaskSettings) -> str:
    """The help text of a field."""
    return _declared(name, kind)["help"]


def bounds_of(name: str, kind: type[Settings] = TaskSettings) -> Bounds:
    """The bounds of a numeric field."""
    return _declared(name, kind)["bounds"]


def _declared(name: str, kind: type[Settings]) -> Mapping[str, Any]:
    return {one.name: one.metadata for one in fields(kind)}[name]
