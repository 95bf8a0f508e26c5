"""Where the surfaces of several coarse meshes lie, seen from the nodes of the grid that they were extracted on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt

# Cells an axis of the coarse meshes, and the edge of one, canonical units.
COARSE = 128
STEP = 2 / COARSE
# Of so many meshes it is remembered which of their vertices are nearest to the nodes: some megabytes each.
REMEMBERED = 12


@dataclass(frozen=True)
class Nodes:
    """The nodes of a box about some meshes, (a, b, c).

    first : (3,) int64, the lowest in the whole grid; vertices : (n, 3) of each mesh, as Marching Cubes gave them
    """

    first: np.ndarray
    size: tuple[int, int, int]
    vertices: Sequence[np.ndarray]
    _nearest: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _solid: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def about(cls, meshes: Sequence[np.ndarray]) -> "Nodes":
        """The smallest box that holds the vertices of all meshes, (n, 3) each, and a node more on each side."""
        corners = np.concatenate([[vertices.min(axis=0), vertices.max(axis=0)] for vertices in meshes])
        low, high = (np.round((corner + 1) / STEP).astype(np.int64) for corner in (corners.min(0), corners.max(0)))
        a, b, c = (high - low + 3).tolist()
        return cls(low - 1, (a, b, c), meshes)

    def points(self, chosen: np.ndarray) -> np.ndarray:
        """Where the chosen nodes, (a, b, c) bool, are: (k, 3) float32, canonical."""
        return ((np.argwhere(chosen) + self.first) * STEP - 1).astype(np.float32)

    def nearest(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Which vertex of a mesh is the nearest, (a, b, c) int32, and how far away it is; to within a node or so."""
        if number not in self._nearest:
            while len(self._nearest) >= REMEMBERED:
                del self._nearest[next(iter(self._nearest))]
            self._nearest[number] = self._marked(self.vertices[number])
        return self._nearest[number]

    def solid(self, number: int) -> np.ndarray:
        """Which nodes are inside a mesh, (a, b, c) bool.

        A line along the first axis goes in or out at every vertex on it. Marching Cubes lays vertices on the edges of
        the grid, and none on a node.
        """
        if number not in self._solid:
            at = (self.vertices[number] + 1) / STEP - self.first
            below = np.floor(at + 1e-9).astype(np.int64)
            lies = np.abs(at[:, 1:] - below[:, 1:]).max(axis=1) < 1e-6
            crossed = np.zeros(self.size, dtype=np.uint8)
            np.add.at(crossed, tuple((below[lies] + [1, 0, 0]).T), 1)
            self._solid[number] = np.cumsum(crossed, axis=0, dtype=np.uint8) % 2 == 1
        return self._solid[number]

    def _marked(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = tuple((np.round((points + 1) / STEP).astype(np.int64) - self.first).T)
        vertex = np.full(self.size, -1, dtype=np.int32)
        vertex[at] = np.arange(len(points))
        marked = np.asarray(distance_transform_edt(vertex < 0, return_distances=False, return_indices=True))
        away = STEP * np.linalg.norm(marked - np.indices(self.size), axis=0)
        return vertex[tuple(marked)], away.astype(np.float32)
