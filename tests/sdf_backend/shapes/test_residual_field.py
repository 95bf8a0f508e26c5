"""Residual fields of spheres with known distances."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import sdf_backend.shapes.residual_field as module
from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.observation.observations import (
    Observations,
    observe_samples,
    observe_surface_points,
    with_assumed_free_space,
)
from sdf_backend.shapes.residual_field import (
    add_residual_field,
    check_residual_field,
    fit_residual_field,
    new_surface_points,
)
from sdf_backend.shapes.residual_lattice import LATTICE_SIDE

DEVICE = torch.device("cpu")


@pytest.fixture
def model(models_folder) -> Model:
    return load_model(ModelStore(models_folder).find("spheres"), "cpu")


def directions(count: int = 4_000) -> np.ndarray:
    normal = np.random.default_rng(0).normal(size=(count, 3))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def distances(model: Model, refinement: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    decoder = model.folded(torch.float32)

    def field(points: torch.Tensor) -> torch.Tensor:
        return decoder.distances(model.mean[None], points[None])[0]

    with torch.inference_mode():
        canonical = torch.from_numpy(points).float()
        return (
            field(canonical) if refinement is None else add_residual_field(field, refinement, DEVICE)(canonical)
        ).numpy()


def radius_of(model: Model) -> float:
    return 0.5 - float(distances(model, None, 0.5 * directions(500)).mean())


def test_the_surface_moves_to_the_observations_and_nothing_moves_elsewhere(model: Model) -> None:
    normal, radius = directions(), radius_of(model)
    observed_points = normal[normal[:, 2] > 0.3] * (radius + 0.03)
    refinement = fit_residual_field(model, model.mean, observe_surface_points(observed_points), Similarity.identity())
    before, after = distances(model, None, observed_points), distances(model, refinement, observed_points)
    assert np.abs(after).mean() < 0.2 * np.abs(before).mean()
    away = normal[normal[:, 2] < 0] * radius
    np.testing.assert_array_equal(distances(model, None, away), distances(model, refinement, away))


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_exact_observations_are_followed_in_finer_detail_than_noisy_ones(model: Model, scale: float) -> None:
    normal = directions(20_000)
    waves = 0.006 * np.sin(40 * normal[:, :1])  # a tenth of the radius long
    points, pose = normal * (radius_of(model) + waves), Similarity(scale, np.eye(3), np.zeros(3))
    left = {}
    for noise in (0.0002, 0.002, None):
        observed = replace(observe_surface_points(pose.apply(points)), noise=None if noise is None else noise * scale)
        refinement = fit_residual_field(model, model.mean, observed, pose)
        left[noise] = np.abs(distances(model, refinement, points)).mean()
    assert left[0.0002] < 0.5 * left[0.002]
    assert left[0.002] == left[None]


def test_the_pose_of_the_observations_does_not_matter(model: Model) -> None:
    observed_points = directions() * (radius_of(model) + 0.03)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    pose = Similarity(250.0, turn, np.array([3.0, -40, 9]))
    here = fit_residual_field(model, model.mean, observe_surface_points(observed_points), Similarity.identity())
    there = fit_residual_field(model, model.mean, observe_surface_points(pose.apply(observed_points)), pose)
    points = directions(500) * 0.5
    np.testing.assert_allclose(distances(model, here, points), distances(model, there, points), atol=1e-4)


def test_signed_distances_are_followed_on_both_sides_of_the_surface(model: Model) -> None:
    rng, normal = np.random.default_rng(1), directions(60_000)
    truth, offset = radius_of(model) + 0.02, rng.normal(size=60_000) * 0.04
    points = normal * (truth + offset)[:, None]
    solid = observe_samples(points, offset, normal * truth)
    refinement = fit_residual_field(model, model.mean, solid, Similarity.identity())
    test = directions(2_000) * (truth + rng.uniform(-0.03, 0.03, 2_000))[:, None]
    error = distances(model, refinement, test) - (np.linalg.norm(test, axis=1) - truth)
    assert np.abs(error).mean() < 0.2 * 0.02


def test_a_wide_first_pass_leaves_no_floaters_of_a_part_that_the_shape_lacks(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, truth = np.random.default_rng(1), radius_of(model) - 0.07
    offset = rng.normal(size=8_000) * 0.07
    points = directions(8_000) * (truth + offset)[:, None]
    solid = observe_samples(points, offset, directions(8_000) * truth)
    gone = directions(4_000) * rng.uniform(truth + 0.02, truth + 0.07, 4_000)[:, None]

    def left() -> float:
        refinement = fit_residual_field(model, model.mean, solid, Similarity.identity())
        return float((distances(model, refinement, gone) < 0).mean())

    assert left() < 0.005
    monkeypatch.setattr(
        module, "SOLID_SETTINGS", replace(module.SOLID_SETTINGS, widths=module.SOLID_SETTINGS.widths[1:])
    )
    assert left() > 0.05


def test_assumed_free_space_is_left_to_the_fit(model: Model) -> None:
    observed_points = directions()[:2_000] * radius_of(model)
    plain = observe_surface_points(observed_points)
    assuming = with_assumed_free_space(plain, Similarity.identity(), None)
    assert assuming.assumed
    expected, found = (fit_residual_field(model, model.mean, one, Similarity.identity()) for one in (plain, assuming))
    np.testing.assert_array_equal(found, expected)


def test_observations_within_their_intervals_ask_for_no_correction(model: Model) -> None:
    far = directions(500) * 0.9
    free = Observations(far, np.zeros(500), np.full(500, np.inf), far[:0])
    beyond = Observations(far, np.full(500, np.inf), np.full(500, np.inf), far[:0])
    for one in (free, beyond):
        assert len(fit_residual_field(model, model.mean, one, Similarity.identity())) == 0


def test_new_surface_points_are_where_corrections_may_create_a_surface(model: Model) -> None:
    plate = np.concatenate([directions(2_000)[:, :2] * 0.05, np.full((2_000, 1), 0.8)], axis=1)
    refinement = fit_residual_field(model, model.mean, observe_surface_points(plate), Similarity.identity())
    nodes = new_surface_points(refinement)
    assert len(nodes) and np.abs(nodes[:, 2] - 0.8).max() < 0.1 and np.abs(nodes[:, :2]).max() < 0.15
    assert len(new_surface_points(np.zeros((0, 2), dtype=np.float32))) == 0


def test_a_thin_part_that_the_decoder_lacks_does_not_tear(model: Model) -> None:
    # From just above the ball, where the decoder nearly has a surface, to where it has none.
    turn, reach = np.random.default_rng(0).uniform(0, [[2 * np.pi], [0.3]], size=(2, 8_000))
    plate = np.stack([reach * np.cos(turn), reach * np.sin(turn), np.full(8_000, radius_of(model) + 0.025)], axis=1)
    refinement = fit_residual_field(model, model.mean, observe_surface_points(plate), Similarity.identity())
    inside = np.full(len(plate), np.inf)
    for step in np.linspace(-0.02, 0.02, 9):
        inside = np.minimum(inside, distances(model, refinement, plate + [0, 0, step]))
    assert (inside < 0).mean() > 0.99


def test_a_wall_thinner_than_the_kernel_is_kept_by_a_shell(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    radius, half = radius_of(model), 0.004
    rng = np.random.default_rng(0)
    away = radius + rng.normal(size=(60_000, 1)) * rng.choice([0.07, 0.02], size=(60_000, 1))
    points = directions(60_000) * away
    surface = directions(20_000) * (radius + half * rng.choice([-1, 1], size=(20_000, 1)))
    observed = observe_samples(points, np.abs(away[:, 0] - radius) - half, surface)

    def walled() -> float:
        """Share of directions with an inside next to the wall."""
        found = fit_residual_field(model, model.mean, observed, Similarity.identity())
        lines = directions(2_000)[:, None] * (radius + np.linspace(-0.01, 0.01, 9))[:, None]
        there = distances(model, found, lines.reshape(-1, 3)).reshape(-1, 9)
        assert np.median(distances(model, found, directions(500) * (radius - 0.03))) > 0.01
        return float((there < 0).any(axis=1).mean())

    assert walled() > 0.99
    monkeypatch.setattr(module, "SOLID_SETTINGS", replace(module.SOLID_SETTINGS, shell_half_thickness=-1.0))  # no shell
    assert walled() < 0.5


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 3)), np.zeros(4), np.array([[0, np.nan]]), np.array([[LATTICE_SIDE**3, 0.1]])]
)
def test_an_array_that_is_no_residual_field_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="refinement"):
        check_residual_field(wrong)
