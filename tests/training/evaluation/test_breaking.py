"""Broken spheres, boxes and planes, whose missing parts are known."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from training.evaluation.breaking import (
    BREAKING,
    Balls,
    HalfSpace,
    draw_region,
    extent_error,
    regional_chamfer,
    remove_region,
)
from training.evaluation.metrics import sample_surface
from training.evaluation.tasks import Damage
from training.triangle_mesh import Mesh

SPHERE = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
SHARES = {
    Damage.HALF: BREAKING.half,
    Damage.END: BREAKING.end,
    Damage.HOLE: BREAKING.hole,
    Damage.CORNER: BREAKING.corner,
}


def area(mesh: Mesh) -> float:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).area


@pytest.mark.parametrize("damage", list(Damage))
def test_a_damage_removes_its_share_of_the_surface(damage: Damage) -> None:
    region = draw_region(damage, SPHERE, np.random.default_rng(1))
    missing = 1 - area(remove_region(SPHERE, region)) / SPHERE.area
    if damage is Damage.SCATTERED:  # holes may overlap
        assert BREAKING.scattered < missing < BREAKING.scattered * BREAKING.scattered_holes + 0.01
    else:
        assert missing == pytest.approx(SHARES[damage], abs=0.03)


@pytest.mark.parametrize("damage", list(Damage))
def test_the_rest_lies_on_the_surface_and_outside_the_region(damage: Damage) -> None:
    region = draw_region(damage, SPHERE, np.random.default_rng(2))
    rest = remove_region(SPHERE, region)
    points, _ = sample_surface(rest.vertices, rest.faces, 3000, np.random.default_rng(0))
    # A ball's border is as jagged as its faces are large.
    assert region.contains(points).mean() < (0.001 if isinstance(region, HalfSpace) else 0.03)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.5).max() < 0.01


def test_regions_depend_on_the_random_numbers_alone() -> None:
    def normal(seed: int) -> list[float]:
        region = draw_region(Damage.HALF, SPHERE, np.random.default_rng(seed))
        assert isinstance(region, HalfSpace)
        return region.normal.tolist()

    assert normal(3) == normal(3) != normal(4)


def test_halves_are_cut_upright_and_ends_across_an_axis() -> None:
    for seed in range(8):
        half = draw_region(Damage.HALF, SPHERE, np.random.default_rng(seed))
        end = draw_region(Damage.END, SPHERE, np.random.default_rng(seed))
        assert isinstance(half, HalfSpace) and half.normal[1] == 0
        assert isinstance(end, HalfSpace) and np.abs(end.normal).max() == 1 and end.offset > 0


def test_a_box_cut_by_a_plane_is_exact_and_open() -> None:
    box = trimesh.creation.box([2, 2, 2])
    rest = remove_region(box, HalfSpace(np.array([1.0, 0, 0]), 0.25))
    assert rest.vertices[:, 0].max() == pytest.approx(0.25)
    assert area(rest) == pytest.approx(4 + 4 * 2 * 1.25)  # the cut itself is no surface
    assert len(np.unique(rest.vertices, axis=0)) == len(rest.vertices)


def test_a_hole_in_two_large_faces_is_round() -> None:
    plane = Mesh(np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]), np.array([[0, 2, 1], [0, 3, 2]]))
    rest = remove_region(plane, Balls(np.zeros((1, 3)), np.array([0.5])))
    assert area(rest) == pytest.approx(4 - np.pi * 0.25, rel=0.01)


def test_a_region_of_everything_is_rejected() -> None:
    with pytest.raises(InputError, match="nothing is left"):
        remove_region(SPHERE, HalfSpace(np.array([0.0, 1, 0]), -2.0))


def test_the_regional_distance_sees_the_region_alone() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform([0, 0, 0], [2, 1, 0], (20_000, 3))  # a plane
    right = HalfSpace(np.array([1.0, 0, 0]), 1.0)
    lifted = truth + np.where(truth[:, :1] > 1, [[0, 0, 0.1]], [[0, 0, 0.0]])
    elsewhere = truth + np.where(truth[:, :1] < 1, [[0, 0, 0.1]], [[0, 0, 0.0]])
    assert regional_chamfer(truth, truth, right) == 0
    assert regional_chamfer(lifted, truth, right) == pytest.approx(2 * 0.01, rel=0.05)
    assert regional_chamfer(elsewhere, truth, right) < 1e-4
    # What is missing altogether is as far off as it is from what remains: the mean of x^2 over the unit interval.
    assert regional_chamfer(truth[truth[:, 0] < 1], truth, right) == pytest.approx(1 / 3, rel=0.05)


def test_the_extent_error_is_of_height_and_of_the_longer_side() -> None:
    truth = np.array(trimesh.creation.box([1.0, 2.0, 4.0]).vertices)
    assert extent_error(truth, truth) == 0
    assert extent_error(truth * [1, 0.9, 1], truth) == pytest.approx(0.1)
    assert extent_error(truth * [1, 1, 1.2], truth) == pytest.approx(0.2)
    assert extent_error(truth * [3, 1, 1], truth) == 0  # the width is not measured
