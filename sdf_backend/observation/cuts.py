"""The straight cut: a plane at which a broken mesh ends, so that what lies beyond it is unknown and not empty.

A cut shows as open boundary edges in a plane that has all of the mesh on one side, with faces that run into the plane
rather than lie in it. The rim of a cup and the open underside of a table leg look the same; which of them it is fits
decide.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, KDTree, QhullError

from sdf_backend.geometry.signed_distance import sample_surface_points


@dataclass(frozen=True)
class CutSettings:
    """What counts as a cut; lengths as shares of the diagonal of the mesh's bounding box. A definition, not tuned."""

    tolerance: float = 1e-3
    """how far from a plane its boundary may be"""
    length: float = 0.1
    """least length of the boundary in a plane"""
    width: float = 2e-3
    """least standard deviation of the boundary across its longest direction: one edge fits many planes"""
    inclination: float = 20.0
    """least angle between the plane and the faces that end there, degrees"""
    continued: float = 0.03
    """how far beyond a cut its surface is assumed to run on"""
    facets: int = 200
    """facets of the convex hull that are looked at, the largest; a scan of a curved surface has thousands"""
    merged: float = 1e-6
    """vertices that are nearer to each other are one"""


@dataclass(frozen=True)
class Cut:
    """A plane normal . x = offset at which a mesh ends.

    normal : (3,), a unit vector that points away from what is left
    continuation : (k, 3), points of the surface that the mesh would have if it ran on beyond the plane for a little
    """

    normal: np.ndarray
    offset: float
    continuation: np.ndarray

    def is_beyond(self, points: np.ndarray) -> np.ndarray:
        """Which of (n, 3) points lie where nothing is known, (n,) bool."""
        return points @ self.normal > self.offset

    def transformed(self, scale: float, rotation: np.ndarray, translation: np.ndarray) -> "Cut":
        """The cut under x -> scale * rotation @ x + translation."""
        normal = rotation @ self.normal
        continuation = scale * self.continuation @ rotation.T + translation
        return Cut(normal, float(scale * self.offset + normal @ translation), continuation)


def find_cut(vertices: np.ndarray, faces: np.ndarray, points: int, settings: CutSettings = CutSettings()) -> Cut | None:
    """Find the plane at which a mesh ends: of several that with the longest open boundary.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3)
    points : how many points of the mesh are observed; the continuation has as many to an area
    """
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    edges, normals = _open_edges(vertices, faces, settings.merged * diagonal)  # (k, 2, 3), (k, 3)
    found, longest = None, settings.length * diagonal
    for normal, offset in _supporting_planes(vertices, edges, settings.tolerance * diagonal, settings.facets):
        away = np.abs(edges @ normal - offset).max(axis=1)
        inclined = np.abs(normals @ normal) < np.cos(np.radians(settings.inclination))
        ending = (away < settings.tolerance * diagonal) & inclined
        length = float(np.linalg.norm(edges[ending, 0] - edges[ending, 1], axis=1).sum())
        if length > longest and _width(edges[ending]) > settings.width * diagonal:
            found, longest = (normal, offset, ending), length
    if found is None:
        return None
    normal, offset, ending = found
    strip = _continued(edges[ending], normals[ending], normal, settings.continued * diagonal)
    density = points / trimesh.triangles.area(vertices[faces]).sum()
    count = max(1, round(density * trimesh.triangles.area(strip).sum()))
    return Cut(normal, offset, sample_surface_points(strip, count, np.random.default_rng(0))[0])


def _open_edges(vertices: np.ndarray, faces: np.ndarray, merged: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends, (k, 2, 3), of the edges that one face alone has, and the unit normal, (k, 3), of that face."""
    mesh = trimesh.Trimesh(np.round(vertices / merged), faces, process=False)
    mesh.merge_vertices(digits_vertex=0)
    mesh.update_faces(mesh.unique_faces() & mesh.nondegenerate_faces())
    edges = mesh.edges_sorted
    _, first, counts = np.unique(edges, axis=0, return_index=True, return_counts=True)
    single = first[counts == 1]
    return mesh.vertices[edges[single]] * merged, mesh.face_normals[mesh.edges_face[single]]


def _width(edges: np.ndarray) -> float:
    """Standard deviation of the ends of edges, (k, 2, 3), across their longest direction."""
    ends = edges.reshape(-1, 3)
    return float(np.linalg.svd(ends - ends.mean(axis=0), compute_uv=False)[1] / len(ends) ** 0.5)


def _continued(edges: np.ndarray, normals: np.ndarray, outward: np.ndarray, length: float) -> np.ndarray:
    """Triangles, (2 k, 3, 3), that continue the faces at edges, (k, 2, 3), with unit normals, (k, 3), by a length."""
    along = np.cross(normals, edges[:, 1] - edges[:, 0])
    along *= length * np.sign(along @ outward)[:, None] / np.linalg.norm(along, axis=1, keepdims=True).clip(1e-300)
    start, end = edges[:, 0], edges[:, 1]
    corners = [start, end, end + along, start, end + along, start + along]
    return np.stack(corners, axis=1).reshape(-1, 3, 3)


def _supporting_planes(
    vertices: np.ndarray, edges: np.ndarray, tolerance: float, most: int
) -> list[tuple[np.ndarray, float]]:
    """Planes of the convex hull's facets whose corners are ends of open edges: outward unit normals, and offsets.

    Of facets there are at most so many, the largest.
    """
    if len(edges) == 0:
        return []
    ends = np.unique(edges.reshape(-1, 3), axis=0)
    # The ends of a single cut lie in one plane; some other vertices make a body of them. A hull of all vertices would
    # take minutes for a large scan.
    others = vertices[:: max(1, len(vertices) // 1_000)]
    try:
        hull = ConvexHull(np.concatenate([ends, others]))
    except QhullError:  # a flat mesh, which has no inside and no outside
        return []
    corners = hull.points[hull.simplices]  # (f, 3, 3)
    away, _ = KDTree(ends).query(corners)
    open_facets = np.flatnonzero((away < tolerance).all(axis=1))
    area = trimesh.triangles.area(corners[open_facets])
    planes: list[tuple[np.ndarray, float]] = []
    for equation in hull.equations[open_facets[np.argsort(-area, kind="stable")[:most]]]:
        normal, offset = equation[:3], float(-equation[3])
        known = any(normal @ other > 0.999 and abs(offset - at) < tolerance for other, at in planes)
        if not known and (vertices @ normal).max() < offset + tolerance:
            planes.append((normal, offset))
    return planes
