"""Deformed copies: symmetric where the original is, of unit size, and different from each other."""

from dataclasses import fields

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import KDTree

from sdf_backend.geometry.similarity import axis_vector
from training.augment import AugmentSettings, DeformationPreset, deform

SEEDS = st.integers(0, 2**32 - 1)
UNDEFORMED = AugmentSettings(*[0.0] * len(fields(AugmentSettings)))


def aeroplane(side: int) -> np.ndarray:
    """Vertices, (n, 3), of two crossed boxes off the origin, symmetric across the plane `side` = 5."""
    size = np.array([0.4, 0.3, 0.4])
    size[2 - side] = 3.0  # the fuselage lies along the front axis
    wing = np.array([0.5, 0.1, 0.5])
    wing[side] = 4.0
    boxes = [trimesh.creation.box(extents).subdivide().subdivide() for extents in (size, wing)]
    centre = np.array([2.0, 7.0, 2.0])
    centre[side] = 5.0
    return np.concatenate([np.asarray(box.vertices) for box in boxes]) + centre


@given(seed=SEEDS, front=st.sampled_from(["+x", "-x", "+z", "-z"]))
def test_a_symmetric_mesh_stays_symmetric(seed: int, front: str) -> None:
    side = 2 if front.endswith("x") else 0
    deformed = deform(aeroplane(side), front, AugmentSettings(), np.random.default_rng(seed))
    mirrored = deformed * np.where(np.arange(3) == side, -1, 1)
    distance, _ = KDTree(deformed).query(mirrored)
    assert distance.max() < 1e-9


@given(seed=SEEDS)
def test_mirrored_points_are_deformed_alike_whatever_the_shape(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(50, 3))
    vertices = np.concatenate([points, points * [-1, 1, 1]])
    deformed = deform(vertices, "-z", AugmentSettings(), np.random.default_rng(seed))
    assert np.allclose(deformed[:50], deformed[50:] * [-1, 1, 1])


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e4), shift=st.floats(-1e3, 1e3))
def test_a_copy_has_about_unit_size_whatever_the_units(seed: int, scale: float, shift: float) -> None:
    deformed = deform(aeroplane(0) * scale + shift, "-z", AugmentSettings(), np.random.default_rng(seed))
    radius = np.linalg.norm(deformed, axis=1).max()
    # Four standard deviations of the stretch, and the largest shifts.
    assert np.exp(-4 * 0.12) - 0.3 < radius < np.exp(4 * 0.12) + 0.3


def test_without_deformation_the_copy_is_the_normalised_original() -> None:
    vertices = aeroplane(0)
    copy = deform(vertices, "-z", UNDEFORMED, np.random.default_rng(0))
    centred = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    assert np.allclose(copy, centred / np.linalg.norm(centred, axis=1).max() / 1.03)


@pytest.mark.parametrize(("front", "ahead"), [("+x", 0), ("-x", 0), ("+z", 2), ("-z", 2)])
def test_sweep_shifts_along_the_front_axis_alone(front: str, ahead: int) -> None:
    settings = AugmentSettings(stretch=0, sweep=0.15, shift=0, dihedral=0, bend=0)
    vertices = aeroplane(2 - ahead)
    moved = deform(vertices, front, settings, np.random.default_rng(1))
    before = deform(vertices, front, UNDEFORMED, np.random.default_rng(1))
    assert np.allclose(np.delete(moved, ahead, axis=1), np.delete(before, ahead, axis=1))
    side = np.abs(before[:, 2 - ahead])
    share = (moved - before) @ axis_vector(front) / np.where(side > 0, side, 1)
    assert np.ptp(share[side > 1e-6]) < 1e-9  # in proportion to the distance from the symmetry plane
    assert 0 < np.abs(share).max() <= 0.15


def test_the_copy_depends_on_the_seed_alone() -> None:
    first, again, other = (
        deform(aeroplane(0), "-z", AugmentSettings(), np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


FURNITURE = DeformationPreset.FURNITURE.settings


@given(seed=SEEDS, front=st.sampled_from(["+x", "-x", "+z", "-z"]))
def test_symmetric_furniture_stays_symmetric(seed: int, front: str) -> None:
    side = 2 if front.endswith("x") else 0
    deformed = deform(aeroplane(side), front, FURNITURE, np.random.default_rng(seed))
    distance, _ = KDTree(deformed).query(deformed * np.where(np.arange(3) == side, -1, 1))
    assert distance.max() < 1e-9


@given(seed=SEEDS)
def test_flat_tops_stay_flat_and_the_proportions_of_legs_change(seed: int) -> None:
    rng = np.random.default_rng(0)
    top = np.stack([rng.uniform(-1, 1, 200), np.full(200, 0.5), rng.uniform(-0.6, 0.6, 200)], axis=1)
    legs = np.stack([np.full(50, 0.8), np.linspace(-1, 0.5, 50), np.full(50, 0.4)], axis=1)
    deformed = deform(np.concatenate([top, legs]), "+z", FURNITURE, np.random.default_rng(seed))
    assert np.ptp(deformed[:200, 1]) < 1e-9
    heights = np.diff(deformed[200:, 1])
    assert (heights > 0).all()  # no part is inverted
    assert heights.max() / heights.min() > 1.05


@given(seed=SEEDS)
def test_changed_proportions_keep_a_box_a_box(seed: int) -> None:
    box = np.asarray(trimesh.creation.box((1, 2, 3)).vertices)
    corners = deform(box, "+z", DeformationPreset.PROPORTIONS.settings, np.random.default_rng(seed))
    assert [len(np.unique(np.round(column, 9))) for column in corners.T] == [2, 2, 2]
    assert not np.allclose(np.ptp(corners, axis=0) / np.linalg.norm(np.ptp(corners, axis=0)), box.max(0) / 14**0.5 * 2)


def test_half_of_the_copies_of_furniture_are_mirrored() -> None:
    desk = np.array([[-1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.9, 0.2, 0.3]])
    sides = [np.sign(deform(desk, "+z", FURNITURE, np.random.default_rng(seed))[3, 0]) for seed in range(200)]
    assert 70 < sides.count(-1.0) < 130
