"""Whether the normals of a cloud can be believed: many programs write them inward, or each to any side."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.geometry.signed_distance import fibonacci_sphere


@dataclass(frozen=True)
class NormalSettings:
    """When normals are believed. Definitions, not tuned: half of random normals contradict, and few right ones."""

    facing: float = 0.8
    """least share of normals that face the sensor, or the outside; and that face away, where all are turned around"""
    opposed: float = 0.25
    """largest share of neighbours whose normal is opposed; about half of those that are turned at random"""
    neighbours: int = 8
    """neighbours that are compared"""
    directions: int = 100
    """directions in which the outermost points should face outwards, where no sensor is known"""
    sampled_points: int = 2_000
    """points that are looked at"""


def believe_normals(
    points: np.ndarray, normals: np.ndarray, sensor: np.ndarray | None, settings: NormalSettings = NormalSettings()
) -> tuple[np.ndarray | None, str]:
    """The normals of a cloud as far as they can be believed, (n, 3), and what was done to them, as a sentence.

    All of them are turned around where nearly all point inward; None where they contradict the sensor or each other.

    Parameters
    ----------
    points, normals : (n, 3), normals of any length; sensor : (3,), if it is known
    """
    known = np.isfinite(normals).all(axis=1) & normals.any(axis=1)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(known))[: settings.sampled_points]
    if len(chosen) <= settings.neighbours:
        return normals, ""
    place, normal = points[chosen], normals[chosen] / np.linalg.norm(normals[chosen], axis=1, keepdims=True)
    _, nearest = KDTree(place).query(place, k=settings.neighbours + 1)
    near = np.asarray(nearest)[:, 1:]  # the first is the point itself
    opposed = float((np.einsum("nkj,nj->nk", normal[near], normal) < -0.5).mean())
    if opposed > settings.opposed:
        return None, f"Its normals were left out: {opposed:.0%} of neighbouring ones point to opposite sides."
    if sensor is not None:
        outward = float((((sensor - place) * normal).sum(axis=1) > 0).mean())
    else:
        directions = fibonacci_sphere(settings.directions)
        outermost = np.asarray(np.argmax(directions @ place.T, axis=1))
        outward = float(((normal[outermost] * directions).sum(axis=1) > 0).mean())
    if outward >= settings.facing:
        return normals, ""
    if outward <= 1 - settings.facing:
        return -normals, f"Its normals were turned around: {1 - outward:.0%} of them point inward."
    return None, f"Its normals were left out: {1 - outward:.0%} of them point inward."
