"""Ranking of hypotheses, on balls."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.hypotheses import FittedHypothesis, Hypothesis, _rank, encode_observations
from sdf_backend.fitting.pose_search import PoseHypothesis
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.cuts import Cut
from sdf_backend.observation.observations import Observations, observe_surface_points, with_assumed_continuation
from sdf_backend.progress import Clock, silent
from sdf_backend.settings import Pose, Quality, TaskSettings


def balls(*centres: tuple[float, int]) -> Observations:
    """Points on balls of radius 0.5: (x of the centre, number of points) of each."""
    rng, points = np.random.default_rng(0), []
    for x, count in centres:
        normal = rng.normal(size=(count, 3))
        points.append(0.5 * normal / np.linalg.norm(normal, axis=1, keepdims=True) + [x, 0, 0])
    return observe_surface_points(np.concatenate(points))


def fitted(model: Model, seen: Observations, x: float) -> FittedHypothesis:
    pose = Similarity(1.0, np.eye(3), np.array([x, 0, 0]))
    code = torch.zeros_like(model.mean)
    return Hypothesis(0, FitRequest(seen, pose)), Fit(code, pose, 0.0, 1, 0.0, 0.0, 1.0)


def positions(found: list[FittedHypothesis]) -> list[float]:
    return [float(fit.pose.translation[0]) for _, fit in found]


def test_a_hypothesis_that_explains_nearly_as_much_is_an_alternative_and_confidence_is_low(spheres: Model) -> None:
    seen = balls((0.0, 1_000), (0.3, 900))
    good, confidence = _rank(spheres, seen, [fitted(spheres, seen, x) for x in (0.3, 0.0, 0.01, 3.0)])
    assert positions(good) == [0.0, 0.3] or positions(good) == [0.01, 0.3]
    assert 0 <= confidence < 0.2


def test_a_far_better_hypothesis_has_no_alternative(spheres: Model) -> None:
    seen = balls((0.0, 1_000))
    good, confidence = _rank(spheres, seen, [fitted(spheres, seen, x) for x in (0.3, 0.0, 0.01)])
    assert len(good) == 1 and abs(positions(good)[0]) < 0.02
    assert confidence > 0.5


def test_the_confidence_in_a_single_hypothesis_is_one(spheres: Model) -> None:
    seen = balls((0.0, 1_000))
    only = fitted(spheres, seen, 0.0)
    assert _rank(spheres, seen, [only]) == ([only], 1.0)


def test_alternatives_have_the_confidence_of_the_best(spheres: Model, monkeypatch) -> None:
    seen = balls((0.0, 1_000))
    settings = TaskSettings(pose=Pose.KNOWN, quality=Quality.PREVIEW)
    monkeypatch.setattr("sdf_backend.fitting.hypotheses._rank", lambda model, seen, found: (found * 2, 0.1))
    [best] = encode_observations(spheres, [seen], settings, silent, Clock())
    assert best.confidence == 0.1
    assert [one.confidence for one in best.alternatives] == [0.1]


def test_a_fit_takes_more_steps_where_the_pose_is_free(spheres: Model) -> None:
    seen, steps = balls((0.0, 1_000)), []
    for freedom in (Pose.KNOWN, Pose.ALIGNED):
        settings = TaskSettings(pose=freedom, up="+y", front="-z")
        [best] = encode_observations(spheres, [seen], settings, silent, Clock())
        steps.append(best.steps)
    assert steps[1] > steps[0]


def test_an_object_was_cut_only_where_going_on_beyond_the_cut_explains_it_much_better(spheres: Model) -> None:
    plain = replace(balls((0.0, 1_000)), possible_cut=Cut(np.array([1.0, 0, 0]), 2.0, np.zeros((10, 3))))
    cut = with_assumed_continuation(plain)
    for x, was_cut in ((0.0, False), (0.3, True)):
        [best, *_], _ = _rank(spheres, plain, [fitted(spheres, cut, 0.0), fitted(spheres, plain, x)])
        assert (best[0].request.observations.cut is not None) is was_cut


def with_ground_plane(pair: FittedHypothesis) -> FittedHypothesis:
    hypothesis, fit = pair
    request = replace(hypothesis.request, observations=hypothesis.request.observations.with_ground_plane())
    return replace(hypothesis, request=request, ground_plane_is_object=True), fit


def test_a_ground_plane_that_a_fit_to_it_explains_belongs_to_the_object(spheres: Model) -> None:
    """The same points as a suspected ground plane: on the ball, so part of it, or away from it, so a ground plane."""
    foot = balls((0.0, 300)).surface
    for ground_plane_points, own in ((foot, True), (foot - [0, 0.4, 0], False)):
        seen = replace(balls((0.0, 1_000)), ground_plane_points=ground_plane_points)
        plain = fitted(spheres, seen, 0.0)
        [(chosen, _)], _ = _rank(spheres, seen, [plain, with_ground_plane(plain)])
        assert chosen.ground_plane_is_object is own
        assert len(chosen.request.observations.surface) == (1_300 if own else 1_000)


def test_each_pose_keeps_its_expected_pose_and_ground_plane_hypotheses_do_not_restart(
    spheres: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = [Similarity(1.0, np.eye(3), np.array([x, 0, 0])) for x in (0.0, 0.02)]
    expected = [Similarity(1.1, np.eye(3), np.array([x, 0.05, 0])) for x in (0.0, 0.02)]
    found = [PoseHypothesis(pose, 1.0, one, spheres.mean) for pose, one in zip(poses, expected, strict=True)]
    asked: list[FitRequest] = []

    def fits(model: Model, requests: list[FitRequest], *rest: Any) -> list[Fit]:
        asked.extend(requests)
        return fit_codes(model, requests, *rest)

    monkeypatch.setattr("sdf_backend.fitting.hypotheses.search_poses", lambda *_, **__: found)
    monkeypatch.setattr("sdf_backend.fitting.hypotheses.fit_codes", fits)
    seen = replace(balls((0.0, 1_000)), ground_plane_points=balls((0.0, 100)).surface - [0, 0.4, 0])
    settings = TaskSettings(pose=Pose.ALIGNED, up="+y", front="-z", quality=Quality.PREVIEW)
    encode_observations(spheres, [seen], settings, silent, Clock())
    assert [request.pose for request in asked] == [poses[0]] * 2 + [poses[1]] * 2
    assert [request.expected_pose for request in asked] == [expected[0]] * 2 + [expected[1]] * 2
    assert [request.may_restart for request in asked] == [True, False] * 2
    assert [len(request.observations.surface) for request in asked] == [1_000, 1_100] * 2
