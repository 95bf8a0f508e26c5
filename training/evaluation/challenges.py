"""What makes completing harder than a clean scan in a known pose: a floor, a placement that is not told, symmetry."""

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from sdf_backend.geometry.similarity import Similarity
from training.evaluation.metrics import Mesh, sample_surface
from training.evaluation.scanning import CameraSettings

# Points of the floor, as a share of all points; how far it goes beyond the object, as a share of its size.
FLOOR_SHARE, FLOOR_MARGIN = 0.1, 0.1
# Turns by multiples of this are tried to find an object's own symmetry, degrees; it has one where its turned surface
# is this near to itself, canonical units.
SYMMETRY_STEP, SYMMETRIC = 15, 0.02


def floor_under(points: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
    """Points, (m, 3), of a floor at that height: a tenth of all that there are then with what was seen, points (n, 3).

    Canonical axes and units. The height is the object's lowest place, which need not have been seen.
    """
    count = round(len(points) * FLOOR_SHARE / (1 - FLOOR_SHARE))
    low, high = points.min(axis=0), points.max(axis=0)
    margin = FLOOR_MARGIN * (high - low)
    floor = rng.uniform(low - margin, high + margin, size=(count, 3))
    floor[:, 1] = height + rng.normal(size=count) * CameraSettings().noise
    return floor


def random_placement(rng: np.random.Generator) -> Similarity:
    """Some turn about the up axis, a scale from 0.1 to 10, and a place some sizes away."""
    scale = float(np.exp(rng.uniform(np.log(0.1), np.log(10))))
    turn = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0]).as_matrix()
    return Similarity(scale, turn, 3 * scale * rng.normal(size=3))


def own_turns(truth: Mesh) -> list[float]:
    """Turns about the up axis, degrees, that bring an object onto itself; 0 is always one."""
    points, _ = sample_surface(truth.vertices, truth.faces, 6_000, np.random.default_rng(0))
    tree, found = KDTree(points), [0.0]
    for angle in range(SYMMETRY_STEP, 360, SYMMETRY_STEP):
        turned = Rotation.from_rotvec([0, np.radians(angle), 0]).apply(points)
        if tree.query(turned)[0].mean() < SYMMETRIC:
            found.append(float(angle))
    return found
