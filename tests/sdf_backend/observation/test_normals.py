"""Normals that contradict the camera, each other or the outside are left out or turned around; right ones stay."""

import numpy as np
import pytest

from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.observation.normals import believe_normals
from sdf_backend.observation.sources import Source, observe_surface

RNG = np.random.default_rng(0)
BALL = RNG.normal(size=(1_000, 3))
BALL /= np.linalg.norm(BALL, axis=1, keepdims=True)
HALF = BALL[BALL[:, 2] > 0.2]
SENSOR = np.array([0.0, 0.0, 4.0])
TURNED = np.where(RNG.random((len(BALL), 1)) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("length", [1.0, 7.0])
@pytest.mark.parametrize(("points", "sensor"), [(HALF, SENSOR), (BALL, None)], ids=["one view", "whole"])
def test_right_normals_stay_and_inward_ones_are_turned_around(
    points: np.ndarray, sensor: np.ndarray | None, length: float
) -> None:
    assert believe_normals(points, length * points, sensor) == (pytest.approx(length * points), "")
    turned, told = believe_normals(points, -length * points, sensor)
    np.testing.assert_array_equal(turned, length * points)
    assert told.startswith("Its normals were turned around: ")


@pytest.mark.parametrize(("points", "sensor"), [(HALF, SENSOR), (BALL, None)], ids=["one view", "whole"])
def test_normals_that_contradict_each_other_are_left_out(points: np.ndarray, sensor: np.ndarray | None) -> None:
    normals, told = believe_normals(points, points * TURNED[: len(points)], sensor)
    assert normals is None and "of neighbouring ones point to opposite sides" in told


def test_normals_that_face_away_from_the_camera_in_part_are_left_out() -> None:
    normals, told = believe_normals(HALF, np.where(HALF[:, :1] < 0, -HALF, HALF), SENSOR)
    assert normals is None and "of them point inward" in told


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_inward_normals_give_the_distances_of_right_ones(sign: float) -> None:
    observed = observe_surface(Source(Geometry(BALL, np.zeros((0, 3), dtype=int), sign * BALL)), None)
    outside = np.linalg.norm(observed.points, axis=1) > 1.001
    assert (observed.low[outside] > 0).all() and outside.sum() == len(BALL)
    assert (observed.notes == ()) == (sign > 0)
