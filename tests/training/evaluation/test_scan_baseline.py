"""The snapped baseline finds, scales and bends; scores without truth measure from the scan alone."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from training.evaluation.metrics import Mesh, chamfer
from training.evaluation.scan_baseline import scale_to_box, snap, snapped_nearest_shape, unidirectional_scores


def box(*extents: float, count: int = 6_000) -> np.ndarray:
    points, _ = trimesh.sample.sample_surface(trimesh.creation.box(extents=extents), count, seed=3)
    return np.asarray(points)


def ball(radius: float, count: int = 6_000) -> np.ndarray:
    directions = np.random.default_rng(5).normal(size=(count, 3))
    return radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_scaling_gives_the_box_of_the_target() -> None:
    moved = scale_to_box(ball(0.3), box(1.0, 0.4, 0.2) + [0.1, 0.2, 0.3])
    np.testing.assert_allclose(moved.min(axis=0), [-0.4, 0.0, 0.2], atol=1e-3)
    np.testing.assert_allclose(moved.max(axis=0), [0.6, 0.4, 0.4], atol=1e-3)


def test_an_axis_without_extent_is_moved_and_not_scaled() -> None:
    flat = box(1, 1, 1) * [1, 1, 0]
    np.testing.assert_allclose(scale_to_box(flat, box(0.5, 0.5, 0.5))[:, 2], -0.25, atol=1e-3)


def test_the_shape_that_explains_the_scan_is_chosen_whatever_its_proportions() -> None:
    scan = box(0.9, 0.3, 0.5)
    scan = scan[scan[:, 2] > -0.2]
    found = snapped_nearest_shape(scan, {"ball": ball(0.5), "box": box(0.4, 0.4, 0.4)})
    assert found.name == "box"


def test_snapping_moves_the_surface_onto_the_scan_and_leaves_the_rest() -> None:
    truth = box(0.8, 0.6, 0.4, count=20_000)
    scan = truth[truth[:, 0] > 0.3] + [0.03, 0.0, 0.0]
    moved = snap(truth, scan)
    near, far = truth[:, 0] > 0.35, truth[:, 0] < 0.0
    assert np.abs(moved[near] - truth[near] - [0.03, 0, 0]).mean() < 0.01
    np.testing.assert_allclose(moved[far], truth[far], atol=1e-3)


def test_the_answer_to_a_whole_scan_of_a_training_shape_is_that_shape() -> None:
    surface = box(0.8, 0.5, 0.3)
    found = snapped_nearest_shape(surface, {"box": surface, "ball": ball(0.4)})
    assert chamfer(found.points, surface) < 1e-6


def test_scores_without_truth_are_mean_and_maximum_from_the_scan() -> None:
    square = Mesh(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float), np.array([[0, 1, 2], [0, 2, 3]]))
    scan = np.array([[0.5, 0.5, 0.1], [0.2, 0.2, -0.3], [0.5, 0.5, 0.0], [2.0, 0.5, 0.0]])
    assert unidirectional_scores(scan, square) == pytest.approx(((0.1 + 0.3 + 0 + 1) / 4, 1.0))


def test_without_training_shapes_there_is_no_nearest() -> None:
    with pytest.raises(InputError, match="no training shapes"):
        snapped_nearest_shape(ball(0.5), {})
