"""Fits against spheres, of which everything is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from round_things import QUICK, directions, radius_of, solid_sphere

from sdf_backend.decoder import FoldedDecoder
from sdf_backend.draws import batched
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.fit import (
    FitSettings,
    Restart,
    Stage,
    _Solver,
    fit_codes,
    residuals,
    surface_deviation,
)
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations, observe_points
from sdf_backend.pose import Freedom, Similarity


@pytest.mark.parametrize("radius", [0.45, 0.5, 0.58])
def test_signed_samples_find_the_radius(spheres: Model, radius: float) -> None:
    [fit] = fit_codes(spheres, [solid_sphere(radius)], QUICK)
    assert radius_of(spheres, fit.code) == pytest.approx(radius, abs=0.01)
    assert fit.residual < 0.01 and fit.explained > 0.95


def test_a_cap_of_surface_points_finds_the_whole_sphere(spheres: Model) -> None:
    cap = directions(3_000)
    cap = cap[cap[:, 1] > 0.5] * 0.56
    [fit] = fit_codes(spheres, [observe_points(cap)], QUICK)
    assert radius_of(spheres, fit.code) == pytest.approx(0.56, abs=0.015)


def test_a_batch_gives_what_single_fits_give_however_long_each_is(spheres: Model) -> None:
    shapes = [solid_sphere(0.45), solid_sphere(0.55, 700), observe_points(directions(150) * 0.5)]
    drawn = FitSettings((Stage(8, 120, 1e-6), Stage(8, 800, 1e-6)), dtype=torch.float32)
    together = fit_codes(spheres, shapes, drawn)
    alone = [fit_codes(spheres, [shape], drawn)[0] for shape in shapes]
    for both, single in zip(together, alone, strict=True):
        torch.testing.assert_close(both.code, single.code, atol=2e-3, rtol=1e-3)
        assert both.cost == pytest.approx(single.cost, rel=1e-3)


def test_a_fit_repeats_bit_for_bit_in_whatever_order_the_observations_come(spheres: Model) -> None:
    shape = solid_sphere(0.55)
    turned = np.random.default_rng(0).permutation(len(shape.points))
    shuffled = replace(shape, points=shape.points[turned], low=shape.low[turned], high=shape.high[turned])
    first, second = (fit_codes(spheres, [one], QUICK)[0] for one in (shape, shuffled))
    assert torch.equal(first.code, second.code)


STUCK = replace(QUICK, damping=1e9)


@pytest.mark.parametrize("freedom", [Freedom.NONE, Freedom.ALIGNED])
def test_what_comes_to_nothing_starts_once_more_from_training_codes(spheres: Model, freedom: Freedom) -> None:
    """Steps so short lead nowhere; in a batch each fit is judged by itself, and in any unit."""
    poses = [Similarity(7.0, np.eye(3), np.array([3.0, 0.0, 1.0]))] * 2
    radii = [0.5 + 0.1 * float(spheres.codes[:, 0].max()), 0.5]
    seen = [observe_points(poses[0].apply(directions(600) * radius)) for radius in radii]
    stuck, right = fit_codes(spheres, seen, STUCK, poses, freedom)
    again, same = fit_codes(spheres, seen, replace(STUCK, restart=Restart()), poses, freedom)
    assert stuck.explained < 0.1 and radius_of(spheres, stuck.code) < 0.54
    assert again.explained > 0.9 and radius_of(spheres, again.code) == pytest.approx(radii[0], abs=0.02)
    assert torch.equal(same.code, right.code) and same.explained > 0.9


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


def test_a_strong_prior_holds_the_code_at_the_mean(spheres: Model) -> None:
    [free] = fit_codes(spheres, [solid_sphere(0.6)], QUICK)
    [held] = fit_codes(spheres, [solid_sphere(0.6)], FitSettings((Stage(14, 1_000, 10.0),), dtype=torch.float32))
    distance = [float((fit.code - spheres.mean).norm()) for fit in (free, held)]
    assert distance[1] < 0.05 * distance[0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 250.0])
def test_scale_and_position_are_solved_for_in_any_unit(spheres: Model, scale: float) -> None:
    truth = Similarity(scale, np.eye(3), scale * np.array([4.0, -2.0, 1.0]))
    guess = Similarity(scale * 1.08, np.eye(3), truth.translation + scale * 0.06)
    seen = observe_points(directions(2_000) * 0.5).transformed(truth.scale, truth.rotation, truth.translation)
    [fit] = fit_codes(spheres, [seen], QUICK, [guess], Freedom.ALIGNED)
    centre = fit.pose.apply(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(centre, truth.translation, atol=0.01 * scale)
    # Radius and scale explain one another; what counts is the sphere that stands in the scene.
    assert radius_of(spheres, fit.code) * fit.pose.scale == pytest.approx(0.5 * scale, rel=0.02)


def test_the_solver_gradient_is_that_of_its_cost(spheres: Model) -> None:
    observed = observe_points(directions(160) * 0.5)
    free = FitSettings((Stage(1, 1_000, 0.0),), floor=1e9, pose_prior=0.0, dtype=torch.float32)
    solver = _Solver(spheres, batched([observed], [Similarity.identity()], spheres.device), free, Freedom.FREE)
    solver.clamp = 9.0
    solver.begin(free.stages[0], shift=0.0)
    u = torch.tensor([[0.3, -0.2, 0.5]])
    move = Similarity.from_parameters(np.full(7, 0.05))

    def cost(change: np.ndarray) -> float:
        turned = move.compose(Similarity.from_parameters(change[3:]))
        code = u + torch.from_numpy(change[None, :3]).float()
        points = torch.from_numpy(turned.inverse().apply(observed.points)).float()[None]
        value = solver.decoder.distances(code, points).double() * turned.scale
        return float(value.square().mean() / 2)

    gradient, _, _ = solver._linearise(u, [move])
    # A floor so high makes the cost the plain mean square, over the floor.
    for index in range(10):
        step = np.zeros(10)
        step[index] = 2e-2
        slope = (cost(step) - cost(-step)) / 4e-2
        assert float(gradient[0, index]) * 1e9 == pytest.approx(slope, rel=0.05, abs=2e-4)


@settings(max_examples=50, deadline=None)
@given(value=st.floats(-1, 1), low=st.floats(-1, 1), width=st.floats(0, 1))
def test_a_residual_is_zero_inside_its_interval_and_the_distance_to_it_outside(
    value: float, low: float, width: float
) -> None:
    clamp = 0.4
    found = float(residuals(*(torch.tensor([number]) for number in (value, low, low + width)), clamp)[0])
    inside = np.clip(value, -clamp, clamp)
    nearest = np.clip(inside, *np.clip([low, low + width], -clamp, clamp))
    assert found == pytest.approx(inside - nearest, abs=1e-6)


def test_free_space_pushes_a_model_that_is_too_large_out_of_it(spheres: Model) -> None:
    surface = directions(400) * 0.5
    seen = observe_points(surface[surface[:, 2] > 0.2])
    free = directions(400) * 0.52
    both = Observations(
        np.concatenate([seen.points, free]),
        np.concatenate([seen.low, np.zeros(400)]),
        np.concatenate([seen.high, np.full(400, np.inf)]),
        seen.surface,
    )
    [fit] = fit_codes(spheres, [both], QUICK)
    assert fit.residual < 0.01


def test_progress_hears_of_every_step_and_may_cancel(spheres: Model) -> None:
    heard: list[float] = []
    fit_codes(spheres, [solid_sphere(0.5)], QUICK, progress=heard.append)
    assert len(heard) == 14 and heard == sorted(heard) and heard[-1] == 1.0

    def stop(fraction: float) -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_codes(spheres, [solid_sphere(0.5)], QUICK, progress=stop)


def test_observations_without_points_are_refused(spheres: Model) -> None:
    with pytest.raises(InputError, match="at least one"):
        fit_codes(spheres, [], QUICK)


def test_every_stage_is_heard_of_with_what_there_is_so_far(spheres: Model) -> None:
    heard: list[tuple[int, torch.Size, float]] = []
    fit_codes(
        spheres,
        [solid_sphere(0.5)],
        QUICK,
        staged=lambda stage, codes, poses: heard.append((stage, codes.shape, poses[0].scale)),
    )
    assert heard == [(0, (1, 3), 1.0), (1, (1, 3), 1.0)]


def test_inputs_of_any_length_are_computed_in_few_shapes(spheres: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each shape of a product oneDNN keeps a kernel, which would fill the memory of a process that goes on."""
    shapes: set[tuple] = set()
    for name in ("gradients", "distances"):
        original = getattr(FoldedDecoder, name)

        def recorded(self: FoldedDecoder, codes: torch.Tensor, points: torch.Tensor, original=original):
            shapes.add(tuple(points.shape))
            return original(self, codes, points)

        monkeypatch.setattr(FoldedDecoder, name, recorded)
    lengths = np.random.default_rng(0).integers(150, 9_000, 25)
    for length in lengths:
        quick = FitSettings((Stage(1, 300, 1e-6), Stage(1, 5_000, 1e-6)), dtype=torch.float32)
        fit_codes(spheres, [observe_points(directions(int(length)) * 0.5)], quick)
        fit_codes(spheres, [observe_points(directions(int(length)) * 0.5), solid_sphere(0.5)], quick)
    assert len(shapes) < 20


def test_what_was_seen_well_deviates_little_and_what_was_not_as_the_training_codes_do(spheres: Model) -> None:
    """A strong prior leaves nothing to the observations, so the posterior is the prior; a weak one leaves them all."""
    weak, strong = (
        fit_codes(spheres, [solid_sphere(0.5)], FitSettings((Stage(14, 1_000, prior),), dtype=torch.float32))[0]
        for prior in (1e-6, 1e3)
    )
    assert weak.deviations is not None and strong.deviations is not None
    prior = torch.linalg.matrix_norm(torch.linalg.cholesky(spheres.covariance))
    torch.testing.assert_close(torch.linalg.matrix_norm(strong.deviations), prior, rtol=0.01, atol=0)
    noise = torch.randn(20, len(weak.code), generator=torch.Generator().manual_seed(0))
    radii = [radius_of(spheres, weak.code + weak.deviations @ one) for one in noise]
    assert max(abs(radius - 0.5) for radius in radii) < 0.02
    spread = [radius_of(spheres, strong.code + strong.deviations @ one) for one in noise]
    assert np.std(spread) > 5 * np.std(radii)


def test_the_surface_deviates_as_codes_drawn_from_the_deviations_do(spheres: Model) -> None:
    root = 0.3 * torch.linalg.cholesky(spheres.covariance)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, len(spheres.mean), generator=generator)
    radii = [radius_of(spheres, spheres.mean + root @ one) for one in noise]
    place = torch.tensor([[0.6, 0.48, 0.64]]) * radius_of(spheres, spheres.mean)
    found = float(surface_deviation(spheres, spheres.mean, root, place)[0])
    assert found == pytest.approx(float(np.std(radii)), rel=0.3)
    around = torch.nn.functional.normalize(torch.randn(2_000, 3, generator=generator), dim=1) * place.norm()
    together = surface_deviation(spheres, spheres.mean, root, around)
    alone = [float(surface_deviation(spheres, spheres.mean, root, one[None])[0]) for one in around[-40:]]
    # One speaks for those next to it, over which it hardly changes.
    assert together[-40:].tolist() == pytest.approx(alone, rel=0.1) and len(together.unique()) < 1_500
