"""From observations to codes, by Levenberg-Marquardt.

A code z is sought that explains the observations and is likely under the training codes' distribution N(mean, C):

    minimise  mean_i |residual_i(z)|  +  prior * |u|^2 / 2,    z = mean + L u,  C = L L^T

The L1 mean is taken by iterative reweighting (weights 1 / max(|residual|, floor)), which leaves a nonlinear least
squares problem that Levenberg-Marquardt solves in some ten steps where first-order methods take hundreds: one backward
sweep through the decoder gives every observation's derivative by the code (see `FoldedDecoder.gradients`). The
derivative by the point comes with it, so that a pose can be solved for jointly.

A fit starts at the mean code. Where that leads to nothing that explains what was seen, it starts once more from the
training codes that explain it best (see `restarts`).

All fits of a call are one batch: s shapes, or s starts of one shape. No row of it depends on the others,
but for rounding: a product of matrices may round otherwise in a larger batch, and then a step that is just taken in one
is just not in the other.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdf_backend.fitting.assessment import assess
from sdf_backend.fitting.fit_settings import FitSettings
from sdf_backend.fitting.levenberg_marquardt import Solver
from sdf_backend.fitting.multistart import Left, restarted
from sdf_backend.fitting.observation_batch import batched
from sdf_backend.fitting.pose_prior import PosePrior
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.settings import Pose


@dataclass(frozen=True)
class Fit:
    """A fitted code and what the fit has to say of itself.

    code : (code_length,) tensor; pose : canonical frame -> the observations' frame.
    cost : what was minimised, on the draw of the last stage, in units of the first pose's scale.
    residual : mean absolute residual over all that was observed, guesses left out, canonical units.
    explained : share of the observed surface points within 0.02 canonical units of the model.
    deviations : (code_length, code_length) tensor; code + deviations @ standard normals are codes that are about as
    likely, given the observations (see `Solver.deviations`).

    The last three are nan, nan and None of a fit that is not `described`. Adam's has no deviations, and its cost is the
    residual.
    """

    code: Tensor
    pose: Similarity
    cost: float
    steps: int
    seconds: float
    residual: float = math.nan
    explained: float = math.nan
    deviations: Tensor | None = None


Progress = Callable[[float], None]
# Hears of each stage's end: its number, the codes (s, code_length) and the poses so far.
StageWatch = Callable[[int, Tensor, list[Similarity]], None]


def silent(fraction: float) -> None:
    """Progress that nobody watches."""


def fit_codes(
    model: Model,
    observations: list[Observations],
    settings: FitSettings,
    poses: list[Similarity] | None = None,
    freedom: Pose = Pose.KNOWN,
    progress: Progress = silent,
    staged: StageWatch | None = None,
    expected: list[Similarity] | None = None,
    once: list[bool] | None = None,
) -> list[Fit]:
    """Fit one code, and the pose as far as `freedom` says, to each element of `observations`.

    Parameters
    ----------
    observations : one a fit, each in its own frame
    poses : first estimate of canonical -> observed frame, one a fit; identity where None
    progress : called at every step with the share done; may raise to cancel
    staged : called at the end of every stage with what there is so far
    expected : where each pose's prior has its middle; the first estimates where None. A fit that goes on with what
        another has found should not take that for what was expected, or the scale drifts a little with each.
    once : which fits never start once more, whatever `settings` say; none where None

    Raises
    ------
    InputError : no observations
    """
    start = time.perf_counter()
    poses = poses or [Similarity.identity()] * len(observations)
    everything = batched(observations, poses, model.device).along_curve()
    prior = PosePrior.about(expected or poses, poses, observations, settings, model.device)
    solver = Solver(model, everything, settings, freedom, prior)
    total, done = sum(stage.steps for stage in settings.stages), 0
    left: Left | None = None

    def heard() -> None:
        progress(done / total)

    with torch.inference_mode():
        for number, stage in enumerate(settings.stages):
            solver.begin(stage, number)
            for _ in range(stage.steps):
                solver.step()
                done += 1
                progress(done / total)
            if settings.restart is not None and number == settings.restart.after:
                left = restarted(solver, settings.restart, once or [False] * len(observations), heard)
            if staged is not None:
                codes, moves, _ = solver.result()
                staged(number, codes, [pose.compose(move) for pose, move in zip(poses, moves, strict=True)])
        if left is not None:
            left.settle(solver, heard)
        codes, moves, cost = solver.result()
        deviations = solver.deviations() if settings.described else None
    seconds = (time.perf_counter() - start) / len(observations)
    fits = [
        Fit(code.clone(), pose.compose(move), one, total, seconds)
        for code, pose, move, one in zip(codes, poses, moves, cost.tolist(), strict=True)
    ]
    if deviations is None:
        return fits
    described = zip(fits, observations, deviations, strict=True)
    return [_described(model, fit, observed, settings.dtype, root) for fit, observed, root in described]


def _described(model: Model, fit: Fit, observed: Observations, dtype: torch.dtype, deviations: Tensor) -> Fit:
    """The fit with what it explains and how sure it is."""
    residual, explained = assess(model, fit.code, observed, fit.pose, dtype)
    return replace(fit, residual=residual, explained=explained, deviations=deviations)
