"""Triangle meshes and point arrays, checked once before they are measured or drawn."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdf_backend.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class MeshLike(Protocol):
    """Anything with vertices and faces: a `Mesh`, a `trimesh.Trimesh`, an `engine.Shape`."""

    @property
    def vertices(self) -> NDArray:
        """Vertex positions, (n, 3) float."""
        ...

    @property
    def faces(self) -> NDArray:
        """Vertex indices of the triangles, (m, 3) int."""
        ...


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: `vertices`, (n, 3) float, and `faces`, (m, 3) int."""

    vertices: NDArray
    faces: NDArray


def checked_points(values: ArrayLike, name: str) -> Floats:
    """Validate an array of points.

    Parameters
    ----------
    values : (n, 3)
    name : names the array in error messages

    Returns
    -------
    points : (n, 3) float64, C-contiguous

    Raises
    ------
    InputError : wrong shape, no rows, NaN or infinity
    """
    # Contiguous float64 is the layout that libigl accepts without a copy of its own.
    points = np.ascontiguousarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"{name} has shape {points.shape}; it must be (n, 3).")
    if len(points) == 0:
        raise InputError(f"{name} is empty; at least one row is needed.")
    if not np.isfinite(points).all():
        bad = int(np.count_nonzero(~np.isfinite(points).all(axis=1)))
        raise InputError(f"{name} has NaN or infinity in {bad} of its {len(points)} rows.")
    return points


def checked_mesh(vertices: ArrayLike, faces: ArrayLike) -> tuple[Floats, Ints]:
    """Validate a triangle mesh.

    Parameters
    ----------
    vertices : (n, 3)
    faces : (m, 3) int

    Returns
    -------
    vertices : (n, 3) float64, C-contiguous
    faces : (m, 3) int64, C-contiguous

    Raises
    ------
    InputError : malformed vertices, no faces, or a vertex index out of range
    """
    vertices, faces = checked_points(vertices, "vertices"), np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(f"faces has shape {faces.shape}; it must be (m, 3).")
    if len(faces) == 0:
        raise InputError("faces is empty; the mesh has no surface.")
    if not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"faces is of type {faces.dtype}; it must hold integers.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(
            f"faces has vertex indices from {faces.min()} to {faces.max()}; there are {len(vertices)} vertices, "
            "counted from 0."
        )
    return vertices, np.ascontiguousarray(faces, dtype=np.int64)
