"""Plausible variants of a mesh for small collections: left-right symmetric, mild, of the kind that the category has."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sdf_backend.geometry.signed_distance import normalisation
from sdf_backend.geometry.similarity import axis_vector


@dataclass(frozen=True)
class AugmentSettings:
    """How far a deformed copy may go; lengths are shares of the bounding sphere's radius."""

    stretch: float = 0.12
    """standard deviation of the log of the scale along each axis"""
    sweep: float = 0.15
    """largest shift along the front axis per unit of distance from the symmetry plane, either way"""
    shift: float = 0.08
    """largest shift along the front axis of everything off the symmetry plane (wings, arms)"""
    dihedral: float = 0.06
    """largest rise per unit of distance from the symmetry plane, either way"""
    bend: float = 0.05
    """largest rise or fall of the ends along the front axis"""
    proportion: float = 0.0
    """standard deviation of the log of the scale of each fifth of the extent along each axis. Flat faces that look
    along an axis, as table tops do, stay flat; legs become longer than backs, or seats deeper."""
    taper: float = 0.0
    """largest change of width and depth per unit of height, either way"""
    lean: float = 0.0
    """largest shift along the front axis per unit of height, either way"""
    mirror: float = 0.0
    """share of the copies in which left and right change places, as a desk's drawers may"""


class Kind(StrEnum):
    """What is deformed; each has settings of its own."""

    AIRCRAFT = "aircraft"
    FURNITURE = "furniture"

    @property
    def settings(self) -> AugmentSettings:
        """How far copies of such things may go."""
        if self is Kind.AIRCRAFT:
            return AugmentSettings()
        return AugmentSettings(0.15, 0.0, 0.0, 0.0, 0.0, proportion=0.35, taper=0.1, lean=0.08, mirror=0.5)


# Parts of the extent along an axis that change their length each by itself.
PARTS = 5


def deform(vertices: np.ndarray, front: str, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Deform (n, 3) vertices of a y-up mesh that faces `front` ("-x", "+z", ...); the result is unit-sphere sized.

    But for the mirror, every term depends on the distance from the plane that front and up span, never on the side:
    a symmetric shape stays symmetric.
    """
    scale, offset = normalisation(vertices)
    ahead, up = axis_vector(front), axis_vector("+y")
    side = np.cross(up, ahead)
    x = (vertices + offset) * scale
    # Drawn first, so that copies without proportions of their own are what they were before there were any.
    stretches, moves = rng.normal(size=3), rng.uniform(-1, 1, size=4)
    x = _reproportioned(x, side, settings.proportion, rng)
    x = x * np.exp(stretches * settings.stretch)
    lateral, along = np.abs(x @ side), x @ ahead
    sweep, shift, dihedral, bend = moves * (
        settings.sweep,
        settings.shift,
        settings.dihedral,
        settings.bend,
    )
    taper, lean = rng.uniform(-1, 1, size=2) * (settings.taper, settings.lean)
    height = x @ up
    outboard = 1 - np.exp(-((lateral / 0.15) ** 2))
    moved_ahead = sweep * lateral + shift * outboard + lean * height
    raised = dihedral * lateral + bend * along**2
    tapered = np.where(up[None] == 0, x * (1 + taper * height[:, None]), x)
    if rng.random() < settings.mirror:
        tapered = tapered * (1 - 2 * np.abs(side))
    return tapered + moved_ahead[:, None] * ahead + raised[:, None] * up


def _reproportioned(x: np.ndarray, side: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Points whose extent along each axis is the same, and the shares of its parts are not; symmetric across `side`."""
    columns = []
    for axis in range(3):
        values = np.abs(x[:, axis]) if side[axis] else x[:, axis]
        low, high = (0.0, values.max()) if side[axis] else (values.min(), values.max())
        shares = np.exp(rng.normal(size=PARTS) * sigma)
        ends = np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum()
        moved = np.interp(values, np.linspace(low, high, PARTS + 1), low + (high - low) * ends)
        columns.append(np.where(x[:, axis] < 0, -moved, moved) if side[axis] else moved)
    return np.stack(columns, axis=1)
