"""Colours of a ball whose upper half was observed."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.shapes.coloring import color_shape
from sdf_backend.shapes.shape import Shape

BALL = trimesh.creation.icosphere(4)
COARSE = trimesh.creation.icosphere(3)
NO_FACES = np.zeros((0, 3), dtype=np.int64)


def ball() -> Shape:
    observed = (BALL.vertices[:, 2] > 0).astype(np.float32)
    code = np.zeros(3, dtype=np.float32)
    return Shape("spheres", np.array(BALL.vertices), np.array(BALL.faces), code, Similarity.identity(), observed)


def gradient(points: np.ndarray) -> np.ndarray:
    return np.clip((points + 1) / 2, 0, 1)


@pytest.mark.parametrize("faces", [np.array(COARSE.faces), NO_FACES], ids=["mesh", "cloud"])
def test_what_was_observed_has_the_colours_of_the_input(faces: np.ndarray) -> None:
    source = COARSE if len(faces) else BALL
    given = Geometry(np.array(source.vertices), faces, colors=gradient(source.vertices))
    colored = color_shape(ball(), given)
    assert colored.colors is not None and colored.colors.dtype == np.float32
    seen = BALL.vertices[:, 2] > 0
    # Linear on each triangle, so that they are those of the surface within one of 255 levels.
    assert np.abs(colored.colors[seen] - gradient(BALL.vertices[seen])).max() < 1 / 255 + (0.003 if len(faces) else 0)


def test_the_rest_continues_them_without_a_step() -> None:
    given = Geometry(np.array(COARSE.vertices), np.array(COARSE.faces), colors=gradient(COARSE.vertices))
    colors = color_shape(ball(), given).colors
    assert colors is not None and colors.min() >= 0 and colors.max() <= 1
    edges = BALL.edges_unique
    assert np.abs(colors[edges[:, 0]] - colors[edges[:, 1]]).max() < 0.1
    below = BALL.vertices[:, 2] < -0.2
    # Left stays left of the seen colours, and right right.
    assert np.corrcoef(colors[below, 0], BALL.vertices[below, 0])[0, 1] > 0.9


def test_a_face_without_area_has_the_mean_colour_of_its_corners() -> None:
    flat = Geometry(np.zeros((3, 3)), np.array([[0, 1, 2]]), colors=np.array([[0.0] * 3, [0.3] * 3, [0.6] * 3]))
    colors = color_shape(ball(), flat).colors
    assert colors is not None
    np.testing.assert_allclose(colors, 0.3, atol=1e-6)


def test_without_colours_or_without_an_input_a_shape_stays_as_it_is() -> None:
    plain, colored = Geometry(np.array(BALL.vertices), NO_FACES), gradient(BALL.vertices)
    assert color_shape(ball(), plain).colors is None
    assert color_shape(replace(ball(), observed=None), replace(plain, colors=colored)).colors is None
