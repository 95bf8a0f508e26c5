"""Levenberg-Marquardt over a batch of latent codes, and over their poses as far as they are free.

Each stage draws its own observations. The normal equations are those of the problem reweighted for the L1 mean (see
`fit`). A step is accepted where it lowers the cost, and the damping, which bounds the step as a trust region does,
shrinks after accepted steps and grows after rejected ones (Marquardt 1963).
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.linearisation import Linearisation
from sdf_backend.fitting.observation_batch import ObservationBatch
from sdf_backend.fitting.pose_prior import PosePrior, free_parameters
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import CHUNK
from sdf_backend.model.store import Model
from sdf_backend.observation.residuals import interval_residuals
from sdf_backend.settings import Pose


class Solver:
    """A batch of s fits over whitened codes u and pose deltas.

    A code is z = mean + L u with the covariance L L^T of the training codes; a pose is the first pose composed with its
    delta.

    whitened_codes : (s, code_length)
    pose_deltas : s similarities, in the frames of the first poses
    damping : (s,)
    linearisation : of the cost at these codes and deltas, on the draw of the current stage
    """

    def __init__(
        self,
        model: Model,
        observations: ObservationBatch,
        settings: FitSettings,
        freedom: Pose,
        prior: PosePrior,
    ) -> None:
        self.model, self.settings, self.freedom, self.observations = model, settings, freedom, observations
        self.clamp = model.card.clamp
        self.mean, self.covariance_root = model.mean, torch.linalg.cholesky(model.covariance)
        # z = mean + L u is folded into the decoder, so that its derivative by u costs nothing extra.
        self.decoder = model.folded(settings.dtype).in_basis(self.mean, self.covariance_root)
        count, length = len(observations.points), len(self.mean)
        self.whitened_codes = torch.zeros(count, length, device=model.device)
        self.pose_deltas = [Similarity.identity()] * count
        self.damping = torch.full((count,), settings.initial_damping, device=model.device)
        self.free, self.prior = free_parameters(freedom).to(model.device), prior

    @property
    def cost(self) -> Tensor:
        """Current cost of each fit, (s,)."""
        return self.linearisation.cost

    def begin_stage(self, stage: Stage, number: int) -> None:
        """Draw the observations of stage `number` and linearise there."""
        self.stage = stage
        self.drawn = self.observations.draw(stage.points, self.settings.stride_shift * number % 1)
        self.linearisation = self._linearise(self.whitened_codes, self.pose_deltas)

    def step(self) -> None:
        """Take one damped step in every fit whose cost it lowers."""
        settings, hessian = self.settings, self.linearisation.hessian
        diagonal = hessian.diagonal(dim1=1, dim2=2)  # (s, k)
        damped = hessian + torch.diag_embed(diagonal * self.damping[:, None] + 1e-9)
        step = -torch.linalg.solve_ex(damped, self.linearisation.gradient).result  # (s, k)
        length = self.whitened_codes.shape[1]
        better = self.accept_if_better(
            self.whitened_codes + step[:, :length], self._stepped_pose_deltas(step[:, length:])
        )
        damping = torch.where(
            better, self.damping * settings.damping_decrease, self.damping * settings.damping_increase
        )
        self.damping = damping.clamp(settings.minimum_damping, settings.maximum_damping)

    def accept_if_better(self, whitened_codes: Tensor, pose_deltas: list[Similarity]) -> Tensor:
        """Move each fit to other codes, (s, code_length), and pose deltas if that lowers its cost.

        Returns the mask of the fits that moved, (s,) bool.
        """
        trial = self._linearise(whitened_codes, pose_deltas)
        better = torch.isfinite(trial.cost) & (trial.cost < self.cost)
        self.whitened_codes = torch.where(better[:, None], whitened_codes, self.whitened_codes)
        self.pose_deltas = [
            new if accepted else old
            for new, old, accepted in zip(pose_deltas, self.pose_deltas, better.tolist(), strict=True)
        ]
        self.linearisation = self.linearisation.replace_rows(better, trial)
        return better

    def select_rows(self, rows: list[int]) -> "Solver":
        """A solver with copies of these fits in their current state."""
        selected = self._for_rows(rows)
        selected.whitened_codes = self.whitened_codes[rows]
        selected.pose_deltas, selected.damping = [self.pose_deltas[row] for row in rows], self.damping[rows]
        selected.stage, selected.drawn = self.stage, self.drawn.select_rows(rows)
        selected.linearisation = self.linearisation.select_rows(rows)
        return selected

    def copy_row(self, row: int, other: "Solver", other_row: int) -> None:
        """Overwrite a fit with the state of a fit of another solver."""
        self.whitened_codes[row], self.damping[row] = other.whitened_codes[other_row], other.damping[other_row]
        self.pose_deltas[row] = other.pose_deltas[other_row]
        self.linearisation.copy_row(row, other.linearisation, other_row)

    def fits_from_codes(self, row: int, whitened_codes: Tensor, steps: int, points: int) -> "Solver":
        """A solver of several fits of one row at its pose, begun at these codes, (m, code_length), with first damping.

        They run in the current stage, with other numbers of `steps` and of `points` drawn.
        """
        starts = self._for_rows([row] * len(whitened_codes))
        starts.whitened_codes, starts.pose_deltas = whitened_codes, [self.pose_deltas[row]] * len(whitened_codes)
        starts.begin_stage(replace(self.stage, steps=steps, points=points), 0)
        return starts

    def whiten(self, codes: Tensor) -> Tensor:
        """Whitened codes u, (m, code_length), with codes = mean + L u."""
        return torch.linalg.solve_triangular(self.covariance_root, (codes - self.mean).T, upper=False).T

    def mean_residuals(self, row: int, whitened_codes: Tensor, points: int) -> Tensor:
        """Mean absolute residual, (m,), of each of m codes at the pose of a row, over `points` of its observations."""
        delta, drawn = self.pose_deltas[row], self.observations.select_rows([row]).draw(points, 0.0)
        canonical = self._to_canonical(drawn.points, [delta]).expand(len(whitened_codes), -1, -1)  # (m, n, 3)
        distance = self._distances(whitened_codes, canonical)
        return interval_residuals(distance, drawn.low / delta.scale, drawn.high / delta.scale, self.clamp).abs().mean(1)

    def unexplained_share(self) -> Tensor:
        """Share, (s,), of the drawn observations of known distance that each model does not explain."""
        drawn, scale = self.drawn, self._scales(self.pose_deltas)
        exact = (drawn.low == drawn.high) & drawn.low.isfinite()
        distance = self._distances(self.whitened_codes, self._to_canonical(drawn.points, self.pose_deltas))
        residual = interval_residuals(distance, drawn.low / scale, drawn.high / scale, self.clamp)
        return ((residual.abs() >= self.settings.explained_distance) & exact).sum(1) / exact.sum(1).clamp_min(1)

    def codes(self) -> Tensor:
        """Latent codes, (s, code_length)."""
        return self.mean + self.whitened_codes @ self.covariance_root.T

    def posterior_covariance_roots(self) -> Tensor:
        """A root, (s, code_length, code_length), of the posterior covariance of each code, with the pose held fixed.

        The cost over the prior's weight p is the negative log of a posterior density in which u is standard normal, and
        the fit is its MAP estimate. So near the fit u is normal with the covariance p H^-1, where H is the Hessian
        (Laplace approximation; MacKay 2003, chapter 27). Where nothing was observed that is the prior's own covariance.
        """
        length = self.whitened_codes.shape[1]
        # In double precision: in well observed directions the prior is a few millionths of the Hessian. Where rounding
        # has made a Hessian indefinite nonetheless, or a cost was not finite, the prior is returned.
        hessian = self.linearisation.hessian[:, :length, :length].double()
        factor, failed = torch.linalg.cholesky_ex(hessian)
        valid = (failed == 0)[:, None, None]
        factor = torch.where(valid, factor, torch.eye(length, device=hessian.device, dtype=hessian.dtype))
        root = self.covariance_root.double() @ torch.linalg.inv(factor).mT * self.stage.prior**0.5
        return torch.where(valid, root, self.covariance_root.double()).float()

    def _for_rows(self, rows: list[int]) -> "Solver":
        """A fresh solver for the observations and pose priors of these rows; a row may occur several times."""
        observations, prior = self.observations.select_rows(rows), self.prior.select_rows(rows)
        return Solver(self.model, observations, self.settings, self.freedom, prior)

    def _distances(self, whitened_codes: Tensor, points: Tensor) -> Tensor:
        """Distances, (s, n), at canonical points, (s, n, 3), under whitened codes, (s, code_length)."""
        parts = points.split(_points_per_pass(len(whitened_codes)), dim=1)
        return torch.cat([self.decoder.distances(whitened_codes, part) for part in parts], 1)

    def _to_canonical(self, points: Tensor, pose_deltas: list[Similarity]) -> Tensor:
        """Points, (s, n, 3), from the frames of the first poses to the models' canonical frames."""
        return _transformed(points, [delta.inverse() for delta in pose_deltas]) if self.free.any() else points

    def _scales(self, pose_deltas: list[Similarity]) -> Tensor:
        """Scale of each model relative to its first pose, (s, 1)."""
        scales = [delta.scale for delta in pose_deltas]
        return torch.tensor(scales, device=self.whitened_codes.device, dtype=torch.float32)[:, None]

    def _stepped_pose_deltas(self, steps: Tensor) -> list[Similarity]:
        """The pose deltas after a further small step each, (s, free parameters), in canonical axes."""
        if not self.free.any():
            return self.pose_deltas
        parameters = torch.zeros(len(self.pose_deltas), 7, dtype=torch.float64)
        parameters[:, self.free.cpu()] = steps.double().cpu()
        limit = self.settings.maximum_pose_step
        bounded = parameters.clamp(-limit, limit).numpy()
        return [
            delta.compose(Similarity.from_parameters(step))
            for delta, step in zip(self.pose_deltas, bounded, strict=True)
        ]

    def _linearise(self, whitened_codes: Tensor, pose_deltas: list[Similarity]) -> Linearisation:
        """The reweighted problem at these codes and pose deltas, on the drawn observations."""
        points = self._to_canonical(self.drawn.points, pose_deltas)  # (s, n, 3)
        scale = self._scales(pose_deltas)
        count, unknowns = len(whitened_codes), whitened_codes.shape[1] + int(self.free.sum())
        gradient = torch.zeros(count, unknowns, device=whitened_codes.device)
        hessian = torch.zeros(count, unknowns, unknowns, device=whitened_codes.device)
        cost = torch.zeros(count, device=whitened_codes.device)
        width = _points_per_pass(count)
        for first in range(0, points.shape[1], width):
            part = slice(first, first + width)
            distance, by_code, by_point = self.decoder.gradients(whitened_codes, points[:, part])
            low, high = self.drawn.low[:, part] / scale, self.drawn.high[:, part] / scale
            residual = interval_residuals(distance, low, high, self.clamp)  # (s, m)
            jacobian = by_code  # (s, m, code_length)
            if self.free.any():
                bound = torch.where(distance < low, low, high)
                by_pose = pose_jacobian(distance, bound, self.clamp, by_point, points[:, part])[..., self.free]
                jacobian = torch.cat([by_code, by_pose], -1)  # (s, m, k)
            # In the units of the first pose, so that a model cannot shrink its residuals by shrinking itself.
            residual, jacobian = residual * scale, jacobian * scale[..., None]
            weight = residual.abs().clamp_min(self.settings.residual_floor).reciprocal()
            active = residual != 0
            if self.stage.within_clamp:
                active &= distance.abs() < self.clamp
            weighted = jacobian * torch.where(active, weight, 0)[..., None]
            gradient += (weighted.mT @ residual[..., None])[..., 0]
            hessian += weighted.mT @ jacobian
            cost += _huber(residual, self.settings.residual_floor).sum(1)
        return self._with_priors(Linearisation(gradient, hessian, cost), whitened_codes, pose_deltas)

    def _with_priors(self, sums: Linearisation, whitened_codes: Tensor, pose_deltas: list[Similarity]) -> Linearisation:
        """The mean over the drawn observations of summed terms, and the priors of codes and poses added to it."""
        count, weight, length = self.drawn.sizes[:, None], self.stage.prior, whitened_codes.shape[1]
        gradient, hessian, cost = sums.gradient / count, sums.hessian / count[..., None], sums.cost / count[:, 0]
        gradient[:, :length] += weight * whitened_codes
        hessian[:, :length, :length] += weight * torch.eye(length, device=whitened_codes.device)
        cost = cost + 0.5 * weight * whitened_codes.square().sum(1)
        if self.free.any():
            prior, weight = self.prior.linearise(pose_deltas), self.settings.pose_prior_weight
            gradient[:, length:] += (weight * prior.gradient)[:, self.free]
            hessian[:, length:, length:] += (weight * prior.hessian)[:, self.free][:, :, self.free]
            cost = cost + weight * prior.cost
        return Linearisation(gradient, hessian, cost)


def _points_per_pass(count: int) -> int:
    """Points of each of `count` fits that the decoder evaluates at once."""
    return max(CHUNK >> (count - 1).bit_length(), 64)


def _huber(residual: Tensor, floor: float) -> Tensor:
    """The Huber loss over its floor, whose weight in reweighted least squares is 1 / max(|residual|, floor)."""
    size = residual.abs()
    return torch.where(size > floor, size - floor / 2, size.square() / (2 * floor))


def pose_jacobian(distance: Tensor, bound: Tensor, clamp: float, by_point: Tensor, points: Tensor) -> Tensor:
    """Derivative of scale * residual by (log scale, translation, rotation), divided by the scale.

    The canonical point is x = R^T (q - t) / s: it moves by -x with the log of the scale, by -1 with a translation
    (canonical units and axes) and by the cross product x * axis with a rotation of the model.

    Parameters
    ----------
    distance : (s, n), canonical units
    bound : (s, n), the bounds from which residuals are counted, canonical units. They were observed, so they stay in
        the user's units when the scale changes; but those beyond the clamp mean the clamp, which is the model's own.
    by_point : (s, n, 3), gradient of the distance by the point
    points : (s, n, 3), canonical

    Returns
    -------
    (s, n, 7)
    """
    scaling_bound = torch.where(bound.abs() < clamp, 0, bound.clamp(-clamp, clamp))
    by_scale = distance.clamp(-clamp, clamp) - scaling_bound - (by_point * points).sum(-1)
    by_rotation = torch.linalg.cross(by_point, points, dim=-1)
    return torch.cat([by_scale[..., None], -by_point, by_rotation], -1)


def _transformed(points: Tensor, similarities: list[Similarity]) -> Tensor:
    """Points, (s, n, 3), under one similarity each row."""
    rotation = np.stack([similarity.scale * similarity.rotation for similarity in similarities])
    shift = np.stack([similarity.translation for similarity in similarities])
    rotations, shifts = (torch.from_numpy(array).float().to(points.device) for array in (rotation, shift))
    return points @ rotations.mT + shifts[:, None]
