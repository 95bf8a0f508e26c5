"""Virtual depth cameras: partial scans of a mesh with a known answer."""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import unit_normals


@dataclass(frozen=True)
class Scan:
    """What a depth camera saw: points (n, 3), unit normals that face the camera (n, 3), its position (3,)."""

    points: np.ndarray
    normals: np.ndarray
    sensor: np.ndarray


@dataclass(frozen=True)
class CameraSettings:
    """A pinhole camera that looks at the origin; lengths in canonical units."""

    distance: float = 2.5
    """from the origin"""
    pixels: int = 240
    """across and down"""
    half_angle: float = 24.0
    """of the field of view, degrees; 24 holds the unit sphere at a distance of 2.5"""
    noise: float = 0.003
    """standard deviation of the depth"""


def scan(
    vertices: np.ndarray,
    faces: np.ndarray,
    direction: np.ndarray,
    settings: CameraSettings,
    rng: np.random.Generator,
) -> Scan:
    """Look at a canonical mesh from `direction`, (3,), and return what is seen.

    Raises `InputError` where nothing is.
    """
    towards = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    sensor = towards * settings.distance
    rays = _rays(-towards, settings)
    triangles = vertices[faces]
    scene = EmbreeScene()
    TriangleMesh(scene, triangles.astype(np.float32))
    origins = np.ascontiguousarray(np.broadcast_to(sensor, rays.shape)).astype(np.float32)
    hits = scene.run(origins, rays.astype(np.float32), query="INTERSECT", output=1)
    seen = hits["primID"] >= 0
    if not seen.any():
        raise InputError("the camera sees nothing of the mesh")
    depth = hits["tfar"][seen].astype(np.float64)
    normals = unit_normals(triangles[hits["primID"][seen]])
    normals *= -np.sign(np.einsum("ij,ij->i", normals, rays[seen]))[:, None]
    depth += rng.normal(size=len(depth)) * settings.noise
    return Scan(sensor + depth[:, None] * rays[seen], normals, sensor)


def view_directions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random directions to look from, (count, 3): all around, from a little below (-20 degrees) to high above (60)."""
    azimuth = rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(np.sin(np.radians(-20)), np.sin(np.radians(60)), count)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(azimuth), height, ring * np.sin(azimuth)], axis=1)


def _rays(ahead: np.ndarray, settings: CameraSettings) -> np.ndarray:
    """Unit directions of all pixels, (pixels^2, 3)."""
    up = np.array([0.0, 1.0, 0.0]) if abs(ahead[1]) < 0.99 else np.array([1.0, 0.0, 0.0])
    right = np.cross(ahead, up)
    right /= np.linalg.norm(right)
    above = np.cross(right, ahead)
    reach = np.tan(np.radians(settings.half_angle))
    offsets = np.linspace(-reach, reach, settings.pixels)
    across, down = np.meshgrid(offsets, offsets)
    rays = ahead + across.reshape(-1, 1) * right + down.reshape(-1, 1) * above
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
