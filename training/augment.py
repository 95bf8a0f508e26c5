"""Augmentation by deformation: mild, plausible variants of a mesh, for small collections."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sdf_backend.geometry.signed_distance import normalisation
from sdf_backend.geometry.similarity import axis_vector


@dataclass(frozen=True)
class AugmentSettings:
    """Strength of the deformations; lengths are relative to the radius of the bounding sphere.

    Field names are keys of `dataset.json`. The defaults are those of aircraft.
    """

    stretch: float = 0.12
    """standard deviation of the log scale along each axis"""
    sweep: float = 0.15
    """largest shift along the front axis per unit of distance from the symmetry plane, in both directions"""
    shift: float = 0.08
    """largest shift along the front axis of all parts off the symmetry plane (wings, arms)"""
    dihedral: float = 0.06
    """largest rise per unit of distance from the symmetry plane, in both directions"""
    bend: float = 0.05
    """largest rise or fall of the front and rear ends"""
    proportion: float = 0.0
    """standard deviation of the log scale of each fifth of the extent along each axis. Flat faces perpendicular to an
    axis, such as table tops, stay flat; the proportions of legs, seats and backs change"""
    taper: float = 0.0
    """largest relative change of width and depth per unit of height, in both directions"""
    lean: float = 0.0
    """largest shift along the front axis per unit of height, in both directions"""
    mirror: float = 0.0
    """share of copies that are mirrored left to right, for asymmetric shapes such as desks"""


class DeformationPreset(StrEnum):
    """Named deformation settings."""

    AIRCRAFT = "aircraft"
    FURNITURE = "furniture"
    PROPORTIONS = "proportions"

    @property
    def settings(self) -> AugmentSettings:
        """The settings of the preset."""
        match self:
            case DeformationPreset.AIRCRAFT:
                return AugmentSettings()
            case DeformationPreset.FURNITURE:
                return AugmentSettings(0.15, 0.0, 0.0, 0.0, 0.0, proportion=0.35, taper=0.1, lean=0.08, mirror=0.5)
            case DeformationPreset.PROPORTIONS:  # of cars and animals: wheels stay round nearly, and legs straight
                return AugmentSettings(0.1, 0.0, 0.0, 0.0, 0.0, proportion=0.15, mirror=0.5)


# The extent along an axis is divided into this many parts, whose lengths change independently.
PARTS = 5
# Distance from the symmetry plane at which `shift` sets in, relative to the radius of the bounding sphere.
OUTBOARD_DISTANCE = 0.15


def deform(vertices: np.ndarray, front: str, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Deform a mesh at random.

    Every term except the mirror depends on the distance from the plane spanned by front and up, not on the side: a
    symmetric shape stays symmetric.

    Parameters
    ----------
    vertices : (n, 3), y up, in any units
    front : the front axis, such as "-x"

    Returns
    -------
    vertices : (n, 3), about the size of the unit sphere
    """
    scale, offset = normalisation(vertices)
    ahead, up = axis_vector(front), axis_vector("+y")
    side = np.cross(up, ahead)
    x = (vertices + offset) * scale
    # The order of the draws is fixed: it keeps the copies of existing datasets.
    stretches, amounts = rng.normal(size=3), rng.uniform(-1, 1, size=4)
    x = _change_proportions(x, side, settings.proportion, rng)
    x = x * np.exp(stretches * settings.stretch)
    lateral, along = np.abs(x @ side), x @ ahead
    sweep, shift, dihedral, bend = amounts * (
        settings.sweep,
        settings.shift,
        settings.dihedral,
        settings.bend,
    )
    taper, lean = rng.uniform(-1, 1, size=2) * (settings.taper, settings.lean)
    height = x @ up
    outboard = 1 - np.exp(-((lateral / OUTBOARD_DISTANCE) ** 2))
    moved_ahead = sweep * lateral + shift * outboard + lean * height
    raised = dihedral * lateral + bend * along**2
    tapered = np.where(up[None] == 0, x * (1 + taper * height[:, None]), x)
    if rng.random() < settings.mirror:
        tapered = tapered * (1 - 2 * np.abs(side))
    return tapered + moved_ahead[:, None] * ahead + raised[:, None] * up


def _change_proportions(x: np.ndarray, side: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Scale the parts of the extent along each axis, (n, 3); the whole extent and the symmetry across `side` remain."""
    columns = []
    for axis in range(3):
        values = np.abs(x[:, axis]) if side[axis] else x[:, axis]
        low, high = (0.0, values.max()) if side[axis] else (values.min(), values.max())
        shares = np.exp(rng.normal(size=PARTS) * sigma)
        ends = np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum()
        moved = np.interp(values, np.linspace(low, high, PARTS + 1), low + (high - low) * ends)
        columns.append(np.where(x[:, axis] < 0, -moved, moved) if side[axis] else moved)
    return np.stack(columns, axis=1)
