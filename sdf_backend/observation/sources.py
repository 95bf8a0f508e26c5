"""Inputs of the tasks, how they are observed, and how near the input was to each vertex of a result."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import sample_surface_points
from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.observation.cuts import find_cut
from sdf_backend.observation.noise import estimate_noise
from sdf_backend.observation.normals import believe_normals
from sdf_backend.observation.observations import (
    Observations,
    ObservationSettings,
    check_extent,
    check_point_cloud,
    observe_points,
    observe_whole_mesh,
)
from sdf_backend.observation.sensor_position import estimate_sensor_position


@dataclass(frozen=True)
class Source:
    """One input: a mesh or a point cloud, and the sensor's position, (3,), in its own frame, if known."""

    geometry: Geometry
    sensor: np.ndarray | None = None


@dataclass(frozen=True)
class ObservedSettings:
    """How near to the input a vertex counts as observed; canonical units. A definition, not a tuned value."""

    near: float = 0.02
    """up to this distance a vertex is observed"""
    far: float = 0.05
    """from this distance on it is not"""
    spacings: float = 2.0
    """`near` is at least this many median spacings of the input's points"""
    sampled_points: int = 2_000
    """points whose spacing is measured"""


Observe = Callable[[Source, np.ndarray | None], Observations]
"""Observes a source, deterministically; the unit vector, (3,), is the up direction, if known."""


def observe_surface(source: Source, up: np.ndarray | None) -> Observations:
    """Observe part of a surface: the points of a cloud, or points drawn from a mesh, whose normals are not trusted.

    A sensor position that is not given is estimated. The mesh of a depth scan has its vertices where the sensor's rays
    hit, so the estimate uses its vertices.
    """
    geometry = source.geometry
    if len(geometry.faces) == 0:
        check_point_cloud(geometry.vertices)
        normals, sensor, told = geometry.normals, source.sensor, ""
        if normals is not None:
            seen_from = estimate_sensor_position(geometry.vertices) if sensor is None else sensor
            normals, told = believe_normals(geometry.vertices, normals, seen_from)
        observed = observe_points(geometry.vertices, normals, sensor, up=up)
        notes = (*observed.notes, told) if told else observed.notes
        observed, raw = replace(observed, noise=estimate_noise(observed.surface), notes=notes), observed.surface
    else:
        check_extent(geometry.vertices)
        rng, count = np.random.default_rng(0), ObservationSettings().surface_points
        triangles = geometry.vertices[geometry.faces]
        points, which = sample_surface_points(triangles, count, rng)
        cut = find_cut(geometry.vertices, geometry.faces, count)
        noise = estimate_noise(points, _unit_normals(triangles[which]))
        observed = replace(observe_points(points, None, source.sensor, up=up), noise=noise, possible_cut=cut)
        raw = geometry.vertices
    return observed if source.sensor is not None else replace(observed, sensor=estimate_sensor_position(raw))


def _unit_normals(triangles: np.ndarray) -> np.ndarray:
    """Unit normals, (n, 3), of triangles, (n, 3, 3); trimesh leaves out those that are small in the user's unit."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-300)


def observe_solid(source: Source, up: np.ndarray | None) -> Observations:
    """Observe a whole mesh by signed distance samples; raises `InputError` for one that encloses no volume."""
    if len(source.geometry.faces) == 0:
        raise InputError("a point cloud has no inside; use complete, which needs only a surface")
    return observe_whole_mesh(source.geometry.vertices, source.geometry.faces)


def observe_solid_or_surface(source: Source, up: np.ndarray | None) -> Observations:
    """Observe a mesh that encloses a volume as a solid, any other input as a surface."""
    if len(source.geometry.faces):
        try:
            return observe_solid(source, up)
        except InputError:
            pass
    return observe_surface(source, up)


def observed_weights(
    vertices: np.ndarray, surface: np.ndarray, scale: float, settings: ObservedSettings = ObservedSettings()
) -> np.ndarray:
    """How far each vertex of a result was observed, from 1, near the input, to 0.

    Parameters
    ----------
    vertices : (n, 3); surface : (m, 3), surface points of the input, in the same frame
    scale : unit of that frame for one canonical unit

    Returns
    -------
    (n,) float32.
    """
    tree = KDTree(surface)
    spacing = float(np.median(tree.query(surface[: settings.sampled_points], k=2)[0][:, 1]))
    near, far = settings.near * scale, settings.far * scale
    # A sparse cloud stretches both distances.
    stretch = max(1.0, settings.spacings * spacing / near)
    distance, _ = tree.query(vertices)
    return np.clip((far * stretch - distance) / ((far - near) * stretch), 0, 1).astype(np.float32)
