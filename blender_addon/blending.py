"""Shapes between shapes: codes are interpolated linearly, poses by `interpolate_pose`."""

import numpy as np
from mathutils import Matrix

from .shapes import StoredShape


def blend_along_path(codes: np.ndarray, poses: np.ndarray, position: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose at a position on a path through k keyframes.

    Parameters
    ----------
    codes : (k, code_length)
    poses : (k, 4, 4)
    position : 0 at the first keyframe to 1 at the last; clamped

    Returns
    -------
    code : (code_length,)
    pose : (4, 4)
    """
    if len(codes) == 1:
        return codes[0], poses[0]
    scaled = min(max(position, 0.0), 1.0) * (len(codes) - 1)
    left = min(int(scaled), len(codes) - 2)
    return _blend(codes[left], poses[left], codes[left + 1], poses[left + 1], scaled - left)


def blend_on_grid(codes: np.ndarray, poses: np.ndarray, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose at (x, y), each 0 to 1, of a square.

    The four codes, (4, code_length), and poses, (4, 4, 4), are those of the corners (0, 0), (1, 0), (0, 1), (1, 1).
    """
    lower, upper = (blend_along_path(codes[row : row + 2], poses[row : row + 2], x) for row in (0, 2))
    return _blend(*lower, *upper, min(max(y, 0.0), 1.0))


def blend_stored_shape(shape: StoredShape, blend: float, across: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose of a stored shape at the values of its two blend sliders."""
    if shape.grid:
        return blend_on_grid(shape.codes, shape.poses, blend, across)
    return blend_along_path(shape.codes, shape.poses, blend)


def interpolate_pose(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """The pose, (4, 4), between two: slerp of the rotation, geometric scale, linear translation."""
    (_, rotation, scale), (_, other_rotation, other_scale) = (
        Matrix(pose.tolist()).decompose() for pose in (first, second)
    )
    blended_scale = scale[0] ** (1 - weight) * other_scale[0] ** weight
    pose = np.eye(4)
    pose[:3, :3] = blended_scale * np.array(rotation.slerp(other_rotation, weight).to_matrix(), dtype=np.float64)
    pose[:3, 3] = (1 - weight) * first[:3, 3] + weight * second[:3, 3]
    return pose


def _blend(
    code: np.ndarray, pose: np.ndarray, other_code: np.ndarray, other_pose: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    return (1 - weight) * code + weight * other_code, interpolate_pose(pose, other_pose, weight)
