"""Straight cuts of boxes, balls and sheets."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from sdf_backend.observation.cuts import Cut, find_cut
from training.evaluation.breaking import HalfSpace, remove_region

SHEET = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
OBLIQUE = np.array([1.0, 2.0, 2.0]) / 3


def cut_mesh(mesh: trimesh.Trimesh, *planes: tuple[np.ndarray, float]) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    for normal, offset in planes:
        left = remove_region(trimesh.Trimesh(vertices, faces, process=False), HalfSpace(normal, offset))
        vertices, faces = left.vertices, left.faces
    return vertices, faces


def found_cut(vertices: np.ndarray, faces: np.ndarray) -> Cut:
    cut = find_cut(vertices, faces, 2_000)
    assert cut is not None
    return cut


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_the_plane_of_a_cut_is_found_in_any_unit_and_place(scale: float) -> None:
    vertices, faces = cut_mesh(trimesh.creation.box([1, 2, 3]), (OBLIQUE, 0.4))
    turn, shift = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix(), np.array([5.0, -7.0, 2.0])
    cut = found_cut(scale * (vertices @ turn.T + shift), faces)
    np.testing.assert_allclose(cut.normal, turn @ OBLIQUE, atol=1e-4)
    assert cut.offset == pytest.approx(scale * (0.4 + cut.normal @ shift), abs=1e-4 * scale)


def test_a_cut_turns_and_grows_with_its_observations() -> None:
    cut = found_cut(*cut_mesh(trimesh.creation.box(), (OBLIQUE, 0.2)))
    turn, shift = Rotation.from_rotvec([0, 2.0, 0]).as_matrix(), np.array([1.0, 2.0, 3.0])
    moved = cut.transformed(3.0, turn, shift)
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    np.testing.assert_array_equal(moved.is_beyond(3 * points @ turn.T + shift), cut.is_beyond(points))
    np.testing.assert_allclose(moved.continuation, 3 * cut.continuation @ turn.T + shift)


def test_the_surface_runs_on_in_the_planes_of_its_faces() -> None:
    box = trimesh.creation.box([1, 1, 1])
    vertices, faces = cut_mesh(box, (OBLIQUE, 0.2))
    points = found_cut(vertices, faces).continuation
    # Each is in the plane of one of the box's sides.
    assert np.abs(np.abs(points) - 0.5).min(axis=1).max() < 1e-6
    height = points @ OBLIQUE - 0.2
    length = 0.03 * np.linalg.norm(np.ptp(vertices, axis=0))
    assert height.min() > -1e-6 and 0.5 * length < height.max() <= length


def test_its_continuation_has_as_many_points_to_an_area_as_the_mesh() -> None:
    sides = trimesh.creation.box([1, 1, 1])
    sides.update_faces(np.abs(sides.face_normals[:, 2]) < 0.5)  # open above and below
    continuation = found_cut(np.asarray(sides.vertices), np.asarray(sides.faces)).continuation
    assert len(continuation) == pytest.approx(2_000 * 0.03 * 3**0.5, abs=1)


def test_of_two_cuts_that_with_the_longer_boundary_is_found() -> None:
    cut = found_cut(*cut_mesh(trimesh.creation.box([1, 1, 1]), (OBLIQUE, 0.2), (np.array([-1.0, 0, 0]), 0.3)))
    np.testing.assert_allclose(cut.normal, OBLIQUE, atol=1e-4)
    assert cut.is_beyond(np.array([[0.0, 0, 0], [0.4, 0.4, 0.4]])).tolist() == [False, True]


def test_faces_that_share_no_vertices_are_cut_as_well() -> None:
    vertices, faces = cut_mesh(trimesh.creation.icosphere(3), (OBLIQUE, 0.1))
    np.testing.assert_allclose(
        found_cut(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)).normal, OBLIQUE, atol=1e-4
    )


@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.icosphere(3),
        # The open edges are in a plane that bounds the mesh, but so are their faces: nothing was cut there.
        SHEET + trimesh.creation.icosphere(2, 0.3).apply_translation([0.5, 0.5, -0.4]),
        SHEET,
    ],
    ids=["closed", "sheet", "flat"],
)
def test_other_meshes_have_no_cut(mesh: trimesh.Trimesh) -> None:
    assert find_cut(np.asarray(mesh.vertices, dtype=float), np.asarray(mesh.faces), 2_000) is None


def test_a_hole_is_no_cut() -> None:
    ball = trimesh.creation.icosphere(4)
    ball.update_faces(np.linalg.norm(ball.triangles_center - [0, 0, 1], axis=1) > 0.3)
    assert find_cut(np.asarray(ball.vertices), np.asarray(ball.faces), 2_000) is None
