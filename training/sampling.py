"""Signed distance samples of one mesh for training, by the recipe of `sdf_backend.geometry.signed_samples`.

Samples of uncertain sign are dropped and counted; a mesh that cannot be used is rejected with the reason.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import sample_surface_points
from sdf_backend.geometry.signed_samples import (
    SAMPLE_BOUND,
    NormalisedMesh,
    SignedSampleSettings,
    draw_sample_points,
    measure_signed_distances,
)
from sdf_backend.wire.settings import Settings, option

# Stored samples are 16-bit integers over this range on either side of zero.
BOUND = SAMPLE_BOUND
GRID_STEPS = 32767


class Noise(StrEnum):
    """Variances of the near-surface noise: those of the paper, or those of the released tool."""

    PAPER = "paper"
    RELEASED = "released"

    @property
    def variances(self) -> tuple[float, float]:
        """Variances in squared canonical units."""
        return (0.0025, 0.00025) if self is Noise.PAPER else (0.005, 0.0005)


@dataclass(frozen=True)
class SampleSettings(Settings):
    """How a mesh is sampled for training."""

    count: int = option(500_000, "signed distance samples per shape", 1_000)
    noise: Noise = Noise.RELEASED
    """variances of the near-surface samples"""
    uniform_share: float = 0.06
    """share of the samples that is uniform in the unit ball; the rest lies near the surface"""
    surface_count: int = 32_768
    """oriented surface points a shape, for evaluation and virtual scans"""
    maximum_uncertain: float = 0.1
    """a mesh with a larger share of samples of uncertain sign is rejected: it has large holes or open sheets"""
    minimum_inside: float = 0.0005
    """a mesh with a smaller share of inside samples is rejected: it encloses no volume"""

    @property
    def signed(self) -> SignedSampleSettings:
        """How many signed samples are drawn, and where."""
        return SignedSampleSettings(self.count, self.noise.variances, self.uniform_share)


@dataclass(frozen=True)
class ShapeSamples:
    """The samples of one mesh; canonical = (original + offset) * scale.

    points : (n, 3) float32, canonical; distances : (n,) float32, negative inside
    surface, normals : (m, 3) float32, points on the visible surface and unit normals towards the outside
    uncertain : number of samples that were dropped because of their sign
    """

    points: np.ndarray
    distances: np.ndarray
    surface: np.ndarray
    normals: np.ndarray
    scale: float
    offset: np.ndarray
    uncertain: int


def sample_mesh(
    vertices: np.ndarray, faces: np.ndarray, settings: SampleSettings, rng: np.random.Generator
) -> ShapeSamples:
    """Sample the signed distance of one mesh.

    Parameters
    ----------
    vertices : (n, 3), any frame and unit; faces : (m, 3)
    rng : decides all samples

    Raises `InputError` with the reason where the mesh cannot be used.
    """
    mesh = NormalisedMesh.from_mesh(np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64))
    surface, which = sample_surface_points(mesh.triangles, max(settings.surface_count, settings.count), rng)
    # Distances are measured where the stored points will be.
    points = quantise(draw_sample_points(surface, settings.signed, rng))
    samples = measure_signed_distances(mesh, points)
    _check_shares(samples.uncertain / len(points), samples.inside / len(points), settings)
    kept = rng.permutation(len(surface))[: settings.surface_count]
    return ShapeSamples(
        samples.points.astype(np.float32),
        samples.distances.astype(np.float32),
        surface[kept].astype(np.float32),
        mesh.normals[which[kept]].astype(np.float32),
        mesh.scale,
        mesh.offset,
        samples.uncertain,
    )


def inside_first(samples: ShapeSamples) -> ShapeSamples:
    """The same samples in a random order, those inside first, so that a window of either side is a random draw.

    The order depends on the samples alone.
    """
    order = np.random.default_rng(0).permutation(len(samples.distances))
    order = order[np.argsort(samples.distances[order] >= 0, kind="stable")]
    return replace(samples, points=samples.points[order], distances=samples.distances[order])


def quantise(points: np.ndarray) -> np.ndarray:
    """Move points to the 16-bit grid on which they are stored, so that their distances are exact there."""
    return np.round(points / BOUND * GRID_STEPS) * (BOUND / GRID_STEPS)


def to_grid(values: np.ndarray, bound: float) -> np.ndarray:
    """Values within +-`bound` as 16-bit integers, as they are stored."""
    return np.round(values / bound * GRID_STEPS).astype(np.int16)


def from_grid(values: np.ndarray, bound: float) -> np.ndarray:
    """The float32 values of 16-bit integers that `to_grid` made."""
    return (values * (bound / GRID_STEPS)).astype(np.float32)


def _check_shares(uncertain: float, inside: float, settings: SampleSettings) -> None:
    """Raise `InputError` where too many samples are of uncertain sign, or too few are inside."""
    if uncertain > settings.maximum_uncertain:
        raise InputError(f"the sign of {uncertain:.1%} of the samples is uncertain: large holes, or open sheets")
    if inside < settings.minimum_inside:
        raise InputError(f"it encloses no volume: only {inside:.3%} of the samples are inside")
