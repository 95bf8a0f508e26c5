"""The pose search on balls, of which only scale and position can be found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.pose_search import search_poses
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import observe_points, with_assumed_continuation
from sdf_backend.observation.sources import Source, observe_surface
from sdf_backend.settings import Pose
from training.evaluation.breaking import HalfSpace, remove_region


def half_ball(radius: float, centre: list[float]) -> np.ndarray:
    normal = np.random.default_rng(0).normal(size=(4_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal[normal[:, 0] > -0.2] * radius + centre


@pytest.mark.parametrize("freedom", [Pose.ALIGNED, Pose.UPRIGHT, Pose.FREE])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 400.0])
def test_scale_and_position_are_found_in_any_unit(spheres: Model, freedom: Pose, scale: float) -> None:
    centre = [3.0 * scale, -2.0 * scale, scale]
    observed = observe_points(half_ball(0.5 * scale, centre))
    best, *_ = found = search_poses(spheres, observed, freedom, np.eye(3))
    assert [one.score for one in found] == sorted(one.score for one in found)
    assert best.pose.scale == pytest.approx(scale, rel=0.15)
    np.testing.assert_allclose(best.pose.translation, centre, atol=0.1 * scale)


def test_poses_that_give_the_same_shape_are_suppressed(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    assert len(search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3))) == 1


def test_the_expected_scale_is_the_observed_extent_over_the_reach_of_the_shapes(spheres: Model) -> None:
    half = half_ball(0.5, [0, 0, 0])
    observed = observe_points(np.concatenate([half, -half]))
    far = replace(spheres, card=replace(spheres.card, reach=0.25))
    one, other = (search_poses(model, observed, Pose.ALIGNED, np.eye(3))[0].expected for model in (spheres, far))
    assert other.scale == pytest.approx(2 * one.scale)
    assert one.scale == pytest.approx(1.0, rel=0.05)


def test_starts_of_a_single_view_stand_at_two_distances(spheres: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    observed, begun, expected = observe_points(half_ball(50, [100, 0, 0])), [], []

    def fits(model: Model, requests: list[FitRequest], *rest: Any) -> list[Fit]:
        begun.append([request.pose for request in requests])
        expected.append([request.expected_pose for request in requests])
        return fit_codes(model, requests, *rest)

    monkeypatch.setattr("sdf_backend.fitting.pose_search.fit_codes", fits)
    for seen in (observed, replace(observed, sensor=np.array([500.0, 0, 0]))):
        search_poses(spheres, seen, Pose.ALIGNED, np.eye(3))
    [alone], [near, far] = begun[0], next(poses for poses in begun if len(poses) == 2)
    np.testing.assert_allclose(near.translation, alone.translation)
    np.testing.assert_allclose(far.translation - near.translation, [-0.25 * near.scale, 0, 0], atol=0.1)
    # In every stage each keeps its first estimate as the expected pose.
    first = [alone, near, far]
    assert all(any(one is start for start in first) for later in expected for one in later)
    assert len(expected) > 2


def test_a_known_pose_is_refused(spheres: Model) -> None:
    with pytest.raises(InputError, match="nothing to search"):
        search_poses(spheres, observe_points(half_ball(0.5, [0, 0, 0])), Pose.KNOWN, np.eye(3))


def test_a_cloud_of_coincident_points_and_a_few_outliers_is_refused(spheres: Model) -> None:
    observed = observe_points(np.concatenate([np.zeros((19_000, 3)), np.eye(3), 2 * np.eye(3)]))
    with pytest.raises(InputError, match="nearly all points of the input coincide; give points of a whole surface"):
        search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3))


def test_the_search_reports_progress_and_may_be_cancelled(spheres: Model) -> None:
    heard: list[float] = []
    observed = observe_points(half_ball(0.5, [0, 0, 0]))
    search_poses(spheres, observed, Pose.FREE, np.eye(3), progress=heard.append)
    assert heard == sorted(heard) and heard[-1] == pytest.approx(1.0)
    with pytest.raises(ZeroDivisionError):
        search_poses(spheres, observed, Pose.UPRIGHT, np.eye(3), progress=lambda share: 1 / 0)


def test_the_expected_pose_is_the_first_estimate(spheres: Model) -> None:
    observed = observe_points(half_ball(0.5, [1, 1, 1]))
    [best] = search_poses(spheres, observed, Pose.ALIGNED, np.eye(3))
    assert isinstance(best.expected, Similarity)
    # Seen from one side the centre of the bounding box is off by the unobserved part.
    np.testing.assert_allclose(best.expected.translation, [1.2, 1, 1], atol=0.03)


def test_what_ends_at_a_cut_is_also_started_longer(spheres: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[Similarity]] = []

    def fits(model: Model, requests: list[FitRequest], *rest: Any) -> list[Fit]:
        begun.append([request.pose for request in requests])
        return fit_codes(model, requests, *rest)

    monkeypatch.setattr("sdf_backend.fitting.pose_search.fit_codes", fits)
    left = remove_region(trimesh.creation.icosphere(4, 0.5), HalfSpace(np.array([0.0, 0, 1]), 0.0))
    observed = observe_surface(Source(Geometry(10 * left.vertices, left.faces)), None)
    assert observed.cut is None and observed.possible_cut is not None
    observed = with_assumed_continuation(observed)
    search_poses(spheres, observed, Pose.ALIGNED, np.eye(3))
    doubled = begun[0][-1]
    np.testing.assert_allclose(doubled.translation, 0, atol=0.2)
    assert doubled.scale == pytest.approx(5 / (0.98 * spheres.card.reach), rel=0.02)
