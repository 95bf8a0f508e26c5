"""Observations of spheres against their analytic distances."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity, axis_rotation
from sdf_backend.observation.observations import (
    AssumedFreeSpaceSettings,
    Observations,
    ObservationSettings,
    check_point_cloud,
    observe_points,
    observe_whole_mesh,
    with_assumed_free_space,
)

SPHERE = trimesh.creation.icosphere(subdivisions=4, radius=2.0)
CENTRE = np.array([5.0, -3.0, 1.0])
CLOUD = np.array(SPHERE.vertices) + CENTRE


def true_distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - CENTRE, axis=1) - 2.0


def test_bare_points_are_observed_at_distance_zero() -> None:
    observed = observe_points(CLOUD)
    assert (observed.low == 0).all() and (observed.high == 0).all() and not observed.solid
    np.testing.assert_allclose(true_distance(observed.points), 0, atol=1e-9)


def test_normals_give_distances_on_both_sides_of_the_surface() -> None:
    observed = observe_points(CLOUD, normals=(CLOUD - CENTRE) * 7)
    assert len(observed.points) == 3 * len(CLOUD)
    np.testing.assert_array_equal(observed.low, observed.high)
    np.testing.assert_allclose(observed.low, true_distance(observed.points), atol=1e-9)
    assert observed.low.min() < 0 < observed.low.max()


def test_an_outlier_does_not_stretch_the_step_along_normals() -> None:
    """The step is a share of the cloud's extent, without its outliers."""
    with_outlier = np.concatenate([CLOUD, CENTRE[None] + 500])
    observed, clean = (observe_points(one, normals=one - CENTRE) for one in (with_outlier, CLOUD))
    assert observed.high.max() == pytest.approx(clean.high.max(), rel=0.05)


def test_points_without_a_normal_are_surface_points_only() -> None:
    normals = CLOUD - CENTRE
    normals[::2] = 0
    normals[::4] = np.inf
    assert len(observe_points(CLOUD, normals=normals).points) == len(CLOUD) + 2 * (len(CLOUD) // 2)


def test_free_space_is_outside_and_on_the_lines_of_sight() -> None:
    sensor = CENTRE + np.array([0, 0, 10.0])
    facing = CLOUD[(CLOUD - CENTRE)[:, 2] > 0.8]
    observed = observe_points(facing, sensor=sensor)
    free = np.isinf(observed.high)
    assert free.sum() == ObservationSettings().free_points
    assert (observed.low[free] == 0).all()
    assert (true_distance(observed.points[free]) > -1e-9).all()


def test_a_whole_mesh_gives_true_signed_distances_in_its_own_units() -> None:
    observed = observe_whole_mesh(CLOUD, np.array(SPHERE.faces)[:, ::-1])
    assert observed.solid
    np.testing.assert_allclose(observed.low, true_distance(observed.points), atol=0.01)
    assert 0.2 < (observed.low < 0).mean() < 0.8


def test_an_open_surface_is_refused_as_a_solid() -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    vertices = np.stack([x, y, 0.05 * np.sin(6 * x)], -1).reshape(-1, 3)
    faces = [[i, i + 1, i + 20] for i in range(379) if i % 20 != 19]
    with pytest.raises(InputError, match="encloses no volume"):
        observe_whole_mesh(vertices, np.array(faces))


@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_distances_scale_with_their_points(scale: float, shift: float) -> None:
    observed = observe_points(CLOUD[:200], normals=(CLOUD - CENTRE)[:200])
    moved = observed.transformed(scale, np.eye(3), np.full(3, shift))
    distance = (np.linalg.norm((moved.points - shift) / scale - CENTRE, axis=1) - 2) * scale
    np.testing.assert_allclose(moved.low, distance, atol=1e-7 * max(1, scale))


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.zeros((0, 3)), "no vertices"),
        (np.random.default_rng(0).normal(size=(99, 3)), "99 points"),
        (np.ones((200, 3)), "coincide"),
        (np.full((200, 3), 1e9), "coincide"),
        (np.random.default_rng(0).normal(size=(200, 3)) * [1, 1, 0] + 5, "one plane"),
        (np.random.default_rng(0).normal(size=(200, 1)) * np.ones(3), "one plane"),
        (np.full((200, 3), np.nan), "NaN"),
        (np.full((200, 3), np.inf), "NaN or infinite"),
    ],
)
def test_clouds_to_which_no_shape_can_be_fitted_are_refused(points: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_point_cloud(points)


def test_a_sensor_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="sensor"):
        observe_points(CLOUD, sensor=np.array([0, np.nan, 0]))


def test_the_same_seed_keeps_the_same_points() -> None:
    few = ObservationSettings(surface_points=300)
    first, second, other = (observe_points(CLOUD, settings=few, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.points, second.points)
    assert isinstance(other, Observations) and (first.points != other.points).any()


def test_space_is_assumed_free_only_far_from_surface_points_and_their_mirror_image() -> None:
    rng = np.random.default_rng(0)
    wing = rng.uniform([-0.2, -0.01, 0.1], [0.2, 0.01, 0.7], size=(2_000, 3))
    pose = Similarity(3.0, axis_rotation("+z", "-y", "-x").T, np.array([10.0, 20.0, 30.0]))
    observed = observe_points(pose.apply(wing))
    for axis, mirrored in [(2, wing * [1, 1, -1]), (None, wing)]:
        assumed = with_assumed_free_space(observed, pose, axis)
        free = pose.inverse().apply(assumed.points[len(observed.points) :])
        assert len(free) > 100 and np.isposinf(assumed.low[len(observed.points) :]).all()
        assert (np.abs(free) < np.array([0.2, 0.01, 0.7]) + AssumedFreeSpaceSettings().margin + 0.01).all()
        for kept in (wing, mirrored):
            assert KDTree(kept).query(free)[0].min() > AssumedFreeSpaceSettings().distance - 1e-9


def on_a_ground_plane() -> tuple[np.ndarray, np.ndarray]:
    """Points of a ball, and of the ground plane that it lies on."""
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(4_000, 3))
    ball *= 0.5 / np.linalg.norm(ball, axis=1, keepdims=True)
    floor = rng.uniform(-0.6, 0.6, size=(500, 3)) * [1, 0, 1] - [0, 0.5, 0]
    return ball, floor


def test_ground_plane_points_are_kept_apart_if_up_is_known() -> None:
    ball, floor = on_a_ground_plane()
    both = np.concatenate([ball, floor])
    observed = observe_points(both, up=np.array([0.0, 1, 0]))
    assert len(observed.ground_plane_points) == pytest.approx(500, abs=90)  # points of the ball near the plane too
    assert len(observed.surface) + len(observed.ground_plane_points) == len(both)
    assert len(observe_points(both).ground_plane_points) == 0
    assert len(observe_points(ball, up=np.array([0.0, 1, 0])).ground_plane_points) == 0


def test_ground_plane_points_can_be_included_as_surface_points() -> None:
    ball, floor = on_a_ground_plane()
    observed = observe_points(np.concatenate([ball, floor]), up=np.array([0.0, 1, 0]))
    assuming = with_assumed_free_space(observed, Similarity.identity(), None)
    included = assuming.with_ground_plane()
    assert len(included.ground_plane_points) == 0 and included.assumed == assuming.assumed > 0
    assert len(included.surface) == 4_500 and len(included.points) == len(assuming.points) + len(
        observed.ground_plane_points
    )
    known = slice(len(included.points) - included.assumed)
    assert (included.low[known] == 0).all() and (included.high[known] == 0).all()
    np.testing.assert_array_equal(
        included.points[known][-len(observed.ground_plane_points) :], observed.ground_plane_points
    )
    np.testing.assert_array_equal(included.points[known.stop :], assuming.points[-assuming.assumed :])


def test_ground_plane_points_are_transformed_along() -> None:
    ball, floor = on_a_ground_plane()
    observed = observe_points(np.concatenate([ball, floor]), up=np.array([0.0, 1, 0]))
    moved = observed.transformed(3.0, np.eye(3), np.array([1.0, 2, 3]))
    np.testing.assert_allclose(moved.ground_plane_points, 3 * observed.ground_plane_points + [1, 2, 3])


def test_no_space_is_assumed_free_in_the_occluded_region() -> None:
    sensor = CENTRE + np.array([0, 0, 10.0])
    facing = CLOUD[(CLOUD - CENTRE)[:, 2] > 0.4]
    pose = Similarity(4.0, np.eye(3), CENTRE)
    unknown_sensor = with_assumed_free_space(observe_points(facing), pose, None)
    known_sensor = with_assumed_free_space(replace(observe_points(facing), sensor=sensor), pose, None)

    def assumed_within(observed: Observations) -> int:
        return int((true_distance(observed.points[len(observed.points) - observed.assumed :]) < -0.3).sum())

    assert assumed_within(unknown_sensor) > 20
    assert assumed_within(known_sensor) == 0 and known_sensor.assumed > 20


def test_the_sensor_is_transformed_along() -> None:
    turn = axis_rotation("+z", "+x", "-z")
    observed = replace(observe_points(CLOUD), sensor=np.array([1.0, 2.0, 3.0]))
    moved = observed.transformed(2.0, turn, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(moved.sensor, 2 * turn @ [1, 2, 3] + [0, 1, 0])
