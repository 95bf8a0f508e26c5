"""Whether a triangle mesh is closed, and the volume that it then encloses."""

import numpy as np
import trimesh


def is_closed(faces: np.ndarray) -> bool:
    """Whether two of the faces, (m, 3), meet at each edge, in opposite directions; not without faces."""
    edges = trimesh.geometry.faces_to_edges(faces)
    _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    return len(faces) > 0 and bool((counts == 2).all()) and len(np.unique(edges, axis=0)) == len(edges)


def enclosed_volume(vertices: np.ndarray, faces: np.ndarray) -> float | None:
    """The volume inside a mesh, (n, 3) vertices and (m, 3) faces, in cubic units of it; None where it is not closed."""
    if not is_closed(faces):
        return None
    # About its own middle, because far from the origin the terms of the sum would cancel.
    centred = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return float(trimesh.Trimesh(centred, faces, process=False).volume)
