"""Floaters of a ball: pieces beside it that no point of the input supports."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.similarity import Similarity
from sdf_backend.shapes.shape import SCRAP_SIZE, Shape, without_floaters


def shape(*pieces: trimesh.Trimesh, unit: float) -> Shape:
    mesh = trimesh.util.concatenate(pieces)
    pose = Similarity(unit, np.eye(3), np.array([5.0, 0, 0]))
    return Shape("balls", pose.apply(np.array(mesh.vertices)), np.array(mesh.faces), np.zeros(3), pose)


def ball(radius: float, x: float) -> trimesh.Trimesh:
    made = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    made.apply_translation([x, 0, 0])
    return made


@pytest.mark.parametrize("unit", [1e-3, 1.0, 300.0])
def test_scraps_that_nothing_supports_go_and_a_hidden_foot_stays(unit: float) -> None:
    body, foot, scrap, seen = ball(0.4, 0), ball(SCRAP_SIZE, 0.6), ball(SCRAP_SIZE / 3, 0.8), ball(SCRAP_SIZE / 3, -0.8)
    found = shape(body, foot, scrap, seen, unit=unit)
    points = found.pose.apply(np.concatenate([body.vertices, seen.vertices]))
    left = without_floaters(found, points, SCRAP_SIZE)
    np.testing.assert_allclose(left.vertices, shape(body, foot, seen, unit=unit).vertices)
    assert trimesh.Trimesh(left.vertices, left.faces, process=False).is_watertight
    solid = without_floaters(found, points)  # of which all was observed
    np.testing.assert_allclose(solid.vertices, shape(body, seen, unit=unit).vertices)


def test_a_shape_of_scraps_alone_stays() -> None:
    found = shape(ball(0.01, 0), ball(0.01, 0.5), unit=1.0)
    assert without_floaters(found, np.array([[9.0, 9, 9], [9, 9, 8], [8, 9, 9]]), SCRAP_SIZE) is not None
    assert len(without_floaters(found, np.full((3, 3), 9.0), SCRAP_SIZE).faces) == len(found.faces)
