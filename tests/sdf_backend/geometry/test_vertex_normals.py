"""Normals of meshes of which they are known."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.quads import quad_mesh
from sdf_backend.geometry.vertex_normals import vertex_normals


@pytest.mark.parametrize("corners", [3, 4])
def test_those_of_a_ball_point_away_from_its_middle(corners: int) -> None:
    ball = trimesh.creation.icosphere(3)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    if corners == 4:
        vertices, faces = quad_mesh(vertices, faces, 300)
    radial = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    assert (vertex_normals(vertices, faces) * radial).sum(axis=1).min() > 0.98


def test_a_face_counts_by_its_area_and_a_lone_vertex_has_none() -> None:
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]]))
    np.testing.assert_allclose(normals[0], np.array([1, 0, 3]) / np.sqrt(10))
    assert not normals[4].any()
