"""Signed distance samples of a mesh: the one recipe of `reconstruct` and of training data.

The recipe is DeepSDF's (Park et al., CVPR 2019, section 5, and the released preprocessing tool): most samples lie near
the surface, displaced from it by Gaussian noise of two variances in turn, and the rest uniformly in the unit ball.
Samples of uncertain sign are left out.

    mesh = NormalisedMesh.from_mesh(vertices, faces)
    surface, _ = sample_surface_points(mesh.triangles, settings.count, rng)
    samples = measure_signed_distances(mesh, draw_sample_points(surface, settings, rng))
"""

from dataclasses import dataclass

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import (
    SignClassifier,
    clean_mesh,
    normalisation,
    propagate_signs,
    unsigned_distance,
)
from sdf_backend.geometry.visible_surface import visible_surface

# Edge of half the cube that samples are clipped to. The unit ball and nearly all near-surface samples lie within:
# beyond three standard deviations of the wider noise from the unit sphere a sample teaches nothing. Stored training
# samples are quantised to this range, so it is part of their format.
SAMPLE_BOUND = 1.25


@dataclass(frozen=True)
class SignedSampleSettings:
    """How many samples are drawn, and where; canonical units."""

    count: int = 500_000
    """samples, those of uncertain sign included"""
    variances: tuple[float, float] = (0.005, 0.0005)
    """variances of the noise near the surface, in turn; those of the released tool, twice those of the paper"""
    uniform_share: float = 0.06
    """share of the samples that is uniform in the unit ball, 3 of 50 as in the released tool"""


@dataclass(frozen=True)
class NormalisedMesh:
    """The visible surface of a mesh in canonical scale; canonical = (original + offset) * scale.

    triangles : (n, 3, 3) float64; normals : (n, 3) float64, unit length, towards the outside
    signs : tells inside from outside
    """

    triangles: np.ndarray
    normals: np.ndarray
    signs: SignClassifier
    scale: float
    offset: np.ndarray

    @classmethod
    def from_mesh(cls, vertices: np.ndarray, faces: np.ndarray) -> "NormalisedMesh":
        """Clean and normalise a mesh, (n, 3) vertices in any unit and (m, 3) faces, and drop its hidden walls.

        Raises `InputError` where no usable face is left, or none is visible from outside.
        """
        vertices, faces = clean_mesh(vertices, faces)
        scale, offset = normalisation(vertices)
        vertices = (vertices + offset) * scale
        signs = SignClassifier(vertices, faces)
        triangles, normals = visible_surface(vertices, faces, signs)
        if len(triangles) == 0:
            raise InputError("no face can be seen from outside")
        return cls(triangles, normals, signs, scale, offset)


@dataclass(frozen=True)
class SignedSamples:
    """Samples of known sign.

    points : (n, 3) float64, canonical; distances : (n,) float64, negative inside
    uncertain : number of samples left out; inside : number of samples inside
    """

    points: np.ndarray
    distances: np.ndarray
    uncertain: int
    inside: int


def draw_sample_points(surface: np.ndarray, settings: SignedSampleSettings, rng: np.random.Generator) -> np.ndarray:
    """Draw where to sample: near the surface first, then uniformly in the unit ball.

    Parameters
    ----------
    surface : (m, 3), random points on the surface; drawn from again where there are fewer than needed

    Returns
    -------
    (settings.count, 3) float64, within `SAMPLE_BOUND`, canonical units.
    """
    uniform = int(settings.count * settings.uniform_share)
    near = settings.count - uniform
    chosen = surface[:near] if len(surface) >= near else surface[rng.integers(len(surface), size=near)]
    sigma = np.sqrt(np.resize(settings.variances, near))[:, None]
    displaced = chosen + rng.normal(size=chosen.shape) * sigma
    direction = rng.normal(size=(uniform, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The volume within radius r grows as its cube.
    ball = direction * np.cbrt(rng.random((uniform, 1)))
    return np.clip(np.concatenate([displaced, ball]), -SAMPLE_BOUND, SAMPLE_BOUND)


def measure_signed_distances(mesh: NormalisedMesh, points: np.ndarray) -> SignedSamples:
    """Signed distances of canonical points, (n, 3); points of uncertain sign are left out and counted."""
    distances = unsigned_distance(points, mesh.triangles)
    signs = propagate_signs(points, distances, mesh.signs)
    certain = signs != 0
    return SignedSamples(points[certain], (signs * distances)[certain], int((~certain).sum()), int((signs < 0).sum()))
