"""Rigid transforms stored as a translation and a quaternion, as PMD and PSA files hold their bones.

0 A.D. is left-handed: x right, y up, z ahead. Here z is negated, which makes it right-handed, y up and front +z,
because its animals look along -z. Triangles, clockwise seen from outside before, are counter-clockwise then.
"""

from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError

# Translation x, y, z, then the unit quaternion x, y, z, w.
BONE = np.dtype([("translation", "<f4", 3), ("quaternion", "<f4", 4)])
MIRROR = np.array([1.0, 1.0, -1.0])


def bone_matrices(bones: np.ndarray, path: Path) -> np.ndarray:
    """Turn stored bones into right-handed matrices that rotate first and then translate.

    Parameters
    ----------
    bones : (b,) of dtype `BONE`, left-handed; quaternions are normalised
    path : the file they come from, for messages

    Returns
    -------
    matrices : (b, 4, 4) float64, for column vectors

    Raises
    ------
    InputError : a number is not finite, or a quaternion is zero
    """
    translation, quaternion = bones["translation"].astype(np.float64), bones["quaternion"].astype(np.float64)
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not (np.isfinite(translation).all() and np.isfinite(quaternion).all() and (length > 0).all()):
        raise InputError(f"{path} is damaged: a bone has a number that is not finite, or a quaternion of zero")
    x, y, z, w = (quaternion / length).T
    # https://en.wikipedia.org/wiki/Quaternions_and_spatial_rotation#Quaternion-derived_rotation_matrix
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrices = np.tile(np.eye(4), (len(bones), 1, 1))
    matrices[:, :3, :3] = np.moveaxis(rotation, -1, 0) * np.outer(MIRROR, MIRROR)
    matrices[:, :3, 3] = translation * MIRROR
    return matrices
