"""Where balls stand, of which only size and place can be told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sdf_backend.errors import InputError
from sdf_backend.fit import assess_surface
from sdf_backend.model_store import Model
from sdf_backend.observations import observe_points
from sdf_backend.pose import Freedom, Similarity
from sdf_backend.pose_search import different, model_radius, score, search_poses


def half_ball(radius: float, centre: list[float]) -> np.ndarray:
    normal = np.random.default_rng(0).normal(size=(4_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal[normal[:, 0] > -0.2] * radius + centre


@pytest.mark.parametrize("freedom", [Freedom.ALIGNED, Freedom.UPRIGHT, Freedom.FREE])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 400.0])
def test_size_and_place_are_found_in_any_unit(spheres: Model, freedom: Freedom, scale: float) -> None:
    centre = [3.0 * scale, -2.0 * scale, scale]
    observed = observe_points(half_ball(0.5 * scale, centre))
    best, *_ = found = search_poses(spheres, observed, freedom, np.eye(3))
    assert [one.score for one in found] == sorted(one.score for one in found)
    assert best.pose.scale == pytest.approx(scale, rel=0.15)
    np.testing.assert_allclose(best.pose.translation, centre, atol=0.1 * scale)


def test_answers_that_give_the_same_shape_are_one(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    assert len(search_poses(spheres, observed, Freedom.UPRIGHT, np.eye(3))) == 1


def test_the_reach_of_a_model_is_that_of_its_shapes(spheres: Model) -> None:
    assert model_radius(spheres) == pytest.approx(0.5, abs=0.08)


def test_a_known_pose_is_not_searched_for(spheres: Model) -> None:
    with pytest.raises(InputError, match="nothing to search"):
        search_poses(spheres, observe_points(half_ball(0.5, [0, 0, 0])), Freedom.NONE, np.eye(3))


def test_the_search_is_watched_and_may_be_ended(spheres: Model) -> None:
    heard: list[float] = []
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    search_poses(spheres, observed, Freedom.FREE, np.eye(3), progress=heard.append)
    assert heard == sorted(heard) and heard[-1] == pytest.approx(1.0)
    with pytest.raises(ZeroDivisionError):
        search_poses(spheres, observed, Freedom.UPRIGHT, np.eye(3), progress=lambda share: 1 / 0)


def test_the_expected_pose_is_what_a_fit_is_held_to(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [1, 1, 1]))
    [best] = search_poses(spheres, observed, Freedom.ALIGNED, np.eye(3))
    assert isinstance(best.expected, Similarity)
    # Seen from one side the box's middle is off by what was not seen.
    np.testing.assert_allclose(best.expected.translation, [1.2, 1, 1], atol=0.03)


def test_answers_differ_where_their_shapes_lie_apart(spheres: Model) -> None:
    here, turned = Similarity.identity(), Similarity(1.0, np.diag([-1.0, 1, -1]), np.zeros(3))
    away, large = Similarity(1.0, np.eye(3), np.array([0.3, 0, 0])), Similarity(1.5, np.eye(3), np.zeros(3))
    answers = [(spheres.mean, pose) for pose in (here, turned, away, here, large)]
    assert different(spheres, answers, 5) == [0, 2, 4]
    assert different(spheres, answers, 2) == [0, 2]


def test_what_lies_behind_speaks_against_no_answer(spheres: Model) -> None:
    points = half_ball(0.5, [0, 0, 0])
    seen = observe_points(points[points[:, 0] > 0.2])
    pose, code = Similarity.identity(), spheres.mean
    blind = score(spheres, code, pose, seen, 1.0)
    told = score(spheres, code, pose, replace(seen, sensor=np.array([3.0, 0, 0])), 1.0)
    unexplained, _ = assess_surface(spheres, code, seen.surface, pose, torch.bfloat16)
    assert blind - unexplained > 3e-4
    assert told - unexplained < 0.5 * (blind - unexplained)
