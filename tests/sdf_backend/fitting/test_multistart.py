"""Fits of spheres that come to nothing, and start once more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from round_things import QUICK, directions, radius_of, solid_sphere

from sdf_backend.errors import Cancelled
from sdf_backend.fitting.fit import fit_codes
from sdf_backend.fitting.fit_settings import Restart, Stage
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import observe_points
from sdf_backend.settings import Pose

STUCK = replace(QUICK, damping=1e9)


@pytest.mark.parametrize("freedom", [Pose.KNOWN, Pose.ALIGNED])
def test_what_comes_to_nothing_starts_once_more_from_training_codes(spheres: Model, freedom: Pose) -> None:
    """Steps so short lead nowhere; in a batch each fit is judged by itself, and in any unit."""
    poses = [Similarity(7.0, np.eye(3), np.array([3.0, 0.0, 1.0]))] * 2
    radii = [0.5 + 0.1 * float(spheres.codes[:, 0].max()), 0.5]
    seen = [observe_points(poses[0].apply(directions(600) * radius)) for radius in radii]
    stuck, right = fit_codes(spheres, seen, STUCK, poses, freedom)
    again, same = fit_codes(spheres, seen, replace(STUCK, restart=Restart()), poses, freedom)
    assert stuck.explained < 0.1 and radius_of(spheres, stuck.code) < 0.54
    assert again.explained > 0.9 and radius_of(spheres, again.code) == pytest.approx(radii[0], abs=0.02)
    assert torch.equal(same.code, right.code) and same.explained > 0.9


def test_a_solid_starts_once_more_after_the_stage_that_says_so(spheres: Model) -> None:
    radii = [0.5 + 0.1 * float(spheres.codes[:, 0].max()), 0.5]
    seen = [solid_sphere(radius) for radius in radii]
    settings = replace(STUCK, stages=(Stage(2, 300, 1e-6), Stage(2, 1_000, 1e-6)))
    stuck, right = fit_codes(spheres, seen, settings)
    again, same = fit_codes(spheres, seen, replace(settings, restart=Restart(after=1, unexplained=0.1)))
    assert stuck.explained < 0.1 and radius_of(spheres, stuck.code) < 0.54
    assert again.explained > 0.9 and radius_of(spheres, again.code) == pytest.approx(radii[0], abs=0.02)
    assert torch.equal(same.code, right.code)
    # There is no stage of that number.
    [never] = fit_codes(spheres, seen[:1], replace(settings, restart=Restart(after=2, unexplained=0.1)))
    assert torch.equal(never.code, stuck.code)


def test_what_is_only_guessed_is_not_unexplained(spheres: Model) -> None:
    """A sphere that is explained, and places within, as many, that are guessed to be empty."""
    sphere, guesses = solid_sphere(0.5), np.full(1_000, np.inf)
    seen = replace(
        sphere,
        points=np.concatenate([sphere.points, directions(1_000) * 0.3]),
        low=np.concatenate([sphere.low, guesses]),
        high=np.concatenate([sphere.high, guesses]),
        assumed_free=1_000,
    )
    heard: list[float] = []
    fit_codes(spheres, [seen], replace(STUCK, restart=Restart(unexplained=0.2)), progress=heard.append)
    assert len(heard) == sum(stage.steps for stage in STUCK.stages)


def test_a_fit_that_shall_not_does_not_start_once_more(spheres: Model) -> None:
    seen, settings = [observe_points(directions(600) * 0.6)] * 2, replace(STUCK, restart=Restart())
    [stuck] = fit_codes(spheres, seen[:1], STUCK)
    never, again = fit_codes(spheres, seen, settings, once=[True, False])
    assert torch.equal(never.code, stuck.code) and again.explained > stuck.explained


def test_where_both_starts_are_taken_to_their_ends_the_better_counts(spheres: Model) -> None:
    """As if nothing were ever explained: all start once more, and none is content with that."""
    stages = (Stage(1, 300, 1e-6), Stage(6, 1_000, 1e-6))
    seen = [observe_points(directions(600) * radius) for radius in (0.42, 0.5, 0.57)]
    always = Restart(unexplained=-1.0, starts=1, steps=1, better=1.0)
    first = fit_codes(spheres, seen, replace(QUICK, stages=stages))
    both = fit_codes(spheres, seen, replace(QUICK, stages=stages, restart=always))
    new = fit_codes(spheres, seen, replace(QUICK, stages=stages, restart=replace(always, better=0.0)))
    costs = [[fit.cost for fit in fits] for fits in (first, new, both)]
    assert costs[1] != costs[0]
    assert costs[2] == [min(pair) for pair in zip(*costs[:2], strict=True)]


def test_what_is_explained_does_not_start_once_more(spheres: Model) -> None:
    seen = observe_points(directions(600) * 0.55)
    [once] = fit_codes(spheres, [seen], QUICK)
    [same] = fit_codes(spheres, [seen], replace(QUICK, restart=Restart()))
    assert torch.equal(once.code, same.code) and once.cost == same.cost


def test_starting_once_more_may_be_cancelled(spheres: Model) -> None:
    heard = 0

    def progress(fraction: float) -> None:
        nonlocal heard
        heard += 1
        if heard > QUICK.stages[0].steps:
            raise Cancelled

    seen = observe_points(directions(600) * 0.6)
    with pytest.raises(Cancelled):
        fit_codes(spheres, [seen], replace(STUCK, stages=STUCK.stages[:1], restart=Restart()), progress=progress)
