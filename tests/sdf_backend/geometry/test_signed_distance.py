"""Meshes are cleaned and normalised; points on triangles and spheres are spread evenly."""

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import (
    SignClassifier,
    _unique_rows,
    clean_mesh,
    fibonacci_sphere,
    normalisation,
    propagate_signs,
    sample_surface_points,
    unit_normals,
    unsigned_distance,
)

BALL = trimesh.creation.icosphere(subdivisions=4)


def test_cleaning_merges_vertices_and_drops_only_duplicate_and_degenerate_faces() -> None:
    faces = np.array(BALL.faces)
    corners = np.array(BALL.vertices)[faces].reshape(-1, 3)
    vertices = np.concatenate([corners, BALL.vertices])
    doubled = np.concatenate([np.arange(faces.size).reshape(-1, 3), faces[:, ::-1] + len(corners)])
    merged, kept = clean_mesh(vertices, np.concatenate([doubled, doubled[:5], [[0, 0, 1]]]))
    assert len(merged) == len(BALL.vertices)
    assert len(kept) == len(faces)


@given(arrays(float, (12, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_normalised_vertices_fill_the_unit_sphere(vertices: np.ndarray) -> None:
    if np.ptp(vertices, axis=0).max() < 1e-3:
        return
    scale, offset = normalisation(vertices)
    radius = np.linalg.norm((vertices + offset) * scale, axis=1)
    assert radius.max() == pytest.approx(1 / 1.03)


def test_surface_points_are_uniform_by_area() -> None:
    triangles = np.array([[[0, 0, 0], [3, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 1], [0, 1, 1]]], dtype=float)
    points, which = sample_surface_points(triangles, 20_000, np.random.default_rng(0))
    assert (which == 0).mean() == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(points[which == 0].mean(axis=0), [1, 1 / 3, 0], atol=0.02)
    np.testing.assert_array_equal(points[:, 2], which)


def test_triangles_without_area_cannot_be_sampled() -> None:
    with pytest.raises(InputError, match="degenerate"):
        sample_surface_points(np.zeros((2, 3, 3)), 10, np.random.default_rng(0))


def test_directions_on_a_fibonacci_sphere_are_unit_vectors_without_a_preferred_side() -> None:
    directions = fibonacci_sphere(500)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=1e-3)


def test_unit_normals_follow_the_right_hand_rule() -> None:
    np.testing.assert_allclose(unit_normals(np.array([[[0, 0, 0], [2, 0, 0], [0, 2, 0]]], dtype=float)), [[0, 0, 1]])


def test_clearance_is_the_distance_to_the_nearest_face() -> None:
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    signs = SignClassifier(np.array(box.vertices), np.array(box.faces))
    points = np.array([[0, 0, 0], [0.1, 0.3, 0], [0, 0, 0.9], [0.8, 0.9, 0]])
    np.testing.assert_allclose(signs.clearance(points), [0.5, 0.2, 0.4, 0.5])
    assert signs.clearance(points[:0]).shape == (0,)


def test_no_sign_spreads_through_a_wall_that_is_no_part_of_the_surface() -> None:
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    vertices, faces = np.array(box.vertices), np.array(box.faces)
    surface = vertices[faces[np.array(box.face_normals)[:, 0] < 0.5]]
    points = np.random.default_rng(0).uniform([0.4, -0.3, -0.3], [0.6, 0.3, 0.3], (5_000, 3))
    signs = propagate_signs(points, unsigned_distance(points, surface), SignClassifier(vertices, faces))
    np.testing.assert_array_equal(signs, np.where(points[:, 0] > 0.5, 1, -1))


def test_distinct_rows_are_those_of_numpy() -> None:
    rows = np.random.default_rng(0).integers(-2, 3, (500, 3))
    _, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    found, numbers = _unique_rows(rows)
    np.testing.assert_array_equal(found, first)
    np.testing.assert_array_equal(numbers, number.reshape(-1))
