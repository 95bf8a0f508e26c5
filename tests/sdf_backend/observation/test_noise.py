"""The noise of points whose surface and scatter are known."""

import numpy as np
import pytest

from sdf_backend.observation.noise import estimate_noise


def ball(noise: float, count: int = 8_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal * (0.5 + noise * rng.normal(size=(count, 1)))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("noise", [0.002, 0.005, 0.01])
def test_the_noise_of_a_ball_is_found_in_any_unit(noise: float, scale: float) -> None:
    assert estimate_noise(scale * (ball(noise) + 7)) == pytest.approx(scale * noise, rel=0.15)


def test_curvature_and_edges_are_no_noise() -> None:
    assert estimate_noise(ball(0.0)) < 5e-4
    rng = np.random.default_rng(0)
    box = rng.uniform(-0.5, 0.5, (8_000, 3))
    box[np.arange(8_000), rng.integers(0, 3, 8_000)] = rng.choice([-0.5, 0.5], 8_000)
    assert estimate_noise(box) < 1e-5


def test_the_far_side_of_a_thin_wall_is_no_noise_where_normals_tell_it_apart() -> None:
    rng = np.random.default_rng(0)
    wall, side = rng.uniform(-0.5, 0.5, (8_000, 3)), rng.choice([-1.0, 1.0], 8_000)
    wall[:, 2] = 0.002 * side
    normals = np.stack([np.zeros(8_000), np.zeros(8_000), side], axis=1)
    assert estimate_noise(wall, normals) < 1e-9 < 1e-3 < estimate_noise(wall)


@pytest.mark.parametrize("points", [np.zeros((200, 3)), np.random.default_rng(0).normal(size=(10, 3))])
def test_points_that_describe_no_surface_have_none(points: np.ndarray) -> None:
    assert estimate_noise(points) == 0
