"""Simulated depth scans of a sphere, against its analytic horizon."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from training.evaluation.scanning import CameraSettings, sample_view_directions, simulate_scan

SPHERE = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
EXACT = CameraSettings(noise=0.0, pixels=120)


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 2, -3), (0, 1, 0), (0, -5, 0)])
def test_all_points_lie_on_the_visible_side_of_the_surface(direction: tuple[float, float, float]) -> None:
    seen = simulate_scan(SPHERE.vertices, SPHERE.faces, np.array(direction), EXACT, np.random.default_rng(0))
    towards = np.array(direction) / np.linalg.norm(direction)
    np.testing.assert_allclose(seen.sensor, towards * EXACT.distance)
    np.testing.assert_allclose(np.linalg.norm(seen.points, axis=1), 0.6, atol=2e-3)
    # From a distance d the horizon of a sphere of radius r lies at height r^2 / d.
    heights = seen.points @ towards
    assert heights.min() > 0.6**2 / EXACT.distance - 0.02 and heights.max() > 0.59
    assert ((seen.sensor - seen.points) * seen.normals).sum(axis=1).min() > 0


def test_normals_point_towards_the_camera_whatever_the_face_orientation() -> None:
    flipped = SPHERE.faces[:, ::-1]
    seen = simulate_scan(SPHERE.vertices, flipped, np.array([0, 0, 1]), EXACT, np.random.default_rng(0))
    assert (seen.points * seen.normals).sum(axis=1).min() > 0


def test_noise_is_along_the_rays_with_the_requested_deviation() -> None:
    noisy = CameraSettings(noise=0.01, pixels=120)
    exact, rough = (
        simulate_scan(SPHERE.vertices, SPHERE.faces, np.array([0, 0, 1]), settings, np.random.default_rng(0)).points
        for settings in (EXACT, noisy)
    )
    moved = rough - exact
    rays = exact - np.array([0, 0, EXACT.distance])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    assert np.linalg.norm(np.cross(moved, rays), axis=1).max() < 1e-6
    assert (moved * rays).sum(axis=1).std() == pytest.approx(0.01, rel=0.1)


def test_a_scan_without_hits_is_an_error() -> None:
    narrow = CameraSettings(half_angle=1.0, pixels=20)
    with pytest.raises(InputError, match="no ray of the depth camera hits"):
        simulate_scan(
            SPHERE.vertices + [0.9, 0, 0], SPHERE.faces, np.array([0, 0, 1]), narrow, np.random.default_rng(0)
        )


def test_view_directions_are_unit_vectors_all_around_and_reproducible() -> None:
    views = sample_view_directions(200, np.random.default_rng(3))
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1)
    assert views[:, 1].min() >= np.sin(np.radians(-20)) and views[:, 1].max() <= np.sin(np.radians(60))
    assert len(np.unique(np.floor(np.arctan2(views[:, 2], views[:, 0]) / (np.pi / 4)))) == 8
    np.testing.assert_array_equal(views, sample_view_directions(200, np.random.default_rng(3)))
