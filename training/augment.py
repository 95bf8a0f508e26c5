"""Plausible variants of a mesh for small collections: left-right symmetric, smooth, mild."""

from dataclasses import dataclass

import numpy as np

from sdf_backend.pose import axis_vector
from sdf_backend.signed_distance import normalisation


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


def deform(vertices: np.ndarray, front: str, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Deform (n, 3) vertices of a y-up mesh that faces `front` ("-x", "+z", ...); the result is unit-sphere sized.

    Every term depends on the distance from the plane that front and up span, never on the side: a symmetric shape
    stays symmetric.
    """
    scale, offset = normalisation(vertices)
    ahead, up = axis_vector(front), axis_vector("+y")
    side = np.cross(up, ahead)
    x = (vertices + offset) * scale
    x = x * np.exp(rng.normal(size=3) * settings.stretch)
    lateral, along = np.abs(x @ side), x @ ahead
    sweep, shift, dihedral, bend = rng.uniform(-1, 1, size=4) * (
        settings.sweep,
        settings.shift,
        settings.dihedral,
        settings.bend,
    )
    outboard = 1 - np.exp(-((lateral / 0.15) ** 2))
    moved_ahead = sweep * lateral + shift * outboard
    raised = dihedral * lateral + bend * along**2
    return x + moved_ahead[:, None] * ahead + raised[:, None] * up
