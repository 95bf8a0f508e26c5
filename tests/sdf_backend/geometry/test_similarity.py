"""Similarity transforms form a group; axis names give the right rotations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdf_backend.errors import InputError
from sdf_backend.fitting.pose_prior import free_parameters
from sdf_backend.geometry.similarity import Similarity, axis_rotation, axis_vector
from sdf_backend.settings import Axis, Pose

POINTS = np.random.default_rng(0).normal(size=(20, 3))
parameters = arrays(float, 7, elements=st.floats(-1.5, 1.5))


@given(parameters)
def test_the_inverse_undoes_the_transform(values: np.ndarray) -> None:
    pose = Similarity.from_parameters(values)
    np.testing.assert_allclose(pose.inverse().apply(pose.apply(POINTS)), POINTS, atol=1e-9)


@given(parameters, parameters)
def test_composition_applies_one_after_the_other(first: np.ndarray, second: np.ndarray) -> None:
    a, b = Similarity.from_parameters(first), Similarity.from_parameters(second)
    np.testing.assert_allclose(b.compose(a).apply(POINTS), b.apply(a.apply(POINTS)), atol=1e-9)


@given(parameters)
def test_parameters_round_trip(values: np.ndarray) -> None:
    np.testing.assert_allclose(Similarity.from_parameters(values).parameters(), values, atol=1e-8)


@given(parameters, parameters)
def test_interpolating_between_two_poses_begins_and_ends_at_them(first: np.ndarray, second: np.ndarray) -> None:
    a, b = Similarity.from_parameters(first), Similarity.from_parameters(second)
    for share, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(a.interpolate(b, share).apply(POINTS), end.apply(POINTS), atol=1e-8)
    assert a.interpolate(b, 0.5).scale == pytest.approx(np.sqrt(a.scale * b.scale))


@pytest.mark.parametrize("up", Axis)
@pytest.mark.parametrize("front", Axis)
def test_axis_rotation_maps_up_and_front_to_the_canonical_axes(up: str, front: str) -> None:
    if up[1] == front[1]:
        with pytest.raises(InputError, match="are parallel"):
            axis_rotation(up, front, "-x")
        return
    turn = axis_rotation(up, front, "-x")
    np.testing.assert_allclose(turn @ axis_vector(up), [0, 1, 0])
    np.testing.assert_allclose(turn @ axis_vector(front), [-1, 0, 0])
    assert np.linalg.det(turn) == pytest.approx(1)


@pytest.mark.parametrize("name", ["w", "", "+", "xy", "up"])
def test_an_unknown_axis_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="not an axis"):
        axis_vector(name)


def test_each_pose_frees_its_parameters() -> None:
    assert [int(free_parameters(pose).sum()) for pose in Pose] == [0, 4, 5, 7]
    assert free_parameters(Pose.UPRIGHT).tolist() == [True] * 4 + [False, True, False]
