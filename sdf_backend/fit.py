"""From observations to codes, by Levenberg-Marquardt.

A code z is sought that explains the observations and is likely under the training codes' distribution N(mean, C):

    minimise  mean_i |residual_i(z)|  +  prior * |u|^2 / 2,    z = mean + L u,  C = L L^T

The L1 mean is taken by iterative reweighting (weights 1 / max(|residual|, floor)), which leaves a nonlinear least
squares problem that Levenberg-Marquardt solves in some ten steps where first-order methods take hundreds: one backward
sweep through the decoder gives every observation's derivative by the code (see `FoldedDecoder.gradients`). The
derivative by the point comes with it, so that a pose can be solved for jointly.

A fit starts at the mean code. Where that leads to nothing that explains what was seen, it starts once more from the
training codes that explain it best (see `Restart`).

All fits of a call are one batch: s shapes, or s starts of one shape. No row of it depends on the others.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdf_backend.draws import BLOCK, Batch, batched, evenly
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations
from sdf_backend.pose import Freedom, Similarity

# Undamped steps fit the drawn observations instead of the shape.
LEAST_DAMPING = 1e-3
# An observation counts as explained where the model is this near to it, canonical units.
EXPLAINED = 0.02
# Where the distance hardly changes with the place, nobody can say how far its surface moves.
LEAST_SLOPE = 0.2
# Edge of the cells in which it is found out once how sure the surface is, canonical units.
SPREAD_CELL = 1 / 64
# Each stage begins its draw this share of a stride on, so that they see different observations.
STRIDE_SHIFT = 0.618


@dataclass(frozen=True)
class Stage:
    """Some steps of a fit on one draw of the observations."""

    steps: int
    """Levenberg-Marquardt steps"""
    points: int
    """observations drawn, evenly over where they lie"""
    prior: float
    """weight of the code's squared Mahalanobis distance from the training codes' mean"""
    within_clamp: bool = False
    """leave out observations where the decoder is beyond the clamp. The loss is flat there, and the slope is hearsay;
    but as long as a part is missing, as a biplane's second wing at first, that slope alone leads to it."""


@dataclass(frozen=True)
class Restart:
    """When and how a fit starts once more after its first stage.

    From the mean of the training codes some fits come to a shape that is likely and wrong, and stay there. Chosen on
    200 scans of 88 bodies drawn for it (`python -m training humans --seed 1`, and 2), of which 66 started once more:
    where less was unexplained it brought nothing; 16 starts with half the observations, 4 with twice as many, and 16
    steps bring no more.
    """

    unexplained: float = 0.02
    """the share of the drawn surface points, beyond which that is tried, that the model is not near to"""
    codes: int = 512
    """training codes that are looked at, evenly over all"""
    glance: int = 256
    """observations by which they are"""
    starts: int = 8
    """how many of them are started from, the likeliest"""
    steps: int = 10
    """Levenberg-Marquardt steps that each gets"""
    points: int = 512
    """observations that each gets"""
    better: float = 0.8
    """where even so too much is unexplained in the end, the first start is taken to its end too, and counts if its cost
    is this share or less"""


@dataclass(frozen=True)
class FitSettings:
    """How a code is fitted by Levenberg-Marquardt."""

    stages: tuple[Stage, ...] = (Stage(10, 4_000, 1e-3), Stage(8, 8_000, 1e-5), Stage(4, 16_000, 1e-6, True))
    """from coarse to fine, and from what is likely to what is seen"""
    floor: float = 2e-3
    """residuals below this are weighted as in least squares, canonical units"""
    damping: float = 1.0
    """first Levenberg-Marquardt damping, as a share of the diagonal; smaller ones leap to codes unlike any shape"""
    scale_sigma: float = 0.08
    """standard deviation of the log of the scale about its first estimate, where the scale is solved for"""
    shift_sigma: float = 0.1
    """standard deviation of the position about its first estimate, canonical units"""
    pose_prior: float = 2e-3
    """weight of the pose's squared deviations from its first estimate, in standard deviations; the same in all stages,
    since what is seen of an object's part says less of its size than of its shape"""
    dtype: torch.dtype = torch.bfloat16
    """precision of the decoder's matrix products"""
    restart: Restart | None = None
    """whether what the first stage leaves unexplained makes it start once more"""
    described: bool = True
    """find out too what each fit explains of all that was observed, and which other codes are about as likely"""


@dataclass(frozen=True)
class Fit:
    """A fitted code and what the fit has to say of itself.

    code : (code_length,) tensor; pose : canonical frame -> the observations' frame.
    cost : what was minimised, on the draw of the last stage, in units of the first pose's scale.
    residual : mean absolute residual over all observations, canonical units.
    explained : share of the observed surface points within 0.02 canonical units of the model.
    deviations : (code_length, code_length) tensor; code + deviations @ standard normals are codes that are about as
    likely, given the observations (see `_Solver.deviations`).

    The last three only of a fit that is `described`: otherwise nan, nan and None.
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
    settings: FitSettings = FitSettings(),
    poses: list[Similarity] | None = None,
    freedom: Freedom = Freedom.NONE,
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
    moved = [middle.inverse().compose(pose) for middle, pose in zip(expected or poses, poses, strict=True)]
    everything = batched(observations, poses, model.device).along_curve()
    solver = _Solver(model, everything, settings, freedom, torch.stack([_deviation(one) for one in moved]))
    total, done = sum(stage.steps for stage in settings.stages), 0
    left: _Left | None = None

    def heard() -> None:
        progress(done / total)

    with torch.inference_mode():
        for number, stage in enumerate(settings.stages):
            shift = STRIDE_SHIFT * number % 1
            solver.begin(stage, shift)
            for _ in range(stage.steps):
                solver.step()
                done += 1
                progress(done / total)
            if number == 0 and settings.restart is not None:
                left = _restarted(solver, settings.restart, once or [False] * len(observations), heard)
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


class _Solver:
    """Levenberg-Marquardt over whitened codes u and pose changes p, a row a fit."""

    def __init__(
        self,
        model: Model,
        everything: Batch,
        settings: FitSettings,
        freedom: Freedom,
        moved: Tensor | None = None,
    ) -> None:
        """`moved` : (s, 7), how far each first pose is from what was expected already."""
        self.model, self.settings, self.freedom, self.all = model, settings, freedom, everything
        self.clamp = model.card.clamp
        # z = mean + L u is folded into the decoder, so that its derivative by u costs nothing extra.
        self.root = torch.linalg.cholesky(model.covariance)
        self.mean = model.mean
        self.decoder = model.folded(settings.dtype).in_basis(self.mean, self.root)
        count, length = len(everything.points), len(self.mean)
        self.u = torch.zeros(count, length, device=model.device)
        self.moves = [Similarity.identity()] * count
        self.moved = (torch.zeros(count, 7) if moved is None else moved).to(model.device)
        self.damping = torch.full((count,), settings.damping, device=model.device)
        self.free = freedom.columns().to(model.device)
        sigma = torch.tensor(
            [settings.scale_sigma, *[settings.shift_sigma] * 3, *[1e3] * 3], device=model.device, dtype=torch.float32
        )
        self.pose_prior = sigma[self.free].square().reciprocal()

    def begin(self, stage: Stage, shift: float) -> None:
        """Go on with another draw of the observations, weighted against the prior as `stage` says."""
        self.stage, self.batch = stage, self.all.drawn(stage.points, shift)
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

    def some(self, rows: list[int]) -> "_Solver":
        """Only these rows, with codes, moves and all."""
        chosen = _Solver(self.model, self.all.chosen(rows), self.settings, self.freedom, self.moved[rows])
        chosen.u, chosen.moves, chosen.damping = self.u[rows], [self.moves[row] for row in rows], self.damping[rows]
        gradient, normal, cost = self.now
        chosen.stage, chosen.now = self.stage, (gradient[rows], normal[rows], cost[rows])
        return chosen

    def copy_row(self, row: int, other: "_Solver", number: int) -> None:
        """Have in a row what another solver has in the row of that number."""
        self.u[row], self.moves[row], self.damping[row] = other.u[number], other.moves[number], other.damping[number]
        for mine, theirs in zip(self.now, other.now, strict=True):
            mine[row] = theirs[number]

    def unexplained(self) -> Tensor:
        """The share of the drawn surface points, (s,), that each model is not near to."""
        batch = self.batch
        on_surface = (batch.low == 0) & (batch.high == 0)
        far = self._distances(self.u, self._canonical(batch.points, self.moves)).abs() >= EXPLAINED
        return (far & on_surface).sum(1) / on_surface.sum(1).clamp_min(1)

    def from_training_codes(self, row: int, restart: Restart) -> "_Solver":
        """Fits of one row, at the pose that it has, which begin at the training codes that explain it best."""
        known = torch.linalg.solve_triangular(self.root, (self.model.codes - self.mean).T, upper=False).T
        known = known[evenly(torch.arange(len(known), device=known.device), min(restart.codes, len(known)), 0.0)]
        move, few = self.moves[row], self.all.chosen([row]).drawn(restart.glance, 0.0)
        points = self._canonical(few.points, [move]).expand(len(known), -1, -1)
        misfit = residuals(self._distances(known, points), few.low / move.scale, few.high / move.scale, self.clamp)
        best = misfit.abs().mean(1).argsort(stable=True)[: restart.starts]
        moved = self.moved[row].expand(len(best), -1)
        fits = _Solver(self.model, self.all.chosen([row] * len(best)), self.settings, self.freedom, moved)
        fits.u, fits.moves = known[best], [move] * len(best)
        fits.begin(replace(self.stage, steps=restart.steps, points=restart.points), 0.0)
        return fits

    def _distances(self, u: Tensor, points: Tensor) -> Tensor:
        """Of canonical points, (s, n, 3), under whitened codes, (s, code_length): (s, n)."""
        return torch.cat([self.decoder.distances(u, part) for part in points.split(_columns(len(u)), dim=1)], 1)

    def _canonical(self, points: Tensor, moves: list[Similarity]) -> Tensor:
        """Points, (s, n, 3), of the first poses' frames, seen from where the models are now."""
        return _placed(points, [move.inverse() for move in moves]) if self.free.any() else points

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
        points = self._canonical(self.batch.points, moves)
        scale = torch.tensor([move.scale for move in moves], device=points.device, dtype=torch.float32)[:, None]
        count, unknowns = len(u), u.shape[1] + int(self.free.sum())
        gradient = torch.zeros(count, unknowns, device=u.device)
        normal = torch.zeros(count, unknowns, unknowns, device=u.device)
        cost = torch.zeros(count, device=u.device)
        rows = _columns(count)
        for first in range(0, points.shape[1], rows):
            part = slice(first, first + rows)
            distance, by_code, by_point = self.decoder.gradients(u, points[:, part])
            residual = residuals(
                distance, self.batch.low[:, part] / scale, self.batch.high[:, part] / scale, self.clamp
            )
            jacobian = by_code
            if self.free.any():
                by_pose = pose_derivative(distance, by_point, points[:, part])[..., self.free]
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
        count = self.batch.sizes[:, None]
        length, prior = u.shape[1], self.stage.prior
        offsets = u
        weights = torch.full((length,), prior, device=u.device)
        if self.free.any():
            away = self.moved + torch.from_numpy(np.stack([move.parameters() for move in moves])).float().to(u.device)
            offsets = torch.cat([u, away[:, self.free]], 1)
            weights = torch.cat([weights, self.settings.pose_prior * self.pose_prior])
        return (
            gradient / count + weights * offsets,
            normal / count[..., None] + torch.diag(weights),
            cost / count[:, 0] + 0.5 * (weights * offsets.square()).sum(1),
        )


@dataclass
class _Left:
    """Fits that have started once more, as they were before: `rows`, which those are of all."""

    fits: _Solver
    rows: list[int]
    restart: Restart

    def settle(self, solver: _Solver, report: Callable[[], None]) -> None:
        """Where the new start has not led to what was seen either, go on from the old one too, and take the better."""
        still = (solver.unexplained() > self.restart.unexplained).tolist()
        numbers = [number for number, row in enumerate(self.rows) if still[row]]
        if not numbers:
            return
        old, stages = self.fits.some(numbers), solver.settings.stages
        for number in range(1, len(stages)):
            old.begin(stages[number], STRIDE_SHIFT * number % 1)
            for _ in range(stages[number].steps):
                old.step()
                report()
        for number, one in enumerate(numbers):
            row = self.rows[one]
            if old.now[2][number] < self.restart.better * solver.now[2][row]:
                solver.copy_row(row, old, number)


def _restarted(solver: _Solver, restart: Restart, once: list[bool], report: Callable[[], None]) -> _Left | None:
    """Start once more where too much of the surface is unexplained, and go on from there where that is better.

    once : (s,), which fits do not; `report` is called at every step. What was left, or None where nothing was.
    """
    wanting = (solver.unexplained() > restart.unexplained).tolist()
    rows = [row for row, (wants, never) in enumerate(zip(wanting, once, strict=True)) if wants and not never]
    if not rows:
        return None
    before, u, moves = solver.some(rows), solver.u.clone(), list(solver.moves)
    for row in rows:
        starts = solver.from_training_codes(row, restart)
        for _ in range(restart.steps):
            starts.step()
            report()
        best = int(starts.now[2].argmin())
        u[row], moves[row] = starts.u[best], starts.moves[best]
    better = solver.keep(u, moves).tolist()
    changed = [number for number, row in enumerate(rows) if better[row]]
    return _Left(before.some(changed), [rows[number] for number in changed], restart) if changed else None


def _columns(count: int) -> int:
    """How many points of each of so many fits are evaluated at once."""
    return max(CHUNK >> (count - 1).bit_length(), 64)


def _deviation(moved: Similarity) -> Tensor:
    """Log of the scale and shift, in the axes of the moved, of a similarity, (7,); turns are not held to anything."""
    shift = moved.rotation.T @ moved.translation / moved.scale
    return torch.tensor([np.log(moved.scale), *shift, 0.0, 0.0, 0.0], dtype=torch.float32)


# Rows of the decoder evaluated at once, over all fits: their activations stay in the processor's cache.
CHUNK = 8192


def residuals(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """How far clamped distances lie outside of their intervals, signed; shapes as `distance`.

    A bound beyond the clamp asks only that the distance be beyond it too.
    """
    clamped = distance.clamp(-clamp, clamp)
    return clamped - clamped.clamp(low.clamp(-clamp, clamp), high.clamp(-clamp, clamp))


def _huber(residual: Tensor, floor: float) -> Tensor:
    """The cost whose reweighting is 1 / max(|residual|, floor)."""
    size = residual.abs()
    return torch.where(size > floor, size - floor / 2, size.square() / (2 * floor))


def pose_derivative(distance: Tensor, by_point: Tensor, points: Tensor) -> Tensor:
    """Derivative of scale * residual by log scale, shift and turn, over scale; (s, n, 7).

    The canonical point is x = R^T (q - t) / s: it moves by -x with the log of the scale, by -1 with a shift (canonical
    units and axes) and by x * axis (cross product) with a turn of the model.
    """
    by_scale = distance - (by_point * points).sum(-1)
    by_turn = torch.linalg.cross(by_point, points, dim=-1)
    return torch.cat([by_scale[..., None], -by_point, by_turn], -1)


def _placed(points: Tensor, moves: list[Similarity]) -> Tensor:
    """Points (s, n, 3) under one similarity a row."""
    rotation = torch.from_numpy(np.stack([move.scale * move.rotation for move in moves])).float().to(points.device)
    shift = torch.from_numpy(np.stack([move.translation for move in moves])).float().to(points.device)
    return points @ rotation.mT + shift[:, None]


@torch.inference_mode()
def assess(
    model: Model, code: Tensor, observed: Observations, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute residual over all that was observed, guesses left out, and the share of the surface explained."""
    canonical = batched([observed], [pose], model.device)
    known = slice(len(observed.points) - observed.guessed)
    found = decoded_distances(model, code, canonical.points[0, known], dtype)
    residual = residuals(found, canonical.low[0, known], canonical.high[0, known], model.card.clamp).abs().mean()
    return float(residual), assess_surface(model, code, observed.surface, pose, dtype)[1]


def assess_surface(
    model: Model, code: Tensor, surface: np.ndarray, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute distance, clamped, of surface points, (n, 3) in the observed frame, and the share explained."""
    if not len(surface):
        return 0.0, 0.0
    points = torch.from_numpy(pose.inverse().apply(surface)).float().to(model.device)
    found = decoded_distances(model, code, points, dtype).abs()
    return float(found.clamp_max(model.card.clamp).mean()), float((found < EXPLAINED).float().mean())


@torch.inference_mode()
def surface_deviation(model: Model, code: Tensor, deviations: Tensor, points: Tensor) -> Tensor:
    """Standard deviation, (n,), of where the surface lies along its normal at canonical points, (n, 3), on it.

    code : (code_length,); deviations : root of the code's covariance, see `Fit`. To first order the surface moves by
    (df/dz . dz) / |df/dx| when the code moves by dz. That varies slowly, so one point speaks for all in its cell.
    """
    places = ((points / SPREAD_CELL).round().long() & 0xFFFF) << torch.tensor([32, 16, 0], device=points.device)
    cells, cell = torch.unique(places.sum(1), return_inverse=True)
    numbers = torch.arange(len(points), device=points.device)
    speaker = numbers.new_full((len(cells),), len(points)).scatter_reduce(0, cell, numbers, "amin")
    decoder, asked = model.folded(torch.bfloat16), points[speaker]
    moves = []
    for part in functional.pad(asked, (0, 0, 0, -len(asked) % BLOCK)).split(CHUNK):
        _, by_code, by_point = decoder.gradients(code[None], part[None])
        slope = by_point[0].norm(dim=1).clamp_min(LEAST_SLOPE)
        moves.append((by_code[0] @ deviations).norm(dim=1) / slope)
    return torch.cat(moves)[cell]


def decoded_distances(model: Model, code: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
    """Of canonical points, (n, 3): (n,)."""
    decoder = model.folded(dtype)
    filled = functional.pad(points, (0, 0, 0, -len(points) % BLOCK))
    return torch.cat([decoder.distances(code[None], part[None])[0] for part in filled.split(CHUNK)])[: len(points)]
