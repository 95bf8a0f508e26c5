"""Fits of spheres, against their known radius and pose."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from round_things import QUICK, directions, radius_of, solid_sphere

from sdf_backend.errors import Cancelled, InputError
from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.settings import Pose


def fits_of(model: Model, observed: list[Observations], settings: FitSettings, **rest: Any) -> list[Fit]:
    return fit_codes(model, [FitRequest(one) for one in observed], settings, **rest)


@pytest.mark.parametrize("radius", [0.45, 0.5, 0.58])
def test_signed_samples_find_the_radius(spheres: Model, radius: float) -> None:
    [fit] = fits_of(spheres, [solid_sphere(radius)], QUICK)
    assert radius_of(spheres, fit.code) == pytest.approx(radius, abs=0.01)
    assert fit.residual < 0.01 and fit.explained > 0.95


def test_a_cap_of_surface_points_finds_the_whole_sphere(spheres: Model) -> None:
    cap = directions(3_000)
    cap = cap[cap[:, 1] > 0.5] * 0.56
    [fit] = fits_of(spheres, [observe_points(cap)], QUICK)
    assert radius_of(spheres, fit.code) == pytest.approx(0.56, abs=0.015)


def test_a_batch_gives_the_same_fits_as_single_requests_of_any_length(spheres: Model) -> None:
    shapes = [solid_sphere(0.45), solid_sphere(0.55, 700), observe_points(directions(150) * 0.5)]
    drawn = FitSettings((Stage(8, 120, 1e-6), Stage(8, 800, 1e-6)), dtype=torch.float32)
    together = fits_of(spheres, shapes, drawn)
    alone = [fits_of(spheres, [shape], drawn)[0] for shape in shapes]
    for both, single in zip(together, alone, strict=True):
        torch.testing.assert_close(both.code, single.code, atol=2e-3, rtol=1e-3)
        assert both.cost == pytest.approx(single.cost, rel=1e-3)


def test_a_fit_is_the_same_to_the_last_bit_in_any_order_of_observations(spheres: Model) -> None:
    shape = solid_sphere(0.55)
    turned = np.random.default_rng(0).permutation(len(shape.points))
    shuffled = replace(shape, points=shape.points[turned], low=shape.low[turned], high=shape.high[turned])
    first, second = (fits_of(spheres, [one], QUICK)[0] for one in (shape, shuffled))
    assert torch.equal(first.code, second.code)


def test_a_strong_prior_keeps_the_code_at_the_mean(spheres: Model) -> None:
    [free] = fits_of(spheres, [solid_sphere(0.6)], QUICK)
    [held] = fits_of(spheres, [solid_sphere(0.6)], FitSettings((Stage(14, 1_000, 10.0),), dtype=torch.float32))
    distance = [float((fit.code - spheres.mean).norm()) for fit in (free, held)]
    assert distance[1] < 0.05 * distance[0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 250.0])
def test_scale_and_position_are_solved_for_in_any_unit(spheres: Model, scale: float) -> None:
    truth = Similarity(scale, np.eye(3), scale * np.array([4.0, -2.0, 1.0]))
    guess = Similarity(scale * 1.08, np.eye(3), truth.translation + scale * 0.06)
    seen = observe_points(directions(2_000) * 0.5).transformed(truth.scale, truth.rotation, truth.translation)
    [fit] = fit_codes(spheres, [FitRequest(seen, guess)], QUICK, Pose.ALIGNED)
    centre = fit.pose.apply(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(centre, truth.translation, atol=0.01 * scale)
    # Radius and scale are interchangeable; what counts is the radius in the scene.
    assert radius_of(spheres, fit.code) * fit.pose.scale == pytest.approx(0.5 * scale, rel=0.02)


def test_free_space_shrinks_a_model_that_is_too_large(spheres: Model) -> None:
    surface = directions(400) * 0.5
    seen = observe_points(surface[surface[:, 2] > 0.2])
    free = directions(400) * 0.52
    both = Observations(
        np.concatenate([seen.points, free]),
        np.concatenate([seen.low, np.zeros(400)]),
        np.concatenate([seen.high, np.full(400, np.inf)]),
        seen.surface,
    )
    [fit] = fits_of(spheres, [both], QUICK)
    assert fit.residual < 0.01


def test_progress_is_called_at_every_step_and_may_cancel(spheres: Model) -> None:
    heard: list[float] = []
    fits_of(spheres, [solid_sphere(0.5)], QUICK, progress=heard.append)
    assert len(heard) == 14 and heard == sorted(heard) and heard[-1] == 1.0

    def stop(fraction: float) -> None:
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fits_of(spheres, [solid_sphere(0.5)], QUICK, progress=stop)


def test_observations_without_points_are_refused(spheres: Model) -> None:
    with pytest.raises(InputError, match="at least one"):
        fits_of(spheres, [], QUICK)


def test_the_end_of_every_stage_is_reported_with_its_codes_and_poses(spheres: Model) -> None:
    heard: list[tuple[int, torch.Size, float]] = []
    fits_of(
        spheres,
        [solid_sphere(0.5)],
        QUICK,
        on_stage=lambda stage, codes, poses: heard.append((stage, codes.shape, poses[0].scale)),
    )
    assert heard == [(0, (1, 3), 1.0), (1, (1, 3), 1.0)]


def test_inputs_of_many_lengths_need_few_shapes_of_matrix_products(
    spheres: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN keeps a kernel for each shape, which would fill the memory of a long-running process."""
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
        fits_of(spheres, [observe_points(directions(int(length)) * 0.5)], quick)
        fits_of(spheres, [observe_points(directions(int(length)) * 0.5), solid_sphere(0.5)], quick)
    assert len(shapes) < 20


def test_the_posterior_is_narrow_where_observations_decide_and_the_prior_where_they_do_not(spheres: Model) -> None:
    """With a strong prior the posterior is the prior; with a weak one the observations decide."""
    weak, strong = (
        fits_of(spheres, [solid_sphere(0.5)], FitSettings((Stage(14, 1_000, prior),), dtype=torch.float32))[0]
        for prior in (1e-6, 1e3)
    )
    assert weak.covariance_root is not None and strong.covariance_root is not None
    prior = torch.linalg.matrix_norm(torch.linalg.cholesky(spheres.covariance))
    torch.testing.assert_close(torch.linalg.matrix_norm(strong.covariance_root), prior, rtol=0.01, atol=0)
    noise = torch.randn(20, len(weak.code), generator=torch.Generator().manual_seed(0))
    radii = [radius_of(spheres, weak.code + weak.covariance_root @ one) for one in noise]
    assert max(abs(radius - 0.5) for radius in radii) < 0.02
    spread = [radius_of(spheres, strong.code + strong.covariance_root @ one) for one in noise]
    assert np.std(spread) > 5 * np.std(radii)


def test_a_fit_that_is_not_assessed_has_the_same_code_and_no_figures(spheres: Model) -> None:
    [full], [bare] = (
        fits_of(spheres, [solid_sphere(0.5)], replace(QUICK, assessed=assessed)) for assessed in (True, False)
    )
    assert torch.equal(full.code, bare.code) and full.cost == bare.cost
    assert np.isnan([bare.residual, bare.explained]).all() and bare.covariance_root is None
