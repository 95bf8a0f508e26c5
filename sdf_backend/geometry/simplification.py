"""Fewer triangles for a closed mesh: edges collapse where that moves the surface least (Garland and Heckbert 1997)."""

import igl
import numpy as np

from sdf_backend.geometry.closure import is_closed


def simplify_mesh(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """Simplify a closed mesh to a number of triangles, with sharp edges, handles and pieces kept.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3), each edge of two faces
    triangles : as many as are wanted; where a further collapse would tear the surface there remain more

    Returns
    -------
    vertices : (k, 3) float64
    faces : (l, 3) int64; the mesh as it is where it has no more triangles than that, or is not closed.
    """
    if len(faces) <= triangles or not is_closed(faces):
        return vertices, faces
    # In the unit box, because the quadrics of far away vertices would lose their digits.
    low, size = vertices.min(axis=0), float(np.ptp(vertices, axis=0).max())
    unit = np.asfortranarray((vertices - low) / size, dtype=np.float64)
    fewer, fewer_faces, *_ = igl.qslim(unit, np.asfortranarray(faces, dtype=np.int32), triangles)
    if not is_closed(np.asarray(fewer_faces)):
        return vertices, faces
    return np.asarray(fewer) * size + low, np.asarray(fewer_faces, dtype=np.int64)
