"""For every node of a grid: the nearest vertex of each of several meshes, and whether the node is inside."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt

# Meshes whose nearest vertices are kept in memory, some megabytes each.
CACHED_MESHES = 12


@dataclass(frozen=True)
class NearestVertexGrid:
    """A box of grid nodes around meshes that were extracted on the same grid.

    first : (3,) int64, the box's lowest node; size : (a, b, c), its nodes per axis
    step : edge of a grid cell, canonical units
    vertices : of each mesh, (n, 3), on the edges of the grid, as Marching Cubes gives them
    """

    first: np.ndarray
    size: tuple[int, int, int]
    step: float
    vertices: Sequence[np.ndarray]
    _nearest: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _inside: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def enclosing(cls, meshes: Sequence[np.ndarray], step: float) -> "NearestVertexGrid":
        """The bounding box of the vertices of all meshes, (n, 3) each, and one more node on each side."""
        corners = np.concatenate([[vertices.min(axis=0), vertices.max(axis=0)] for vertices in meshes])
        low, high = (np.round((corner + 1) / step).astype(np.int64) for corner in (corners.min(0), corners.max(0)))
        a, b, c = (high - low + 3).tolist()
        return cls(low - 1, (a, b, c), step, meshes)

    def positions(self, chosen: np.ndarray) -> np.ndarray:
        """Positions, (k, 3) float32 canonical, of the chosen nodes, (a, b, c) bool."""
        return ((np.argwhere(chosen) + self.first) * self.step - 1).astype(np.float32)

    def nearest(self, mesh: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vertex of a mesh, (a, b, c) int32, and its distance, (a, b, c) float32, to within about a
        cell."""
        if mesh not in self._nearest:
            while len(self._nearest) >= CACHED_MESHES:
                del self._nearest[next(iter(self._nearest))]
            self._nearest[mesh] = self._nearest_vertices(self.vertices[mesh])
        return self._nearest[mesh]

    def inside(self, mesh: int) -> np.ndarray:
        """Which nodes are inside a mesh, (a, b, c) bool.

        By parity: a line along the first axis enters or leaves at every vertex on it. Marching Cubes places vertices on
        the edges of the grid, and none on a node.
        """
        if mesh not in self._inside:
            at = (self.vertices[mesh] + 1) / self.step - self.first
            below = np.floor(at + 1e-9).astype(np.int64)
            on_line = np.abs(at[:, 1:] - below[:, 1:]).max(axis=1) < 1e-6
            crossings = np.zeros(self.size, dtype=np.uint8)
            np.add.at(crossings, tuple((below[on_line] + [1, 0, 0]).T), 1)
            self._inside[mesh] = np.cumsum(crossings, axis=0, dtype=np.uint8) % 2 == 1
        return self._inside[mesh]

    def _nearest_vertices(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `nearest`: by a distance transform from the nodes nearest to the vertices, (n, 3)."""
        at = tuple((np.round((vertices + 1) / self.step).astype(np.int64) - self.first).T)
        vertex = np.full(self.size, -1, dtype=np.int32)
        vertex[at] = np.arange(len(vertices))
        marked = np.asarray(distance_transform_edt(vertex < 0, return_distances=False, return_indices=True))
        distance = self.step * np.linalg.norm(marked - np.indices(self.size), axis=0)
        return vertex[tuple(marked)], distance.astype(np.float32)
