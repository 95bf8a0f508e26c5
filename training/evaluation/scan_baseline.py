"""A baseline of one scan: the nearest training shape, scaled and snapped to it; and scores without ground truth.

For legged furniture this baseline is hard to beat, and it needs no decoder: of all training shapes the one that
explains the scan best, once each was scaled to the scan's bounding box axis by axis, is bent towards the scan's points.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from training.evaluation.metrics import point_to_mesh_distance
from training.triangle_mesh import MeshLike, checked_points


@dataclass(frozen=True)
class SnapSettings:
    """How the baseline searches and snaps. Chosen for plausibility and never tuned, so as to favour no method."""

    candidates: int = 5
    """shapes that are compared by all of their points, after a comparison by `compared_points`"""
    compared_points: int = 1_500
    """points of the scan and of each shape in the first comparison"""
    neighbours: int = 8
    """scan points whose displacements move a point of the shape"""
    width: float = 0.05
    """standard deviation of the Gaussian by which a displacement fades with distance from the scan, canonical units"""


@dataclass(frozen=True)
class SnappedShape:
    """The baseline's answer: surface points, (n, 3) canonical, of the training shape called `name`."""

    name: str
    points: np.ndarray


def snapped_nearest_shape(
    scan: np.ndarray, surfaces: Mapping[str, np.ndarray], settings: SnapSettings = SnapSettings()
) -> SnappedShape:
    """Find the training shape nearest to a scan, scaled to the scan's bounding box, and snap it to the scan.

    Parameters
    ----------
    scan : (m, 3) points, canonical units.
    surfaces : surface points, (n, 3), of each training shape by its name.

    Returns
    -------
    The shape with the smallest mean squared distance from the scan to it, after snapping.

    Raises
    ------
    InputError : no training shapes, or malformed points.
    """
    if not surfaces:
        raise InputError("there are no training shapes to choose the nearest from")
    scan = checked_points(scan, "scan")
    few = scan[:: max(1, len(scan) // settings.compared_points)]
    scaled = {name: scale_to_box(points.astype(np.float64), scan) for name, points in surfaces.items()}
    rough = {name: _misfit(few, points[: settings.compared_points]) for name, points in scaled.items()}
    closest = sorted(rough, key=rough.__getitem__)[: settings.candidates]
    name = min(closest, key=lambda candidate: _misfit(scan, scaled[candidate]))
    return SnappedShape(name, snap(scaled[name], scan, settings))


def scale_to_box(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Points, (n, 3), moved and scaled axis by axis so that their bounding box is that of `target`, (m, 3)."""
    low, high = points.min(axis=0), points.max(axis=0)
    target_low, target_high = target.min(axis=0), target.max(axis=0)
    # An axis without extent keeps its scale.
    scale = np.divide(target_high - target_low, high - low, out=np.ones(3), where=high > low)
    return (points - low) * scale + target_low


def snap(points: np.ndarray, scan: np.ndarray, settings: SnapSettings = SnapSettings()) -> np.ndarray:
    """Bend points, (n, 3), towards a scan, (m, 3), by the mean displacement of nearby scan points from their nearest.

    The mean is over the `neighbours` nearest scan points, and fades with the distance to the scan.
    """
    _, nearest = KDTree(points).query(scan)
    displacement = scan - points[nearest]  # (m, 3)
    away, around = KDTree(scan).query(points, k=min(settings.neighbours, len(scan)))
    away, around = away.reshape(len(points), -1), around.reshape(len(points), -1)  # (n, k)
    weight = np.exp(-0.5 * (away / settings.width) ** 2)
    # Scaled by the largest weight, so that a point far from the scan does not move.
    total = np.maximum(weight.sum(axis=1), 1e-12)[:, None]
    mean = np.einsum("nk,nkd->nd", weight, displacement[around]) / total
    return points + weight.max(axis=1)[:, None] * mean


def unidirectional_scores(scan: np.ndarray, result: MeshLike) -> tuple[float, float]:
    """UCD and UHD: the mean and the largest distance from a scan's points, (m, 3), to a result's surface.

    They need no truth; units of the input. (Chen et al., "Unpaired Point Cloud Completion", ICLR 2020, use both, there
    to points of the result.)
    """
    distances = point_to_mesh_distance(scan, result.vertices, result.faces)
    return float(distances.mean()), float(distances.max())


def _misfit(scan: np.ndarray, points: np.ndarray) -> float:
    """Mean squared distance from a scan to points."""
    return float(np.mean(KDTree(points).query(scan)[0] ** 2))
