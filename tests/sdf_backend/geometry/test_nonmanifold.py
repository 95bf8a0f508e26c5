"""Two tetrahedra that touch along an edge with four faces."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.nonmanifold import split_nonmanifold_edges


def test_an_edge_of_four_faces_is_split_into_two() -> None:
    vertices = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], dtype=float)
    one = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    faces = np.concatenate([one, np.array([0, 1, 4, 5, 4, 5])[one + 2 * (one > 1)]])
    assert not trimesh.Trimesh(vertices, faces, process=False).is_watertight
    apart = trimesh.Trimesh(*split_nonmanifold_edges(vertices, faces), process=False)
    assert apart.is_watertight and apart.is_winding_consistent
    assert len(np.unique(apart.vertices, axis=0)) == len(vertices) + 1 and len(apart.vertices) == len(vertices) + 1
    assert apart.volume == pytest.approx(2 / 6) and len(apart.faces) == len(faces) + 2
