"""A closed mesh as quads: even triangles are joined in pairs, and each pair, and what is left over, is divided.

In a closed mesh of triangles each has three neighbours, so that pairs can be found for all of them (Petersen 1891), and
the division leaves no triangle in any case; so all faces are quads, and the topology is that of the mesh. Programs that
follow a direction field, such as Instant Meshes, give nicer rows, but tear what is thinner than their quads.
"""

import numpy as np

from sdf_backend.geometry.closure import is_closed
from sdf_backend.geometry.even_triangles import even_triangles, interior_edges
from sdf_backend.geometry.surface_samples import FitSettings, SurfaceSamples, relax_mesh

# The steps in which the vertices of the quads are moved.
STEPS = 10


def quad_mesh(vertices: np.ndarray, faces: np.ndarray, quads: int) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh as a number of quads, whose corners lie on its surface, on its edges and at its corners.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3), each edge of two faces
    quads : as many as are wanted; there are more where fewer would tear the surface, and at most about 2 m

    Returns
    -------
    vertices : (k, 3) float64
    quads : (l, 4) int64, wound as the faces are; none where the mesh is not closed
    """
    none = np.zeros((0, 3)), np.zeros((0, 4), dtype=np.int64)
    if not is_closed(faces):
        return none
    low, size = vertices.min(axis=0), float(np.ptp(vertices, axis=0).max())
    unit, count = (vertices - low) / size, min(quads, 2 * len(faces))
    surface = SurfaceSamples.draw(unit, faces, FitSettings().samples * max(count, 1_000))
    coarse, triangles = even_triangles(unit, faces, surface, count // 2)
    if not is_closed(triangles):
        return none
    divided, found = _divide(coarse, *_pair_triangles(coarse, triangles))
    return relax_mesh(divided, found, surface, STEPS) * size + low, found


def triangles_of(quads: np.ndarray) -> np.ndarray:
    """Triangles, (2 l, 3), of quads, (l, 4): two after another, cut from the first corner to the third.

    Those of `quad_mesh` have a middle of a divided face as their third corner, so that no two have the same cut.
    """
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)


def _pair_triangles(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quads, (q, 4), of neighbouring triangles, (m, 3), the squarest first; and the triangles that are left, (t, 3)."""
    edges, pairs, opposite = interior_edges(faces)
    corners = np.stack([edges[:, 0], opposite[:, 1], edges[:, 1], opposite[:, 0]], axis=1)
    order = np.argsort(_skew(vertices[corners]), kind="stable")
    order = order[opposite[order, 0] != opposite[order, 1]]
    mates = _match(pairs[order], len(faces))
    joined = order[mates[pairs[order, 0]] == pairs[order, 1]]
    _, once = np.unique(pairs[joined, 0], return_index=True)  # two triangles may share two edges
    return corners[joined[np.sort(once)]], faces[mates < 0]


def _skew(corners: np.ndarray) -> np.ndarray:
    """How far quads, (q, 4, 3), are from flat squares, (q,): the largest cosine of a corner, more where they bend."""
    along = np.roll(corners, -1, axis=1) - corners
    along /= np.linalg.norm(along, axis=2, keepdims=True).clip(1e-300)
    before = np.roll(along, 1, axis=1)
    turns = np.cross(before, along)
    turns /= np.linalg.norm(turns, axis=2, keepdims=True).clip(1e-300)
    facing = (turns * turns.sum(axis=1, keepdims=True)).sum(axis=2).min(axis=1) / 4  # 1 where all turn alike
    return np.abs((before * along).sum(axis=2)).max(axis=1) + 1 - facing


def _match(pairs: np.ndarray, count: int) -> np.ndarray:
    """The partner of each of `count` items, (count,), or -1: greedily by pairs, (e, 2), the best first, then mended.

    An item without a partner gets one by a path along which partners change (Berge 1957); odd cycles are passed over,
    so that a few may be left.
    """
    mates, neighbours = [-1] * count, [[] for _ in range(count)]
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
        if mates[a] < 0 and mates[b] < 0:
            mates[a], mates[b] = b, a
    for item in range(count):
        if mates[item] < 0:
            _mend(item, mates, neighbours)
    return np.array(mates, dtype=np.int64)


def _mend(start: int, mates: list[int], neighbours: list[list[int]]) -> None:
    """Change partners along the shortest path from one item without a partner to another, where one is found."""
    came: dict[int, tuple[int, int]] = {start: (-1, -1)}  # an item that wants a partner: who took it, and from whom
    queue = [start]
    for item in queue:
        for other in neighbours[item]:
            if mates[other] < 0 and other != start:
                while item >= 0:
                    mates[item], mates[other] = other, item
                    other, item = came[item]
                return
            if other != start and mates[other] not in came and other not in came:
                came[mates[other]] = (other, item)
                queue.append(mates[other])


def _divide(vertices: np.ndarray, quads: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four quads of each quad, (q, 4), and three of each triangle, (t, 3), as Catmull and Clark (1978) divide them."""
    count = len(vertices)
    ends = [np.stack([faces, np.roll(faces, -1, axis=1)], axis=2) for faces in (quads, triangles)]
    edges = np.sort(np.concatenate([each.reshape(-1, 2) for each in ends]), axis=1)
    unique, which = np.unique(edges, axis=0, return_inverse=True)
    which = which.reshape(-1) + count
    middles = [vertices[faces].mean(axis=1) for faces in (quads, triangles)]
    found, first, centre = [], 0, count + len(unique)
    for faces in (quads, triangles):
        sides = which[first : first + faces.size].reshape(faces.shape)
        centres = np.broadcast_to(centre + np.arange(len(faces))[:, None], faces.shape)
        found.append(np.stack([faces, sides, centres, np.roll(sides, 1, axis=1)], axis=2).reshape(-1, 4))
        first, centre = first + faces.size, centre + len(faces)
    return np.concatenate([vertices, vertices[unique].mean(axis=1), *middles]), np.concatenate(found)
