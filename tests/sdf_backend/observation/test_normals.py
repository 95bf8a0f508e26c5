"""Normals that contradict the camera, each other or the outside are doubted; right ones are not."""

import numpy as np
import pytest

from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.observation.normals import doubt_normals
from sdf_backend.observation.sources import Source, observe_surface

RNG = np.random.default_rng(0)
BALL = RNG.normal(size=(1_000, 3))
BALL /= np.linalg.norm(BALL, axis=1, keepdims=True)
HALF = BALL[BALL[:, 2] > 0.2]
SENSOR = np.array([0.0, 0.0, 4.0])
TURNED = np.where(RNG.random((len(BALL), 1)) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("length", [1.0, 7.0])
def test_right_normals_are_believed_with_and_without_a_camera(length: float) -> None:
    assert doubt_normals(HALF, length * HALF, SENSOR) == ""
    assert doubt_normals(BALL, length * BALL, None) == ""


@pytest.mark.parametrize(
    ("points", "normals", "sensor", "words"),
    [
        (HALF, -HALF, SENSOR, "% of them point away from the camera"),
        (BALL, -BALL, None, "they point inward"),
        (BALL, BALL * TURNED, None, "of neighbouring ones point to opposite sides"),
        (HALF, HALF * TURNED[: len(HALF)], SENSOR, "of them point away from the camera"),
    ],
)
def test_wrong_normals_are_doubted_in_a_sentence(
    points: np.ndarray, normals: np.ndarray, sensor: np.ndarray | None, words: str
) -> None:
    assert words in doubt_normals(points, normals, sensor)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_doubted_normals_give_no_distances_beside_the_surface(sign: float) -> None:
    observed = observe_surface(Source(Geometry(BALL, np.zeros((0, 3), dtype=int), sign * BALL)), None)
    assert bool(observed.low.any()) == (sign > 0)
    assert (observed.notes == ()) == (sign > 0)
