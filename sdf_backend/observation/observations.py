"""Meshes and point clouds -> what a code is fitted to: points at which the signed distance is known to lie somewhere.

Every observation is a point and an interval [low, high] that holds its distance: a signed sample has low = high, a
surface point 0 = low = high, free space between a sensor and what it saw 0 <= distance; both bounds infinite mean
beyond the clamp, however far. One rule then serves all of
them: the residual is how far the decoder's value lies outside of the interval.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import MINIMUM_POINTS, check_vertices
from sdf_backend.geometry.signed_distance import (
    Signs,
    clean_mesh,
    normalisation,
    spread_signs,
    surface_points,
    unsigned_distance,
    visible_surface,
)
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.outliers import floor_points
from sdf_backend.observation.sensor_position import hidden

FREE = np.inf
# Points of empty space to one observed point, how far away from all of these they begin, and how far beyond the
# observed points' box they reach, canonical units.
EMPTY_SHARE, EMPTY_DISTANCE, EMPTY_MARGIN = 1.0, 0.1, 0.1


@dataclass(frozen=True)
class Observations:
    """What is known of one shape, in one frame and unit throughout.

    points : (n, 3) float64
    low, high : (n,) float64, the interval of the signed distance; infinite where it is open
    surface : (m, 3) float64, points that lie on the surface
    solid : the distances are known on both sides of all of the surface
    guessed : how many of the points, the last ones, are guesses, by which a fit is not judged
    suspects : (k, 3) float64, points that were seen and may belong to a floor; not among the others
    sensor : (3,) float64, from where all was seen, where that is known or found out
    """

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray
    surface: np.ndarray
    solid: bool = False
    guessed: int = 0
    suspects: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    sensor: np.ndarray | None = None

    def trusting(self) -> "Observations":
        """The same, with the suspects as points on the surface."""
        zero, known = np.zeros(len(self.suspects)), len(self.points) - self.guessed
        return replace(
            self,
            points=np.insert(self.points, known, self.suspects, axis=0),
            low=np.insert(self.low, known, zero),
            high=np.insert(self.high, known, zero),
            surface=np.concatenate([self.surface, self.suspects]),
            suspects=self.suspects[:0],
        )

    def transformed(self, scale: float, rotation: np.ndarray, translation: np.ndarray) -> "Observations":
        """The same under x -> scale * rotation @ x + translation; distances scale along."""

        def moved(places: np.ndarray) -> np.ndarray:
            return scale * places @ rotation.T + translation

        return replace(
            self,
            points=moved(self.points),
            low=self.low * scale,
            high=self.high * scale,
            surface=moved(self.surface),
            suspects=moved(self.suspects),
            sensor=None if self.sensor is None else moved(self.sensor),
        )


@dataclass(frozen=True)
class ObservationSettings:
    """How an input becomes observations."""

    surface_points: int = 20_000
    """surface points kept of a larger cloud, or drawn from a mesh"""
    normal_step: float = 0.01
    """where normals are known, the distance is observed this far along them too, as a share of the cloud's extent"""
    free_points: int = 6_000
    """points between the sensor and what it saw, where the sensor's position is known"""
    signed_samples: int = 50_000
    """signed distance samples of a whole mesh"""


def check_cloud(points: np.ndarray) -> None:
    """Raise `InputError` for a cloud that no shape can be fitted to.

    Not finite, fewer than 100 points, all in one place or on one line or plane.
    """
    check_vertices(points, "the input")
    if len(points) < MINIMUM_POINTS:
        raise InputError(f"the input has {len(points)} points; at least {MINIMUM_POINTS} are needed")
    centred = points - points.mean(axis=0)
    spread = np.linalg.svd(centred.T @ centred, compute_uv=False) ** 0.5
    if spread[0] <= 1e-12 * max(1.0, np.abs(points).max()):
        raise InputError("all points of the input are in one place")
    if spread[2] <= 1e-6 * spread[0]:
        raise InputError("all points of the input lie in one plane; a shape needs depth")


def observe_points(
    points: np.ndarray,
    normals: np.ndarray | None = None,
    sensor: np.ndarray | None = None,
    settings: ObservationSettings = ObservationSettings(),
    seed: int = 0,
    up: np.ndarray | None = None,
) -> Observations:
    """Observe part of a surface.

    Parameters
    ----------
    points : (n, 3), on the surface
    normals : (n, 3), towards the outside, any length; adds the distance +-step at +-step along them (Park et al.,
        section 4.3)
    sensor : (3,), from where the points were seen; the space between is not inside
    seed : the same seed keeps the same points
    up : (3,), unit vector, where it is known; what may be a floor under the object is then held apart
    """
    check_cloud(points)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(points))[: settings.surface_points]
    surface = np.asarray(points, dtype=np.float64)[chosen]
    floor = np.zeros(len(surface), dtype=bool) if up is None else floor_points(surface, up)
    suspects, surface, chosen = surface[floor], surface[~floor], chosen[~floor]
    # A few strays would stretch it.
    extent = float(np.ptp(np.percentile(surface, [0.5, 99.5], axis=0), axis=0).max())
    parts = [(surface, np.zeros(len(surface)), np.zeros(len(surface)))]
    if normals is not None:
        parts += _beside(surface, np.asarray(normals, dtype=np.float64)[chosen], settings.normal_step * extent)
    if sensor is not None:
        sensor = np.asarray(sensor, dtype=np.float64)
        parts.append(_free_space(surface, sensor, extent, settings.free_points, rng))
    placed, low, high = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Observations(placed, low, high, surface, suspects=suspects, sensor=sensor)


def observe_whole_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    settings: ObservationSettings = ObservationSettings(),
) -> Observations:
    """Observe a whole mesh by signed distances near its surface, whatever its normals, holes and inner walls.

    Raises `InputError` where it encloses nothing.
    """
    check_cloud(vertices)
    vertices, faces = clean_mesh(vertices, faces)
    scale, offset = normalisation(vertices)
    signs = Signs((vertices + offset) * scale, faces)
    triangles, _ = visible_surface((vertices + offset) * scale, faces, signs)
    if len(triangles) == 0:
        raise InputError("no face of the mesh can be seen from outside")
    rng = np.random.default_rng(0)  # the same mesh gives the same fit
    surface, _ = surface_points(triangles, settings.signed_samples, rng)
    # The proportions in which decoders are trained: two widths near the surface, and some in the sphere around.
    sigma = np.resize([0.0707, 0.0224], len(surface))[:, None]
    points = surface + rng.normal(size=surface.shape) * sigma
    uniform = len(points) // 16
    points[:uniform] = rng.uniform(-1, 1, size=(uniform, 3))
    distance = unsigned_distance(points, triangles)
    flags = spread_signs(points, distance, signs)
    if not (flags < 0).any():
        raise InputError("the mesh encloses nothing; use complete, which needs surfaces only")
    sure = flags != 0
    signed = (flags * distance)[sure]
    observed = Observations(points[sure], signed, signed, surface[: settings.surface_points], solid=True)
    return observed.transformed(1 / scale, np.eye(3), -offset)


def observe_samples(points: np.ndarray, distances: np.ndarray, surface: np.ndarray) -> Observations:
    """Observe signed distance samples: points (n, 3), distances (n,), and points on the surface (m, 3)."""
    signed = distances.astype(np.float64)
    return Observations(points.astype(np.float64), signed, signed, surface.astype(np.float64), solid=True)


def observe_surface_points(surface: np.ndarray) -> Observations:
    """Observe points, (n, 3), as lying on the surface, and nothing else."""
    return Observations(surface, np.zeros(len(surface)), np.zeros(len(surface)), surface)


def with_empty_space(observed: Observations, pose: Similarity, mirror_axis: int | None) -> Observations:
    """The same, with the guess that where nothing was observed there is nothing.

    A code that is fitted to part of a surface is free to invent sheets wherever nothing was seen. So points that lie
    far from all that was observed, and from its mirror image where the category has one, are observed as being beyond
    the clamp. It is a guess and no knowledge: a part that the training shapes say must be there outweighs it. Outside
    the box around the observed points nothing is guessed, since what is missing of a broken object may lie there; nor
    behind what was seen, where it is known from where: what is thick would be made hollow, and its back be lost.

    Parameters
    ----------
    pose : canonical frame -> the frame of `observed`, as it is known so far
    mirror_axis : canonical axis along which the category is symmetric
    """
    seen = pose.inverse().apply(observed.surface)
    if mirror_axis is not None:
        image = seen.copy()
        image[:, mirror_axis] *= -1
        seen = np.concatenate([seen, image])
    rng = np.random.default_rng(0)  # the same about every input
    count = round(EMPTY_SHARE * len(observed.surface))
    low, high = np.percentile(seen, [0.5, 99.5], axis=0)
    around = rng.normal(size=(20 * count, 3))
    around *= rng.random((20 * count, 1)) ** (1 / 3) / np.linalg.norm(around, axis=1, keepdims=True)
    around = around[((around > low - EMPTY_MARGIN) & (around < high + EMPTY_MARGIN)).all(axis=1)][: 4 * count]
    away, _ = KDTree(seen).query(around, distance_upper_bound=EMPTY_DISTANCE)
    empty = pose.apply(around[np.isinf(away)][:count])
    if observed.sensor is not None:
        empty = empty[~hidden(empty, observed.surface, observed.sensor)]
    beyond = np.full(len(empty), np.inf)
    return replace(
        observed,
        points=np.concatenate([observed.points, empty]),
        low=np.concatenate([observed.low, beyond]),
        high=np.concatenate([observed.high, beyond]),
        guessed=len(empty),
    )


def _beside(surface: np.ndarray, normals: np.ndarray, step: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    length = np.linalg.norm(normals, axis=1)
    known = np.isfinite(length) & (length > 0)
    away = normals[known] / length[known, None] * step
    distance = np.full(int(known.sum()), step)
    return [(surface[known] + away, distance, distance), (surface[known] - away, -distance, -distance)]


def _free_space(
    surface: np.ndarray, sensor: np.ndarray, extent: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on the lines of sight, as far before the surface as the object is large; the distance there is >= 0."""
    if not np.isfinite(sensor).all() or sensor.shape != (3,):
        raise InputError(f"the sensor's position is {sensor.tolist()}; it must be three finite coordinates")
    seen = surface[rng.integers(len(surface), size=count)]
    towards = sensor - seen
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    towards /= np.maximum(length, 1e-12)
    # Squared: most of them close to the surface, where they tell the most.
    gap = rng.random((count, 1)) ** 2 * np.minimum(length, extent)
    return seen + towards * gap, np.zeros(count), np.full(count, FREE)
