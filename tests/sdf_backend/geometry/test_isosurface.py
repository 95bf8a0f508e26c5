"""Extracted surfaces against analytic ones, and sparse against dense extraction."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from sdf_backend.geometry.isosurface import (
    EmptySurfaceError,
    Extraction,
    ExtractSettings,
    Field,
    extract_dense,
    extract_surface,
)

CLAMP = 0.1


def sphere(radius: float = 0.5, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Field:
    return lambda points: (points - torch.tensor(centre)).norm(dim=1) - radius


def torus(points: torch.Tensor) -> torch.Tensor:
    ring = points[:, [0, 2]].norm(dim=1) - 0.6
    return torch.hypot(ring, points[:, 1]) - 0.2


def box(half: tuple[float, float, float], centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Field:
    def distance(points: torch.Tensor) -> torch.Tensor:
        q = (points - torch.tensor(centre)).abs() - torch.tensor(half)
        return q.clamp(min=0).norm(dim=1) + q.amax(dim=1).clamp(max=0)

    return distance


def two_boxes(points: torch.Tensor) -> torch.Tensor:
    left, right = box((0.2, 0.3, 0.25), (-0.4, 0, 0)), box((0.15, 0.15, 0.4), (0.4, 0.1, 0))
    return torch.minimum(left(points), right(points))


def clamped(field: Field) -> Field:
    """As a trained decoder saturates."""
    return lambda points: field(points).clamp(-CLAMP, CLAMP)


def closed(extraction: Extraction) -> trimesh.Trimesh:
    """The extraction as a trimesh, after the checks that every extraction must pass."""
    mesh = trimesh.Trimesh(extraction.vertices, extraction.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert len(np.unique(extraction.vertices, axis=0)) == len(extraction.vertices)
    assert np.array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices)))
    assert mesh.area_faces.min() > 0
    return mesh


def assert_same(sparse: Extraction, dense: Extraction) -> None:
    mesh, reference = closed(sparse), trimesh.Trimesh(dense.vertices, dense.faces, process=False)
    assert mesh.vertices.shape == reference.vertices.shape
    assert mesh.faces.shape == reference.faces.shape
    assert mesh.euler_number == reference.euler_number
    distance, match = KDTree(reference.vertices).query(mesh.vertices)
    assert distance.max() < 1e-5
    assert mesh.volume == pytest.approx(reference.volume, abs=1e-6)
    assert np.unique(match).size >= 0.999 * len(mesh.vertices)


@pytest.mark.parametrize("resolution", [16, 33, 64, 100, 128, 200])
def test_sphere(resolution: int) -> None:
    mesh = closed(extract_surface(clamped(sphere()), ExtractSettings(resolution)))
    step = 2 / resolution
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.5).max() < step**2
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=6 * step**2)
    assert mesh.euler_number == 2


def test_torus() -> None:
    mesh = closed(extract_surface(clamped(torus), ExtractSettings(128)))
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.6 * 0.2**2, rel=2e-3)
    assert mesh.euler_number == 0


def test_two_boxes_are_two_bodies() -> None:
    mesh = closed(extract_surface(clamped(two_boxes), ExtractSettings(96)))
    assert mesh.body_count == 2
    assert mesh.volume == pytest.approx(8 * (0.2 * 0.3 * 0.25 + 0.15 * 0.15 * 0.4), rel=0.02)


def test_cavities_are_removed_and_the_rest_stays() -> None:
    def with_cavities(points: torch.Tensor) -> torch.Tensor:
        return torch.maximum(
            sphere(0.6)(points), -torch.minimum(sphere(0.3)(points), sphere(0.1, (0, 0.45, 0))(points))
        )

    mesh = extract_surface(with_cavities, ExtractSettings(64, clamp=math.inf))
    whole = closed(mesh.remove_cavities())
    assert len(closed(mesh).split()) > 1
    assert whole.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)
    assert np.linalg.norm(whole.vertices, axis=1).min() > 0.59


def test_a_plate_of_one_and_a_half_cells_is_one_body() -> None:
    mesh = closed(extract_surface(clamped(box((0.6, 0.75 * 2 / 128, 0.6))), ExtractSettings(128)))
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(8 * 0.6 * 0.6 * 0.75 * 2 / 128, rel=0.03)


def test_a_shape_that_leaves_the_domain_is_capped() -> None:
    mesh = closed(extract_surface(clamped(sphere(0.6, (0.7, 0, 0))), ExtractSettings(100)))
    assert np.linalg.norm(mesh.vertices, axis=1).max() <= 0.995 + 1e-6
    assert mesh.euler_number == 2


def test_a_field_that_is_negative_everywhere_gives_the_domain() -> None:
    mesh = closed(extract_surface(lambda points: torch.full((len(points),), -CLAMP), ExtractSettings(64)))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.995**3, rel=0.01)


SHAPES = {
    "sphere": sphere(),
    "torus": torus,
    "boxes": two_boxes,
    "plate": box((0.6, 0.015, 0.6)),
    "capped": sphere(0.6, (0.7, 0.1, 0)),
    "on nodes": box((0.5, 0.25, 0.5)),
}


@pytest.mark.parametrize("resolution", [20, 64, 97, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_sparse_extraction_equals_dense_extraction(shape: str, resolution: int) -> None:
    choice = ExtractSettings(resolution)
    field = clamped(SHAPES[shape])
    dense = extract_dense(field, choice)
    sparse = extract_surface(field, choice)
    assert_same(sparse, dense)
    axis = np.arange(resolution + 1) * choice.step - 1
    radius = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis)), axis=0)
    # All nodes that the surface can be next to: in the domain's ball and a margin of two cells.
    assert dense.evaluations == pytest.approx((radius <= 0.995 + 2 * choice.step).sum(), abs=100)
    assert sparse.evaluations <= dense.evaluations


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), waves=st.integers(1, 6), level=st.floats(-0.03, 0.03))
def test_sparse_extraction_equals_dense_extraction_for_sums_of_sines(seed: int, waves: int, level: float) -> None:
    random = torch.Generator().manual_seed(seed)
    frequencies = torch.randn(waves, 3, generator=random) * 6
    phases = torch.rand(waves, generator=random) * 2 * math.pi
    # The gradient is at most the sum of amplitude times frequency: scale it to the Lipschitz bound of the settings.
    scale = 1.4 / frequencies.norm(dim=1).sum()

    def field(points: torch.Tensor) -> torch.Tensor:
        # In float64, because a value's sign must not depend on the batch it is computed in.
        angles = points.double() @ frequencies.double().T + phases
        return (torch.sin(angles).sum(dim=1) * scale + level).clamp(-CLAMP, CLAMP).float()

    choice = ExtractSettings(70)
    try:
        dense = extract_dense(field, choice)
    except EmptySurfaceError:
        with pytest.raises(EmptySurfaceError):
            extract_surface(field, choice)
        return
    assert_same(extract_surface(field, choice), dense)


@pytest.mark.parametrize("resolution", [128, 256])
def test_near_steep_points_the_field_may_be_steeper(resolution: int) -> None:
    # A ball three cells across, around the common corner of eight of the largest, whose distance rises steeply.
    choice, centre = ExtractSettings(resolution, lipschitz=1.0), (0.75, 0.125, 0.1875)
    small_ball = sphere(1.5 * choice.step, centre)
    field = clamped(lambda points: torch.minimum(sphere()(points), 3.9 * small_ball(points)))
    around = np.array(centre) + np.random.default_rng(0).uniform(-0.04, 0.04, (5_000, 3))
    assert closed(extract_surface(field, choice)).body_count == 1
    found = extract_surface(field, choice, steep_points=around)
    assert closed(found).body_count == 2
    assert_same(found, extract_dense(field, choice))


def test_steep_points_far_from_the_surface_cost_little() -> None:
    far = np.random.default_rng(0).uniform(-0.3, 0.3, (200_000, 3))
    far = np.concatenate([far, [[1.2, 0, 0], [-1.5, 0, 0]]])  # and some outside of the grid
    alone, named = extract_surface(sphere()), extract_surface(sphere(), steep_points=far)
    assert np.array_equal(alone.faces, named.faces)
    assert named.evaluations < 1.2 * alone.evaluations


def test_a_field_steeper_than_the_lipschitz_bound_leaves_no_holes() -> None:
    choice = ExtractSettings(100, lipschitz=0.4)
    wavy = clamped(lambda points: sphere()(points) + 0.03 * torch.sin(30 * points).sum(dim=1))
    sparse = extract_surface(wavy, choice)
    assert_same(sparse, extract_dense(wavy, choice))


@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
@pytest.mark.parametrize(("slope", "radius"), [(0.7, 0.8), (1.0, 0.8), (1.4, 1.6)])
@example(centre=(0.0, 0.0, 0.0))
@example(centre=(1 / 64,) * 3)  # the middle of a cell, of 64, 128, 256 and 512
@example(centre=(1 / 128,) * 3)
@example(centre=(1 / 256,) * 3)
@example(centre=(1 / 512,) * 3)
@given(centre=st.tuples(*[st.floats(-0.5, 0.5)] * 3))
@settings(max_examples=10)
def test_no_small_component_is_lost(
    resolution: int, slope: float, radius: float, centre: tuple[float, float, float]
) -> None:
    """A ball of that radius in cells, at worst around the common corner of eight coarse cells, if it contains a
    node."""
    choice = ExtractSettings(resolution)
    small_ball = sphere(radius * choice.step, centre)
    nodes = np.array(centre) / choice.step
    nearest = float(np.linalg.norm(nodes - nodes.round()))
    assume(abs(nearest - radius) > 1e-3)
    if nearest < radius:
        closed(extract_surface(clamped(lambda points: slope * small_ball(points)), choice))
    else:
        with pytest.raises(EmptySurfaceError):
            extract_surface(clamped(lambda points: slope * small_ball(points)), choice)


@pytest.mark.parametrize("field", [sphere(), torus])
def test_only_nodes_near_the_surface_are_evaluated(field: Field) -> None:
    extraction = extract_surface(clamped(field))
    assert extraction.evaluations <= 0.03 * 257**3
    closed(extraction)


def estimated(field: Field) -> Field:
    """The field with irregular errors of up to 0.0005, like one computed in bfloat16."""

    def rough(points: torch.Tensor) -> torch.Tensor:
        phases = points.double() @ torch.tensor([12.9898, 78.233, 37.719], dtype=torch.float64)
        return field(points) + 0.001 * ((phases.sin() * 43758.5453) % 1 - 0.5).float()

    return rough


@pytest.mark.parametrize("resolution", [50, 128, 256])
@pytest.mark.parametrize("field", [sphere(), torus, SHAPES["capped"]])
def test_vertices_of_an_estimate_are_moved_to_the_level_set_of_the_exact_field(field: Field, resolution: int) -> None:
    choice = ExtractSettings(resolution)

    def off(extraction: Extraction) -> torch.Tensor:
        points = torch.from_numpy(closed(extraction).vertices.copy()).float()
        return field(points)[points.norm(dim=1) < 0.99].abs()

    rough = off(extract_surface(clamped(estimated(field)), choice))
    exact = off(extract_surface(clamped(estimated(field)), choice, exact=clamped(field)))
    linear = off(extract_surface(clamped(field), choice))
    assert exact.mean() < rough.mean() / 2
    # An edge on which the estimate has a zero may have none of the exact field; then the vertex stays within its edge.
    assert exact.max() < linear.max() + 0.0005


def test_the_exact_field_is_evaluated_once_a_vertex() -> None:
    batches: list[int] = []
    extraction = extract_surface(
        clamped(estimated(torus)), ExtractSettings(100, batch=1000), exact=counted(clamped(torus), batches)
    )
    assert sum(batches) == len(extraction.vertices) and max(batches) <= 1000


def test_refining_an_exact_estimate_improves_on_linear_interpolation() -> None:
    plain = extract_surface(clamped(sphere()), ExtractSettings(40))
    moved = extract_surface(clamped(sphere()), ExtractSettings(40), exact=clamped(sphere()))
    assert np.array_equal(moved.faces, plain.faces)
    off, off_plain = (np.abs(np.linalg.norm(one.vertices, axis=1) - 0.5).max() for one in (moved, plain))
    assert off < off_plain / 5


def counted(field: Field, batches: list[int]) -> Field:
    def count(points: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled() and points.dtype == torch.float32
        batches.append(len(points))
        return field(points)

    return count


@pytest.mark.parametrize("extract", [extract_surface, extract_dense])
def test_batches_are_limited_and_their_sum_is_reported(extract: Callable[..., Extraction]) -> None:
    batches: list[int] = []
    extraction = extract(counted(sphere(), batches), ExtractSettings(64, batch=1000))
    assert max(batches) <= 1000
    assert sum(batches) == extraction.evaluations


def test_an_exact_distance_needs_no_clamp() -> None:
    batches: list[int] = []
    extraction = extract_surface(counted(sphere(), batches), ExtractSettings(100, lipschitz=1.0, clamp=math.inf))
    assert extraction.evaluations < extract_surface(sphere(), ExtractSettings(100)).evaluations
    closed(extraction)


def test_progress_rises_to_one() -> None:
    batches: list[int] = []
    shares: list[float] = []
    extract_surface(counted(sphere(), batches), ExtractSettings(128, batch=4096), progress=shares.append)
    assert len(shares) >= len(batches) > 10
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1
    shares.clear()
    extract_surface(sphere(), ExtractSettings(128, batch=4096), progress=shares.append, exact=sphere())
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1


@pytest.mark.parametrize("calls_before", [0, 3, 20])
def test_the_progress_callback_can_cancel(calls_before: int) -> None:
    class Cancelled(Exception):
        pass

    calls: list[float] = []

    def progress(share: float) -> None:
        calls.append(share)
        if len(calls) > calls_before:
            raise Cancelled

    with pytest.raises(Cancelled):
        extract_surface(sphere(), ExtractSettings(128, batch=4096), progress=progress)
    assert len(calls) == calls_before + 1


@pytest.mark.parametrize("resolution", [0, 15, 1025])
def test_a_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"{resolution}.*16 to 1024"):
        ExtractSettings(resolution)


@pytest.mark.parametrize("extract", [extract_surface, extract_dense])
@pytest.mark.parametrize("resolution", [16, 100])
def test_a_field_without_a_surface_is_refused(extract: Callable[..., Extraction], resolution: int) -> None:
    with pytest.raises(EmptySurfaceError, match="no surface"):
        extract(lambda points: torch.full((len(points),), CLAMP), ExtractSettings(resolution))


def test_malformed_answers_of_the_field_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        extract_surface(lambda points: points[:, 0] * math.nan, ExtractSettings(64))
    with pytest.raises(ValueError, match="must return"):
        extract_surface(lambda points: points[:, :1], ExtractSettings(64))
    with pytest.raises(ValueError, match="finite"):
        extract_surface(sphere(), ExtractSettings(64), exact=lambda points: points[:, 0] * math.nan)
