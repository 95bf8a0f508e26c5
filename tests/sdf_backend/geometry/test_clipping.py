"""Clipped meshes whose parts are known."""

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.geometry.boundary import find_boundary
from sdf_backend.geometry.clipping import clip_above

BALL = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
VERTICES, FACES = np.array(BALL.vertices), np.array(BALL.faces)


@given(st.floats(-0.45, 0.45), st.integers(0, 2**32 - 1))
def test_both_sides_of_a_cut_make_up_the_mesh(level: float, seed: int) -> None:
    normal = np.random.default_rng(seed).normal(size=3)
    values = VERTICES @ (normal / np.linalg.norm(normal))
    above, below = clip_above(VERTICES, FACES, values, level), clip_above(VERTICES, FACES, -values, -level)
    areas = [trimesh.Trimesh(*side, process=False).area for side in (above, below)]
    assert sum(areas) == pytest.approx(BALL.area)
    # Both are open along one loop, which lies on the plane.
    for vertices, faces in (above, below):
        [loop] = find_boundary(faces).loops
        assert vertices[loop] @ (normal / np.linalg.norm(normal)) == pytest.approx(level, abs=1e-9)


def test_faces_keep_their_orientation() -> None:
    vertices, faces = clip_above(VERTICES, FACES, VERTICES[:, 1], 0.1)
    part = trimesh.Trimesh(vertices, faces, process=False)
    assert (np.einsum("ij,ij->i", part.face_normals, part.triangles_center) > 0).all()


def test_nothing_and_everything_can_be_above() -> None:
    assert [len(array) for array in clip_above(VERTICES, FACES, VERTICES[:, 0], 2.0)] == [0, 0]
    vertices, faces = clip_above(VERTICES, FACES, VERTICES[:, 0], -2.0)
    assert len(faces) == len(FACES) and np.array_equal(np.sort(vertices, axis=0), np.sort(VERTICES, axis=0))
