"""Normals of the vertices of a mesh."""

import numpy as np


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals, (n, 3), of the vertices of triangles or quads, (m, k): the mean of their faces', by area."""
    across = np.roll(vertices[faces], -1, axis=1) - vertices[faces][:, :1]
    areas = np.cross(across[:, :-2], across[:, 1:-1]).sum(axis=1)  # (m, 3)
    corners, each = faces.reshape(-1), np.repeat(areas, faces.shape[1], axis=0)
    sums = np.stack([np.bincount(corners, each[:, axis], len(vertices)) for axis in range(3)], axis=1)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-300)
