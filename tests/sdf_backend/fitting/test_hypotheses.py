"""Which of several answers is the best, and which could be as well, on balls."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sdf_backend.fitting.fit import Fit, fit_codes
from sdf_backend.fitting.hypotheses import Question, _Attempt, _ranked, explain
from sdf_backend.fitting.pose_search import Placement
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_surface_points
from sdf_backend.progress import Clock, silent
from sdf_backend.settings import Pose, Quality


def balls(*places: tuple[float, int]) -> Observations:
    """Points on balls of radius 0.5 at (x, 0, 0), so many on each."""
    rng, points = np.random.default_rng(0), []
    for x, count in places:
        normal = rng.normal(size=(count, 3))
        points.append(0.5 * normal / np.linalg.norm(normal, axis=1, keepdims=True) + [x, 0, 0])
    return observe_surface_points(np.concatenate(points))


def answer(model: Model, seen: Observations, x: float) -> tuple[_Attempt, Fit]:
    pose = Similarity(1.0, np.eye(3), np.array([x, 0, 0]))
    code = torch.zeros_like(model.mean)
    return _Attempt(0, seen, pose, pose), Fit(code, pose, 0.0, 1, 0.0, 0.0, 1.0)


def places(found: list[tuple[_Attempt, Fit]]) -> list[float]:
    return [float(fit.pose.translation[0]) for _, fit in found]


def test_what_explains_half_each_is_a_rival_and_confidence_is_low(spheres: Model) -> None:
    seen = balls((0.0, 1_000), (0.3, 900))
    good, confidence = _ranked(spheres, seen, [answer(spheres, seen, x) for x in (0.3, 0.0, 0.01, 3.0)])
    assert places(good) == [0.0, 0.3] or places(good) == [0.01, 0.3]
    assert 0 <= confidence < 0.2


def test_what_is_far_better_has_no_rival(spheres: Model) -> None:
    seen = balls((0.0, 1_000))
    good, confidence = _ranked(spheres, seen, [answer(spheres, seen, x) for x in (0.3, 0.0, 0.01)])
    assert len(good) == 1 and abs(places(good)[0]) < 0.02
    assert confidence > 0.5


def test_one_answer_is_sure(spheres: Model) -> None:
    seen = balls((0.0, 1_000))
    only = answer(spheres, seen, 0.0)
    assert _ranked(spheres, seen, [only]) == ([only], 1.0)


def test_rivals_are_as_unsure_as_the_best(spheres: Model, monkeypatch) -> None:
    seen = balls((0.0, 1_000))
    question = Question(Pose.KNOWN, np.eye(3), Quality.PREVIEW)
    monkeypatch.setattr("sdf_backend.fitting.hypotheses._ranked", lambda model, seen, found: (found * 2, 0.1))
    [best] = explain(spheres, [seen], question, silent, Clock())
    assert best.confidence == 0.1
    assert [one.confidence for one in best.rivals] == [0.1]


def test_a_fit_has_more_steps_where_the_pose_is_to_be_found_too(spheres: Model) -> None:
    seen, steps = balls((0.0, 1_000)), []
    for freedom in (Pose.KNOWN, Pose.ALIGNED):
        [best] = explain(spheres, [seen], Question(freedom, np.eye(3), Quality.STANDARD), silent, Clock())
        steps.append(best.steps)
    assert steps[1] > steps[0]


def trusting(answer: tuple[_Attempt, Fit]) -> tuple[_Attempt, Fit]:
    attempt, fit = answer
    return replace(attempt, observed=attempt.observed.with_ground_plane(), trusting=True), fit


def test_what_a_fit_to_a_floor_explains_of_it_is_the_objects_own(spheres: Model) -> None:
    """The same points as a suspected floor: on the ball, and so its foot, or in the air, and so a floor."""
    foot = balls((0.0, 300)).surface
    for ground_plane_points, own in ((foot, True), (foot - [0, 0.4, 0], False)):
        seen = replace(balls((0.0, 1_000)), ground_plane_points=ground_plane_points)
        plain = answer(spheres, seen, 0.0)
        [(chosen, _)], _ = _ranked(spheres, seen, [plain, trusting(plain)])
        assert chosen.trusting is own
        assert len(chosen.observed.surface) == (1_300 if own else 1_000)


def test_each_place_is_held_to_what_was_expected_and_a_floor_is_fitted_once(
    spheres: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = [Similarity(1.0, np.eye(3), np.array([x, 0, 0])) for x in (0.0, 0.02)]
    expected = [Similarity(1.1, np.eye(3), np.array([x, 0.05, 0])) for x in (0.0, 0.02)]
    placed = [Placement(pose, 1.0, one) for pose, one in zip(poses, expected, strict=True)]
    asked: dict[str, Any] = {}

    def fits(model: Model, observed: list[Observations], settings: Any, starts: Any, *rest: Any, **named: Any) -> Any:
        asked.update(observed=observed, starts=starts, expected=rest[3], **named)
        return fit_codes(model, observed, settings, starts, *rest, **named)

    monkeypatch.setattr("sdf_backend.fitting.hypotheses.search_poses", lambda *_, **__: placed)
    monkeypatch.setattr("sdf_backend.fitting.hypotheses.fit_codes", fits)
    seen = replace(balls((0.0, 1_000)), ground_plane_points=balls((0.0, 100)).surface - [0, 0.4, 0])
    explain(spheres, [seen], Question(Pose.ALIGNED, np.eye(3), Quality.PREVIEW), silent, Clock())
    assert asked["starts"] == [poses[0]] * 2 + [poses[1]] * 2
    assert asked["expected"] == [expected[0]] * 2 + [expected[1]] * 2
    assert asked["once"] == [False, True] * 2
    assert [len(one.surface) for one in asked["observed"]] == [1_000, 1_100] * 2
