"""The part of a triangle mesh on which a function of its vertices is above a level."""

import numpy as np


def clip_above(
    vertices: np.ndarray, faces: np.ndarray, values: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Clip a mesh along a level line, which is straight within each face.

    Neighbouring faces share the vertices of the cut, so that the part of a closed mesh is open along the cut alone.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3); values : (n,), one a vertex, linear within each face

    Returns
    -------
    vertices : (k, 3), those that are used; the cut's are interpolated
    faces : (l, 3), oriented as those that they come from
    """
    above = values > level
    count = above[faces].sum(axis=1)
    whole, one, two = faces[count == 3], faces[count == 1], faces[count == 2]
    # The lone vertex first, whichever side it is on.
    one = _rotated(one, np.argmax(above[one], axis=1))
    two = _rotated(two, np.argmin(above[two], axis=1))
    crossing = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [1, 0]], two[:, [2, 0]]])
    edges, which = np.unique(np.sort(crossing, axis=1), axis=0, return_inverse=True)
    start, end = edges.T
    share = (level - values[start]) / (values[end] - values[start])
    cut = vertices[start] + share[:, None] * (vertices[end] - vertices[start])
    first, second, third, fourth = np.split(
        which.reshape(-1) + len(vertices), np.cumsum([len(one), len(one), len(two)])
    )
    pieces = [
        whole,
        np.column_stack([one[:, 0], first, second]),
        np.column_stack([third, two[:, 1], two[:, 2]]),
        np.column_stack([third, two[:, 2], fourth]),
    ]
    return without_unused(np.concatenate([vertices, cut]), np.concatenate(pieces))


def without_unused(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mesh without the vertices that no face has."""
    used, numbers = np.unique(faces, return_inverse=True)
    return vertices[used], numbers.reshape(faces.shape)


def _rotated(faces: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Faces, (m, 3), each rotated so that it begins at its vertex number `first`, (m,)."""
    return np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
