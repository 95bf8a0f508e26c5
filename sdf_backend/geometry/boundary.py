"""The open boundary of a triangle mesh, as closed loops of vertices."""

import numpy as np

from sdf_backend.errors import InputError


def boundary_half_edges(faces: np.ndarray) -> np.ndarray:
    """The directed edges, (k, 2), of faces, (m, 3), whose opposite no face has.

    Where neighbouring faces are oriented alike these are the edges of one face alone.
    """
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    stride = int(faces.max(initial=0)) + 1
    keys, opposite = edges[:, 0] * stride + edges[:, 1], edges[:, 1] * stride + edges[:, 0]
    return edges[~np.isin(keys, opposite)]


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """The open boundary of faces, (m, 3), as loops of vertex indices in the direction of the faces' own edges.

    Raises `InputError` where the boundary is no set of separate loops: at a vertex where it touches itself, and where
    neighbouring faces are oriented differently.
    """
    edges = boundary_half_edges(faces)
    starts, ends = edges.T
    crowded = np.concatenate([_repeated(starts), _repeated(ends), np.setxor1d(starts, ends)])
    if len(crowded):
        raise InputError(f"its open boundary touches itself, or breaks off, at {len(np.unique(crowded))} vertices")
    following, loops = dict(zip(starts.tolist(), ends.tolist(), strict=True)), []
    while following:
        first, vertex = next(iter(following.items()))
        loop = [first]
        del following[first]
        while vertex != first:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return loops


def _repeated(values: np.ndarray) -> np.ndarray:
    unique, counts = np.unique(values, return_counts=True)
    return unique[counts > 1]
