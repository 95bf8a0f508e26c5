"""Samples of a surface, and meshes whose vertices are moved onto it, evenly and with its edges kept.

The surface is given by samples with normals. Each sample belongs to the nearest vertex that looks the same way, so that
the two sides of a thin wall stay apart, and each vertex goes where the planes of its samples meet best: onto a flat
side, an edge or a corner (the quadric of Garland and Heckbert 1997, as in dual contouring, Ju et al. 2002).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import KDTree

from sdf_backend.geometry.vertex_normals import vertex_normals


@dataclass(frozen=True)
class FitSettings:
    """How vertices are moved. Chosen by eye on drawn shapes of the models."""

    samples: int = 8
    """of the surface, for each vertex"""
    stiffness: float = 0.02
    """weight of a vertex's own place beside the planes of its samples, which holds it where they say nothing"""
    smoothing: float = 0.5
    """how far a vertex goes along the surface to the middle of its neighbours in a step, as a share"""


@dataclass(frozen=True)
class SurfaceSamples:
    """Samples of a surface, even by area.

    points, normals : (n, 3); area : of the surface
    """

    points: np.ndarray
    normals: np.ndarray
    area: float

    @classmethod
    def draw(cls, vertices: np.ndarray, faces: np.ndarray, count: int) -> "SurfaceSamples":
        """So many samples of a mesh, (v, 3) vertices and (m, 3) faces; the same ones each time."""
        a, b, c = np.moveaxis(vertices[faces], 1, 0)
        crossed = np.cross(b - a, c - a)
        areas = np.linalg.norm(crossed, axis=1) / 2
        rng, passed = np.random.default_rng(0), np.cumsum(areas)
        at = passed[-1] * (np.arange(count) + rng.random(count)) / count
        chosen = np.searchsorted(passed, at).clip(0, len(faces) - 1)
        u, v = rng.random((2, count, 1))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        points = a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]
        return cls(points, (crossed / (2 * areas).clip(1e-300)[:, None])[chosen], float(passed[-1]))


def relax_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    surface: SurfaceSamples,
    steps: int,
    settings: FitSettings = FitSettings(),
) -> np.ndarray:
    """Vertices, (n, 3), moved along a surface towards the middle of their neighbours, and onto it.

    Parameters
    ----------
    vertices : (n, 3), near the surface; faces : (m, k), triangles or quads
    """
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)
    neighbours = coo_array((np.ones(len(edges)), edges.T), shape=(len(vertices),) * 2).tocsr()
    counts = neighbours.sum(axis=1)[:, None].clip(1)
    spacing = np.sqrt(surface.area / len(vertices))
    for _ in range(steps):
        normals = vertex_normals(vertices, faces)
        moves = neighbours @ vertices / counts - vertices
        moves -= normals * (moves * normals).sum(axis=1, keepdims=True)
        moved = vertices + settings.smoothing * moves
        vertices = moved + _towards_surface(moved, normals, surface, spacing, settings)
    return vertices


def _towards_surface(
    vertices: np.ndarray, normals: np.ndarray, surface: SurfaceSamples, spacing: float, settings: FitSettings
) -> np.ndarray:
    """The step, (n, 3), from each vertex to where the planes of its samples meet best, at most `spacing` long."""
    count = len(vertices)
    _, owner = KDTree(np.hstack([vertices, spacing * normals])).query(
        np.hstack([surface.points, spacing * surface.normals])
    )
    ahead = surface.normals
    distance = (ahead * (surface.points - vertices[owner])).sum(axis=1)
    planes = np.stack([[np.bincount(owner, ahead[:, i] * ahead[:, j], count) for j in range(3)] for i in range(3)])
    quadrics = planes.transpose(2, 0, 1)  # (n, 3, 3)
    pulls = np.stack([np.bincount(owner, ahead[:, i] * distance, count) for i in range(3)], axis=1)
    weights = np.trace(quadrics, axis1=1, axis2=2).clip(1)[:, None]  # how many samples a vertex has
    steps = np.linalg.solve(
        quadrics / weights[..., None] + settings.stiffness * np.eye(3), (pulls / weights)[..., None]
    )
    lengths = np.linalg.norm(steps[..., 0], axis=1, keepdims=True)
    return steps[..., 0] * np.minimum(1, spacing / lengths.clip(1e-300))
