"""Faces are cut into small cells without loss, and walls inside a body are no part of its surface."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.signed_distance import SignClassifier, connected_signs, unit_normals
from sdf_backend.geometry.visible_surface import count_cells, cut_faces, visible_surface

NEEDLE = np.array([[[0, 0, 0], [1, 0.0005, 0], [1, -0.0005, 0]]])
OBTUSE = np.array([[[0, 0, 0], [1, 0, 0], [0.5, 0.01, 0.2]]])
RIGHT = np.array([[[0, 0, 0], [0.6, 0, 0], [0, 0, 0.3]]])
SMALL = np.array([[[0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]]])


def area(triangles: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2


@pytest.mark.parametrize("triangle", [NEEDLE, OBTUSE, RIGHT, SMALL])
def test_cells_cover_their_face_and_are_small(triangle: np.ndarray) -> None:
    cells, source = cut_faces(triangle, 0.02)
    assert (source == 0).all()
    assert area(cells[:, [0, 1, 2]]).sum() + area(cells[:, [0, 2, 3]]).sum() == pytest.approx(area(triangle).sum())
    assert np.linalg.norm(cells - np.roll(cells, 1, axis=1), axis=2).max() <= 0.02 * 2**0.5 + 1e-9


def test_cells_of_a_needle_are_in_proportion_to_its_length() -> None:
    assert len(cut_faces(NEEDLE, 0.02)[0]) <= 110


def test_each_cell_knows_its_face() -> None:
    cells, source = cut_faces(np.concatenate([RIGHT, SMALL + 5, RIGHT + 9]), 0.02)
    np.testing.assert_array_equal(np.round(cells.mean(axis=1)[:, 1]), np.array([0, 5, 9])[source])


@pytest.mark.parametrize("wound_inwards", [False, True])
def test_a_leg_that_stands_in_a_top_ends_where_it_enters(wound_inwards: bool) -> None:
    top = trimesh.creation.box((1.0, 0.2, 1.0))
    leg = trimesh.creation.box((0.1, 0.8, 0.1))
    leg.apply_translation([0, -0.4, 0])
    mesh = trimesh.util.concatenate([top, leg])
    faces = np.array(mesh.faces)[:, ::-1] if wound_inwards else np.array(mesh.faces)
    vertices = np.array(mesh.vertices)
    triangles, normals = visible_surface(vertices, faces, SignClassifier(vertices, faces))
    # The top's six sides without the leg's section, the leg's four sides below it and its end; cells are kept whole.
    outside = 2 * 1.0 + 4 * 0.2 - 0.01 + 4 * 0.1 * 0.7 + 0.01
    assert outside <= area(triangles).sum() + 1e-6 <= outside + 0.02
    centres = triangles.mean(axis=1)
    assert centres[(np.abs(centres[:, [0, 2]]) < 0.06).all(axis=1), 1].max() <= 0.1 + 1e-9
    np.testing.assert_allclose(np.abs((normals * unit_normals(triangles)).sum(axis=1)), 1, atol=1e-6)
    flat = np.abs(normals[:, 1]) > 0.9
    assert (normals[flat, 1] * (centres[flat, 1] + 1e-3) > 0).mean() > 0.99


def test_rays_cast_ahead_first_change_no_sign() -> None:
    mesh = trimesh.util.concatenate([trimesh.creation.box((1, 0.5, 1)), trimesh.creation.torus(0.7, 0.1)])
    signs = SignClassifier(np.array(mesh.vertices), np.array(mesh.faces))
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (4_000, 3))
    expected = signs.classify(points)
    assert set(np.unique(expected)) >= {-1, 1}
    for ahead in (-points, np.tile([0.0, 1.0, 0.0], (len(points), 1))):
        np.testing.assert_array_equal(signs.classify(points, ahead), expected)


def test_points_that_see_each_other_share_their_signs_and_save_rays() -> None:
    # A hollow body that holds another, in which a third is stuck: every wall has points of both sides, 3e-4 away.
    sizes = (1, 0.5, 1), (0.6, 0.3, 0.6), (0.7, 0.2, 0.2)
    mesh = trimesh.util.concatenate([trimesh.creation.box(size) for size in sizes])
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    points, which = trimesh.sample.sample_surface(mesh, 40_000, seed=0)
    normals = np.array(mesh.face_normals[which]) * np.where(np.arange(len(points)) % 2, 1, -1)[:, None]
    probes = points + 3e-4 * normals
    plain, connected = SignClassifier(vertices, faces), SignClassifier(vertices, faces)
    expected = plain.classify(probes, normals)
    signs, clear = connected_signs(probes, normals, connected)
    assert set(np.unique(expected)) == {-1, 1}
    np.testing.assert_array_equal(signs, expected)
    assert clear.all()
    assert connected.rays < 0.5 * plain.rays


def test_a_wall_between_two_points_hides_one_from_the_other() -> None:
    box = trimesh.creation.box((1, 1, 1))
    signs = SignClassifier(np.array(box.vertices), np.array(box.faces))
    starts = np.array([[0.4, 0.1, 0.05], [0.4, 0.1, 0.05], [0.7, 0.1, 0.05]])
    ends = np.array([[0.49, 0.2, 0.1], [0.6, 0.1, 0.05], [0.8, 0.3, 0.1]])
    np.testing.assert_array_equal(signs.connected(starts, ends), [True, False, True])


@pytest.mark.parametrize("size", [0.5, 0.1, 0.02])
def test_cells_are_counted_before_they_are_cut(size: float) -> None:
    triangles = np.random.default_rng(0).uniform(-1, 1, (200, 3, 3))
    assert 0.9 < count_cells(triangles, size) / len(cut_faces(triangles, size)[0]) < 2
