"""What is expected of poses before anything is fitted: size and place, normally distributed about a first estimate.

Of one view the middle of what is seen is nearer to the camera than that of the object, by how much nobody can see. So
along the line of sight less is expected than across it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import FitSettings
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.observations import Observations
from sdf_backend.settings import Pose


def free_parameters(pose: Pose) -> Tensor:
    """Which of (log scale, shift x y z, turn x y z) are solved for, (7,) bool; canonical frames are y up."""
    moves, upright, free = pose is not Pose.KNOWN, pose in (Pose.UPRIGHT, Pose.FREE), pose is Pose.FREE
    return torch.tensor([moves] * 4 + [free, upright, free])


@dataclass(frozen=True)
class PosePrior:
    """That of a batch of s fits, over (log scale, shift x y z, turn x y z) in each first pose's axes and units.

    moved : (s, 7), how far each first pose is from what is expected already; precision : (s, 7, 7), the inverse of the
    covariance about that. Turns are not held to anything.
    """

    moved: Tensor
    precision: Tensor

    @classmethod
    def about(
        cls,
        expected: Sequence[Similarity],
        poses: Sequence[Similarity],
        observations: Sequence[Observations],
        settings: FitSettings,
        device: torch.device,
    ) -> "PosePrior":
        """That of fits which begin at `poses`, one an element of `observations`, where `expected` had been expected."""
        moved = [_moved(middle, pose) for middle, pose in zip(expected, poses, strict=True)]
        precision = [_precision(seen, pose, settings) for seen, pose in zip(observations, poses, strict=True)]
        return cls(*(torch.from_numpy(np.stack(one)).float().to(device) for one in (moved, precision)))

    def of(self, rows: list[int]) -> "PosePrior":
        """Only these rows; one may be there several times."""
        return PosePrior(self.moved[rows], self.precision[rows])

    def at(self, moves: Sequence[Similarity]) -> tuple[Tensor, Tensor, Tensor]:
        """Half the squared deviation of the first poses after a move each: gradient (s, 7), curvature (s, 7, 7), (s,).

        Both derivatives are by a further small change, which comes before the move: R and s of the move are between it
        and the place that is held.
        """
        changes = torch.from_numpy(np.stack([move.parameters() for move in moves])).to(self.moved)
        carried = torch.from_numpy(np.stack([_carried(move) for move in moves])).to(self.moved)
        away = (self.moved + changes)[..., None]
        pull = self.precision @ away
        gradient, curvature = carried.mT @ pull, carried.mT @ self.precision @ carried
        return gradient[..., 0], curvature, 0.5 * (pull * away).sum((1, 2))


def _carried(move: Similarity) -> np.ndarray:
    """What a small change before a move does to log scale and shift after it, (7, 7); turns are held to nothing."""
    carried = np.eye(7)
    carried[1:4, 1:4] = move.scale * move.rotation
    return carried


def _moved(expected: Similarity, pose: Similarity) -> np.ndarray:
    """Log of the scale and shift of a pose from an expected one, in the pose's axes, (7,)."""
    moved = expected.inverse().compose(pose)
    return np.array([np.log(moved.scale), *(moved.rotation.T @ moved.translation / moved.scale), 0, 0, 0])


def _precision(observed: Observations, pose: Similarity, settings: FitSettings) -> np.ndarray:
    """How firmly each of the seven is expected, (7, 7)."""
    precision = np.diag([settings.scale_sigma**-2.0, *[settings.shift_sigma**-2.0] * 3, 0, 0, 0])
    if observed.sensor is not None:
        [sensor] = pose.inverse().apply(observed.sensor[None])
        # A sensor may be given as the very middle; then there is no line.
        sight = sensor / max(np.linalg.norm(sensor), 1e-12)
        precision[1:4, 1:4] -= (settings.shift_sigma**-2 - settings.depth_sigma**-2) * np.outer(sight, sight)
    return precision
