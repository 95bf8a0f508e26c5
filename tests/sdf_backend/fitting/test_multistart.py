"""Fits of spheres that converge to a wrong radius, and restart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from round_things import QUICK, directions, radius_of, solid_sphere

from sdf_backend.errors import Cancelled
from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import FitSettings, Restart, Stage
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.settings import Pose

STUCK = replace(QUICK, initial_damping=1e9)


def fits_of(model: Model, observed: list[Observations], settings: FitSettings, **rest: Any) -> list[Fit]:
    return fit_codes(model, [FitRequest(one) for one in observed], settings, **rest)


@pytest.mark.parametrize("freedom", [Pose.KNOWN, Pose.ALIGNED])
def test_an_unexplained_fit_restarts_from_training_codes(spheres: Model, freedom: Pose) -> None:
    """With such damping the steps are too short; in a batch each fit is judged alone, and in any unit."""
    pose = Similarity(7.0, np.eye(3), np.array([3.0, 0.0, 1.0]))
    radii = [0.5 + 0.1 * float(spheres.codes[:, 0].max()), 0.5]
    requests = [FitRequest(observe_points(pose.apply(directions(600) * radius)), pose) for radius in radii]
    stuck, right = fit_codes(spheres, requests, STUCK, freedom)
    again, same = fit_codes(spheres, requests, replace(STUCK, restart=Restart()), freedom)
    assert stuck.explained < 0.1 and radius_of(spheres, stuck.code) < 0.54
    assert again.explained > 0.9 and radius_of(spheres, again.code) == pytest.approx(radii[0], abs=0.02)
    assert torch.equal(same.code, right.code) and same.explained > 0.9


def test_a_solid_restarts_after_the_stage_of_its_settings(spheres: Model) -> None:
    radii = [0.5 + 0.1 * float(spheres.codes[:, 0].max()), 0.5]
    seen = [solid_sphere(radius) for radius in radii]
    settings = replace(STUCK, stages=(Stage(2, 300, 1e-6), Stage(2, 1_000, 1e-6)))
    stuck, right = fits_of(spheres, seen, settings)
    again, same = fits_of(spheres, seen, replace(settings, restart=Restart(after=1, unexplained=0.1)))
    assert stuck.explained < 0.1 and radius_of(spheres, stuck.code) < 0.54
    assert again.explained > 0.9 and radius_of(spheres, again.code) == pytest.approx(radii[0], abs=0.02)
    assert torch.equal(same.code, right.code)
    # There is no stage with that number.
    [never] = fits_of(spheres, seen[:1], replace(settings, restart=Restart(after=2, unexplained=0.1)))
    assert torch.equal(never.code, stuck.code)


def test_guessed_observations_do_not_count_as_unexplained(spheres: Model) -> None:
    """A sphere that is explained, with as many points inside that are assumed_free to be empty."""
    sphere, guesses = solid_sphere(0.5), np.full(1_000, np.inf)
    seen = replace(
        sphere,
        points=np.concatenate([sphere.points, directions(1_000) * 0.3]),
        low=np.concatenate([sphere.low, guesses]),
        high=np.concatenate([sphere.high, guesses]),
        assumed=1_000,
    )
    heard: list[float] = []
    fits_of(spheres, [seen], replace(STUCK, restart=Restart(unexplained=0.2)), progress=heard.append)
    assert len(heard) == sum(stage.steps for stage in STUCK.stages)


def test_a_request_that_may_not_restart_does_not(spheres: Model) -> None:
    seen, settings = [observe_points(directions(600) * 0.6)] * 2, replace(STUCK, restart=Restart())
    # In a batch as large: matrix products may round differently in another.
    stuck, _ = fits_of(spheres, seen, STUCK)
    requests = [FitRequest(seen[0], may_restart=False), FitRequest(seen[1])]
    never, again = fit_codes(spheres, requests, settings)
    assert torch.equal(never.code, stuck.code) and again.explained > stuck.explained


def test_of_a_restarted_fit_and_its_incumbent_the_better_is_kept(spheres: Model) -> None:
    """Nothing counts as explained here, so all fits restart, and all incumbents are fitted to their end."""
    stages = (Stage(1, 300, 1e-6), Stage(6, 1_000, 1e-6))
    seen = [observe_points(directions(600) * radius) for radius in (0.42, 0.5, 0.57)]
    always = Restart(unexplained=-1.0, starts=1, steps=1, accepted_cost=1.0)
    first = fits_of(spheres, seen, replace(QUICK, stages=stages))
    both = fits_of(spheres, seen, replace(QUICK, stages=stages, restart=always))
    new = fits_of(spheres, seen, replace(QUICK, stages=stages, restart=replace(always, accepted_cost=0.0)))
    costs = [[fit.cost for fit in fits] for fits in (first, new, both)]
    assert costs[1] != costs[0]
    assert costs[2] == [min(pair) for pair in zip(*costs[:2], strict=True)]


def test_an_explained_fit_does_not_restart(spheres: Model) -> None:
    seen = observe_points(directions(600) * 0.55)
    [once] = fits_of(spheres, [seen], QUICK)
    [same] = fits_of(spheres, [seen], replace(QUICK, restart=Restart()))
    assert torch.equal(once.code, same.code) and once.cost == same.cost


def test_a_restart_can_be_cancelled(spheres: Model) -> None:
    heard = 0

    def progress(fraction: float) -> None:
        nonlocal heard
        heard += 1
        if heard > QUICK.stages[0].steps:
            raise Cancelled

    seen = observe_points(directions(600) * 0.6)
    with pytest.raises(Cancelled):
        fits_of(spheres, [seen], replace(STUCK, stages=STUCK.stages[:1], restart=Restart()), progress=progress)
