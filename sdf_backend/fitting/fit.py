"""Maximum a posteriori (MAP) fits of latent codes to observations.

A code z is sought that explains the observations and is likely under the training codes' distribution N(mean, C):

    minimise  mean_i |residual_i(z)|  +  prior * |u|^2 / 2,    z = mean + L u,  C = L L^T

The L1 mean is minimised by iteratively reweighted least squares, with weights 1 / max(|residual|, floor) (Holland and
Welsch 1977). What remains is a nonlinear least squares problem, which Levenberg-Marquardt solves in some ten steps
where first-order methods take hundreds: one backward sweep through the decoder gives every observation's derivative by
the code (see `FoldedDecoder.gradients`). The derivative by the point comes with it, so that a pose can be solved for
jointly.

A fit starts at a proposed code or at the mean code, and restarts from training codes where that does not explain the
observations (see `multistart`).

All fits of a call form one batch. They do not depend on each other, but for rounding: a matrix product may round
differently in a larger batch, and so may accept a step in one batch that it just rejects in another.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sdf_backend.fitting.assessment import assess
from sdf_backend.fitting.fit_settings import FitSettings
from sdf_backend.fitting.levenberg_marquardt import Solver
from sdf_backend.fitting.multistart import Incumbents, move_to_proposed_codes, restart_unexplained
from sdf_backend.fitting.observation_batch import batch_observations
from sdf_backend.fitting.pose_prior import PosePrior
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.progress import PhaseProgress, silent
from sdf_backend.settings import Pose


@dataclass(frozen=True)
class FitRequest:
    """One code to fit, and with it a pose as far as that is free."""

    observations: Observations
    """in a frame of their own"""
    pose: Similarity = field(default_factory=Similarity.identity)
    """first estimate of canonical frame -> frame of the observations"""
    expected_pose: Similarity | None = None
    """mean of the pose prior; `pose` where None. A fit that continues from the result of another must keep the other's
    expected pose, or the scale drifts a little with each fit."""
    may_restart: bool = True
    """whether `FitSettings.restart` applies"""
    codes: Tensor | None = None
    """proposed codes, (k, code_length); the fit begins at the best of these where that is better than the mean code"""


@dataclass(frozen=True)
class Fit:
    """A fitted code and pose.

    code : (code_length,) tensor
    pose : canonical frame -> the observations' frame
    cost : minimum that was reached, on the draw of the last stage, in units of the first pose's scale
    steps : Levenberg-Marquardt steps, restarts left out
    seconds : time of the batch, divided by its fits
    residual : mean absolute residual over all observations but the guesses, canonical units
    explained : share of the observed surface points within `EXPLAINED_DISTANCE` of the model
    covariance_root : (code_length, code_length) tensor R of the posterior covariance R R^T of the code, by Laplace
        approximation; code + R @ standard normals draws from the posterior

    The last three are nan, nan and None of a fit that is not `assessed`. Adam's has no covariance, and its cost is the
    residual.
    """

    code: Tensor
    pose: Similarity
    cost: float
    steps: int
    seconds: float
    residual: float = math.nan
    explained: float = math.nan
    covariance_root: Tensor | None = None


# Called at the end of each stage with its number, the codes (s, code_length) and the poses so far.
OnStage = Callable[[int, Tensor, list[Similarity]], None]


def fit_codes(
    model: Model,
    requests: list[FitRequest],
    settings: FitSettings,
    freedom: Pose = Pose.KNOWN,
    progress: PhaseProgress = silent,
    on_stage: OnStage | None = None,
) -> list[Fit]:
    """Fit one code, and the pose as far as `freedom` says, to each request.

    Parameters
    ----------
    freedom : what is known of the poses; the rest is solved for
    progress : called at every step with the fraction done; may raise to cancel
    on_stage : called at the end of every stage with the state so far

    Raises
    ------
    InputError : no requests, or one without observations
    """
    start = time.perf_counter()
    poses = [request.pose for request in requests]
    solver = _solver(model, requests, settings, freedom)
    total, done = sum(stage.steps for stage in settings.stages), 0
    incumbents: Incumbents | None = None

    def report() -> None:
        progress(done / total)

    def current_poses() -> list[Similarity]:
        return [pose.compose(delta) for pose, delta in zip(poses, solver.pose_deltas, strict=True)]

    with torch.inference_mode():
        for number, stage in enumerate(settings.stages):
            solver.begin_stage(stage, number)
            if number == 0:
                move_to_proposed_codes(solver, [request.codes for request in requests])
            for _ in range(stage.steps):
                solver.step()
                done += 1
                report()
            if settings.restart is not None and number == settings.restart.after:
                allowed = [request.may_restart for request in requests]
                incumbents = restart_unexplained(solver, settings.restart, allowed, report)
            if on_stage is not None:
                on_stage(number, solver.codes(), current_poses())
        if incumbents is not None:
            incumbents.keep_better(solver, report)
        roots = solver.posterior_covariance_roots() if settings.assessed else None
        codes = solver.codes()
    seconds = (time.perf_counter() - start) / len(requests)
    fits = [
        Fit(code.clone(), pose, cost, total, seconds)
        for code, pose, cost in zip(codes, current_poses(), solver.cost.tolist(), strict=True)
    ]
    if roots is None:
        return fits
    return [
        _assessed(model, fit, request.observations, settings.dtype, root)
        for fit, request, root in zip(fits, requests, roots, strict=True)
    ]


def _solver(model: Model, requests: list[FitRequest], settings: FitSettings, freedom: Pose) -> Solver:
    observations, poses = [request.observations for request in requests], [request.pose for request in requests]
    batch = batch_observations(observations, poses, model.device).sorted_along_curve()
    expected = [request.expected_pose or request.pose for request in requests]
    prior = PosePrior.from_expected(expected, poses, observations, settings, model.device)
    return Solver(model, batch, settings, freedom, prior)


def _assessed(model: Model, fit: Fit, observed: Observations, dtype: torch.dtype, covariance_root: Tensor) -> Fit:
    """The fit with its residual, explained share and posterior covariance."""
    residual, explained = assess(model, fit.code, observed, fit.pose, dtype)
    return replace(fit, residual=residual, explained=explained, covariance_root=covariance_root)
