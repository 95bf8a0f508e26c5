"""Non-manifold edges, which more than two faces share, are split, so that meshes are closed for every reader."""

import numpy as np


def split_nonmanifold_edges(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split edges until no more than two faces share one.

    Where two surface sheets touch, Marching Cubes may connect the same two vertices in both, most likely on the plane
    of symmetry. Then one sheet gets a vertex of its own at the edge's midpoint.

    Parameters
    ----------
    vertices : (v, 3) float64; faces : (f, 3) int64, consistently oriented

    Returns
    -------
    Vertices and faces; new ones come last.
    """
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, first, count = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_index=True, return_counts=True)
    for low, high in edges[first[count > 2]]:
        while len(there := _faces_along(faces, low, high)) > 1 and len(back := _faces_along(faces, high, low)) > 1:
            normals = np.cross(*np.diff(vertices[faces[np.append(there[0], back)]], axis=1).swapaxes(0, 1))
            same_sheet = back[np.argmax(normals[1:] @ normals[0])]
            faces = _split_faces(faces, [there[0], same_sheet], low, high, len(vertices))
            vertices = np.concatenate([vertices, vertices[[low, high]].mean(axis=0, keepdims=True)])
    return vertices, faces


def _faces_along(faces: np.ndarray, start: int, end: int) -> np.ndarray:
    """Indices of the faces, of (f, 3), with a directed edge from one vertex to another."""
    return np.flatnonzero(((faces == start) & (np.roll(faces, -1, axis=1) == end)).any(axis=1))


def _split_faces(faces: np.ndarray, chosen: list[int], start: int, end: int, midpoint: int) -> np.ndarray:
    """The faces, (f, 3), the chosen of them cut in two at the midpoint of their edge between two vertices."""
    halves = [np.where(faces[chosen] == vertex, midpoint, faces[chosen]) for vertex in (start, end)]
    rest = np.delete(faces, chosen, axis=0)
    return np.concatenate([rest, *halves])
