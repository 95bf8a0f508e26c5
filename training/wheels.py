"""Wheels for cars whose source models the body alone."""

from dataclasses import dataclass

import numpy as np
import trimesh

from sdf_backend.errors import InputError


@dataclass(frozen=True)
class WheelProfile:
    """The cross-section of a wheel, as shares of its radius and of half its width.

    Chosen by eye on contact sheets, so that these wheels look like those of the cars that have their own.
    """

    rim: float = 0.64
    """radius at which the tyre begins"""
    hub: float = 0.8
    """half width of the disc within the rim: it lies behind the tyre's wall"""
    shoulder: float = 0.93
    """radius at which the tyre's wall bends into its tread"""
    tread: float = 0.72
    """half width of the tread"""
    segments: int = 32
    """sides of the tyre seen from the side: corners stand out by 0.5 % of the radius"""


def wheels(places: str, profile: WheelProfile | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Make the wheels of a car: one on either side of each axle.

    Parameters
    ----------
    places : axles, separated by semicolons; each is five numbers in the mesh's units and canonical axes (y up,
        front +z): x of the wheels' middles, y, z, radius, width
    profile : cross-section; None for the default

    Returns
    -------
    vertices : (n, 3) float64
    faces : (m, 3) int64; every wheel is closed

    Raises
    ------
    InputError : an axle is not five numbers, or a radius or a width is not positive
    """
    vertices, faces, count = [], [], 0
    for axle in places.split(";"):
        x, y, z, radius, width = _axle(axle)
        wheel, triangles = _wheel(radius, width, profile or WheelProfile())
        for side in (x, -x):
            vertices.append(wheel + (side, y, z))
            faces.append(triangles + count)
            count += len(wheel)
    return np.concatenate(vertices), np.concatenate(faces)


def _axle(text: str) -> tuple[float, float, float, float, float]:
    try:
        x, y, z, radius, width = (float(number) for number in text.split())
    except ValueError as error:
        raise InputError(f"the axle {text.strip()!r} is not five numbers: x, y, z, radius, width") from error
    if not (np.isfinite([x, y, z, radius, width]).all() and radius > 0 and width > 0):
        raise InputError(f"the axle {text.strip()!r} needs finite numbers, and a radius and a width above 0")
    return x, y, z, radius, width


def _wheel(radius: float, width: float, profile: WheelProfile) -> tuple[np.ndarray, np.ndarray]:
    """Revolve the cross-section about the x axis."""
    half = [(0, profile.hub), (profile.rim, profile.hub), (profile.rim, 1), (profile.shoulder, 1), (1, profile.tread)]
    section = np.array([(r, -w) for r, w in half] + [(r, w) for r, w in reversed(half)])
    wheel = trimesh.creation.revolve(section * (radius, width / 2), sections=profile.segments)
    # The axle from z to x; a cyclic change of axes keeps the triangles' sides.
    return np.asarray(wheel.vertices)[:, [2, 0, 1]], np.asarray(wheel.faces, dtype=np.int64)
