"""A closed mesh of fewer triangles that are about equally large and equilateral, of the same topology."""

import igl
import numpy as np

from sdf_backend.geometry.surface_samples import SurfaceSamples, relax_mesh

# In multiples of the number that is wanted: after each stage edges are flipped and vertices moved, so that rims and
# edges that collapsed are found again before they are lost.
STAGES, STEPS = (8, 4, 2, 1, 1, 1), 2
# An edge is flipped only where its triangles are about as flat as this cosine.
FLAT = 0.9


def even_triangles(
    vertices: np.ndarray, faces: np.ndarray, surface: SurfaceSamples, triangles: int
) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh with about so many even triangles.

    The shortest edges collapse, where that keeps the topology; then edges are flipped as by Delaunay, and vertices
    moved along the surface, in turn (after Botsch and Kobbelt 2004).

    Parameters
    ----------
    vertices : (n, 3), in a unit box; faces : (m, 3), each edge of two faces; surface : its samples

    Returns
    -------
    vertices : (k, 3) float64; faces : (l, 3) int64, more than wanted where fewer would tear the surface
    """
    for stage in STAGES:
        if len(faces) > stage * triangles:
            vertices, faces = _collapse_edges(vertices, faces, stage * triangles)
        faces = _flip_edges(vertices, faces)
        vertices = relax_mesh(vertices, faces, surface, STEPS)
    return vertices, _flip_edges(vertices, faces)


def _collapse_edges(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh whose shortest edges have collapsed to their middles, down to so many triangles."""
    found = igl.decimate(np.asfortranarray(vertices), np.asfortranarray(faces, dtype=np.int32), triangles)
    return np.asarray(found[0]), np.asarray(found[1], dtype=np.int64)


def interior_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges of a closed mesh, (m, 3) faces.

    Returns
    -------
    edges : (e, 2), as they run in the first of their faces
    pairs : (e, 2), their two faces
    opposite : (e, 2), the corner of each of the two faces that is not on the edge
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    corners = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    low, high = edges.min(axis=1), edges.max(axis=1)
    twins = np.lexsort((high, low)).reshape(-1, 2)
    return edges[twins[:, 0]], twins % len(faces), corners[twins]


def _flip_edges(vertices: np.ndarray, faces: np.ndarray, rounds: int = 6) -> np.ndarray:
    """Faces, (m, 3), after flips of the edges whose opposite angles add up to more than 180 degrees."""
    for _ in range(rounds):
        edges, pairs, opposite = interior_edges(faces)
        excess = _angles(vertices, edges, opposite[:, 0]) + _angles(vertices, edges, opposite[:, 1]) - np.pi
        first, second, third = (vertices[faces[:, corner]] for corner in range(3))
        normals = np.cross(second - first, third - first)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-300)
        flat = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(axis=1) > FLAT
        wanted = np.where(flat & _are_new(edges, opposite, len(vertices)), excess, 0)
        # The best edge of both of its faces, so that no face changes twice.
        best = np.zeros(len(faces))
        np.maximum.at(best, pairs, wanted[:, None])
        flipped = np.flatnonzero((wanted > 1e-6) & (wanted[:, None] >= best[pairs]).all(axis=1))
        _, once = np.unique(pairs[flipped].reshape(-1), return_index=True)
        flipped = flipped[np.isin(2 * np.arange(len(flipped)), once) & np.isin(2 * np.arange(len(flipped)) + 1, once)]
        _, alone = np.unique(_keys(opposite[flipped], len(vertices)), return_index=True)
        flipped = flipped[alone]
        if not len(flipped):
            break
        (a, b), (c, d) = edges[flipped].T, opposite[flipped].T
        faces = faces.copy()
        faces[pairs[flipped, 0]], faces[pairs[flipped, 1]] = np.stack([c, a, d], 1), np.stack([c, d, b], 1)
    return faces


def _are_new(edges: np.ndarray, opposite: np.ndarray, count: int) -> np.ndarray:
    """Which edges, (e,) bool, are none of the mesh yet once they are flipped."""
    return (opposite[:, 0] != opposite[:, 1]) & ~np.isin(_keys(opposite, count), _keys(edges, count))


def _keys(edges: np.ndarray, count: int) -> np.ndarray:
    """A number for each pair of vertices, (e, 2), whichever way it runs."""
    return edges.min(axis=1).astype(np.int64) * count + edges.max(axis=1)


def _angles(vertices: np.ndarray, edges: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The angles, (e,), at which edges, (e, 2), are seen from corners, (e,)."""
    u, v = (vertices[edges[:, end]] - vertices[corners] for end in (0, 1))
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1))
