"""The noise of observed surface points, from how far they scatter about the surface that they describe."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree


@dataclass(frozen=True)
class NoiseSettings:
    """How the noise is estimated; checked on scans of eight tuning pieces, of which the noise was known."""

    neighbours: int = 24
    """points to which a quadric is fitted"""
    sampled_points: int = 1_000
    """points about which one is fitted"""
    same_side: float = 0.5
    """least cosine between the normals of points on one side of a thin wall"""


def estimate_noise(
    points: np.ndarray, normals: np.ndarray | None = None, settings: NoiseSettings = NoiseSettings()
) -> float:
    """Estimate the standard deviation of points across their surface, in their unit.

    About each of some points the height over the tangent plane is fitted by a quadric z = q(u, v) of six coefficients;
    the result is the median of what is left.

    Parameters
    ----------
    points : (n, 3)
    normals : (n, 3), unit vectors, if known: then the far side of a thin wall is no noise
    """
    count, random = settings.neighbours, np.random.default_rng(0)
    if len(points) <= count:
        return 0.0
    chosen = random.permutation(len(points))[: settings.sampled_points]
    near = KDTree(points).query(points[chosen], k=count)[1]  # (s, k)
    weight = np.ones(near.shape)
    if normals is not None:
        weight = ((normals[near] * normals[chosen][:, None]).sum(axis=2) > settings.same_side).astype(float)
    sizes = weight.sum(axis=1)  # (s,)
    mean = (weight[..., None] * points[near]).sum(axis=1) / np.maximum(sizes, 1)[:, None]
    centred = weight[..., None] * (points[near] - mean[:, None])
    axes = np.linalg.svd(centred, full_matrices=False)[2]  # (s, 3, 3), the normal last
    u, v, height = np.moveaxis(centred @ np.swapaxes(axes, 1, 2), 2, 0)  # (s, k) each
    size = np.maximum(np.abs(u).max(axis=1, keepdims=True), 1e-300)
    u, v = u / size, v / size
    basis = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=2) * weight[..., None]  # (s, k, 6)
    left = height - (basis @ np.linalg.pinv(basis) @ height[..., None])[..., 0]
    free = sizes - basis.shape[2]
    deviation = np.sqrt((left[free > 0] ** 2).sum(axis=1) / free[free > 0])
    return float(np.median(deviation)) if len(deviation) else 0.0
