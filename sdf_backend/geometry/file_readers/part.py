"""What a reader finds in a file, as it is stored there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Reads a file that lies beside the one that is read, such as the buffer of a glTF file, by its name.
Sibling = Callable[[str], bytes]
# Corners and vertices of all placed meshes of a file together.
MOST_PLACED = 200_000_000


@dataclass(frozen=True)
class Polygons:
    """Faces of any number of corners.

    corners : (k,) int64, vertex indices, face after face
    sizes : (m,) int64, how many corners each face has; they add up to k
    """

    corners: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def of_lists(cls, faces: Sequence[Sequence[int]]) -> "Polygons":
        """Faces of lists of vertex indices."""
        corners = np.array([corner for face in faces for corner in face], dtype=np.int64)
        return cls(corners, np.array([len(face) for face in faces], dtype=np.int64))

    @classmethod
    def of_triangles(cls, triangles: np.ndarray) -> "Polygons":
        """Faces of an array, (m, 3)."""
        return cls(triangles.reshape(-1).astype(np.int64), np.full(len(triangles), 3, dtype=np.int64))

    @classmethod
    def of_halves(cls, triangles: np.ndarray, quads: int) -> "Polygons":
        """Faces of triangles, (m, 3), that begin with the halves (a, b, c) and (a, c, d) of so many quads."""
        whole, rest = triangles[: 2 * quads].reshape(-1, 6)[:, [0, 1, 2, 5]], triangles[2 * quads :]
        sizes = np.repeat([4, 3], [len(whole), len(rest)])
        return cls(np.concatenate([whole.reshape(-1), rest.reshape(-1)]).astype(np.int64), sizes)

    def without_last(self) -> "Polygons":
        """All faces but the last."""
        return Polygons(self.corners[: -int(self.sizes[-1])], self.sizes[:-1])


@dataclass(frozen=True)
class Part:
    """One mesh or point cloud of a file; nothing in it is checked.

    vertices : (n, 3) float64
    normals : (n, 3), of a cloud that has them; colors : (n, 3), sRGB from 0 to 1
    notes : sentences about what the reader left out
    unfinished : whether the file ends within a line, so that the last face, or point, may be another
    """

    vertices: np.ndarray
    polygons: Polygons = field(default_factory=Polygons)
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    unfinished: bool = False


def check_placed(total: int) -> None:
    """Raise `ValueError` for more vertices and corners of placed meshes than are read: a small file can place many."""
    if total > MOST_PLACED:
        raise ValueError(f"its instances have {total:,} vertices and corners; at most {MOST_PLACED:,} are read")


def colors_of(values: np.ndarray) -> np.ndarray:
    """Colours from 0 to 1 of values, (n, 3), that are fractions already, or whole numbers to 255 or 65535."""
    largest = float(values.max(initial=0))
    full = 1.0 if values.dtype.kind == "f" and largest <= 1 else 255.0 if largest <= 255 else 65535.0
    return values.astype(np.float64) / full
