"""From a raw mesh to a training mesh: thinning keeps every leg, absurd pieces are named, deformations keep promises."""

from dataclasses import replace

import numpy as np
import pytest

from training.augment import AugmentSettings
from training.generators.finish import (
    ImplausibleMeshError,
    PlausibilityLimits,
    Reason,
    check_plausible,
    finish,
    surface_area,
    thinned,
    welded,
)
from training.generators.reprofile import ReprofileSettings, reprofile
from training.generators.solids import Mesh, box, lathe, merge, tube

LONGEST = 0.1, 5.0


def slender_table() -> Mesh:
    """A top on four slender, finely gridded legs, in parts of their own: as factories make them."""
    heights = np.linspace(0, 0.7, 200)
    legs = [
        tube(np.stack([np.full(200, x), heights, np.full(200, z)], 1), 0.012, 32) for x in (0, 0.9) for z in (0, 0.5)
    ]
    return merge(box((0, 0.7, 0), (0.93, 0.72, 0.53), 0.008, samples=(4, 60)), *legs)


def test_thinning_keeps_every_leg() -> None:
    mesh, limits = slender_table(), PlausibilityLimits(triangles=4_000)
    thin = thinned(mesh, limits)
    assert len(thin[1]) < 0.4 * len(mesh[1])
    assert surface_area(thin) == pytest.approx(surface_area(mesh), rel=limits.area_change)
    for x in (0, 0.9):
        for z in (0, 0.5):
            assert (np.abs(thin[0] - [x, 0, z]) < 0.02).all(1).any(), f"the leg at {x}, {z} lost its foot"


def test_a_mesh_that_thinning_would_eat_is_kept_whole_or_left_out() -> None:
    # With the aggressiveness that is the library's default, the four legs are gone.
    mesh, eager = slender_table(), PlausibilityLimits(triangles=4_000, aggressiveness=(7,), unthinned=10_000)
    with pytest.raises(ImplausibleMeshError, match="thinning leaves 8.%") as caught:
        thinned(mesh, eager)
    assert caught.value.reason is Reason.DEGENERATE
    whole = thinned(mesh, replace(eager, unthinned=10**6))
    assert surface_area(whole) == pytest.approx(surface_area(mesh), rel=1e-3)


def test_a_small_mesh_is_not_touched() -> None:
    mesh = box((0, 0, 0), (1, 1, 1), 0.1)
    assert thinned(mesh, PlausibilityLimits()) is mesh


def test_welding_joins_seams_and_drops_what_vanishes() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1e-7], [0, 1, 1e-7], [1, 1, 0], [1, 1, 1e-7]])
    faces = np.array([[0, 1, 2], [3, 5, 4], [1, 3, 5], [5, 6, 0]])
    points, triangles = welded((vertices, faces), 1e-5)
    assert len(points) == 4 and len(triangles) == 2
    assert surface_area((points, triangles)) == pytest.approx(1.0)


def plausible() -> Mesh:
    return box((0, 0, 0), (1, 2, 3), 0.05)


@pytest.mark.parametrize(
    ("scale", "reason"),
    [
        ((1, 1, 1), None),
        ((0.01, 0.01, 0.01), Reason.EXTENT),
        ((1, 1, 100), Reason.EXTENT),
        ((1, 1e-3, 1), Reason.PROPORTIONS),
        ((1, 1, np.inf), Reason.DEGENERATE),
    ],
)
def test_absurd_pieces_are_told_by_their_reason(scale: tuple[float, ...], reason: Reason | None) -> None:
    vertices, faces = plausible()
    with np.errstate(invalid="ignore"):
        mesh = vertices * scale, faces
    if reason is None:
        check_plausible(mesh, LONGEST, PlausibilityLimits())
        return
    with pytest.raises(ImplausibleMeshError) as caught:
        check_plausible(mesh, LONGEST, PlausibilityLimits())
    assert caught.value.reason is reason


def test_stray_vertices_that_no_face_uses_do_not_count() -> None:
    vertices, faces = plausible()
    check_plausible((np.concatenate([vertices, [[0, 0, 1e6]]]), faces), LONGEST, PlausibilityLimits())


def test_a_mesh_without_area_or_faces_is_refused() -> None:
    vertices, faces = plausible()
    with pytest.raises(ImplausibleMeshError) as caught:
        check_plausible((vertices, faces[:59]), LONGEST, PlausibilityLimits())
    assert caught.value.reason is Reason.FACES
    with pytest.raises(ImplausibleMeshError, match="no area"):
        check_plausible((vertices, faces[:, [0, 0, 0]]), LONGEST, PlausibilityLimits())


@pytest.mark.parametrize(
    ("up", "front", "sides"), [("+z", "+x", (2, 3, 1)), ("+z", "-y", (1, 3, 2)), ("+y", "+z", (1, 2, 3))]
)
def test_the_result_stands_upright_over_the_origin(up: str, front: str, sides: tuple[int, ...]) -> None:
    vertices, faces = plausible()
    shifted = vertices + [7, -5, 3], faces
    finished, _ = finish(shifted, up, front, LONGEST, None, np.random.default_rng(0))
    low, high = finished.min(0), finished.max(0)
    np.testing.assert_allclose(high - low, sides, atol=1e-9)
    np.testing.assert_allclose([(low + high)[0], low[1], (low + high)[2]], 0, atol=1e-9)


def test_deformation_keeps_size_and_symmetry() -> None:
    settings = AugmentSettings(0.1, 0.0, 0.0, 0.0, 0.0, proportion=0.15, taper=0.05, lean=0.04)
    mesh = box((-0.5, 0, -0.3), (0.5, 1, 0.3), 0.05)
    sizes = []
    for seed in range(20):
        vertices, _ = finish(mesh, "+y", "+z", LONGEST, settings, np.random.default_rng(seed))
        mirrored = vertices * [-1, 1, 1]
        gaps = np.linalg.norm(vertices[:, None] - mirrored[None], axis=-1).min(1)
        assert gaps.max() < 1e-9
        sizes.append(np.ptp(vertices, axis=0))
    assert np.std(sizes, axis=0).min() > 0.03  # they differ
    assert np.abs(np.log(np.mean(sizes, axis=0) / [1, 1, 0.6])).max() < 0.15  # about the size that they had, in metres


def test_reprofiling_keeps_round_things_round() -> None:
    vertices, _ = lathe([(0.1, 0), (0.1, 0.1), (0.05, 0.2), (0.05, 0.3)], sides=24)
    rings = vertices[:-2].reshape(4, 24, 3)
    deformed = reprofile(vertices, ReprofileSettings(), np.random.default_rng(3))[:-2].reshape(4, 24, 3)
    radii = np.linalg.norm(deformed[..., [0, 2]], axis=-1)
    np.testing.assert_allclose(np.ptp(radii, axis=1), 0, atol=1e-12)
    factors = radii[:, 0] / np.linalg.norm(rings[..., [0, 2]], axis=-1)[:, 0]
    assert np.ptp(factors) > 0.01
    assert np.ptp(deformed[:, :, 1], axis=1).max() < 1e-12
