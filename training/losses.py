"""Distances between point sets as differentiable losses, for training loops other than that of `training.trainer`.

    loss = chamfer_loss(predicted, target)                    # (B, N, 3), (B, M, 3) -> (B,)
    loss = soft_chamfer_loss(predicted, target, temperature=1e-3)
    loss = earth_mover_loss(predicted, target, epsilon=5e-3).value

All work on batches of any floating type on any device and keep the gradient of both sets. `training.evaluation.metrics`
measures the same two distances exactly, without a gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdf_backend.errors import InputError


def chamfer_loss(a: Tensor, b: Tensor) -> Tensor:
    """Chamfer distance: the sum of the two mean squared distances to the nearest point of the other set.

    Fan et al., "A Point Set Generation Network", CVPR 2017, normalised by the counts as in DeepSDF's released code. The
    gradient is that of the nearest neighbours, which is exact wherever they are unique.

    Parameters
    ----------
    a : (B, N, 3) points.
    b : (B, M, 3) points.

    Returns
    -------
    (B,) squared units of the input.

    Raises
    ------
    InputError : sets of unequal batch sizes, empty ones, or other shapes.
    """
    squared = _squared_distances(a, b)  # (B, N, M)
    return squared.amin(dim=2).mean(dim=1) + squared.amin(dim=1).mean(dim=1)


def soft_chamfer_loss(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Chamfer distance with a soft minimum, whose gradient reaches all points instead of the nearest alone.

    The minimum over squared distances d is replaced by -t log mean exp(-d / t), which lies between the minimum and the
    minimum + t log(count), and tends to the minimum as t goes to 0.

    Parameters
    ----------
    a : (B, N, 3) points.
    b : (B, M, 3) points.
    temperature : t, squared units of the input; above 0.

    Returns
    -------
    (B,) squared units of the input.

    Raises
    ------
    InputError : a temperature that is not positive, and as `chamfer_loss`.
    """
    _check_positive("temperature", temperature)
    squared = _squared_distances(a, b)  # (B, N, M)

    def soft_minimum(dim: int) -> Tensor:
        count = math.log(squared.shape[dim])
        return -temperature * (torch.logsumexp(-squared / temperature, dim=dim) - count)

    return soft_minimum(2).mean(dim=1) + soft_minimum(1).mean(dim=1)


@dataclass(frozen=True)
class EarthMover:
    """An entropic earth mover's distance and how far it may be from the exact one.

    value : (B,) units of the input; at least the exact distance, but for `slack`
    error_bound : (B,) the exact distance lies within [value - error_bound, value + slack]
    slack : (B,) the remaining error of the unfinished iteration; tends to 0 with the iterations
    """

    value: Tensor
    error_bound: Tensor
    slack: Tensor


def earth_mover_loss(a: Tensor, b: Tensor, epsilon: float = 5e-3, iterations: int = 200) -> EarthMover:
    """Earth mover's distance by Sinkhorn's algorithm: the mean distance under the best transport from a to b.

    Entropic optimal transport (Cuturi, NeurIPS 2013) of uniform weights with the cost |a - b|,

        OT_eps = min over plans P of <P, C> + eps KL(P | 1/N 1/M),

    solved in the log domain. KL lies between 0 and log(min(N, M)), so OT <= OT_eps <= OT + eps log(min(N, M)): that is
    the error bound. By the envelope theorem the gradient with respect to C is the plan itself, so the iteration is
    not differentiated through. With N = M and eps to 0 it becomes the exact `metrics.earth_movers_distance`.

    Parameters
    ----------
    a : (B, N, 3) points.
    b : (B, M, 3) points.
    epsilon : units of the input, above 0; smaller ones are nearer to the exact distance and need more iterations.
    iterations : of Sinkhorn's algorithm at `epsilon`; as many again lead to it from larger ones.

    Returns
    -------
    The distance with its bounds.

    Raises
    ------
    InputError : an epsilon that is not positive, no iterations, and as `chamfer_loss`.
    """
    _check_positive("epsilon", epsilon)
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; use 1 or more")
    cost = _squared_distances(a, b).clamp_min(torch.finfo(a.dtype).tiny).sqrt()  # (B, N, M)
    with torch.no_grad():
        f, g = _sinkhorn_potentials(cost, epsilon, iterations)  # (B, N), (B, M)
        plan = _log_plan(cost, f, g, epsilon).exp()  # (B, N, M)
        excess = (plan.sum(dim=2) - 1 / cost.shape[1]).abs().sum(dim=1)  # (B,), error of the first marginal
        slack = excess * cost.amax(dim=(1, 2))
        dual = f.mean(dim=1) + g.mean(dim=1) - epsilon * (plan.sum(dim=(1, 2)) - 1)
    # The value of the dual, with the gradient of the primal: d OT_eps / d C = P.
    value = dual + (plan * (cost - cost.detach())).sum(dim=(1, 2))
    bound = torch.full_like(slack, epsilon * math.log(min(cost.shape[1:]))) + slack
    return EarthMover(value, bound, slack)


def _sinkhorn_potentials(cost: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Dual potentials, (B, N) and (B, M), by alternating updates while epsilon falls to its value."""
    f, g = cost.new_zeros(cost.shape[:2]), cost.new_zeros(cost.shape[0], cost.shape[2])
    start = max(float(cost.max()), epsilon)
    # Large epsilons carry mass far in few iterations (epsilon scaling; Schmitzer, SIAM J. Sci. Comput. 2019).
    falling = torch.logspace(math.log10(start), math.log10(epsilon), iterations).tolist()
    for level in (*falling, *[epsilon] * iterations):
        f = -level * (torch.logsumexp((g[:, None] - cost) / level, dim=2) - math.log(cost.shape[2]))
        g = -level * (torch.logsumexp((f[:, :, None] - cost) / level, dim=1) - math.log(cost.shape[1]))
    return f, g


def _log_plan(cost: Tensor, f: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """Logarithm of the transport plan of dual potentials, (B, N, M)."""
    return (f[:, :, None] + g[:, None] - cost) / epsilon - math.log(cost.shape[1]) - math.log(cost.shape[2])


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """All squared distances between the points of two batches of sets, (B, N, M).

    By differences, not by |a|^2 - 2ab + |b|^2, which loses the small distances in single precision.
    """
    for name, points in (("a", a), ("b", b)):
        if points.ndim != 3 or points.shape[2] != 3 or not points.shape[1]:
            raise InputError(f"{name} has the shape {tuple(points.shape)}; it must be (batch, points, 3)")
    if len(a) != len(b):
        raise InputError(f"a has {len(a)} point sets and b has {len(b)}; give equally many")
    return (a[:, :, None] - b[:, None]).square().sum(dim=3)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value}; it must be a positive number")
