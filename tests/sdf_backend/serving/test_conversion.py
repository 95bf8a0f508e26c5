"""Inputs and shapes survive the conversion to messages and back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sdf_backend.engine import Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.serving.conversion import (
    matrix_of,
    shape_from_wire,
    shape_to_wire,
    similarity_of,
    source_from_wire,
    source_to_wire,
)
from sdf_backend.wire import messages as wire

TRIANGLE = np.array([[0.1, 0, 0], [1, 0, 0], [0, 1, 1 / 3]]), np.array([[0, 1, 2]])


@pytest.mark.parametrize("faces", [TRIANGLE[1], np.zeros((0, 3), np.int64)])
@pytest.mark.parametrize("normals", [None, np.eye(3)])
@pytest.mark.parametrize("sensor", [None, np.array([1.5, 2, 3])])
@pytest.mark.parametrize("colors", [None, np.eye(3) / 3])
def test_sources_come_back(
    faces: np.ndarray, normals: np.ndarray | None, sensor: np.ndarray | None, colors: np.ndarray | None
) -> None:
    back = source_from_wire(source_to_wire(Source(Geometry(TRIANGLE[0], faces, normals, colors), sensor)), "it")
    np.testing.assert_array_equal(back.geometry.vertices, TRIANGLE[0])
    np.testing.assert_array_equal(back.geometry.faces, faces)
    for own, given_ in ((back.geometry.normals, normals), (back.sensor, sensor), (back.geometry.colors, colors)):
        assert (own is None) == (given_ is None)
        np.testing.assert_array_equal(own if own is not None else 0, given_ if given_ is not None else 0)


def test_vertices_that_cannot_be_used_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="input 2"):
        source_from_wire(wire.Source(np.zeros((0, 3))), "input 2")


def test_shapes_come_back() -> None:
    pose = Similarity(2.0, Rotation.from_rotvec([0, 1, 0]).as_matrix(), np.array([1.0, 2, 3]))
    code, observed = np.arange(4, dtype=np.float32), np.array([0, 0.5, 1], dtype=np.float32)
    refinement, deviation = np.array([[7, 0.01], [9, -0.02]], dtype=np.float32), observed / 10
    shape = Shape(
        "chairs", *TRIANGLE, code, pose, observed, refinement, deviation, 0.1, 0.9, 0.3, 22, 5, {"fitting": 1.5}
    )
    shape = replace(shape, kept_vertices=2, kept_faces=1, note="One.", colors=np.eye(3, dtype=np.float32))
    shape = replace(shape, faces=np.concatenate([shape.faces, shape.faces]), quads=1)
    back = shape_from_wire(shape_to_wire(shape, np.dtype(np.float64)), "chairs")
    assert (back.kept_vertices, back.kept_faces, back.note, back.quads) == (2, 1, "One.", 1)
    for name in ("vertices", "faces", "code", "observed", "refinement", "deviation", "colors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(shape, name))
        assert getattr(back, name).dtype == getattr(shape, name).dtype
    np.testing.assert_allclose(matrix_of(back.pose), matrix_of(pose), atol=1e-12)
    assert (back.residual, back.explained, back.confidence, back.steps, back.seconds) == (
        0.1,
        0.9,
        0.3,
        22,
        {"fitting": 1.5},
    )


@given(
    st.floats(1e-3, 1e3),
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.lists(st.floats(-100, 100), min_size=3, max_size=3),
)
def test_a_pose_survives_its_way_as_a_matrix(scale: float, turn: list, shift: list) -> None:
    pose = Similarity(scale, Rotation.from_rotvec(turn).as_matrix(), np.array(shift))
    back = similarity_of(matrix_of(pose), "pose")
    points = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_allclose(back.apply(points), pose.apply(points), atol=1e-6 * (scale + 100))


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((4, 4)), np.ones((4, 4)), np.diag([1, 1, 2, 1]), np.diag([-1, 1, 1, 1]), 2 * np.eye(4), -np.eye(4)],
)
def test_a_matrix_that_is_no_similarity_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="pose 3"):
        similarity_of(matrix.astype(np.float32), "pose 3")


@pytest.mark.parametrize("scale", [np.nan, np.inf, 1e30])
def test_a_matrix_that_is_not_finite_or_huge_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="pose 3 has numbers that are not finite or above 1e"):
        similarity_of(np.diag([scale, scale, scale, 1]), "pose 3")
