"""The measures that all parts of one chair share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChairPlan:
    """The measures that all parts of one chair share, metres."""

    width: float
    depth: float
    height: float
    """of the seat's top"""
    thickness: float
    """of the seat"""
    bar: float
    """thickness of legs, uprights and arms"""
    back: float
    """of the back's top, above the seat"""
    recline: float
    """how far the back's top lies behind its foot, per metre of height"""
    sides: int
    """corners of the legs' section: 4 is square, more are round"""
    round: bool
    """whether the seat is a disc"""

    @property
    def underside(self) -> float:
        """Height of the seat's underside."""
        return self.height - self.thickness

    def rear(self, height: float) -> float:
        """The z of the back's middle line at a height above the seat."""
        return -self.depth / 2 + self.bar / 2 - self.recline * height
