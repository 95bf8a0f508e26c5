"""The one recipe of signed samples, which training and reconstruct share."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import SignClassifier, sample_surface_points
from sdf_backend.geometry.signed_samples import (
    SAMPLE_BOUND,
    NormalisedMesh,
    SignedSampleSettings,
    WorkLimits,
    check_work,
    draw_sample_points,
    measure_signed_distances,
)
from sdf_backend.geometry.visible_surface import estimate_rays
from sdf_backend.observation.observations import ObservationSettings, observe_whole_mesh
from training.sampling import SampleSettings, quantise, sample_mesh

BALL = trimesh.creation.icosphere(subdivisions=3, radius=2.0)
VERTICES, FACES = np.array(BALL.vertices) + [5.0, 0.0, -3.0], np.array(BALL.faces)
RADIUS = 1 / 1.03
SETTINGS = SignedSampleSettings(count=40_000)


@pytest.fixture(scope="module")
def mesh() -> NormalisedMesh:
    return NormalisedMesh.from_mesh(VERTICES, FACES)


@pytest.fixture(scope="module")
def points(mesh: NormalisedMesh) -> np.ndarray:
    rng = np.random.default_rng(0)
    surface, _ = sample_surface_points(mesh.triangles, SETTINGS.count, rng)
    return draw_sample_points(surface, SETTINGS, rng)


def test_the_uniform_samples_fill_the_unit_ball_and_nothing_outside(points: np.ndarray) -> None:
    uniform = points[SETTINGS.count - int(SETTINGS.count * SETTINGS.uniform_share) :]
    radius = np.linalg.norm(uniform, axis=1)
    assert len(uniform) == 2_400 and radius.max() <= 1
    # Uniform in volume: the cube of the radius is uniform.
    np.testing.assert_allclose(np.quantile(radius**3, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03)
    assert np.abs(uniform.mean(axis=0)).max() < 0.05


def test_samples_near_the_surface_have_two_widths_in_turn(points: np.ndarray) -> None:
    near = points[: SETTINGS.count - int(SETTINGS.count * SETTINGS.uniform_share)]
    offset = np.linalg.norm(near, axis=1) - RADIUS
    for start, variance in enumerate(SETTINGS.variances):
        assert offset[start::2].std() == pytest.approx(np.sqrt(variance), rel=0.05)


def test_samples_stay_within_the_stored_range(mesh: NormalisedMesh) -> None:
    wide = SignedSampleSettings(count=1_000, variances=(1.0, 1.0))
    rng = np.random.default_rng(0)
    surface, _ = sample_surface_points(mesh.triangles, 100, rng)
    assert np.abs(draw_sample_points(surface, wide, rng)).max() == SAMPLE_BOUND


def test_distances_are_signed_and_uncertain_samples_are_counted(mesh: NormalisedMesh, points: np.ndarray) -> None:
    samples = measure_signed_distances(mesh, points)
    np.testing.assert_allclose(samples.distances, np.linalg.norm(samples.points, axis=1) - RADIUS, atol=0.01)
    assert samples.inside == (samples.distances < 0).sum()
    assert len(samples.points) + samples.uncertain == len(points)


def test_reconstruct_and_training_draw_the_same_samples() -> None:
    """Training rounds them to the grid on which they are stored."""
    count = 5_000
    observed = observe_whole_mesh(VERTICES, FACES, ObservationSettings(signed_samples=count))
    trained = sample_mesh(VERTICES, FACES, SampleSettings(count, surface_count=100), np.random.default_rng(0))
    canonical = (observed.points + trained.offset) * trained.scale
    np.testing.assert_allclose(quantise(canonical), trained.points, atol=1e-6)
    # The rounding moves a point by at most 2e-5 along each axis, and so its distance by no more than 4e-5.
    np.testing.assert_allclose(observed.low * trained.scale, trained.distances, atol=5e-5)


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(InputError, match="no face"):
        NormalisedMesh.from_mesh(VERTICES, FACES[:0])


def soup(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles at random."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-1, 1, (count, 1, 3)) + 0.5 * rng.normal(size=(count, 3, 3))
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


@pytest.mark.parametrize("count", [100, 400, 1_000])
def test_triangles_at_random_have_no_clear_inside(count: int) -> None:
    with pytest.raises(InputError, match="encloses no clear volume"):
        NormalisedMesh.from_mesh(*soup(count), WorkLimits())


@pytest.mark.parametrize("count", [6_000, 50_000])
def test_more_faces_behind_each_other_than_can_be_looked_at_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"the {count:,} faces of the mesh have"):
        NormalisedMesh.from_mesh(*soup(count), WorkLimits())


def test_a_fine_mesh_is_within_the_limits() -> None:
    mesh = trimesh.creation.icosphere(6)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    signs = SignClassifier(vertices, faces)
    check_work(vertices[faces], signs, WorkLimits())
    assert estimate_rays(vertices[faces], signs, 2_000) < WorkLimits().rays / 10
