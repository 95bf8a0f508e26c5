"""From a factory's raw mesh to a training mesh: plausibility, canonical axes, thinning, deformation."""

from dataclasses import dataclass
from enum import StrEnum

import fast_simplification
import numpy as np

from sdf_backend.geometry.signed_distance import normalisation
from sdf_backend.geometry.similarity import axis_rotation
from training.augment import deform
from training.generators.recipe import Deformation, Mesh
from training.generators.reprofile import ReprofileSettings, reprofile


class Reason(StrEnum):
    """Why a piece is left out."""

    FACTORY = "the factory failed"
    CRASH = "its process ended or took too long"
    FACES = "too few faces"
    DEGENERATE = "not finite, or without area"
    EXTENT = "implausible size"
    PROPORTIONS = "implausible proportions"


class ImplausibleMeshError(Exception):
    """A mesh that is not a plausible piece; carries the reason and the value that failed the check."""

    def __init__(self, reason: Reason, value: str) -> None:
        super().__init__(f"{reason}: {value}")
        self.reason = reason


@dataclass(frozen=True)
class PlausibilityLimits:
    """Limits of a plausible piece; the size range of each category is in the factory table."""

    faces: int = 60
    """fewest triangles; the plainest of 16 factories of the table, a triangle shelf, has 1,120"""
    flatness: float = 0.02
    """smallest ratio of the shortest to the longest side of the bounding box; wall-hung tops of desks come to 0.1"""
    area_change: float = 0.03
    """largest relative change of area by thinning. On 6 chairs that kept all their legs it was at most 0.6 %, on those
    that lost some 14 to 60 %"""
    unthinned: int = 100_000
    """a mesh that loses surface by thinning is kept whole up to this many triangles; bed frames have 50,000 to
    93,000"""
    weld: float = 1e-5
    """vertices closer than this are merged, metres: bevels leave seams that keep parts from being thinned"""
    aggressiveness: tuple[int, ...] = (3, 1)
    """of fast-simplification, tried in turn; its default of 7 ate whole legs of chairs that have beveled edges"""
    triangles: int = 20_000
    """triangles after thinning: at 200,000 the signs of one mesh take 8 s, at 20,000 a third of that"""


def finish(
    mesh: Mesh,
    up: str,
    front: str,
    longest: tuple[float, float],
    deformation: Deformation | None,
    rng: np.random.Generator,
    limits: PlausibilityLimits | None = None,
) -> Mesh:
    """Check a raw mesh and bring it into canonical axes, thinned and deformed.

    Parameters
    ----------
    mesh : (n, 3) float vertices in metres, (m, 3) int faces.
    up, front : the mesh's axes, such as "+z" and "+x".
    longest : smallest and largest plausible longest side, metres.
    deformation : how far it is deformed; None leaves it as it is.

    Returns
    -------
    vertices : (k, 3) float64, metres, y up, front +z, the bounding box's middle over the origin, standing on y = 0.
    faces : (l, 3) int64.

    Raises
    ------
    ImplausibleMeshError
        Where it has too few faces, is not finite or flat, or its size or proportions are absurd.
    """
    limits = limits or PlausibilityLimits()
    check_plausible(mesh, longest, limits)
    vertices, faces = mesh
    vertices, faces = thinned((vertices @ axis_rotation(up, front, "+z").T, faces), limits)
    if isinstance(deformation, ReprofileSettings):
        vertices = reprofile(vertices, deformation, rng)
    elif deformation:
        scale, _ = normalisation(vertices)
        vertices = deform(vertices, "+z", deformation, rng) / scale
    low, high = vertices.min(0), vertices.max(0)
    return vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2], faces


def check_plausible(mesh: Mesh, longest: tuple[float, float], limits: PlausibilityLimits) -> None:
    """Raise `ImplausibleMeshError` for a mesh outside of the limits; see `finish`."""
    vertices, faces = mesh
    if len(faces) < limits.faces:
        raise ImplausibleMeshError(Reason.FACES, f"{len(faces)}, at least {limits.faces} are needed")
    used = vertices[np.unique(faces)]
    if not np.isfinite(used).all():
        raise ImplausibleMeshError(Reason.DEGENERATE, "coordinates that are not finite")
    sides = np.ptp(used, axis=0)
    if not longest[0] <= sides.max() <= longest[1]:
        raise ImplausibleMeshError(
            Reason.EXTENT, f"{sides.max():.3g} m, plausible is {longest[0]:g} to {longest[1]:g} m"
        )
    if sides.min() < limits.flatness * sides.max():
        raise ImplausibleMeshError(Reason.PROPORTIONS, f"{sides.min():.3g} m by {sides.max():.3g} m")
    if not surface_area(mesh) > 0:
        raise ImplausibleMeshError(Reason.DEGENERATE, "no area")


def thinned(mesh: Mesh, limits: PlausibilityLimits) -> Mesh:
    """The same surface with about `limits.triangles` triangles; raises `ImplausibleMeshError` if much is lost."""
    if len(mesh[1]) <= limits.triangles:
        return mesh
    whole = welded(mesh, limits.weld)
    area, kept = surface_area(whole), 0.0
    # The gentler setting keeps more triangles than requested, but loses nothing; it costs 0.1 to 0.6 s a mesh.
    for aggressiveness in limits.aggressiveness:
        simplified = fast_simplification.simplify(
            whole[0], whole[1].astype(np.int32), target_count=limits.triangles, agg=aggressiveness
        )
        thin = simplified[0].astype(np.float64), simplified[1].astype(np.int64)
        kept = surface_area(thin) / area
        if abs(kept - 1) <= limits.area_change:
            return thin
    if len(whole[1]) <= limits.unthinned:
        return whole
    raise ImplausibleMeshError(Reason.DEGENERATE, f"thinning leaves {kept:.0%} of its surface")


def welded(mesh: Mesh, tolerance: float) -> Mesh:
    """Join vertices closer than `tolerance` metres, and drop the triangles that vanish by it."""
    vertices, inverse = np.unique(np.round(mesh[0] / tolerance), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[mesh[1]]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return vertices * tolerance, faces[whole]


def surface_area(mesh: Mesh) -> float:
    """Sum of the areas of all triangles, square metres."""
    corners = mesh[0][mesh[1]]
    return float(
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    )
