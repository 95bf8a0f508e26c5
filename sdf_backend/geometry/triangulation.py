"""Polygons to triangles: concave ones are cut along diagonals that lie inside of them."""

import mapbox_earcut as earcut
import numpy as np

from sdf_backend.geometry.file_readers.part import Polygons


def triangulate(polygons: Polygons, vertices: np.ndarray) -> np.ndarray:
    """Triangles, (t, 3) int64, of polygons with vertices, (n, 3), face after face; faces of two corners have none.

    Convex polygons are fanned from their first corner, as most programs do. Corners that lie out of one plane are
    judged by the polygon's mean plane.
    """
    if (polygons.sizes == 3).all():
        return polygons.corners.reshape(-1, 3)
    starts = np.cumsum(polygons.sizes) - polygons.sizes
    found, owner = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for size in np.unique(polygons.sizes[polygons.sizes >= 3]):
        which = np.flatnonzero(polygons.sizes == size)
        corners = polygons.corners[starts[which, None] + np.arange(size)]  # (m, size)
        convex = _are_convex(vertices[corners])
        fans = np.stack([np.stack([corners[:, 0], corners[:, i], corners[:, i + 1]], 1) for i in range(1, size - 1)], 1)
        found.append(fans[convex].reshape(-1, 3))
        owner.append(np.repeat(which[convex], size - 2))
        for number in np.flatnonzero(~convex):
            triangles = _clip_ears(corners[number], vertices)
            found.append(triangles)
            owner.append(np.full(len(triangles), which[number]))
    return np.concatenate(found)[np.argsort(np.concatenate(owner), kind="stable")]


def _mean_normals(points: np.ndarray) -> np.ndarray:
    """Area vectors, (m, 3), of polygons, (m, size, 3) (Newell)."""
    centred = points - points.mean(axis=1, keepdims=True)
    return np.cross(centred, np.roll(centred, -1, axis=1)).sum(axis=1)


def _are_convex(points: np.ndarray) -> np.ndarray:
    """Which polygons, (m, size, 3), turn one way at all of their corners, and once around, (m,) bool."""
    along = np.roll(points, -1, axis=1) - points
    turns = np.cross(np.roll(along, 1, axis=1), along)  # (m, size, 3)
    normals = _mean_normals(points)
    size = np.linalg.norm(normals, axis=1)
    sine = np.einsum("msk,mk->ms", turns, normals)
    bends = (sine >= -1e-9 * (size**2)[:, None]).all(axis=1)
    # A pentagram turns one way too, but twice around, so that its fan overlaps itself.
    fan = np.cross(points[:, 1:-1] - points[:, :1], points[:, 2:] - points[:, :1])
    overlapping = np.einsum("mfk,mk->mf", fan, normals) < -1e-9 * (size**2)[:, None]
    return bends & ~overlapping.any(axis=1)


def _clip_ears(corners: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangles, (t, 3), of one polygon, (size,) vertex indices, wound as it is."""
    points = vertices[corners]
    normal = _mean_normals(points[None])[0]
    axes = np.linalg.svd(normal[None])[2][1:]  # across the normal
    if np.linalg.det(np.stack([*axes, normal])) < 0:
        axes = axes[::-1]
    flat = (points - points.mean(axis=0)) @ axes.T
    found = earcut.triangulate_float64(np.ascontiguousarray(flat), np.array([len(corners)], dtype=np.uint32))
    triangles = found.reshape(-1, 3).astype(np.int64)
    a, b, c = np.moveaxis(flat[triangles], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return corners[np.where((area < 0)[:, None], triangles[:, ::-1], triangles)]
