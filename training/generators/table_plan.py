"""The measures that all parts of one table share."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TablePlan:
    """The measures that all parts of one table share, metres."""

    width: float
    depth: float
    height: float
    """of the top's upper side"""
    top: float
    """thickness of the top"""
    bar: float
    """thickness of legs"""
    sides: int
    """corners of the legs' section: 4 is square, more are round"""
    round: bool
    """whether the top is round or oval"""
    overhang: float
    """how far the top reaches beyond the legs"""

    @property
    def underside(self) -> float:
        """Height of the top's underside."""
        return self.height - self.top

    @property
    def reach(self) -> tuple[float, float]:
        """Half the distances between the legs' middles, along x and z."""
        corner = 0.7 if self.round else 1.0
        inset = self.overhang + self.bar / 2
        return max(corner * self.width / 2 - inset, 0.06), max(corner * self.depth / 2 - inset, 0.06)


def corners() -> list[np.ndarray]:
    """The signs, (x, 1, z), of a table's four corners."""
    return [np.array([x, 1.0, z]) for x in (-1, 1) for z in (-1, 1)]
