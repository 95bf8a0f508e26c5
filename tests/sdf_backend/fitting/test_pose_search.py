"""Where balls stand, of which only size and place can be told."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.fit import Fit, fit_codes
from sdf_backend.fitting.pose_search import different, elsewhere, score, search_poses
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.settings import Pose


def half_ball(radius: float, centre: list[float]) -> np.ndarray:
    normal = np.random.default_rng(0).normal(size=(4_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal[normal[:, 0] > -0.2] * radius + centre


@pytest.mark.parametrize("freedom", [Pose.ALIGNED, Pose.UPRIGHT, Pose.FREE])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 400.0])
def test_size_and_place_are_found_in_any_unit(spheres: Model, freedom: Pose, scale: float) -> None:
    centre = [3.0 * scale, -2.0 * scale, scale]
    observed = observe_points(half_ball(0.5 * scale, centre))
    best, *_ = found = search_poses(spheres, observed, freedom, np.eye(3))
    assert [one.score for one in found] == sorted(one.score for one in found)
    assert best.pose.scale == pytest.approx(scale, rel=0.15)
    np.testing.assert_allclose(best.pose.translation, centre, atol=0.1 * scale)


def test_answers_that_give_the_same_shape_are_one(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    assert len(search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3))) == 1


def test_the_size_that_is_expected_is_what_was_seen_over_what_the_shapes_reach(spheres: Model) -> None:
    half = half_ball(0.5, [0, 0, 0])
    observed = observe_points(np.concatenate([half, -half]))
    far = replace(spheres, card=replace(spheres.card, reach=0.25))
    one, other = (search_poses(model, observed, Pose.ALIGNED, np.eye(3))[0].expected for model in (spheres, far))
    assert other.scale == pytest.approx(2 * one.scale)
    assert one.scale == pytest.approx(1.0, rel=0.05)


def test_of_one_view_starts_stand_at_two_distances(spheres: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    observed, begun, expected = observe_points(half_ball(50, [100, 0, 0])), [], []

    def fits(model: Model, observations: list[Observations], *rest: Any, **named: Any) -> list[Fit]:
        begun.append(rest[1])
        expected.append(named["expected"])
        return fit_codes(model, observations, *rest, **named)

    monkeypatch.setattr("sdf_backend.fitting.pose_search.fit_codes", fits)
    for seen in (observed, replace(observed, sensor=np.array([500.0, 0, 0]))):
        search_poses(spheres, seen, Pose.ALIGNED, np.eye(3))
    [alone], [near, far] = begun[0], next(poses for poses in begun if len(poses) == 2)
    np.testing.assert_allclose(near.translation, alone.translation)
    np.testing.assert_allclose(far.translation - near.translation, [-0.25 * near.scale, 0, 0], atol=0.1)
    # And all the way each is held to where it began, however far it has come.
    first = [alone, near, far]
    assert all(any(one is start for start in first) for later in expected for one in later)
    assert len(expected) > 2


def test_a_known_pose_is_not_searched_for(spheres: Model) -> None:
    with pytest.raises(InputError, match="nothing to search"):
        search_poses(spheres, observe_points(half_ball(0.5, [0, 0, 0])), Pose.KNOWN, np.eye(3))


def test_a_cloud_that_is_one_place_and_a_few_strays_is_refused(spheres: Model) -> None:
    observed = observe_points(np.concatenate([np.zeros((19_000, 3)), np.eye(3), 2 * np.eye(3)]))
    with pytest.raises(InputError, match="nearly all points of the input are in one place"):
        search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3))


def test_the_search_is_watched_and_may_be_ended(spheres: Model) -> None:
    heard: list[float] = []
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    search_poses(spheres, observed, Pose.FREE, np.eye(3), progress=heard.append)
    assert heard == sorted(heard) and heard[-1] == pytest.approx(1.0)
    with pytest.raises(ZeroDivisionError):
        search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3), progress=lambda share: 1 / 0)


def test_the_expected_pose_is_what_a_fit_is_held_to(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [1, 1, 1]))
    [best] = search_poses(spheres, observed, Pose.ALIGNED, np.eye(3))
    assert isinstance(best.expected, Similarity)
    # Seen from one side the box's middle is off by what was not seen.
    np.testing.assert_allclose(best.expected.translation, [1.2, 1, 1], atol=0.03)


def test_answers_differ_where_their_shapes_lie_apart(spheres: Model) -> None:
    here, turned = Similarity.identity(), Similarity(1.0, np.diag([-1.0, 1, -1]), np.zeros(3))
    away, large = Similarity(1.0, np.eye(3), np.array([0.3, 0, 0])), Similarity(1.5, np.eye(3), np.zeros(3))
    answers = [(spheres.mean, pose) for pose in (here, turned, away, here, large)]
    assert different(spheres, answers, 5) == [0, 2, 4]
    assert different(spheres, answers, 2) == [0, 2]


def test_poses_that_a_fit_would_bring_together_are_one() -> None:
    def pose(size: float = 1, turn: float = 0, place: float = 0) -> Similarity:
        return Similarity(size, Rotation.from_euler("y", turn, degrees=True).as_matrix(), np.array([place, 0, 0]))

    poses = [
        pose(),
        pose(turn=5),
        pose(turn=40),
        pose(1.05),
        pose(1.3),
        pose(place=0.05),
        pose(place=0.3),
        pose(turn=35),
    ]
    assert elsewhere(poses) == [0, 2, 4, 6]


def test_what_the_camera_must_have_seen_and_has_not_speaks_against_an_answer(spheres: Model) -> None:
    """Nor does it help that the category's other half was seen."""
    mirrored = replace(spheres, decoder=copy(spheres.decoder))
    mirrored.decoder.settings = replace(spheres.decoder.settings, mirror_axis=0)
    points = half_ball(0.5, [0, 0, 0])
    left = replace(observe_points(points[points[:, 0] > 0]), sensor=np.array([0, 3.0, 0]))
    pose = Similarity.identity()
    told, blind = (score(mirrored, spheres.mean, pose, seen, 1.0) for seen in (left, replace(left, sensor=None)))
    unexplained, _ = assess_surface(mirrored, spheres.mean, left.surface, pose, torch.bfloat16)
    assert blind - unexplained < 1e-3
    assert told - unexplained > 5e-3


def test_what_lies_behind_speaks_against_no_answer(spheres: Model) -> None:
    points = half_ball(0.5, [0, 0, 0])
    seen = observe_points(points[points[:, 0] > 0.2])
    pose, code = Similarity.identity(), spheres.mean
    facing, behind = (
        score(spheres, code, pose, replace(seen, sensor=np.array([place, 0, 0])), 1.0) for place in (3.0, -3.0)
    )
    unexplained, _ = assess_surface(spheres, code, seen.surface, pose, torch.bfloat16)
    assert behind - unexplained > 1e-2
    assert facing - unexplained < 0.5 * (behind - unexplained)
