"""Signed distance samples of one mesh: near its surface and uniformly in the sphere, in DeepSDF's proportions.

Samples whose sign is uncertain are dropped and counted; a mesh that cannot be used is rejected with the reason.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import (
    Signs,
    clean_mesh,
    normalisation,
    spread_signs,
    surface_points,
    unsigned_distance,
    visible_surface,
)

# Near-surface samples lie mostly within three sigma of the unit sphere; beyond this they teach nothing.
BOUND = 1.25


class Noise(StrEnum):
    """Variances of the two near-surface sets: as the paper says, or as the released tool does."""

    PAPER = "paper"
    RELEASED = "released"

    @property
    def variances(self) -> tuple[float, float]:
        """Variances in squared canonical units."""
        return (0.0025, 0.00025) if self is Noise.PAPER else (0.005, 0.0005)


@dataclass(frozen=True)
class SampleSettings:
    """How a mesh is sampled."""

    count: int = 500_000
    """signed distance samples a shape"""
    noise: Noise = Noise.RELEASED
    """variances of the near-surface samples"""
    uniform_share: float = 0.06
    """share of the samples that is uniform in the unit sphere; the rest lies near the surface"""
    surface_count: int = 32_768
    """oriented surface points a shape, for evaluation and virtual scans"""
    maximum_uncertain: float = 0.1
    """a mesh with a larger share of samples of uncertain sign is rejected"""
    minimum_inside: float = 0.0005
    """a mesh with a smaller share of inside samples is rejected: it encloses nothing"""


@dataclass(frozen=True)
class ShapeSamples:
    """What is kept of one mesh; canonical = (original + offset) * scale.

    points : (n, 3) float32; distances : (n,) float32, negative inside;
    surface, normals : (m, 3) float32, visible surface points and unit normals that point outside.
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
    """Sample the signed distance of one mesh, given in any frame and units.

    Raises `InputError` with the reason where the mesh cannot be used.
    """
    vertices, faces = clean_mesh(np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64))
    scale, offset = normalisation(vertices)
    vertices = (vertices + offset) * scale
    signs = Signs(vertices, faces)
    triangles, normals = visible_surface(vertices, faces, signs)
    if len(triangles) == 0:
        raise InputError("no face can be seen from outside")
    surface, which = surface_points(triangles, max(settings.surface_count, settings.count), rng)
    points = quantise(_places(surface, settings, rng))
    distances = unsigned_distance(points, triangles)
    flags = spread_signs(points, distances, signs)
    sure = flags != 0
    uncertain = int(len(points) - sure.sum())
    _check(flags, settings)
    points, distances = points[sure], (flags * distances)[sure]
    kept = rng.permutation(len(surface))[: settings.surface_count]
    return ShapeSamples(
        points.astype(np.float32),
        distances.astype(np.float32),
        surface[kept].astype(np.float32),
        normals[which[kept]].astype(np.float32),
        scale,
        offset,
        uncertain,
    )


def quantise(points: np.ndarray) -> np.ndarray:
    """Move points to the 16-bit grid on which they are stored, so that their distances are exact there."""
    return np.round(points / BOUND * 32767) * (BOUND / 32767)


def _check(flags: np.ndarray, settings: SampleSettings) -> None:
    uncertain, inside = float((flags == 0).mean()), float((flags < 0).mean())
    if uncertain > settings.maximum_uncertain:
        raise InputError(f"the sign of {uncertain:.1%} of the samples is uncertain: large holes, or open sheets")
    if inside < settings.minimum_inside:
        raise InputError(f"it encloses nothing: only {inside:.3%} of the samples are inside")


def _places(surface: np.ndarray, settings: SampleSettings, rng: np.random.Generator) -> np.ndarray:
    """Where to sample: two noisy copies of the surface and a uniform share in the unit sphere."""
    uniform = int(settings.count * settings.uniform_share)
    near = settings.count - uniform
    chosen = surface[:near] if len(surface) >= near else surface[rng.integers(len(surface), size=near)]
    sigma = np.sqrt(np.resize(settings.noise.variances, near))[:, None]
    noisy = chosen + rng.normal(size=chosen.shape) * sigma
    direction = rng.normal(size=(uniform, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ball = direction * np.cbrt(rng.random((uniform, 1)))
    return np.clip(np.concatenate([noisy, ball]), -BOUND, BOUND)
