"""Sensor positions of scans of balls by a pinhole camera, and occlusion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.observation.sensor_position import estimate_sensor_position, is_occluded
from sdf_backend.observation.sources import Source, observe_surface

DISTANCE = 2.6
SPHERES = [((0.0, 0.0, 0.0), 0.5), ((0.7, 0.1, 0.2), 0.2), ((-0.5, 0.5, -0.3), 0.25), ((0.1, -0.7, 0.3), 0.15)]


def scan(direction: np.ndarray, pixels: int = 120) -> np.ndarray:
    """Points of some balls, (n, 3), that are visible to a camera in that direction at DISTANCE."""
    across = np.linalg.svd(direction[None])[2][1:]
    grid = np.linspace(-0.45, 0.45, pixels)
    right, above = (axis.reshape(-1, 1) for axis in np.meshgrid(grid, grid))
    rays = -direction + right * across[0] + above * across[1]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    nearest = np.full(len(rays), np.inf)
    for centre, radius in SPHERES:
        # |sensor + t ray - centre| = radius
        start = direction * DISTANCE - centre
        half = rays @ start
        under = half**2 - start @ start + radius**2
        meets = under >= 0
        nearest[meets] = np.minimum(nearest[meets], -half[meets] - np.sqrt(under[meets]))
    met = np.isfinite(nearest)
    return direction * DISTANCE + rays[met] * nearest[met, None]


def directions(count: int) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def on_sphere(count: int, rng: np.random.Generator) -> np.ndarray:
    vectors = rng.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("direction", directions(6))
def test_the_sensor_of_a_single_view_is_found(direction: np.ndarray) -> None:
    found = estimate_sensor_position(scan(direction))
    assert found is not None
    assert np.degrees(np.arccos(found @ direction / np.linalg.norm(found))) < 12
    assert np.linalg.norm(found) == pytest.approx(DISTANCE, rel=0.4)


@settings(max_examples=8)
@given(st.floats(-2, 2), st.integers(0, 99))
def test_the_estimate_moves_with_the_cloud(size: float, seed: int) -> None:
    points = scan(directions(1)[0], 90)
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    scale, shift = 10**size, np.array([3.0, -2.0, 7.0]) * 10**size
    found = estimate_sensor_position(scale * points @ turn.T + shift)
    assert found is not None
    straight = turn.T @ ((found - shift) / scale)
    assert np.degrees(np.arccos(straight @ directions(1)[0] / np.linalg.norm(straight))) < 15


def test_noise_and_subsampling_do_not_change_the_estimate() -> None:
    direction, rng = directions(2)[1], np.random.default_rng(0)
    points = scan(direction)[::3]
    found = estimate_sensor_position(points + rng.normal(size=points.shape) * 0.005)
    assert found is not None
    assert np.degrees(np.arccos(found @ direction / np.linalg.norm(found))) < 15


def test_a_cloud_that_is_no_single_view_has_no_estimate() -> None:
    rng = np.random.default_rng(0)
    whole = np.concatenate([np.array(centre) + radius * on_sphere(4_000, rng) for centre, radius in SPHERES])
    assert estimate_sensor_position(whole) is None
    two = np.concatenate([scan(direction) for direction in (directions(1)[0], -directions(1)[0])])
    assert estimate_sensor_position(two) is None
    assert estimate_sensor_position(whole[:100]) is None
    # The same few points many times.
    assert estimate_sensor_position(np.repeat(whole[:50], 100, axis=0)) is None


def test_points_behind_a_ball_are_occluded() -> None:
    direction = np.array([0.0, 0.0, 1.0])
    surface = scan(direction)
    surface = surface[np.linalg.norm(surface, axis=1) < 0.51]  # of the ball about the origin alone
    sensor = direction * DISTANCE
    points = np.array([[0, 0, 0], [0.1, 0.1, -0.9], [0, 0, 0.9], [0.9, 0, 0], [0, 0.75, -0.4], [0.0, 0.3, -0.4]])
    np.testing.assert_array_equal(is_occluded(points, surface, sensor), [True, True, False, False, False, True])


@pytest.mark.parametrize("direction", [*np.eye(3), *-np.eye(3)])
def test_a_randomly_sampled_ball_occludes_its_inside_and_nothing_beside_it(direction: np.ndarray) -> None:
    ball = on_sphere(20_000, np.random.default_rng(0)) * 0.5
    sensor = direction * DISTANCE
    surface = ball[ball @ direction > 0.5 * 0.5 / DISTANCE]
    inside = on_sphere(500, np.random.default_rng(1)) * 0.35 - 0.1 * direction
    assert is_occluded(inside, surface, sensor).mean() > 0.85
    across = np.linalg.svd(direction[None])[2][1:]
    beside = 0.56 * (on_sphere(500, np.random.default_rng(2))[:, :2] @ across)
    beside *= 0.56 / np.linalg.norm(beside, axis=1, keepdims=True)
    assert not is_occluded(beside, surface, sensor).any()


def test_the_sensor_of_clouds_and_of_meshes_of_a_scan_is_estimated() -> None:
    direction = directions(1)[0]
    points = scan(direction)
    nothing = np.zeros((0, 3), dtype=np.int64)
    observed = observe_surface(Source(Geometry(points, nothing)), None)
    assert observed.sensor is not None and not np.isinf(observed.high).any()
    given = observe_surface(Source(Geometry(points, nothing), direction * 9), None)
    np.testing.assert_array_equal(given.sensor, direction * 9)
    strips = np.arange(len(points) - 2)[:, None] + np.arange(3)
    meshed = observe_surface(Source(Geometry(points, strips)), None)
    assert meshed.sensor is not None
