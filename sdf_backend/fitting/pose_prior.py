"""Gaussian prior of poses: scale and position about an estimate made before the fit.

In a single view the centre of the observed points is nearer to the camera than the object's, by an unknown amount. So
the prior is wider along the line of sight than across it. Of what ends at a cut the extent says little: there it is
wider across the cut, and about the scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import FitSettings
from sdf_backend.fitting.linearisation import Linearisation
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.observations import Observations
from sdf_backend.settings import Pose


def free_parameters(pose: Pose) -> Tensor:
    """Mask, (7,) bool, of the free parameters among (log scale, translation x y z, rotation x y z); y is up."""
    moves, upright, free = pose is not Pose.KNOWN, pose in (Pose.UPRIGHT, Pose.FREE), pose is Pose.FREE
    return torch.tensor([moves] * 4 + [free, upright, free])


@dataclass(frozen=True)
class PosePrior:
    """Prior of a batch of s poses over (log scale, translation, rotation), in each first pose's axes and units.

    initial_deviation : (s, 7), of the first pose from the expected one
    precision : (s, 7, 7), inverse of the covariance; zero for rotations, which have no prior
    """

    initial_deviation: Tensor
    precision: Tensor

    @classmethod
    def from_expected(
        cls,
        expected: Sequence[Similarity],
        poses: Sequence[Similarity],
        observations: Sequence[Observations],
        settings: FitSettings,
        device: torch.device,
    ) -> "PosePrior":
        """The prior about `expected` of fits that start at `poses`, one each of `observations`."""
        deviations = [_deviation(mean, pose) for mean, pose in zip(expected, poses, strict=True)]
        precisions = [_precision(observed, pose, settings) for observed, pose in zip(observations, poses, strict=True)]
        return cls(*(torch.from_numpy(np.stack(rows)).float().to(device) for rows in (deviations, precisions)))

    def select_rows(self, rows: list[int]) -> "PosePrior":
        """Copies of these rows; a row may occur several times."""
        return PosePrior(self.initial_deviation[rows], self.precision[rows])

    def linearise(self, pose_deltas: Sequence[Similarity]) -> Linearisation:
        """Half the squared Mahalanobis distance of the first poses after a delta each, and its derivatives.

        Derivatives are by a further small change that is applied before the delta, whose rotation and scale therefore
        transform it before it reaches the position of the prior.
        """
        deltas = torch.from_numpy(np.stack([delta.parameters() for delta in pose_deltas])).to(self.initial_deviation)
        jacobian = torch.from_numpy(np.stack([_jacobian(delta) for delta in pose_deltas])).to(deltas)  # (s, 7, 7)
        deviation = (self.initial_deviation + deltas)[..., None]  # (s, 7, 1)
        pull = self.precision @ deviation
        gradient, hessian = jacobian.mT @ pull, jacobian.mT @ self.precision @ jacobian
        return Linearisation(gradient[..., 0], hessian, 0.5 * (pull * deviation).sum((1, 2)))


def _jacobian(delta: Similarity) -> np.ndarray:
    """Derivative, (7, 7), of log scale and translation after a delta by a small change before it."""
    jacobian = np.eye(7)
    jacobian[1:4, 1:4] = delta.scale * delta.rotation
    return jacobian


def _deviation(expected: Similarity, pose: Similarity) -> np.ndarray:
    """Log of the scale and translation of a pose relative to the expected one, in the pose's axes, (7,)."""
    relative = expected.inverse().compose(pose)
    return np.array([np.log(relative.scale), *(relative.rotation.T @ relative.translation / relative.scale), 0, 0, 0])


def _precision(observed: Observations, pose: Similarity, settings: FitSettings) -> np.ndarray:
    """Inverse of the prior covariance, (7, 7), wider along a known line of sight and across a cut."""
    scale_sigma, covariance = settings.scale_sigma, np.eye(3) * settings.shift_sigma**2
    if observed.cut is not None:
        scale_sigma, normal = settings.cut_scale_sigma, pose.rotation.T @ observed.cut.normal
        covariance += (settings.cut_shift_sigma**2 - settings.shift_sigma**2) * np.outer(normal, normal)
    if observed.sensor is not None:
        [sensor] = pose.inverse().apply(observed.sensor[None])
        # A sensor may be given at the very centre; then there is no line of sight.
        sight = sensor / max(np.linalg.norm(sensor), 1e-12)
        covariance += (settings.depth_sigma**2 - settings.shift_sigma**2) * np.outer(sight, sight)
    precision = np.zeros((7, 7))
    precision[0, 0], precision[1:4, 1:4] = scale_sigma**-2, np.linalg.inv(covariance)
    return precision
