"""Fits that start once more: from the mean of the training codes some come to a shape that is likely and wrong.

`Restart` says when. Where the new start leads nowhere either, both are taken to their ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sdf_backend.fitting.fit_settings import Restart
from sdf_backend.fitting.levenberg_marquardt import Solver
from sdf_backend.fitting.observation_batch import evenly
from sdf_backend.observation.residuals import interval_residuals


@dataclass
class Left:
    """What fits were before they took a new start, so that they can go on from there too.

    rows : which row of the whole batch each row of `fits` is
    """

    fits: Solver
    rows: list[int]
    restart: Restart

    def settle(self, solver: Solver, report: Callable[[], None]) -> None:
        """Where the new start has not led to what was seen either, go on from the old one too, and take the better."""
        still = (solver.unexplained() > self.restart.unexplained).tolist()
        numbers = [number for number, row in enumerate(self.rows) if still[row]]
        if not numbers:
            return
        old, stages = self.fits.some(numbers), solver.settings.stages
        for number in range(self.restart.after + 1, len(stages)):
            old.begin(stages[number], number)
            for _ in range(stages[number].steps):
                old.step()
                report()
        for number, one in enumerate(numbers):
            row = self.rows[one]
            if old.now[2][number] < self.restart.better * solver.now[2][row]:
                solver.copy_row(row, old, number)


def restarted(solver: Solver, restart: Restart, once: list[bool], report: Callable[[], None]) -> Left | None:
    """Start once more where too much of what is known is unexplained, and go on from there where that is better.

    once : (s,), which fits do not; `report` is called at every step. Returns the starts that were given up; None where
    no fit took a new one.
    """
    wanting = (solver.unexplained() > restart.unexplained).tolist()
    rows = [row for row, (wants, never) in enumerate(zip(wanting, once, strict=True)) if wants and not never]
    if not rows:
        return None
    before, u, moves = solver.some(rows), solver.u.clone(), list(solver.moves)
    for row in rows:
        starts = _from_training_codes(solver, row, restart)
        for _ in range(restart.steps):
            starts.step()
            report()
        best = int(starts.now[2].argmin())
        u[row], moves[row] = starts.u[best], starts.moves[best]
    better = solver.keep(u, moves).tolist()
    changed = [number for number, row in enumerate(rows) if better[row]]
    return Left(before.some(changed), [rows[number] for number in changed], restart) if changed else None


def _from_training_codes(solver: Solver, row: int, restart: Restart) -> Solver:
    """Fits of one row, at the pose that it has, which begin at the training codes that explain it best."""
    known = torch.linalg.solve_triangular(solver.root, (solver.model.codes - solver.mean).T, upper=False).T
    known = known[evenly(torch.arange(len(known), device=known.device), min(restart.codes, len(known)), 0.0)]
    move, few = solver.moves[row], solver.all.chosen([row]).drawn(restart.glance, 0.0)
    points = solver.canonical(few.points, [move]).expand(len(known), -1, -1)
    misfit = interval_residuals(
        solver.distances(known, points), few.low / move.scale, few.high / move.scale, solver.clamp
    )
    best = misfit.abs().mean(1).argsort(stable=True)[: restart.starts]
    same = [row] * len(best)
    fits = Solver(solver.model, solver.all.chosen(same), solver.settings, solver.freedom, solver.prior.of(same))
    fits.u, fits.moves = known[best], [move] * len(best)
    fits.begin(replace(solver.stage, steps=restart.steps, points=restart.points), 0)
    return fits
