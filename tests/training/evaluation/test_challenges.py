"""Floors, placements and symmetry."""

import numpy as np
import pytest
import trimesh

from training.evaluation.challenges import floor_under, own_turns, random_placement
from training.evaluation.metrics import Mesh

# trimesh's cones stand along z.
UPRIGHT = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])


def mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.array(shape.vertices), np.array(shape.faces))


@pytest.mark.parametrize(
    ("shape", "turns"),
    [
        (trimesh.creation.box([1, 0.3, 0.4]), {0, 180}),
        (trimesh.creation.box([0.8, 0.3, 0.8]), {0, 90, 180, 270}),
        (trimesh.creation.cone(0.5, 1.0).apply_transform(UPRIGHT), set(range(0, 360, 15))),
    ],
    ids=["oblong", "square", "round"],
)
def test_an_object_s_own_turns_are_found(shape: trimesh.Trimesh, turns: set) -> None:
    assert set(own_turns(mesh(shape))) == turns


def test_what_has_a_front_has_no_turn_of_its_own() -> None:
    nose = trimesh.creation.box([1, 0.2, 0.2])
    wing = trimesh.creation.box([0.2, 0.1, 1.2]).apply_translation([0.3, 0, 0])
    assert own_turns(mesh(trimesh.util.concatenate([nose, wing]))) == [0.0]


def test_a_floor_is_a_tenth_of_all_points_and_lies_under_them() -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, size=(9_000, 3))
    floor = floor_under(points, -0.7, np.random.default_rng(1))
    assert len(floor) == 1_000
    assert np.abs(floor[:, 1] + 0.7).max() < 0.02
    assert np.ptp(floor[:, 0]) > 1.1


def test_placements_are_upright_and_of_all_sizes() -> None:
    rng = np.random.default_rng(0)
    found = [random_placement(rng) for _ in range(200)]
    scales = np.array([one.scale for one in found])
    assert 0.1 <= scales.min() < 0.15 and 7 < scales.max() <= 10
    for one in found:
        np.testing.assert_allclose(one.rotation @ [0, 1, 0], [0, 1, 0], atol=1e-12)
