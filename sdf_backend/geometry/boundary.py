"""The open boundary of a triangle mesh: closed loops of vertices, and tangles, which are no loops."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Boundary:
    """The edges that one face alone has.

    loops : vertex indices of each simple loop, in the direction of the faces' own edges
    tangles : (k, 2), the other edges, where the boundary touches itself or breaks off
    """

    loops: list[np.ndarray]
    tangles: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """All edges, (l, 2)."""
        return np.concatenate([*(np.column_stack([loop, np.roll(loop, -1)]) for loop in self.loops), self.tangles])


def find_boundary(faces: np.ndarray) -> Boundary:
    """Find the open boundary of faces, (m, 3). How neighbouring faces are oriented does not matter."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, first, counts = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    edges = edges[first[counts == 1]]
    if len(edges) == 0:
        return Boundary([], edges)
    vertices, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(edges.shape)
    degrees = np.bincount(ends.ravel())
    graph = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(len(vertices),) * 2)
    count, component = connected_components(graph, directed=False)
    simple = np.ones(count, dtype=bool)
    simple[component[degrees != 2]] = False
    of_edge = component[ends[:, 0]]
    loops = [vertices[_walk(ends[of_edge == number])] for number in np.flatnonzero(simple)]
    return Boundary(loops, edges[~simple[of_edge]])


def _walk(edges: np.ndarray) -> np.ndarray:
    """The vertices of a loop of edges, (k, 2), in the direction of most of them."""
    neighbours: dict[int, list[int]] = {}
    for start, end in edges.tolist():
        neighbours.setdefault(start, []).append(end)
        neighbours.setdefault(end, []).append(start)
    before, vertex = edges[0].tolist()
    loop = [before]
    while vertex != loop[0]:
        loop.append(vertex)
        one, other = neighbours[vertex]
        before, vertex = vertex, other if one == before else one
    following = dict(zip(loop, [*loop[1:], loop[0]], strict=True))
    forward = sum(following[start] == end for start, end in edges.tolist())
    return np.array(loop if 2 * forward >= len(edges) else loop[::-1])
