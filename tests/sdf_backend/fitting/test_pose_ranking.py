"""Scores of balls at poses, and non-maximum suppression."""

from copy import copy
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.pose_ranking import pose_score, suppress_similar_poses, suppress_similar_shapes
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.cuts import Cut
from sdf_backend.observation.observations import observe_points


def half_ball(radius: float) -> np.ndarray:
    normal = np.random.default_rng(0).normal(size=(4_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal[normal[:, 0] > -0.2] * radius


def test_shapes_that_lie_apart_are_kept_and_similar_ones_suppressed(spheres: Model) -> None:
    here, turned = Similarity.identity(), Similarity(1.0, np.diag([-1.0, 1, -1]), np.zeros(3))
    away, large = Similarity(1.0, np.eye(3), np.array([0.3, 0, 0])), Similarity(1.5, np.eye(3), np.zeros(3))
    posed_codes = [(spheres.mean, pose) for pose in (here, turned, away, here, large)]
    assert suppress_similar_shapes(spheres, posed_codes, 5) == [0, 2, 4]
    assert suppress_similar_shapes(spheres, posed_codes, 2) == [0, 2]


def test_poses_from_which_a_fit_converges_to_the_same_are_suppressed() -> None:
    def pose(size: float = 1, turn: float = 0, position: float = 0) -> Similarity:
        rotation = Rotation.from_euler("y", turn, degrees=True).as_matrix()
        return Similarity(size, rotation, np.array([position, 0, 0]))

    poses = [
        pose(),
        pose(turn=5),
        pose(turn=40),
        pose(1.05),
        pose(1.3),
        pose(position=0.05),
        pose(position=0.3),
        pose(turn=35),
    ]
    assert suppress_similar_poses(poses) == [0, 2, 4, 6]


def test_visible_surface_that_was_not_observed_raises_the_score(spheres: Model) -> None:
    """Even if its mirror image was observed."""
    mirrored = replace(spheres, decoder=copy(spheres.decoder))
    mirrored.decoder.settings = replace(spheres.decoder.settings, mirror_axis=0)
    points = half_ball(0.5)
    left = replace(observe_points(points[points[:, 0] > 0]), sensor=np.array([0, 3.0, 0]))
    pose = Similarity.identity()
    told, blind = (pose_score(mirrored, spheres.mean, pose, seen, 1.0) for seen in (left, replace(left, sensor=None)))
    unexplained, _ = assess_surface(mirrored, spheres.mean, left.surface, pose, torch.bfloat16)
    assert blind - unexplained < 1e-3
    assert told - unexplained > 5e-3


def test_what_lies_beyond_a_possible_cut_does_not_raise_the_score_but_what_is_missing_before_it_does(
    spheres: Model,
) -> None:
    pose, points = Similarity.identity(), np.concatenate([half_ball(0.5), -half_ball(0.5)])
    for offset, missing in ((0.0, False), (0.3, True)):
        cut = Cut(np.array([1.0, 0, 0]), offset, np.zeros((0, 3)))
        seen = replace(observe_points(points[points[:, 0] < 0]), possible_cut=cut)
        unexplained, _ = assess_surface(spheres, spheres.mean, seen.surface, pose, torch.bfloat16)
        assert (pose_score(spheres, spheres.mean, pose, seen, 1.0) - unexplained > 5e-3) is missing


def test_occluded_surface_does_not_raise_the_score(spheres: Model) -> None:
    points = half_ball(0.5)
    seen = observe_points(points[points[:, 0] > 0.2])
    pose, code = Similarity.identity(), spheres.mean
    facing, behind = (
        pose_score(spheres, code, pose, replace(seen, sensor=np.array([position, 0, 0])), 1.0)
        for position in (3.0, -3.0)
    )
    unexplained, _ = assess_surface(spheres, code, seen.surface, pose, torch.bfloat16)
    assert behind - unexplained > 1e-2
    assert facing - unexplained < 0.5 * (behind - unexplained)
