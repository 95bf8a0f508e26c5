"""Boundaries of meshes whose loops are known."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.boundary import find_boundary


def test_a_closed_mesh_has_no_boundary() -> None:
    for faces in (np.array(trimesh.creation.box().faces), np.zeros((0, 3), dtype=np.int64)):
        boundary = find_boundary(faces)
        assert boundary.loops == [] and len(boundary.tangles) == len(boundary.edges) == 0


@pytest.mark.parametrize("second", [[3, 7, 9], [9, 7, 3]], ids=["oriented alike", "oriented differently"])
def test_a_loop_runs_along_the_edges_of_its_faces(second: list[int]) -> None:
    boundary = find_boundary(np.array([[3, 5, 7], second, [7, 5, 11]]))
    [loop] = boundary.loops
    turned = np.roll(loop, -int(np.argmin(loop))).tolist()
    assert turned == [3, 5, 11, 7, 9] and len(boundary.edges) == 5


def test_a_tube_has_two_loops() -> None:
    tube = trimesh.creation.cylinder(0.5, 1.0, sections=12)
    side = np.array(tube.faces)[np.abs(tube.face_normals[:, 2]) < 0.5]
    loops = find_boundary(side).loops
    heights = sorted(float(tube.vertices[loop, 2].mean()) for loop in loops)
    assert [len(loop) for loop in loops] == [12, 12] and heights == pytest.approx([-0.5, 0.5])


def test_a_boundary_that_touches_itself_is_a_tangle_and_other_loops_stay() -> None:
    boundary = find_boundary(np.array([[0, 1, 2], [0, 3, 4], [5, 6, 7]]))
    assert [sorted(loop.tolist()) for loop in boundary.loops] == [[5, 6, 7]]
    assert sorted(np.unique(boundary.tangles).tolist()) == [0, 1, 2, 3, 4] and len(boundary.edges) == 9
