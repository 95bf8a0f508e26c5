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
    sample_surface_points,
    unsigned_distance,
)
from sdf_backend.geometry.visible_surface import count_cells, estimate_rays, visible_surface

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
class WorkLimits:
    """What is too much work for one mesh of a user; of the meshes of the starter catalogue none comes near."""

    uncertain: float = 0.15
    """share of points about the mesh that are neither inside nor outside; training rejects a mesh with 0.1, and
    triangles at random have 0.2 or more unless there are thousands of them"""
    cells: int = 2_000_000
    """cells that are tested for visibility, which take 0.4 KB each; a sphere of large triangles has 30,000"""
    rays: float = 60e6
    """rays that are cast for them, of which one core casts one or two million a second"""
    sample: int = 2_000
    """points that both are estimated from"""


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
    def from_mesh(cls, vertices: np.ndarray, faces: np.ndarray, limits: WorkLimits | None = None) -> "NormalisedMesh":
        """Clean and normalise a mesh, (n, 3) vertices in any unit and (m, 3) faces, and drop its hidden walls.

        Raises `InputError` where no usable face is left, none is visible from outside, or limits are exceeded.
        """
        vertices, faces = clean_mesh(vertices, faces)
        scale, offset = normalisation(vertices)
        vertices = (vertices + offset) * scale
        signs = SignClassifier(vertices, faces)
        if limits:
            check_work(vertices[faces], signs, limits)
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


def check_work(triangles: np.ndarray, signs: SignClassifier, limits: WorkLimits) -> None:
    """Raise `InputError` for triangles, (n, 3, 3), that have no clear inside, or take too long to tell it.

    Both are estimated from few points.
    """
    cells = count_cells(triangles, signs.settings.cell_size)
    if cells <= limits.cells:
        _check_inside(triangles, signs, limits)
    if cells > limits.cells or estimate_rays(triangles, signs, limits.sample) > limits.rays:
        raise InputError(
            f"the {len(triangles):,} faces of the mesh have {cells:,} places to look at, which takes too long; leave "
            "out what is inside, simplify it, or use complete, which needs only a surface"
        )


def _check_inside(triangles: np.ndarray, signs: SignClassifier, limits: WorkLimits) -> None:
    surface, _ = sample_surface_points(triangles, limits.sample, np.random.default_rng(0))
    points = draw_sample_points(surface, SignedSampleSettings(limits.sample), np.random.default_rng(0))
    uncertain = float((signs.classify(points) == 0).mean())
    if uncertain > limits.uncertain:
        raise InputError(
            f"the mesh encloses no clear volume: {uncertain:.0%} of the points around it are neither inside nor "
            "outside; use complete, which needs only a surface"
        )


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
