"""How well a model fits: how much of an input a result explains, and how certain its pose is, in words."""

from dataclasses import dataclass

import bpy

from .translations import translated
from .wire.messages import AMBIGUOUS_CONFIDENCE

# Custom properties of a result.
EXPLAINED, CONFIDENCE = "sdf_explained", "sdf_confidence"


@dataclass(frozen=True)
class VerdictSettings:
    """Shares of the input that a result explains, and how results compare.

    Chosen on one-view scans of stretched shapes that the models had drawn themselves: their own model explained all of
    each, another one 0.90, their own lying on its back 0.73, and upside down 0.95. The scan of the
    demonstration, a TEST aircraft, is explained to 0.99, and lying on its back to 0.87.
    """

    weak: float = 0.93
    """below it the user is told that the model may not fit"""
    better: float = 0.03
    """a trial must explain this much more to replace what there is"""


VERDICT = VerdictSettings()


@dataclass(frozen=True)
class Verdict:
    """What a result says of itself."""

    explained: float
    """share of the input, 0 to 1"""
    confidence: float
    """of the pose, 0 to 1"""
    model: str

    @property
    def is_weak(self) -> bool:
        """Whether the model explains little of the input."""
        return self.explained < VERDICT.weak

    @property
    def is_ambiguous(self) -> bool:
        """Whether another pose explains the input as well."""
        return self.confidence < AMBIGUOUS_CONFIDENCE

    @property
    def lines(self) -> list[str]:
        """The verdict, one fact a line."""
        pose = translated("Ambiguous" if self.is_ambiguous else "Certain")
        category = translated("Doubtful" if self.is_weak else "Fits")
        return [
            translated("Explains {share} of the input", share=f"{self.explained:.0%}"),
            translated("Pose: {verdict}", verdict=pose),
            translated("Category: {verdict}", verdict=category),
        ]

    @property
    def warning(self) -> str:
        """A sentence about a weak result; empty for a good one."""
        if not self.is_weak:
            return ""
        return translated(
            "Only {share} of the input is explained by {model}: it may be of another category, or lie another way.",
            share=f"{self.explained:.0%}",
            model=self.model,
        )


def verdict_of(item: bpy.types.Object) -> Verdict | None:
    """The verdict on a result; None for an object without one, such as a new shape."""
    if EXPLAINED not in item:
        return None
    return Verdict(float(item[EXPLAINED]), float(item.get(CONFIDENCE, 1.0)), str(item.get("sdf_model", "")))
