"""Fits against spheres, of which everything is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from sdf_backend.decoder import FoldedDecoder
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.fit import (
    AdamSettings,
    FitSettings,
    Stage,
    _Batch,
    _batched,
    _Solver,
    fit_codes,
    fit_codes_with_adam,
    residuals,
    surface_deviation,
)
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations, observe_points, observe_samples
from sdf_backend.pose import Freedom, Similarity

QUICK = FitSettings((Stage(8, 300, 1e-6), Stage(6, 1_000, 1e-6, within_clamp=True)), dtype=torch.float32)


def directions(count: int, seed: int = 0) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(size=(count, 3))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def solid_sphere(radius: float, count: int = 1_000) -> Observations:
    rng = np.random.default_rng(1)
    points = directions(count) * (radius + rng.normal(size=(count, 1)) * 0.05)
    return observe_samples(points, np.linalg.norm(points, axis=1) - radius, directions(200) * radius)


def radius_of(model: Model, code: torch.Tensor) -> float:
    """Where the decoded surface crosses a ray from the origin."""
    along = torch.linspace(0, 1, 2_001)
    points = along[:, None] * torch.tensor([[0.6, 0.48, 0.64]])
    return float(along[model.folded(torch.float32).distances(code[None], points[None])[0].abs().argmin()])


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


@settings(max_examples=30, deadline=None)
@given(inside=st.integers(0, 400), outside=st.integers(0, 400), count=st.integers(1, 500), shift=st.floats(0, 0.99))
def test_a_draw_is_of_different_observations_half_of_them_inside(
    inside: int, outside: int, count: int, shift: float
) -> None:
    size, length = inside + outside, 1024
    high = torch.full((1, length), torch.inf)
    high[0, :size] = torch.cat([torch.full((inside,), -1.0), torch.full((outside,), 1.0)])
    numbers = torch.arange(length)[None, :, None].expand(1, length, 3).float()
    drawn = _Batch(numbers, high, high, torch.tensor([size])).drawn(count, shift)
    chosen = drawn.points[0, :, 0].long()
    assert len(chosen) == count == len(set(chosen.tolist()))
    real = chosen[chosen < size]
    assert len(real) == min(count, size) == int(drawn.sizes[0])
    assert torch.equal(real, chosen[: len(real)])  # padding last
    share = int((real < inside).sum())
    assert share == min(inside, max(len(real) // 2, len(real) - outside))


def test_a_draw_is_even_in_space() -> None:
    """So no place of a surface is far from all that was drawn of it; of random draws some are."""
    surface = directions(20_000) * 0.8
    batch = _Batch(torch.from_numpy(surface).float()[None], *torch.zeros(2, 1, 20_000), torch.tensor([20_000]))
    even = batch.along_curve().drawn(1_000, 0.3).points[0].numpy()
    chance = surface[np.random.default_rng(0).permutation(20_000)[:1_000]]
    farthest = [KDTree(some).query(surface)[0].max() for some in (even, chance)]
    assert farthest[0] < 0.8 * farthest[1]


def test_adam_and_levenberg_marquardt_agree(spheres: Model) -> None:
    shape = solid_sphere(0.55)
    [second_order] = fit_codes(spheres, [shape], QUICK)
    [reference] = fit_codes_with_adam(spheres, [shape], AdamSettings(points=500, dtype=torch.float32))
    assert second_order.residual < 1.05 * reference.residual
    assert radius_of(spheres, reference.code) == pytest.approx(0.55, abs=0.015)
    assert reference.steps == 800


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
    solver = _Solver(spheres, _batched([observed], [Similarity.identity()], spheres.device), free, Freedom.FREE)
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
