"""Similarity transforms between the user's scene and a category's canonical frame (y up, in the unit sphere)."""

import numpy as np

from sdf_backend.errors import InputError

AXES = ("+x", "-x", "+y", "-y", "+z", "-z")


def axis_vector(name: str) -> np.ndarray:
    """Unit vector, (3,), of an axis name: "x", "+x" or "-x", likewise y and z; raises `InputError` otherwise."""
    signed = name if name[:1] in "+-" else f"+{name}"
    if signed.lower() not in AXES:
        raise InputError(f"{name!r} is not an axis; use one of {', '.join(AXES)}")
    vector = np.zeros(3)
    vector["xyz".index(signed[1].lower())] = -1.0 if signed[0] == "-" else 1.0
    return vector


def axis_rotation(up: str, front: str, canonical_front: str) -> np.ndarray:
    """Rotation, (3, 3), for column vectors, that turns user axes to y up and `canonical_front`.

    Raises `InputError` where up and front lie along one line.
    """
    user_up, user_front = axis_vector(up), axis_vector(front)
    if abs(user_up @ user_front) > 0.5:
        raise InputError(f"up {up!r} and front {front!r} lie along one line; they must be perpendicular")
    user = np.stack([user_up, user_front, np.cross(user_up, user_front)])
    y, ahead = axis_vector("+y"), axis_vector(canonical_front)
    canonical = np.stack([y, ahead, np.cross(y, ahead)])
    return canonical.T @ user
