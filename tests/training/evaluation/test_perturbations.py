"""Ground planes, random poses and rotational symmetry."""

import numpy as np
import pytest
import trimesh

from training.evaluation.perturbations import random_upright_pose, sample_ground_plane, symmetry_angles
from training.triangle_mesh import Mesh

# The axis of a trimesh cone is z.
UPRIGHT = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])


def mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.array(shape.vertices), np.array(shape.faces))


@pytest.mark.parametrize(
    ("shape", "angles"),
    [
        (trimesh.creation.box([1, 0.3, 0.4]), {0, 180}),
        (trimesh.creation.box([0.8, 0.3, 0.8]), {0, 90, 180, 270}),
        (trimesh.creation.cone(0.5, 1.0).apply_transform(UPRIGHT), set(range(0, 360, 15))),
    ],
    ids=["oblong", "square", "round"],
)
def test_rotations_that_map_an_object_onto_itself_are_found(shape: trimesh.Trimesh, angles: set) -> None:
    assert set(symmetry_angles(mesh(shape))) == angles


def test_an_object_with_a_front_has_no_rotational_symmetry() -> None:
    nose = trimesh.creation.box([1, 0.2, 0.2])
    wing = trimesh.creation.box([0.2, 0.1, 1.2]).apply_translation([0.3, 0, 0])
    assert symmetry_angles(mesh(trimesh.util.concatenate([nose, wing]))) == [0.0]


def test_the_ground_plane_is_a_tenth_of_all_points_and_lies_below() -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, size=(9_000, 3))
    ground = sample_ground_plane(points, -0.7, np.random.default_rng(1))
    assert len(ground) == 1_000
    assert np.abs(ground[:, 1] + 0.7).max() < 0.02
    assert np.ptp(ground[:, 0]) > 1.1


def test_random_poses_are_upright_and_of_all_scales() -> None:
    rng = np.random.default_rng(0)
    poses = [random_upright_pose(rng) for _ in range(200)]
    scales = np.array([pose.scale for pose in poses])
    assert 0.1 <= scales.min() < 0.15 and 7 < scales.max() <= 10
    for pose in poses:
        np.testing.assert_allclose(pose.rotation @ [0, 1, 0], [0, 1, 0], atol=1e-12)
