"""Perturbations that make completion harder: ground-plane outliers and an unknown pose; and rotational symmetry."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from sdf_backend.geometry.similarity import Similarity
from training.evaluation.metrics import sample_surface
from training.evaluation.scanning import CameraSettings
from training.triangle_mesh import Mesh


@dataclass(frozen=True)
class PerturbationSettings:
    """Sizes of the perturbations. They are conventions of the reports; none was tuned."""

    ground_share: float = 0.1
    """ground-plane points, as a share of all points"""
    ground_margin: float = 0.1
    """how far the ground plane extends beyond the scan on each side, as a share of the size of the scan"""
    symmetry_step: int = 15
    """rotations by multiples of this are tested for symmetry, degrees"""
    symmetry_tolerance: float = 0.02
    """largest mean distance of the rotated from the original surface of a symmetric object, canonical units"""
    symmetry_points: int = 6_000
    """surface samples for the symmetry test"""


PERTURBATIONS = PerturbationSettings()


def sample_ground_plane(points: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
    """Sample points of a horizontal ground plane under a scan, with the depth noise of the camera.

    Parameters
    ----------
    points : (n, 3), the scan, in the canonical frame (y up)
    height : y of the plane: the lowest point of the object, which the scan need not contain

    Returns
    -------
    ground : (m, 3), one tenth of all n + m points
    """
    share, margin = PERTURBATIONS.ground_share, PERTURBATIONS.ground_margin
    count = round(len(points) * share / (1 - share))
    low, high = points.min(axis=0), points.max(axis=0)
    margin = margin * (high - low)
    ground = rng.uniform(low - margin, high + margin, size=(count, 3))
    ground[:, 1] = height + rng.normal(size=count) * CameraSettings().noise
    return ground


def random_upright_pose(rng: np.random.Generator) -> Similarity:
    """A random rotation about the up axis, a scale from 0.1 to 10, and a translation of about three times the scale."""
    scale = float(np.exp(rng.uniform(np.log(0.1), np.log(10))))
    rotation = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0]).as_matrix()
    return Similarity(scale, rotation, 3 * scale * rng.normal(size=3))


def symmetry_angles(mesh: Mesh) -> list[float]:
    """Rotations about the up axis, in degrees, that map a mesh onto itself; 0 is always included."""
    points, _ = sample_surface(mesh.vertices, mesh.faces, PERTURBATIONS.symmetry_points, np.random.default_rng(0))
    tree, angles = KDTree(points), [0.0]
    for angle in range(PERTURBATIONS.symmetry_step, 360, PERTURBATIONS.symmetry_step):
        rotated = Rotation.from_rotvec([0, np.radians(angle), 0]).apply(points)
        if tree.query(rotated)[0].mean() < PERTURBATIONS.symmetry_tolerance:
            angles.append(float(angle))
    return angles
