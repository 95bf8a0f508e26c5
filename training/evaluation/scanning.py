"""A virtual depth camera: simulates partial scans of meshes whose ground truth is known."""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import unit_normals


@dataclass(frozen=True)
class DepthScan:
    """One depth scan: points (n, 3), unit normals towards the camera (n, 3), and the sensor position (3,)."""

    points: np.ndarray
    normals: np.ndarray
    sensor: np.ndarray


@dataclass(frozen=True)
class CameraSettings:
    """A pinhole camera that looks at the origin; lengths in canonical units."""

    distance: float = 2.5
    """from the origin"""
    pixels: int = 240
    """width and height of the depth image"""
    half_angle: float = 24.0
    """half the field of view, degrees; 24 covers the unit sphere from a distance of 2.5"""
    noise: float = 0.003
    """standard deviation of the depth"""


def simulate_scan(
    vertices: np.ndarray,
    faces: np.ndarray,
    direction: np.ndarray,
    settings: CameraSettings,
    rng: np.random.Generator,
) -> DepthScan:
    """Scan a canonical mesh from one direction by ray casting, with Gaussian noise along the rays.

    Parameters
    ----------
    vertices, faces : (n, 3) and (m, 3)
    direction : (3,), from the origin towards the camera, of any length
    rng : for the noise

    Raises
    ------
    InputError : no ray hits the mesh
    """
    towards = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    sensor = towards * settings.distance
    rays = camera_rays(-towards, settings)
    triangles = vertices[faces]
    scene = EmbreeScene()
    TriangleMesh(scene, triangles.astype(np.float32))
    origins = np.ascontiguousarray(np.broadcast_to(sensor, rays.shape)).astype(np.float32)
    hits = scene.run(origins, rays.astype(np.float32), query="INTERSECT", output=1)
    hit = hits["primID"] >= 0  # (pixels^2,)
    if not hit.any():
        raise InputError("no ray of the depth camera hits the mesh")
    depth = hits["tfar"][hit].astype(np.float64)
    normals = unit_normals(triangles[hits["primID"][hit]])
    normals *= -np.sign(np.einsum("ij,ij->i", normals, rays[hit]))[:, None]
    depth += rng.normal(size=len(depth)) * settings.noise
    return DepthScan(sensor + depth[:, None] * rays[hit], normals, sensor)


def sample_view_directions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random camera directions, (count, 3), uniform on the sphere between elevations of -20 and 60 degrees."""
    azimuth = rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(np.sin(np.radians(-20)), np.sin(np.radians(60)), count)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(azimuth), height, ring * np.sin(azimuth)], axis=1)


def camera_rays(forward: np.ndarray, settings: CameraSettings) -> np.ndarray:
    """Unit ray directions of all pixels, (pixels^2, 3), of a camera that looks along `forward`, (3,)."""
    up = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.99 else np.array([1.0, 0.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    camera_up = np.cross(right, forward)
    extent = np.tan(np.radians(settings.half_angle))
    offsets = np.linspace(-extent, extent, settings.pixels)
    x, y = np.meshgrid(offsets, offsets)
    rays = forward + x.reshape(-1, 1) * right + y.reshape(-1, 1) * camera_up
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
