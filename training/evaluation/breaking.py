"""Breaks meshes as objects break: cut in half, an end off, a hole, a corner off, scattered damage.

    region = draw_region(Damage.END, truth, rng)
    broken = remove_region(truth, region)

A region is a part of space; what of the surface lies in it is missing. Cuts by a plane are straight, those by balls
are as jagged as a break.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from training.evaluation.metrics import sample_surface
from training.evaluation.tasks import Damage
from training.triangle_mesh import Mesh, MeshLike


@dataclass(frozen=True)
class BreakSettings:
    """How much is missing, as shares of the surface's area. They are conventions of the reports; none was tuned."""

    half: float = 0.5
    end: float = 0.2
    hole: float = 0.1
    corner: float = 0.15
    scattered: float = 0.025
    """of each of the small holes"""
    scattered_holes: int = 8
    points: int = 6_000
    """surface samples by which shares are measured"""
    edge: float = 0.02
    """faces in a ball are divided to edges of this length, canonical units, before those inside it are dropped"""


BREAKING = BreakSettings()


@dataclass(frozen=True)
class HalfSpace:
    """The points x with normal . x > offset; `normal` is a unit vector, (3,)."""

    normal: np.ndarray
    offset: float

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which of (n, 3) points lie in it, (n,) bool."""
        return points @ self.normal > self.offset


@dataclass(frozen=True)
class Balls:
    """The union of balls: centres (k, 3), radii (k,)."""

    centres: np.ndarray
    radii: np.ndarray

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which of (n, 3) points lie in it, (n,) bool."""
        away = np.linalg.norm(points[:, None] - self.centres, axis=2)  # (n, k)
        return (away < self.radii).any(axis=1)


Region = HalfSpace | Balls


def draw_region(damage: Damage, mesh: MeshLike, rng: np.random.Generator) -> Region:
    """Draw a region whose removal damages a mesh in the canonical frame, y up, in this way.

    Raises `InputError` for a mesh without area.
    """
    points, _ = sample_surface(mesh.vertices, mesh.faces, BREAKING.points, rng)
    match damage:
        case Damage.HALF:
            angle = rng.uniform(0, 2 * np.pi)
            return _beyond(np.array([np.cos(angle), 0.0, np.sin(angle)]), points, BREAKING.half)
        case Damage.END:
            return _beyond(rng.choice([-1.0, 1.0]) * np.eye(3)[rng.integers(3)], points, BREAKING.end)
        case Damage.CORNER:
            return _beyond(rng.choice([-1.0, 1.0], size=3) / np.sqrt(3), points, BREAKING.corner)
        case Damage.HOLE:
            return _around(points[rng.choice(len(points), 1)], points, BREAKING.hole)
        case Damage.SCATTERED:
            return _around(points[rng.choice(len(points), BREAKING.scattered_holes)], points, BREAKING.scattered)


def remove_region(mesh: MeshLike, region: Region) -> Mesh:
    """What of a mesh lies outside a region, vertices merged; the cut stays open.

    Raises `InputError` where nothing is left.
    """
    cut = _cut_by_plane if isinstance(region, HalfSpace) else _cut_by_balls
    vertices, faces = cut(np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces), region)
    if len(faces) == 0:
        raise InputError("nothing is left of the mesh once its region is removed")
    rest = trimesh.Trimesh(vertices, faces, process=False)
    rest.merge_vertices(digits_vertex=8)
    rest.remove_unreferenced_vertices()
    return Mesh(np.array(rest.vertices), np.array(rest.faces))


def regional_chamfer(points: np.ndarray, true_points: np.ndarray, region: Region) -> float:
    """The Chamfer distance of the part of two surfaces that lies in a region.

    Each point in the region is compared with all of the other surface, so that what continues beyond the border is no
    error there. A surface without points in the region adds nothing: what it lacks is the other's distance.

    Parameters
    ----------
    points : (n, 3), on the result; true_points : (m, 3), on the truth; any one frame and unit

    Returns
    -------
    Squared units of the input.
    """
    return _mean_square(points, true_points, region.contains) + _mean_square(true_points, points, region.contains)


def extent_error(result: np.ndarray, truth: np.ndarray) -> float:
    """The largest relative error of height and length, from vertices (n, 3) and (m, 3) of the canonical frame, y up.

    The length is the larger horizontal extent of the truth.
    """
    found, true = np.ptp(result, axis=0), np.ptp(truth, axis=0)
    length = 0 if true[0] >= true[2] else 2
    return float(max(abs(found[axis] / true[axis] - 1) for axis in (1, length)))


def _beyond(normal: np.ndarray, points: np.ndarray, share: float) -> HalfSpace:
    """The half space along `normal` with this share of the points."""
    return HalfSpace(normal, float(np.quantile(points @ normal, 1 - share)))


def _around(centres: np.ndarray, points: np.ndarray, share: float) -> Balls:
    """Balls with this share of the points each."""
    count = max(1, round(share * len(points)))
    distances, _ = KDTree(points).query(centres, k=count)
    return Balls(centres, distances.reshape(len(centres), -1)[:, -1])


def _cut_by_plane(vertices: np.ndarray, faces: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(region, HalfSpace)
    origin = region.offset * region.normal
    kept, kept_faces, _ = trimesh.intersections.slice_faces_plane(vertices, faces, -region.normal, origin)
    return kept, kept_faces


def _cut_by_balls(vertices: np.ndarray, faces: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(region, Balls)
    corners = vertices[faces]
    centre = corners.mean(axis=1)
    reach = np.linalg.norm(corners - centre[:, None], axis=2).max(axis=1)  # (m,)
    away = np.linalg.norm(centre[:, None] - region.centres, axis=2) - region.radii  # (m, k)
    touched = (away < reach[:, None]).any(axis=1)
    divided, divided_faces = trimesh.remesh.subdivide_to_size(vertices, faces[touched], BREAKING.edge, max_iter=20)[:2]
    outside = ~region.contains(divided[divided_faces].mean(axis=1))
    offset = len(vertices)
    return np.concatenate([vertices, divided]), np.concatenate([faces[~touched], divided_faces[outside] + offset])


def _mean_square(points: np.ndarray, others: np.ndarray, contains: Callable[[np.ndarray], np.ndarray]) -> float:
    chosen = points[contains(points)]
    return float(np.mean(KDTree(others).query(chosen)[0] ** 2)) if len(chosen) else 0.0
