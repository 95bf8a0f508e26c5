"""Proposals of an encoder that knows the answer for balls, and what the pose search and the fit make of them."""

from typing import Any

import numpy as np
import pytest
import torch
from round_things import ball_model, directions, radius_of
from scipy.spatial.transform import Rotation

from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.pose_search import search_poses
from sdf_backend.fitting.proposals import propose
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import observe_points
from sdf_backend.settings import Pose


@pytest.mark.parametrize("unit", [1e-3, 1.0, 400.0])
def test_a_pose_is_proposed_in_any_unit_and_far_away(spheres: Model, unit: float) -> None:
    centre = unit * np.array([5_000.0, -2_000.0, 90_000.0])
    turn = Rotation.from_rotvec([0, 1.0, 0]).as_matrix()
    first, second = propose(ball_model(spheres), directions(5_000) * 0.5 * unit + centre, [np.eye(3), turn], Pose.FREE)
    for found, rotation in ((first, np.eye(3)), (second, turn)):
        # 64 points reach nearly as far as the ball.
        assert found.pose.scale == pytest.approx(unit, rel=0.1)
        np.testing.assert_allclose(found.pose.translation, centre, atol=0.1 * unit)
        np.testing.assert_allclose(found.pose.rotation, rotation, atol=1e-6)


def test_the_likeliest_code_comes_first_and_is_the_models_own(spheres: Model) -> None:
    [found] = propose(ball_model(spheres), directions(500), [np.eye(3)], Pose.FREE)
    torch.testing.assert_close(found.codes[0], spheres.mean)
    torch.testing.assert_close(found.codes[1], spheres.mean + spheres.spread * torch.tensor([3.0, 0, 0]))


def test_the_same_input_gets_the_same_proposals(spheres: Model) -> None:
    one, other = (propose(ball_model(spheres), directions(500), [np.eye(3)], Pose.FREE)[0] for _ in range(2))
    assert (one.right, one.pose.scale) == (other.right, other.pose.scale)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of fits in each batch of the pose search."""
    sizes: list[int] = []

    def fits(model: Model, requests: list[FitRequest], *rest: Any) -> list[Fit]:
        sizes.append(len(requests))
        return fit_codes(model, requests, *rest)

    monkeypatch.setattr("sdf_backend.fitting.pose_search.fit_codes", fits)
    return sizes


def test_a_search_begins_at_likely_proposals_alone(spheres: Model, batches: list[int]) -> None:
    observed = observe_points(directions(3_000) * 50 + [100, 0, 0])
    best, *_ = search_poses(ball_model(spheres), observed, Pose.UPRIGHT, np.eye(3))
    assert best.pose.scale == pytest.approx(100, rel=0.1)
    np.testing.assert_allclose(best.pose.translation, [100, 0, 0], atol=5)
    assert max(batches) <= 6


def test_all_starts_are_tried_where_no_proposal_explains_the_input(spheres: Model, batches: list[int]) -> None:
    observed = observe_points(directions(3_000) * 50 + [100, 0, 0])
    best, *_ = search_poses(ball_model(spheres, scale=0.2), observed, Pose.UPRIGHT, np.eye(3))
    assert best.pose.scale == pytest.approx(100, rel=0.1)
    assert max(batches) == 12


def test_a_fit_begins_at_the_best_proposed_code_if_that_is_better_than_the_mean(spheres: Model) -> None:
    unmoved = FitSettings((Stage(0, 300, 1e-6),), dtype=torch.float32)
    observed = observe_points(directions(1_000) * 0.6)
    proposed = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
    [fit] = fit_codes(spheres, [FitRequest(observed, codes=proposed)], unmoved)
    torch.testing.assert_close(fit.code, proposed[1], atol=1e-4, rtol=0)
    assert radius_of(spheres, fit.code) == pytest.approx(0.6, abs=0.02)
    [other] = fit_codes(spheres, [FitRequest(observed, codes=proposed[:1])], unmoved)
    torch.testing.assert_close(other.code, spheres.mean, atol=1e-4, rtol=0)
