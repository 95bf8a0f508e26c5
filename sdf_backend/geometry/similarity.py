"""Similarity transforms between the user's scene and a category's canonical frame (y up, in the unit sphere)."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.settings import Axis


def axis_vector(name: str) -> np.ndarray:
    """Unit vector, (3,), of an axis name: "x", "+x" or "-x", the same for y and z; raises `InputError` otherwise."""
    sign, letter = Axis(name)
    vector = np.zeros(3)
    vector["xyz".index(letter)] = -1.0 if sign == "-" else 1.0
    return vector


def front_beside(up: str, front: str) -> str:
    """The front axis, or another where it lies along the up axis; for poses whose rotation about up is not known."""
    return ("+x" if up[-1] == "z" else "+z") if up[-1] == front[-1] else front


def axis_rotation(up: str, front: str, canonical_front: str) -> np.ndarray:
    """Rotation, (3, 3), of column vectors from user axes to the canonical frame: y up, front along `canonical_front`.

    Raises `InputError` if up and front are parallel.
    """
    user_up, user_front = axis_vector(up), axis_vector(front)
    if abs(user_up @ user_front) > 0.5:
        raise InputError(f"up {up} and front {front} are parallel; they must be perpendicular")
    user = np.stack([user_up, user_front, np.cross(user_up, user_front)])
    y, ahead = axis_vector("+y"), axis_vector(canonical_front)
    canonical = np.stack([y, ahead, np.cross(y, ahead)])
    return canonical.T @ user


@dataclass(frozen=True)
class Similarity:
    """The transform x -> scale * rotation @ x + translation.

    scale : positive; rotation : (3, 3), proper; translation : (3,)
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> "Similarity":
        """The identity transform."""
        return cls(1.0, np.eye(3), np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Transform (n, 3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self) -> "Similarity":
        """The inverse transform."""
        return Similarity(1 / self.scale, self.rotation.T, -self.rotation.T @ self.translation / self.scale)

    def compose(self, first: "Similarity") -> "Similarity":
        """The transform that applies `first`, then this one."""
        return Similarity(
            self.scale * first.scale, self.rotation @ first.rotation, self.apply(first.translation[None])[0]
        )

    def interpolate(self, other: "Similarity", share: float) -> "Similarity":
        """Interpolate towards another transform, share 0 to 1: slerp, geometric scale, linear translation."""
        rotation = Rotation.from_matrix(other.rotation @ self.rotation.T).as_rotvec() * share
        return Similarity(
            self.scale ** (1 - share) * other.scale**share,
            Rotation.from_rotvec(rotation).as_matrix() @ self.rotation,
            (1 - share) * self.translation + share * other.translation,
        )

    def parameters(self) -> np.ndarray:
        """(log scale, translation, rotation vector), (7,)."""
        turn = Rotation.from_matrix(self.rotation).as_rotvec()
        return np.concatenate([[np.log(self.scale)], self.translation, turn])

    @classmethod
    def from_parameters(cls, parameters: np.ndarray) -> "Similarity":
        """The inverse of `parameters`."""
        turn = Rotation.from_rotvec(parameters[4:]).as_matrix()
        return cls(float(np.exp(parameters[0])), turn, np.asarray(parameters[1:4], dtype=np.float64))
