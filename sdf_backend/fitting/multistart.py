"""Multi-start: fits that converged to a wrong shape restart from training codes.

`Restart` says when and how. Where the restarted fit does not explain the observations either, the incumbent, the fit
that it replaced, is taken to its end too, and the better of the two is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import Restart
from sdf_backend.fitting.levenberg_marquardt import Solver
from sdf_backend.fitting.observation_batch import evenly_spaced

# Observations by which proposed codes are compared, as many as training codes are compared by.
PROPOSAL_POINTS = Restart.compared_points


@dataclass
class Incumbents:
    """The fits that restarts replaced, in the state that they had then.

    rows : row of the whole batch for each row of `solver`
    """

    solver: Solver
    rows: list[int]
    restart: Restart

    def keep_better(self, solver: Solver, on_step: Callable[[], None]) -> None:
        """Fit the incumbents of still unexplained fits of `solver` to their end, and put back those that are better."""
        unexplained = (solver.unexplained_share() > self.restart.unexplained).tolist()
        chosen = [number for number, row in enumerate(self.rows) if unexplained[row]]
        if not chosen:
            return
        incumbents, stages = self.solver.select_rows(chosen), solver.settings.stages
        for number in range(self.restart.after + 1, len(stages)):
            incumbents.begin_stage(stages[number], number)
            for _ in range(stages[number].steps):
                incumbents.step()
                on_step()
        for number, index in enumerate(chosen):
            row = self.rows[index]
            if incumbents.cost[number] < self.restart.accepted_cost * solver.cost[row]:
                solver.copy_row(row, incumbents, number)


def move_to_proposed_codes(solver: Solver, proposed: list[Tensor | None]) -> None:
    """Move fits to the best of the codes, (k, code_length), proposed for each, where that lowers their cost."""
    codes = solver.whitened_codes.clone()
    for row, choice in enumerate(proposed):
        if choice is not None:
            starts = solver.whiten(choice)
            codes[row] = starts[solver.mean_residuals(row, starts, PROPOSAL_POINTS).argmin()]
    if any(choice is not None for choice in proposed):
        solver.accept_if_better(codes, solver.pose_deltas)


def restart_unexplained(
    solver: Solver, restart: Restart, allowed: list[bool], on_step: Callable[[], None]
) -> Incumbents | None:
    """Restart the fits that leave too much unexplained, and move them to the result where that lowers their cost.

    Parameters
    ----------
    solver : at the end of stage `restart.after`
    allowed : (s,), which fits may restart
    on_step : called at every step; may raise to cancel

    Returns
    -------
    The fits that were replaced; None where there are none.
    """
    unexplained = (solver.unexplained_share() > restart.unexplained).tolist()
    rows = [row for row, (wrong, may) in enumerate(zip(unexplained, allowed, strict=True)) if wrong and may]
    if not rows:
        return None
    before, codes, deltas = solver.select_rows(rows), solver.whitened_codes.clone(), list(solver.pose_deltas)
    for row in rows:
        starts = _starts_from_training_codes(solver, row, restart)
        for _ in range(restart.steps):
            starts.step()
            on_step()
        best = int(starts.cost.argmin())
        codes[row], deltas[row] = starts.whitened_codes[best], starts.pose_deltas[best]
    better = solver.accept_if_better(codes, deltas).tolist()
    replaced = [number for number, row in enumerate(rows) if better[row]]
    if not replaced:
        return None
    return Incumbents(before.select_rows(replaced), [rows[number] for number in replaced], restart)


def _starts_from_training_codes(solver: Solver, row: int, restart: Restart) -> Solver:
    """Fits of one row, at its current pose, that start at the training codes with the least residual."""
    codes = solver.whiten(solver.model.codes)
    indices = torch.arange(len(codes), device=codes.device)
    codes = codes[evenly_spaced(indices, min(restart.compared_codes, len(codes)), 0.0)]
    residuals = solver.mean_residuals(row, codes, restart.compared_points)
    best = residuals.argsort(stable=True)[: restart.starts]
    return solver.fits_from_codes(row, codes[best], restart.steps, restart.points)
