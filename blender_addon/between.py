"""What lies between shapes: codes on straight lines, and poses that go along."""

import numpy as np
from mathutils import Matrix

from .shapes import Remembered


def on_path(codes: np.ndarray, poses: np.ndarray, place: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose at `place`, 0 to 1, of a path through k codes at k poses.

    codes : (k, code_length); poses : (k, 4, 4)
    """
    if len(codes) == 1:
        return codes[0], poses[0]
    along = min(max(place, 0.0), 1.0) * (len(codes) - 1)
    left = min(int(along), len(codes) - 2)
    return _mixed(codes[left], poses[left], codes[left + 1], poses[left + 1], along - left)


def on_grid(codes: np.ndarray, poses: np.ndarray, across: float, along: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose at (across, along), each 0 to 1, of a square.

    The four codes and poses are its corners (0, 0), (1, 0), (0, 1), (1, 1).
    """
    near, far = (on_path(codes[row : row + 2], poses[row : row + 2], across) for row in (0, 2))
    return _mixed(*near, *far, min(max(along, 0.0), 1.0))


def blended(shape: Remembered, blend: float, across: float) -> tuple[np.ndarray, np.ndarray]:
    """The code and pose of a remembered shape at its sliders' values."""
    if shape.grid:
        return on_grid(shape.codes, shape.poses, blend, across)
    return on_path(shape.codes, shape.poses, blend)


def towards(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The pose a share of the way between two: shortest turn, geometric scale, straight shift."""
    (_, turn, size), (_, other_turn, other_size) = (Matrix(pose.tolist()).decompose() for pose in (first, second))
    scale = size[0] ** (1 - share) * other_size[0] ** share
    pose = np.eye(4)
    pose[:3, :3] = scale * np.array(turn.slerp(other_turn, share).to_matrix(), dtype=np.float64)
    pose[:3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return pose


def _mixed(
    code: np.ndarray, pose: np.ndarray, other_code: np.ndarray, other_pose: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    return (1 - share) * code + share * other_code, towards(pose, other_pose, share)
