"""Sheets of a mesh that touch along an edge get edges of their own, so that no edge has more than two faces."""

import numpy as np


def split_nonmanifold_edges(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh, vertices (v, 3) and faces (f, 3), in which no more than two faces have an edge in common.

    Where two sheets touch, Marching Cubes may lay an edge of either between the same two vertices, on the plane of
    symmetry most likely. Then one sheet gets a vertex of its own in the middle of it.
    """
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, first, count = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_index=True, return_counts=True)
    for low, high in edges[first[count > 2]]:
        while len(there := _along(faces, low, high)) > 1 and len(back := _along(faces, high, low)) > 1:
            normals = np.cross(*np.diff(vertices[faces[np.append(there[0], back)]], axis=1).swapaxes(0, 1))
            same = back[np.argmax(normals[1:] @ normals[0])]
            faces = _split(faces, [there[0], same], low, high, len(vertices))
            vertices = np.concatenate([vertices, vertices[[low, high]].mean(axis=0, keepdims=True)])
    return vertices, faces


def _along(faces: np.ndarray, start: int, end: int) -> np.ndarray:
    """Numbers of the faces, of (f, 3), that have an edge from one vertex to another."""
    return np.flatnonzero(((faces == start) & (np.roll(faces, -1, axis=1) == end)).any(axis=1))


def _split(faces: np.ndarray, some: list[int], one: int, other: int, middle: int) -> np.ndarray:
    """The faces, (f, 3), with some of them cut in two at a vertex in the middle of an edge of theirs."""
    halves = [np.where(faces[some] == end, middle, faces[some]) for end in (one, other)]
    rest = np.delete(faces, some, axis=0)
    return np.concatenate([rest, *halves])
