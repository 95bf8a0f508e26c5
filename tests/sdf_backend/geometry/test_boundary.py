"""Boundaries of meshes whose loops are known."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.geometry.boundary import boundary_half_edges, boundary_loops


def test_a_closed_mesh_has_no_boundary() -> None:
    assert boundary_loops(np.array(trimesh.creation.box().faces)) == []
    assert len(boundary_half_edges(np.zeros((0, 3), dtype=np.int64))) == 0


def test_a_loop_runs_along_the_edges_of_its_faces() -> None:
    [loop] = boundary_loops(np.array([[3, 5, 7], [3, 7, 9]]))
    turned = np.roll(loop, -int(np.argmin(loop)))
    assert turned.tolist() == [3, 5, 7, 9]


def test_a_tube_has_two_loops() -> None:
    tube = trimesh.creation.cylinder(0.5, 1.0, sections=12)
    side = np.array(tube.faces)[np.abs(tube.face_normals[:, 2]) < 0.5]
    loops = boundary_loops(side)
    heights = sorted(float(tube.vertices[loop, 2].mean()) for loop in loops)
    assert [len(loop) for loop in loops] == [12, 12] and heights == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize(
    "faces",
    [[[0, 1, 2], [0, 3, 4]], [[0, 1, 2], [0, 1, 3]]],
    ids=["two faces that share a vertex alone", "two faces that run the same way along an edge"],
)
def test_a_boundary_that_is_no_set_of_loops_is_rejected(faces: list[list[int]]) -> None:
    with pytest.raises(InputError, match="touches itself, or breaks off"):
        boundary_loops(np.array(faces))
