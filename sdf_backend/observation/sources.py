"""Inputs of the tasks, what is observed of them, and how far each vertex of a result was observed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.signed_distance import surface_points
from sdf_backend.observation.observations import (
    Observations,
    ObservationSettings,
    check_cloud,
    observe_points,
    observe_whole_mesh,
)
from sdf_backend.observation.sensor_position import viewpoint

# A vertex counts as observed up to the first distance from the input, not at all from the second; canonical units.
OBSERVED_NEAR, OBSERVED_FAR = 0.02, 0.05


@dataclass(frozen=True)
class Source:
    """One input: a mesh or a point cloud, and from where it was seen, (3,), in its own frame, where that is known."""

    geometry: Geometry
    sensor: np.ndarray | None = None


# Observes a source, always alike; the unit vector says where up is, where that is known.
Observe = Callable[[Source, np.ndarray | None], Observations]


def observe_surface(source: Source, up: np.ndarray | None) -> Observations:
    """Points on the surface: the cloud's own, or drawn from the mesh, whose normals are not to be trusted.

    Where it is not said from where they were seen, that is found out if it can be; a camera's mesh has its vertices
    where the camera had its rays.
    """
    geometry = source.geometry
    if len(geometry.faces) == 0:
        observed = observe_points(geometry.vertices, geometry.normals, source.sensor, up=up)
        raw = observed.surface
    else:
        check_cloud(geometry.vertices)
        rng = np.random.default_rng(0)
        points, _ = surface_points(geometry.vertices[geometry.faces], ObservationSettings().surface_points, rng)
        observed = observe_points(points, None, source.sensor, up=up)
        raw = geometry.vertices
    return observed if source.sensor is not None else replace(observed, sensor=viewpoint(raw))


def observe_solid(source: Source, up: np.ndarray | None) -> Observations:
    """Signed distances about a whole mesh; raises `InputError` for one that encloses nothing."""
    if len(source.geometry.faces) == 0:
        raise InputError("a point cloud has no inside; use complete, which needs surfaces only")
    return observe_whole_mesh(source.geometry.vertices, source.geometry.faces)


def observe_any(source: Source, up: np.ndarray | None) -> Observations:
    """A solid where it encloses something, a surface otherwise."""
    if len(source.geometry.faces):
        try:
            return observe_solid(source, up)
        except InputError:
            pass
    return observe_surface(source, up)


def observed_share(vertices: np.ndarray, surface: np.ndarray, scale: float) -> np.ndarray:
    """How far each vertex, (n, 3), was observed by surface points, (m, 3): (n,) float32, 1 near to 0 far.

    A sparse cloud stretches the distances to twice its own spacing.
    """
    tree = KDTree(surface)
    spacing = float(np.median(tree.query(surface[:2000], k=2)[0][:, 1]))
    near, far = OBSERVED_NEAR * scale, OBSERVED_FAR * scale
    stretch = max(1.0, 2 * spacing / near)
    distance, _ = tree.query(vertices)
    return np.clip((far * stretch - distance) / ((far - near) * stretch), 0, 1).astype(np.float32)
