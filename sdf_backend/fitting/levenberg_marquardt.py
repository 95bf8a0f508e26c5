"""Levenberg-Marquardt over codes, and over poses as far as they are free: a batch of fits, one row each.

Observations are drawn anew for each stage. The normal equations are those of the problem reweighted for the L1 mean
(see `fit`); a step is taken where it lowers the cost, and the damping follows.
"""

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.observation_batch import Batch
from sdf_backend.fitting.pose_prior import PosePrior, free_parameters
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import CHUNK
from sdf_backend.model.store import Model
from sdf_backend.observation.residuals import EXPLAINED_DISTANCE, interval_residuals
from sdf_backend.settings import Pose

# Undamped steps fit the drawn observations instead of the shape.
LEAST_DAMPING = 1e-3
# Each draw begins this share of a stride after the one before it, so that stages see different observations.
STRIDE_SHIFT = 0.618


class Solver:
    """Levenberg-Marquardt over whitened codes u and pose changes p, a row a fit."""

    def __init__(
        self,
        model: Model,
        everything: Batch,
        settings: FitSettings,
        freedom: Pose,
        prior: PosePrior,
    ) -> None:
        self.model, self.settings, self.freedom, self.all = model, settings, freedom, everything
        self.clamp = model.card.clamp
        # z = mean + L u is folded into the decoder, so that its derivative by u costs nothing extra.
        self.root = torch.linalg.cholesky(model.covariance)
        self.mean = model.mean
        self.decoder = model.folded(settings.dtype).in_basis(self.mean, self.root)
        count, length = len(everything.points), len(self.mean)
        self.u = torch.zeros(count, length, device=model.device)
        self.moves = [Similarity.identity()] * count
        self.damping = torch.full((count,), settings.damping, device=model.device)
        self.free, self.prior = free_parameters(freedom).to(model.device), prior

    def begin(self, stage: Stage, number: int) -> None:
        """Go on with another draw of the observations, the one of that number, weighted as `stage` says."""
        self.stage, self.batch = stage, self.all.drawn(stage.points, STRIDE_SHIFT * number % 1)
        self.now = self._linearise(self.u, self.moves)

    def step(self) -> None:
        """One damped step of every fit; kept only where the cost falls."""
        gradient, normal, _ = self.now
        diagonal = normal.diagonal(dim1=1, dim2=2)
        damped = normal + torch.diag_embed(diagonal * self.damping[:, None] + 1e-9)
        delta = -torch.linalg.solve_ex(damped, gradient).result
        length = self.u.shape[1]
        u = self.u + delta[:, :length]
        moves = self._moved(delta[:, length:])
        better = self.keep(u, moves)
        self.damping = torch.where(better, self.damping * 0.3, self.damping * 4).clamp(LEAST_DAMPING, 1e6)

    def keep(self, u: Tensor, moves: list[Similarity]) -> Tensor:
        """Go on with other codes and moves, where the cost is smaller: (s,) bool."""
        gradient, normal, cost = self.now
        trial = self._linearise(u, moves)
        better = torch.isfinite(trial[2]) & (trial[2] < cost)
        self.u = torch.where(better[:, None], u, self.u)
        self.moves = [new if kept else old for new, old, kept in zip(moves, self.moves, better.tolist(), strict=True)]
        self.now = (
            torch.where(better[:, None], trial[0], gradient),
            torch.where(better[:, None, None], trial[1], normal),
            torch.where(better, trial[2], cost),
        )
        return better

    def some(self, rows: list[int]) -> "Solver":
        """Only these rows, with codes, moves and all."""
        chosen = Solver(self.model, self.all.chosen(rows), self.settings, self.freedom, self.prior.of(rows))
        chosen.u, chosen.moves, chosen.damping = self.u[rows], [self.moves[row] for row in rows], self.damping[rows]
        gradient, normal, cost = self.now
        chosen.stage, chosen.batch = self.stage, self.batch.chosen(rows)
        chosen.now = gradient[rows], normal[rows], cost[rows]
        return chosen

    def copy_row(self, row: int, other: "Solver", number: int) -> None:
        """Have in a row what another solver has in the row of that number."""
        self.u[row], self.moves[row], self.damping[row] = other.u[number], other.moves[number], other.damping[number]
        for mine, theirs in zip(self.now, other.now, strict=True):
            mine[row] = theirs[number]

    def unexplained(self) -> Tensor:
        """The share of the drawn observations at a known distance, (s,), at which each model has another."""
        batch, scale = self.batch, self._scales(self.moves)
        exact = (batch.low == batch.high) & batch.low.isfinite()
        found = self.distances(self.u, self.canonical(batch.points, self.moves))
        far = interval_residuals(found, batch.low / scale, batch.high / scale, self.clamp).abs() >= EXPLAINED_DISTANCE
        return (far & exact).sum(1) / exact.sum(1).clamp_min(1)

    def distances(self, u: Tensor, points: Tensor) -> Tensor:
        """Of canonical points, (s, n, 3), under whitened codes, (s, code_length): (s, n)."""
        return torch.cat([self.decoder.distances(u, part) for part in points.split(_columns(len(u)), dim=1)], 1)

    def canonical(self, points: Tensor, moves: list[Similarity]) -> Tensor:
        """Points, (s, n, 3), of the first poses' frames, seen from where the models are now."""
        return _placed(points, [move.inverse() for move in moves]) if self.free.any() else points

    def _scales(self, moves: list[Similarity]) -> Tensor:
        """How much larger each model is than in the first pose, (s, 1)."""
        return torch.tensor([move.scale for move in moves], device=self.u.device, dtype=torch.float32)[:, None]

    def _moved(self, changes: Tensor) -> list[Similarity]:
        """The pose changes after a further small change each, (s, free parameters), in canonical axes."""
        if not self.free.any():
            return self.moves
        every = torch.zeros(len(self.moves), 7, dtype=torch.float64)
        every[:, self.free.cpu()] = changes.double().cpu()
        # A wild step is rejected by its cost; it must not overflow first.
        limited = every.clamp(-1, 1).numpy()
        return [
            move.compose(Similarity.from_parameters(change)) for move, change in zip(self.moves, limited, strict=True)
        ]

    def result(self) -> tuple[Tensor, list[Similarity], Tensor]:
        """Codes (s, code_length), pose changes and costs (s,)."""
        return self.mean + self.u @ self.root.T, self.moves, self.now[2]

    def deviations(self) -> Tensor:
        """A root, (s, code_length, code_length), of the covariance of each code about its fit, the pose held.

        What is minimised is, over the weight p of the prior, the negative logarithm of a posterior density in which u
        is standard normal; so near the fit u is normal with the covariance p H^-1, H the normal matrix (Laplace's
        approximation). Where nothing was observed that is the prior's own.
        """
        length = self.u.shape[1]
        normal = self.now[1][:, :length, :length].double()
        # In double precision: the prior is some millionths of what is well observed. Where rounding has made a matrix
        # indefinite nonetheless, or a cost was not finite, nothing is known but the prior.
        factor, failed = torch.linalg.cholesky_ex(normal)
        known = (failed == 0)[:, None, None]
        factor = torch.where(known, factor, torch.eye(length, device=normal.device, dtype=normal.dtype))
        root = self.root.double() @ torch.linalg.inv(factor).mT * self.stage.prior**0.5
        return torch.where(known, root, self.root.double()).float()

    def _linearise(self, u: Tensor, moves: list[Similarity]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (s, k), normal matrix (s, k, k) and cost (s,) of the reweighted problem at (u, moves)."""
        points = self.canonical(self.batch.points, moves)
        scale = self._scales(moves)
        count, unknowns = len(u), u.shape[1] + int(self.free.sum())
        gradient = torch.zeros(count, unknowns, device=u.device)
        normal = torch.zeros(count, unknowns, unknowns, device=u.device)
        cost = torch.zeros(count, device=u.device)
        rows = _columns(count)
        for first in range(0, points.shape[1], rows):
            part = slice(first, first + rows)
            distance, by_code, by_point = self.decoder.gradients(u, points[:, part])
            low, high = self.batch.low[:, part] / scale, self.batch.high[:, part] / scale
            residual = interval_residuals(distance, low, high, self.clamp)
            jacobian = by_code
            if self.free.any():
                sought = torch.where(distance < low, low, high)
                by_pose = pose_derivative(distance, sought, self.clamp, by_point, points[:, part])[..., self.free]
                jacobian = torch.cat([by_code, by_pose], -1)
            # In the user's units a small model cannot buy a small residual.
            residual, jacobian = residual * scale, jacobian * scale[..., None]
            weight = residual.abs().clamp_min(self.settings.floor).reciprocal()
            active = residual != 0
            if self.stage.within_clamp:
                active &= distance.abs() < self.clamp
            weighted = jacobian * torch.where(active, weight, 0)[..., None]
            gradient += (weighted.mT @ residual[..., None])[..., 0]
            normal += weighted.mT @ jacobian
            cost += _huber(residual, self.settings.floor).sum(1)
        return self._with_prior(gradient, normal, cost, u, moves)

    def _with_prior(
        self, gradient: Tensor, normal: Tensor, cost: Tensor, u: Tensor, moves: list[Similarity]
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, prior, length = self.batch.sizes[:, None], self.stage.prior, u.shape[1]
        gradient, normal, cost = gradient / count, normal / count[..., None], cost / count[:, 0]
        gradient[:, :length] += prior * u
        normal[:, :length, :length] += prior * torch.eye(length, device=u.device)
        cost = cost + 0.5 * prior * u.square().sum(1)
        if self.free.any():
            pull, curvature, deviation = (self.settings.pose_prior * part for part in self.prior.at(moves))
            gradient[:, length:] += pull[:, self.free]
            normal[:, length:, length:] += curvature[:, self.free][:, :, self.free]
            cost = cost + deviation
        return gradient, normal, cost


def _columns(count: int) -> int:
    """How many points of each of so many fits are evaluated at once."""
    return max(CHUNK >> (count - 1).bit_length(), 64)


def _huber(residual: Tensor, floor: float) -> Tensor:
    """The cost whose reweighting is 1 / max(|residual|, floor)."""
    size = residual.abs()
    return torch.where(size > floor, size - floor / 2, size.square() / (2 * floor))


def pose_derivative(distance: Tensor, sought: Tensor, clamp: float, by_point: Tensor, points: Tensor) -> Tensor:
    """Derivative of scale * residual by log scale, shift and turn, over scale; (s, n, 7).

    sought : (s, n), the bounds from which residuals are counted, canonical units. They were observed, so they stay in
    the user's units when the scale changes; but those beyond the clamp mean the clamp, which is the model's own.

    The canonical point is x = R^T (q - t) / s: it moves by -x with the log of the scale, by -1 with a shift (canonical
    units and axes) and by x * axis (cross product) with a turn of the model.
    """
    own = torch.where(sought.abs() < clamp, 0, sought.clamp(-clamp, clamp))
    by_scale = distance.clamp(-clamp, clamp) - own - (by_point * points).sum(-1)
    by_turn = torch.linalg.cross(by_point, points, dim=-1)
    return torch.cat([by_scale[..., None], -by_point, by_turn], -1)


def _placed(points: Tensor, moves: list[Similarity]) -> Tensor:
    """Points (s, n, 3) under one similarity a row."""
    rotation = torch.from_numpy(np.stack([move.scale * move.rotation for move in moves])).float().to(points.device)
    shift = torch.from_numpy(np.stack([move.translation for move in moves])).float().to(points.device)
    return points @ rotation.mT + shift[:, None]
